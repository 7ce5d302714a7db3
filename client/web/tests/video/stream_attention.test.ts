import { expect, test } from "vitest";
import { StreamAttention } from "../../src/video/stream_attention";
import type { Attention, Source } from "../../src/runtime/types";
import { StubRuntime } from "../support/stubs";

/** Notes the keypoints that it attends to, and returns them. */
class NotingRuntime extends StubRuntime {
  readonly places: number[] = [];

  override async attend(keypoints?: Float32Array): Promise<Attention> {
    const [x] = keypoints as Float32Array;
    this.places.push(x);
    return { shifts: Float32Array.of(x, x, 1), side: 1, features: Float32Array.of(x) };
  }
}

const SIZE = 256;
const source = { features: new Float32Array(1) } as Source;
const frame = (number: number, x = number / 100, reference = 0) => ({ number, stampS: number / 25, keypoints: Float32Array.of(x, 0, 0), reference, regions: [] });

async function shown(runtime: NotingRuntime, attention: StreamAttention, ...[one, later, sources]: [ReturnType<typeof frame>, (ReturnType<typeof frame> | null)?, Source[]?]) {
  return (await attention.of(one, later ?? null, sources ?? [source], runtime)).features[0];
}

test("every second frame of an even motion is attended to, and what lies between is the mean", async () => {
  const [runtime, attention] = [new NotingRuntime(), new StreamAttention(SIZE)];
  for (let n = 0; n < 9; n++) expect(await shown(runtime, attention, frame(n), frame(n + 1))).toBeCloseTo(n / 100);
  expect(runtime.places.map((x) => Math.round(100 * x))).toEqual([0, 2, 4, 6, 8]);
});

test("sets of sources count as the same while their features are", async () => {
  const [runtime, attention] = [new NotingRuntime(), new StreamAttention(SIZE)];
  const set = () => [{ ...source }, { ...source, features: other }];
  const other = new Float32Array(1);
  for (let n = 0; n < 3; n++) await shown(runtime, attention, frame(n), frame(n + 1), set());
  await shown(runtime, attention, frame(3), frame(4), set().reverse());
  expect(runtime.places.map((x) => Math.round(100 * x))).toEqual([0, 2, 3]);
});

test("frames of another pace lie between, too, but not too far apart", async () => {
  const [runtime, attention] = [new NotingRuntime(), new StreamAttention(SIZE)];
  for (const [number, later] of [[0, 0], [1, 4], [2, 6], [3, 0], [6, 9]]) {
    expect(await shown(runtime, attention, frame(number), later ? frame(later) : null)).toBeCloseTo(number / 100);
  }
  expect(runtime.places.map((x) => Math.round(100 * x))).toEqual([0, 4, 6]);
});

test("a frame that is not between others, or of another source, is attended to", async () => {
  const [runtime, attention] = [new NotingRuntime(), new StreamAttention(SIZE)];
  await shown(runtime, attention, frame(0, 0));
  expect(await shown(runtime, attention, frame(1, 0.03), frame(2, 0.02))).toBeCloseTo(0.03); // 2.6 pixels away
  expect(await shown(runtime, attention, frame(2, 0.04), frame(3, 0.05, 1))).toBeCloseTo(0.04); // followed by another source
  const other = { features: new Float32Array(1) } as Source;
  await shown(runtime, attention, frame(3, 0.05), frame(4, 0.06), [other]);
  await shown(runtime, attention, frame(4, 0.06), frame(5, 0.07), [other, source]);
  expect(runtime.places.map((x) => Math.round(100 * x))).toEqual([0, 3, 4, 5, 6]);
});

test("what is returned is the caller's", async () => {
  const [runtime, attention] = [new NotingRuntime(), new StreamAttention(SIZE)];
  const first = await attention.of(frame(0), null, [source], runtime);
  first.features[0] = 9;
  expect(await shown(runtime, attention, frame(0))).toBe(0);
});
