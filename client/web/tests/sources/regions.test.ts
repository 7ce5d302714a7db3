import { expect, test } from "vitest";
import { Compositor } from "../../src/sources/regions";
import { face } from "../support/stubs";
import { bytes, largest, vectorsOf } from "../support/vectors";

test("regions of another source are pasted as by Python", () => {
  const { composites } = vectorsOf("regions");
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
