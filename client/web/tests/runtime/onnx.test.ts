import type { InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { expect, test } from "vitest";
import { type Model, OnnxRuntime } from "../../src/runtime/onnx";
import type { Attended, Refiner } from "../../src/runtime/refiner";
import { face } from "../support/stubs";

const model = { keypoints: 20, size: 256, net_size: 256, detector_size: 128 } as Model;
const picture = { side: 256, data: new Uint8Array(256 * 256 * 3) };

class StubTensor {
  constructor(
    readonly type: string,
    readonly data: unknown,
    readonly dims: number[],
  ) {}
}

/** A runtime whose sessions note when they begin and end. A refiner elsewhere ends when it is told to. */
function makeRuntime(isElsewhere: boolean) {
  const events: string[] = [];
  const release: (() => void)[] = [];
  const noted = async <Result>(name: string, result: Result): Promise<Result> => {
    events.push(`${name} begins`);
    await new Promise((resolve) => setTimeout(resolve));
    events.push(`${name} ends`);
    return result;
  };
  const tensor = (dims: number[]) => new StubTensor("float32", new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);
  const outputs = {
    detector: { keypoints: tensor([1, 20, 3]) },
    source: { rows: tensor([4096, 2]), membership: tensor([4, 21]), basis: tensor([4, 60]) },
    merge: { rows: tensor([1]), keys: tensor([1]), pooled: tensor([1]) },
    attend: { fields: tensor([1, 1, 64, 64, 3]), features: tensor([1, 1, 2, 2]) },
  };
  const sessions = Object.fromEntries(Object.entries(outputs).map(([name, result]) => [name, { run: () => noted(name, result) }]));
  const refiner: Refiner = {
    isElsewhere,
    refine: async (_: Attended) => {
      if (!isElsewhere) return noted("refine", picture);
      events.push("refine begins");
      await new Promise<void>((resolve) => release.push(resolve));
      return picture;
    },
  };
  const typed = sessions as unknown as Record<"detector" | "source" | "merge" | "attend", InferenceSession>;
  return { runtime: new OnnxRuntime(model, typed, StubTensor as unknown as typeof Tensor, refiner), events, release };
}

/** Whether each event that begins something is followed by its end. */
function areSeparate(events: string[]): boolean {
  return events.every((event, n) => n % 2 || events[n + 1] === event.replace("begins", "ends"));
}

const source = { ...face(picture), features: new Float32Array(8192), membership: new Float32Array(84), basis: new Float32Array(240) };

test("attention goes on with the next frame while one is refined elsewhere", async () => {
  const { runtime, events, release } = makeRuntime(true);
  const shown = [1, 2].map(() => runtime.reconstruct(source.keypoints, [source], 0));
  while (release.length < 2) await new Promise((resolve) => setTimeout(resolve));
  expect(events.filter((event) => event === "attend ends").length).toBe(2);
  for (const finish of release) finish();
  expect(await Promise.all(shown)).toEqual([picture, picture]);
});

test("sessions of one worker never overlap, whatever is asked for at once", async () => {
  const { runtime, events } = makeRuntime(false);
  const other = { ...source, features: new Float32Array(8192) };
  await Promise.all([
    runtime.prepare(picture),
    runtime.reconstruct(source.keypoints, [source], 0),
    runtime.reconstruct(source.keypoints, [other], 0),
    runtime.detect(picture),
  ]);
  expect(areSeparate(events)).toBe(true);
  expect(events.filter((event) => event === "merge begins").length).toBe(2);
});

test("a failed frame does not stop the next one", async () => {
  const { runtime } = makeRuntime(false);
  await expect(runtime.reconstruct(source.keypoints, [], 0)).rejects.toThrow("0 sources");
  const broken = { ...source, keypoints: null as unknown as Float32Array };
  await expect(runtime.reconstruct(source.keypoints, [broken], 0)).rejects.toThrow();
  expect(await runtime.reconstruct(source.keypoints, [source], 0)).toBe(picture);
});
