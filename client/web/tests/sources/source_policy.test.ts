import { expect, test } from "vitest";
import { SourcePolicy } from "../../src/sources/source_policy";
import { vectorsOf } from "../support/vectors";

test("the same frames become sources as in Python", () => {
  const policy = new SourcePolicy();
  let wanted = 0;
  for (const event of vectorsOf("sources").sources) {
    expect(policy.isDue(event.atS)).toBe(event.due);
    if (event.judged) expect(policy.wants(event.judged.qualityDb, event.atS)).toBe(event.judged.wanted);
    if (event.added) policy.add(event.added.qualityDb, event.atS, event.added.size);
    wanted += Number(event.judged?.wanted ?? false);
  }
  expect(wanted).toBeGreaterThan(10);
});
