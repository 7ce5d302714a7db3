import { expect, test } from "vitest";
import { restore, SourceDecoder } from "../../src/sources/av1";
import { PROBE } from "../../src/sources/webcodecs";
import { dav1d } from "../support/stubs";
import { bytes, largest, vectorsOf } from "../support/vectors";

const vectors = vectorsOf("sources");

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
