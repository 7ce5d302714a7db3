import { expect, test } from "vitest";
import { type Source, withPicture } from "../src/runtime/types";
import { Library } from "../src/sources/library";
import { Compositor } from "../src/sources/regions";
import { VariantPolicy } from "../src/sources/variant_policy";
import { bytes, largest, vectors } from "./vectors";

test("regions show what Python shows, and the same variants are sent", () => {
  const { faces, basis, keypoints, frames } = vectors.variants;
  const pictures = faces.map((face: string) => ({ side: 256, data: bytes(face) }));
  const empty = new Float32Array();
  const source: Source = {
    picture: pictures[0],
    keypoints: Float32Array.from(keypoints),
    basis: new Float32Array(bytes(basis).buffer),
    features: empty,
    membership: empty,
  };
  const library = new Library(8);
  library.add(0, source);
  const policy = new VariantPolicy(new Compositor(), library);
  let added = 1;
  frames.forEach(({ face, keypoints: moved, slots, variant }: (typeof frames)[number], n: number) => {
    expect(policy.choose(pictures[face], Float32Array.from(moved), source)).toEqual(slots);
    const wanted = policy.wanted(n / 25);
    expect(wanted === null).toBe(variant === null);
    if (!wanted) return;
    expect(largest(wanted.data, bytes(variant))).toBeLessThanOrEqual(4);
    library.add(added++, withPicture(source, wanted), true);
  });
  expect(added).toBeGreaterThan(2);
  expect(policy.home).toBe(source);
});
