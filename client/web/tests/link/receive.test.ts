import { expect, test, vi } from "vitest";
import { reference } from "../../src/fit/alignment";
import { MotionReceiver, SourceAssembler } from "../../src/link/receive";
import { motionSpace } from "../../src/motion/space";
import { makeTables } from "../../src/motion/tables";
import { bytes, largest, outcome, vectorsOf } from "../support/vectors";

const vectors = { ...vectorsOf("motion"), ...vectorsOf("receiving") };

test("motion is received as by Python, with losses, repetitions and damage", () => {
  const { picture, basis, keypoints } = vectors.space;
  const ref = reference({ basis: new Float32Array(bytes(basis).buffer), keypoints: Float32Array.from(keypoints) });
  const tables = makeTables(vectors.tables);
  const space = motionSpace(ref, { side: 256, data: bytes(picture) }, tables.transform.directions);
  const receiver = new MotionReceiver(tables, 20, (slot) => (slot < 2 ? space : undefined));
  const push = vi.spyOn(receiver.jitterBuffer, "push");
  for (const [n, { data, acknowledged, messages, lost, frames, places }] of vectors.received.entries()) {
    push.mockClear();
    outcome(() => receiver.take(bytes(data), 100 + 0.04 * n));
    const pushed = push.mock.calls.flatMap(([taken]) => taken);
    expect(pushed.map(({ number, reference, regions }) => ({ number, reference, regions }))).toEqual(frames);
    for (const [at, place] of places.entries()) expect(largest(pushed[at].keypoints, place)).toBeLessThan(5e-4);
    expect({ acknowledged: receiver.acknowledged, ...receiver.counts }).toEqual({ acknowledged, messages, lost });
  }
});

test("chunks are joined as by Python", () => {
  const assembler = new SourceAssembler();
  for (const { data, unit, sequence, index } of vectors.assembled) {
    expect(outcome(() => assembler.take(bytes(data)))).toEqual(unit);
    expect([assembler.sequence, assembler.index]).toEqual([sequence, index]);
  }
});
