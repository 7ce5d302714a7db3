import { expect, test } from "vitest";
import type { Picture } from "../../../src/runtime/pictures";
import { WasmRefiner } from "../../../src/runtime/refinement/refiner";
import type { Model } from "../../../src/runtime/types";
import { NetworkWeights, type Weights, widened } from "../../../src/runtime/weights";
import { bytes, vectorsOf } from "../../support/vectors";

const SIDE = 64;
const noise = (seed: number): Picture => ({ side: SIDE, data: new Uint8Array(3 * SIDE ** 2).map((_, n) => (n * 37 + seed * 101) % 251) });

/** Weights of a decoder that changes nothing. */
function noWeights(): Map<string, Weights> {
  const shapes = { unfold: [8, 4, 1, 1], fuse: [8, 14, 3, 3], refine: [8, 8, 3, 3], out: [12, 8, 3, 3], "up.0.enter": [4, 5, 3, 3], "up.0.see": [4, 3, 4, 4], "up.0.out": [12, 4, 3, 3] };
  const zeros = (shape: number[]) => ({ shape, values: new Float32Array(shape.reduce((a, b) => a * b)) });
  return new Map(
    Object.entries(shapes).flatMap(([name, shape]) => [
      [`decoder.${name}.weight`, zeros(shape)],
      [`decoder.${name}.bias`, zeros([shape[0]])],
    ]),
  );
}

const makeRefiner = (netSize: number) => new WasmRefiner({ size: SIDE, net_size: netSize } as Model, new NetworkWeights(noWeights()));

/** Fields of shifts (x, y) and weights, one each for every source. */
function attended(pictures: Picture[], netSize: number, fields: number[][]) {
  const side = netSize / 4;
  const shifts = Float32Array.from(fields.flatMap((field) => new Array<number[]>(side ** 2).fill(field).flat()));
  return { pictures, shifts, side, features: new Float32Array(5 * side ** 2) };
}

test("a source that does not move is shown as it is, by models of either size", async () => {
  for (const netSize of [SIDE, SIDE / 2]) {
    const picture = noise(1);
    const { data } = await makeRefiner(netSize).refine(attended([picture], netSize, [[0, 0, 1]]));
    expect(Buffer.compare(data, picture.data)).toBe(0);
  }
});

test("a source is sampled where its shifts point, and its edge is repeated", async () => {
  const picture = noise(2);
  const at = (x: number, y: number) => 3 * (Math.min(Math.max(y, 0), SIDE - 1) * SIDE + Math.min(Math.max(x, 0), SIDE - 1));
  for (const [dx, dy] of [[2, 1], [-3, -SIDE], [1000, 0]]) {
    const { data } = await makeRefiner(SIDE).refine(attended([picture], SIDE, [[dx, dy, 1]]));
    const wanted = Uint8Array.from(data, (_, n) => picture.data[at((Math.floor(n / 3) % SIDE) + dx, Math.floor(n / 3 / SIDE) + dy) + (n % 3)]);
    expect(Buffer.compare(data, wanted)).toBe(0);
  }
});

test("shifts that are no numbers, or too large, leave some picture", async () => {
  for (const shift of [NaN, Infinity, -Infinity, 1e30, -1e9]) {
    const { data } = await makeRefiner(SIDE).refine(attended([noise(2), noise(5)], SIDE, [[shift, shift, 1], [0, shift, NaN]]));
    expect(data.length).toBe(3 * SIDE ** 2);
  }
});

test("several sources are blended by their weights", async () => {
  const [a, b] = [noise(3), noise(4)];
  const { data } = await makeRefiner(SIDE).refine(attended([a, b], SIDE, [[0, 0, 3], [0, 0, 1]]));
  expect(data.every((value, n) => Math.abs(value - (0.75 * a.data[n] + 0.25 * b.data[n])) <= 0.5)).toBe(true);
});

test("pictures are those of the graph in Python, but for rounding", async () => {
  for (const vector of vectorsOf("refining").refined) {
    const { size, netSize } = vector;
    const floats = (text: string) => widened(new DataView(bytes(text).buffer));
    const refiner = new WasmRefiner({ size, net_size: netSize } as Model, NetworkWeights.read(bytes(vector.decoder).buffer as ArrayBuffer));
    const pictures = vector.pictures.map((text: string) => ({ side: size, data: bytes(text) }));
    const request = () => ({ pictures, shifts: floats(vector.fields), side: netSize / 4, features: floats(vector.features) });
    const wanted = bytes(vector.picture);
    const { data } = await refiner.refine(request());
    const differences = data.map((value, n) => Math.abs(value - wanted[n]));
    expect(Math.max(...chunks(differences))).toBeLessThanOrEqual(2);
    expect(differences.reduce((sum, value) => sum + value, 0) / data.length).toBeLessThan(0.1);
    expect(Buffer.compare((await refiner.refine(request())).data, data)).toBe(0);
  }
});

test("weights of another network are refused", () => {
  const weights = noWeights();
  weights.delete("decoder.fuse.bias");
  expect(() => new WasmRefiner({ size: SIDE, net_size: SIDE } as Model, new NetworkWeights(weights))).toThrow("no decoder.fuse.bias");
  expect(() => new WasmRefiner({ size: 4 * SIDE, net_size: SIDE } as Model, new NetworkWeights(noWeights()))).toThrow("256 pixels");
});

/** Largest of each thousand: all of a picture are too many arguments. */
function chunks(values: Uint8Array): number[] {
  return Array.from({ length: Math.ceil(values.length / 1000) }, (_, n) => Math.max(...values.subarray(1000 * n, 1000 * (n + 1))));
}
