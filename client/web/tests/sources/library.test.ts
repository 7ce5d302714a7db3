import { expect, test } from "vitest";
import type { Source } from "../../src/runtime/types";
import { Library } from "../../src/sources/library";
import { vectorsOf } from "../support/vectors";

test("sources are attended and kept as by Python, those whose regions are shown too", () => {
  const library = new Library(8);
  for (const { pose, add, variant, reference, regions, attended, slots } of vectorsOf("sources").library) {
    const keypoints = Float32Array.from(pose);
    if (add !== undefined) library.add(add, { keypoints } as Source, variant);
    else expect(library.attended(keypoints, reference, regions).map((one) => library.slotOf(one))).toEqual(attended);
    expect([...Array(14).keys()].filter((slot) => library.at(slot))).toEqual(slots);
  }
});
