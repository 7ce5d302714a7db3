import { expect, test } from "vitest";
import { parseAudio, parseMotion, parseSource, parseSources, regionsOf } from "../../src/bitstream/packets";
import { bytes, outcome, vectorsOf } from "../support/vectors";

const vectors = vectorsOf("bitstream");

const PARSERS = {
  source: (data: Uint8Array) => [parseSource(data)],
  sources: parseSources,
  motion: (data: Uint8Array) => [parseMotion(data)],
  audio: (data: Uint8Array) => [parseAudio(data)],
};

test("packets, intact and damaged, are read or refused as by Python", () => {
  let refused = 0;
  for (const { kind, data, packets } of vectors.packets) {
    expect(outcome(() => PARSERS[kind as keyof typeof PARSERS](bytes(data)))).toEqual(packets);
    refused += packets === null ? 1 : 0;
  }
  expect(refused).toBeGreaterThan(100);
  expect(refused).toBeLessThan(vectors.packets.length - 100);
});

test("the sources of a frame's regions are those of its runs", () => {
  const packet = parseMotion(bytes(vectors.packets[4].data));
  expect([0, 8, 9, 19].map((frame) => regionsOf(packet, frame))).toEqual([
    [null, 2],
    [null, 2],
    [null, null],
    [null, null],
  ]);
});
