import { expect, test } from "vitest";
import {
  remapPicture,
  resizeArea,
  resizeCubic,
  resizeLinear,
  roundEven,
} from "../src/runtime/pictures";
import { planesOf, restore, SourceDecoder } from "../src/sources/av1";
import { Compositor } from "../src/sources/regions";
import { PROBE } from "../src/sources/webcodecs";
import { yuvToRgb } from "../src/sources/yuv";
import { dav1d, face } from "./stubs";
import { bytes, largest, vectors } from "./vectors";

const { pictures } = vectors;
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

test("regions of another source are pasted as by Python", () => {
  const { composites } = vectors;
  const source = (n: number) => {
    return face({ side: 256, data: bytes(composites.sources[n].picture) }, n);
  };
  const [first, other] = [source(0), source(1)];
  const variant = { ...first, picture: other.picture };
  const compositor = new Compositor();
  for (const [n, shown] of [[other, undefined], [undefined, variant], [variant, other]].entries()) {
    const { data } = compositor.composite(first, shown).picture;
    expect(largest(data, first.picture.data)).toBeGreaterThan(10);
    expect(largest(data, bytes(composites.pictures[n]))).toBeLessThanOrEqual(3);
  }
  expect(compositor.composite(first, [first, undefined])).toBe(first);
});

test("dav1d's pictures are Python's, at full and reduced size", async () => {
  for (const { size, units, pictures: expected } of vectors.av1) {
    const decoder = new SourceDecoder(size, dav1d);
    for (const [n, unit] of units.entries()) {
      const { data } = await decoder.add(bytes(unit));
      expect(largest(data, bytes(expected[n]))).toBeLessThanOrEqual(1);
    }
  }
});

test("the unit that probes a browser's decoder has the levels that are expected of it", async () => {
  const decoder = await dav1d(PROBE.side);
  const unit = bytes(PROBE.unit);
  const { luma, cb, cr } = await decoder.decode(restore(unit, unit.length), true);
  expect([luma, cb, cr].map((plane) => [...new Set(plane)])).toEqual(PROBE.levels.map((level) => [level]));
});

test("a sequence starts with a key picture, and ends at a damaged one", async () => {
  const { size, units } = vectors.av1[2];
  const decoder = new SourceDecoder(size, dav1d);
  await expect(decoder.add(bytes(units[1]))).rejects.toThrow("start with a key picture");
  await decoder.add(bytes(units[0]));
  await expect(decoder.add(bytes(units[1]).fill(7, 1))).rejects.toThrow("invalid AV1 data");
  await expect(decoder.add(bytes(units[1]))).rejects.toThrow("start with a key picture");
  await decoder.add(bytes(units[0]));
});

test("a unit of another form is refused", () => {
  expect(() => restore(Uint8Array.from([0x30, 1, 2]), 2)).toThrow("at most 2 are allowed");
  expect(() => restore(Uint8Array.from([0x32, 1, 2]), 9)).toThrow("holds no frame");
  expect(() => restore(Uint8Array.from([0x0a, 0x80, 0x80, 0x80, 0x80]), 9)).toThrow("invalid size field");
  expect(() => restore(Uint8Array.from([0x0a, 65, 0]), 9)).toThrow("too long");
});
