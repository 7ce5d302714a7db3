import { expect, test } from "vitest";
import { NetworkRuntime } from "../../../src/runtime/network/network";
import type { Attended } from "../../../src/runtime/refinement/refiner";
import type { Model, Source } from "../../../src/runtime/types";
import { NetworkWeights, widened } from "../../../src/runtime/weights";
import { bytes, vectorsOf } from "../../support/vectors";

const vectors = vectorsOf("network");
const model: Model = vectors.model;
const picture = { side: 256, data: new Uint8Array(3 * 256 ** 2) };
const refined: Attended[] = [];
const refiner = { refine: async (attended: Attended) => (refined.push(attended), picture) };
const runtime = new NetworkRuntime(model, NetworkWeights.read(bytes(vectors.network).buffer as ArrayBuffer), refiner);
const halves = (text: string) => widened(new DataView(bytes(text).buffer));
const floats = (text: string) => new Float32Array(bytes(text).buffer);
const sources: Source[] = vectors.sources.map((source: Record<"picture" | "features" | "membership" | "basis", string> & { keypoints: number[] }) => ({
  picture: { side: 256, data: bytes(source.picture) },
  keypoints: Float32Array.from(source.keypoints),
  features: halves(source.features),
  membership: halves(source.membership),
  basis: floats(source.basis),
}));
const keypoints = Float32Array.from(vectors.keypoints);

/** Return the largest difference but for a share of the values, relative to the largest value if that exceeds 1. */
function difference(a: Float32Array, b: Float32Array, excluded = 0): number {
  expect(a.length).toBe(b.length);
  const most = b.reduce((all, value) => Math.max(all, Math.abs(value)), 1);
  const all = a.map((value, n) => Math.abs(value - b[n])).sort();
  return all[Math.floor((all.length - 1) * (1 - excluded))] / most;
}

test("keypoints and features of sources are those of the graphs in Python", async () => {
  for (const source of sources) {
    const { keypoints, features, membership, basis } = await runtime.prepare(source.picture);
    expect(difference(keypoints, source.keypoints)).toBeLessThan(1e-3);
    expect(difference(features, source.features)).toBeLessThan(3e-3);
    expect(difference(membership, source.membership)).toBeLessThan(3e-3);
    expect(difference(basis, source.basis)).toBeLessThan(1e-3);
  }
});

test("attention to one source and to several is that of the graph in Python", async () => {
  for (const [n, count] of [1, 3].entries()) {
    const { shifts, features } = await runtime.attend(keypoints, sources.slice(0, count));
    const wanted = vectors.attended[n];
    const fields = floats(wanted.fields);
    expect(difference(shifts, fields, 0.005)).toBeLessThan(1e-3); // near-ties may select other blocks
    const cells = features.length - 64 ** 2;
    expect(difference(features.subarray(0, cells), floats(wanted.features), 0.005)).toBeLessThan(1e-3);
    expect(difference(features.subarray(cells), floats(wanted.gate), 0.005)).toBeLessThan(2e-3);
  }
});

test("numbers of sources that attention is not made for are refused", async () => {
  for (const none of [[], [...sources, ...sources]]) await expect(runtime.attend(keypoints, none)).rejects.toThrow("sources");
});

test("keypoints that are no numbers leave a picture", async () => {
  for (const value of [NaN, Infinity, 1e30]) await runtime.attend(keypoints.map(() => value), sources.slice(0, 1));
  const { shifts } = await runtime.attend(keypoints, sources.slice(0, 1));
  expect(difference(shifts, floats(vectors.attended[0].fields), 0.005)).toBeLessThan(1e-3);
});

test("a frame is refined with its attention and the pictures of its sources", async () => {
  refined.length = 0;
  const attention = await runtime.attend(keypoints, sources.slice(0, 2));
  expect(await runtime.reconstruct(keypoints, sources.slice(0, 2))).toBe(picture);
  expect(refined).toEqual([{ ...attention, pictures: sources.slice(0, 2).map((source) => source.picture) }]);
});
