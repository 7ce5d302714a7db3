import type { InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { expect, test } from "vitest";
import type { Model } from "../../src/runtime/onnx";
import { OnnxRefiner } from "../../src/runtime/refiner";
import type { Picture } from "../../src/runtime/pictures";

const SIDE = 8;
const noise = (seed: number): Picture => ({ side: SIDE, data: new Uint8Array(3 * SIDE ** 2).map((_, n) => (n * 37 + seed * 101) % 251) });

class StubTensor {
  constructor(
    readonly type: string,
    readonly data: Float32Array,
    readonly dims: number[],
  ) {}
}

/** A refiner whose network returns its base picture as bytes. */
function makeRefiner(netSize: number) {
  const run = async ({ base }: Record<string, StubTensor>) => ({ picture: { data: Uint8Array.from(base.data, (value) => Math.round(255 * value)), dims: base.dims } });
  const model = { size: SIDE, net_size: netSize } as Model;
  return new OnnxRefiner(model, { run } as unknown as InferenceSession, StubTensor as unknown as typeof Tensor);
}

/** Fields of shifts (x, y) and weights, one each for every source, on `side` cells. */
const attended = (pictures: Picture[], side: number, fields: number[][]) => ({
  pictures,
  shifts: Float32Array.from(fields.flatMap((field) => new Array<number[]>(side ** 2).fill(field).flat())),
  side,
  features: new Float32Array(1),
  dims: [1],
});

test("a source that does not move is shown as it is, folded for the network and back", async () => {
  for (const netSize of [SIDE, SIDE / 2]) {
    const picture = noise(1);
    expect((await makeRefiner(netSize).refine(attended([picture], 4, [[0, 0, 1]]))).data).toEqual(picture.data);
  }
});

test("a source is sampled where its shifts point, and its edge is repeated", async () => {
  const picture = noise(2);
  const { data } = await makeRefiner(SIDE).refine(attended([picture], 4, [[2, 1, 1]]));
  const at = (x: number, y: number) => 3 * (Math.min(y, SIDE - 1) * SIDE + Math.min(x, SIDE - 1));
  for (let y = 0; y < SIDE; y++) for (let x = 0; x < SIDE; x++) expect(data[at(x, y)]).toBe(picture.data[at(x + 2, y + 1)]);
});

test("several sources are blended by their weights", async () => {
  const [a, b] = [noise(3), noise(4)];
  const { data } = await makeRefiner(SIDE).refine(attended([a, b], 4, [[0, 0, 3], [0, 0, 1]]));
  data.forEach((value, n) => expect(Math.abs(value - (0.75 * a.data[n] + 0.25 * b.data[n]))).toBeLessThanOrEqual(0.5));
});
