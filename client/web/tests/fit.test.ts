import { expect, test } from "vitest";
import { KeypointFit } from "../src/fit/keypoint_fit";
import { CropTracker } from "../src/media/crop_tracking";
import { facesOf, innerSize } from "../src/media/face_detector";
import { rgbToYuv } from "../src/sources/yuv";
import { bytes, largest, text, vectors } from "./vectors";

test("keypoints are fitted as by Python", () => {
  const { picture, basis, keypoints, frames } = vectors.fit;
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

test("crops follow faces as in Python", () => {
  const tracker = new CropTracker(640, 480, 25);
  for (const { faces, crop } of vectors.crops) expect(tracker.update(faces)).toEqual(crop);
});

test("faces are found where Python finds them", () => {
  const { width, height, maps, heat, size, offset, faces } = vectors.faces;
  const [h, s, o] = [heat, size, offset].map((values) => Float32Array.from(values));
  const found = facesOf({ ...maps, heat: h, size: s, offset: o }, width, height);
  expect(found.length).toBe(faces.length);
  found.forEach((face, n) => expect(largest(Object.values(face), Object.values(faces[n] as typeof face))).toBeLessThan(0.01));
  expect(innerSize(width, height, 224)).toEqual({ width: 4 * maps.width, height: 4 * maps.height });
});

test("pictures are converted to YUV as by Python", () => {
  const { picture, smallYuv } = vectors.pictures;
  expect(text(rgbToYuv({ side: 48, data: bytes(picture) }))).toBe(smallYuv);
});
