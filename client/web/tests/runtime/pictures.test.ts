import { expect, test } from "vitest";
import { remapPicture, resizeArea, resizeCubic, resizeLinear, roundEven } from "../../src/runtime/pictures";
import { planesOf } from "../../src/sources/av1";
import { rgbToYuv, yuvToRgb } from "../../src/sources/yuv";
import { bytes, largest, text, vectorsOf } from "../support/vectors";

const { pictures } = vectorsOf("pictures");
const picture = { side: 48, data: bytes(pictures.picture) };

test("pictures are scaled as by OpenCV", () => {
  expect(largest(resizeArea(picture, 24).data, bytes(pictures.halved))).toBe(0);
  expect(largest(resizeArea(picture, 12).data, bytes(pictures.quartered))).toBe(0);
  expect(largest(resizeCubic(picture, 64).data, bytes(pictures.enlarged))).toBeLessThanOrEqual(1);
  const resized = resizeLinear(Float32Array.from(pictures.values), 8, 32, 3);
  expect(largest(resized, pictures.resized)).toBeLessThan(1e-5);
});

test("pictures are sampled as by OpenCV, beyond their edges too", () => {
  const out = new Uint8Array(600);
  remapPicture(picture, Float32Array.from(pictures.places), out);
  expect(largest(out, bytes(pictures.sampled))).toBeLessThanOrEqual(1);
});

test("halves are rounded to even", () => {
  expect([0.5, 1.5, 2.5, -1.5, 1.49].map(roundEven)).toEqual([0, 2, 2, -2, 1]);
});

test("colours are converted exactly", () => {
  expect(largest(yuvToRgb(planesOf(64, bytes(pictures.yuv))).data, bytes(pictures.rgb))).toBe(0);
});

test("pictures are converted to YUV as by Python", () => {
  expect(text(rgbToYuv(picture))).toBe(pictures.smallYuv);
});
