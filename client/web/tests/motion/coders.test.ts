import { expect, test } from "vitest";
import { backward, keypointsOf, reference, unknownsOf } from "../../src/fit/alignment";
import { decodePredictive, encodePredictive } from "../../src/motion/predictive_coder";
import { coordinatesIn, keypointsIn, motionSpace } from "../../src/motion/space";
import { makeTables } from "../../src/motion/tables";
import { decodeTransform, encodeTransform, inverseTransform } from "../../src/motion/transform_coder";
import { bytes, largest, outcome, text, vectorsOf } from "../support/vectors";

const vectors = vectorsOf("motion");

const tables = makeTables(vectors.tables);

test("transform-coded messages, intact and damaged, have Python's levels", () => {
  for (const { payload, lengths, levels } of vectors.transform) {
    const decoded = outcome(() => decodeTransform(tables.transform, bytes(payload), lengths, 60).map((run) => [...run]));
    expect(decoded).toEqual(levels);
  }
});

test("transform-coded levels have Python's bytes", () => {
  for (const { intact, lengths, coded } of vectors.transform) {
    const runs = coded.map((rows: number[]) => Int32Array.from(rows));
    expect(text(encodeTransform(tables.transform, runs, lengths))).toBe(intact);
  }
});

test("predictively coded messages, intact and damaged, have Python's levels", () => {
  for (const { payload, count, keypoints, reference: before, levels } of vectors.predictive) {
    const last = before && Int32Array.from(before);
    const decoded = outcome(() =>
      decodePredictive(tables.predictive, bytes(payload), count, keypoints, last).map((frame) => [...frame]),
    );
    expect(decoded).toEqual(levels);
  }
});

test("predictively coded levels have Python's bytes", () => {
  for (const { intact, keypoints, reference: before, frames } of vectors.predictive) {
    const rows = Array.from({ length: frames.length / 3 / keypoints }, (_, n) =>
      Int32Array.from(frames.slice(3 * keypoints * n, 3 * keypoints * (n + 1))),
    );
    expect(text(encodePredictive(tables.predictive, rows, before && Int32Array.from(before)))).toBe(intact);
  }
});

test("the inverse transform is Python's", () => {
  const { levels, length, scale, coordinates } = vectors.inverse;
  const out = inverseTransform(Int32Array.from(levels), length, scale);
  expect(largest(out, coordinates)).toBeLessThan(1e-6 * Math.max(1, ...coordinates.map(Math.abs)));
});

test("the coordinates of a source are Python's", () => {
  const { picture, basis, keypoints, coordinates, moved: expected, backward: back } = vectors.space;
  const ref = reference({ basis: new Float32Array(bytes(basis).buffer), keypoints: Float32Array.from(keypoints) });
  const space = motionSpace(ref, { side: 256, data: bytes(picture) }, tables.transform.directions);
  const [out] = keypointsIn(space, Float64Array.from(coordinates));
  expect(largest(out, keypoints)).toBeGreaterThan(0.01);
  expect(largest(out, expected)).toBeLessThan(1e-4);
  const inside = Float64Array.from(coordinates, (value: number) => value / 10); // within the range of keypoints
  expect(largest(coordinatesIn(space, unknownsOf(keypointsIn(space, inside)[0])), inside)).toBeLessThan(0.05);
  const shifted = keypointsOf(unknownsOf(Float32Array.from(keypoints)).map((value) => value + 0.05));
  expect(largest(backward(ref, shifted), back)).toBeLessThan(0.05);
});
