import { expect, test } from "vitest";
import type { Picture } from "../../src/runtime/pictures";
import { SourcePolicy } from "../../src/sources/source_policy";
import { bytes, vectorsOf } from "../support/vectors";

test("the same frames become sources as in Python", () => {
  const { pictures, side, events } = vectorsOf("sources").sources;
  const known: Picture[] = pictures.map((data: string) => ({ side, data: bytes(data) }));
  const policy = new SourcePolicy();
  let wanted = 0;
  for (const event of events) {
    expect(policy.isDue(event.atS)).toBe(event.due);
    if (event.judged) {
      const { picture, qualityDb, nearest } = event.judged;
      policy.judge(known[picture], qualityDb, known[nearest], event.atS);
      const found = policy.wanted(event.atS);
      expect(found === null ? null : known.indexOf(found)).toBe(event.wanted);
      wanted += Number(found !== null);
    }
    if (event.added) policy.add(known[event.added.coded], event.added.qualityDb, event.atS, event.added.size);
  }
  expect(wanted).toBeGreaterThan(10);
});
