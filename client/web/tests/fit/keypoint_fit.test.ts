import { expect, test } from "vitest";
import { KeypointFit } from "../../src/fit/keypoint_fit";
import { bytes, largest, vectorsOf } from "../support/vectors";

test("keypoints are fitted as by Python", () => {
  const { picture, basis, keypoints, frames } = vectorsOf("pictures").fit;
  const empty = new Float32Array();
  const source = {
    picture: { side: 256, data: bytes(picture) },
    keypoints: Float32Array.from(keypoints),
    basis: new Float32Array(bytes(basis).buffer),
    features: empty,
    membership: empty,
  };
  const fit = new KeypointFit();
  for (const { picture: shown, fitted: expected, diagonal } of frames) {
    const fitted = fit.frame({ side: 256, data: bytes(shown) }, source.keypoints, [source]);
    expect(fitted.source).toBe(source);
    expect(largest(fitted.keypoints, expected)).toBeLessThan(2e-3);
    const gram = fitted.gram as Float64Array;
    const off = diagonal.map((value: number, i: number) => gram[i * 60 + i] / value - 1);
    expect(Math.max(...off.map(Math.abs))).toBeLessThan(0.02);
  }
  expect(largest(frames[2].fitted, keypoints)).toBeGreaterThan(0.02);
  expect(fit.frame(source.picture, source.keypoints, [])).toMatchObject({ source: null, gram: null });
});
