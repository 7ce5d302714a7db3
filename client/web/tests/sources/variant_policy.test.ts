import { expect, test } from "vitest";
import { type Source, withPicture } from "../../src/runtime/types";
import { Library } from "../../src/sources/library";
import { regionPixels } from "../../src/sources/regions";
import { VariantPolicy } from "../../src/sources/variant_policy";
import { bytes, largest, vectorsOf } from "../support/vectors";

const vectors = vectorsOf("regions");

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
  const policy = new VariantPolicy(library);
  let added = 1;
  frames.forEach(({ face, keypoints: moved, arrived, slots, variant }: (typeof frames)[number], n: number) => {
    expect(policy.choose(pictures[face], Float32Array.from(moved), source, arrived && new Set(arrived))).toEqual(slots);
    const wanted = policy.wanted(n / 25, source);
    expect(wanted === null).toBe(variant === null);
    if (!wanted) return;
    expect(largest(wanted.data, bytes(variant))).toBeLessThanOrEqual(4);
    library.add(added++, withPicture(source, wanted), true);
  });
  expect(added).toBeGreaterThan(2);
  expect(policy.home).toBe(source);
});

test("a variant of another source than the home differs from it in a region only", () => {
  const { faces, basis, keypoints } = vectors.variants;
  const pictures = faces.map((face: string) => ({ side: 256, data: bytes(face) }));
  const floats = new Float32Array(bytes(basis).buffer);
  const home: Source = { picture: pictures[0], keypoints: Float32Array.from(keypoints), basis: floats, features: floats, membership: floats };
  const turned = home.keypoints.map((value, i) => value + [0.06, -0.03, 0][i % 3]);
  const newest: Source = { ...home, picture: { side: 256, data: Uint8Array.from(pictures[0].data).reverse() }, keypoints: turned };
  const library = new Library(8);
  library.add(0, home);
  library.add(1, newest);
  const policy = new VariantPolicy(library);
  let wanted = null;
  for (let n = 0; n < 60 && !wanted; n++) {
    policy.choose(pictures[n < 10 ? 0 : 1], home.keypoints, home, null);
    wanted = policy.wanted(n / 25, newest);
  }
  const grid = Float32Array.from({ length: 2 * 256 ** 2 }, (_, i) => (i % 2 ? Math.floor(i / 512) : (i / 2) % 256));
  const shown = new Set<number>();
  for (const region of [0, 1]) {
    const { pixels, mask } = regionPixels(turned, region, 256, grid);
    pixels.forEach((pixel, n) => mask[n] > 0 && shown.add(pixel));
  }
  const changed = newest.picture.data.map((value, i) => Number(value !== wanted?.data[i]));
  expect(changed.filter(Boolean).length).toBeGreaterThan(500);
  expect(changed.every((is, i) => !is || shown.has(Math.floor(i / 3)))).toBe(true);
});
