import { expect, test } from "vitest";
import { reference } from "../../src/fit/alignment";
import { motionSpace } from "../../src/motion/space";
import type { Picture } from "../../src/runtime/pictures";
import { Compositor } from "../../src/sources/regions";
import { Stream } from "../../src/call/stream";
import { dav1d, face, StubRuntime } from "../support/stubs";
import { bytes, largest, vectorsOf } from "../support/vectors";

const vectors = { ...vectorsOf("motion"), ...vectorsOf("regions"), ...vectorsOf("sources") };

const { size, units } = vectors.av1[0];
const source = (unit: number, slot: number, base: number | null) =>
  ({ kind: "source", slot, payload: bytes(units[unit]), frame: null, base }) as const;
const directions = Float64Array.from(vectors.tables.transform.directions);
const frame = (reference: number | null, regions: (number | null)[]) => {
  const keypoints = Float32Array.from(vectors.composites.sources[0].keypoints);
  return { number: 0, stampS: 0, keypoints, reference, regions };
};
const ignore = () => {};

test("the first source is shown before the networks are there, others once they are prepared", async () => {
  const runtime = new StubRuntime();
  let load = (_: StubRuntime) => {};
  const stream = new Stream(size, dav1d, new Promise<StubRuntime>((resolve) => (load = resolve)), directions);
  const shown: Picture[] = [];
  let isAdded = false;
  const added = stream.addSource(source(0, 0, null), false, (picture) => shown.push(picture)).then((picture) => {
    isAdded = true;
    return picture;
  });
  while (!shown.length) await new Promise((resolve) => setTimeout(resolve));
  expect([isAdded, runtime.prepared]).toEqual([false, 0]);
  load(runtime);
  expect(await added).toBe(shown[0]);
  await stream.addSource(source(1, 1, null), false, (picture) => shown.push(picture));
  expect([shown.length, runtime.prepared]).toEqual([1, 2]);
  stream.close();
});

test("regions show variants, which have the keypoints of their base and are not prepared", async () => {
  const runtime = new StubRuntime();
  const stream = new Stream(size, dav1d, Promise.resolve(runtime), directions);
  expect(await stream.reconstruct(frame(0, [1, null]), null)).toBeNull();
  const picture = await stream.addSource(source(0, 0, null), false, ignore);
  const variant = await stream.addSource(source(1, 1, 0), false, ignore);
  expect(runtime.prepared).toBe(1);
  const { keypoints, basis } = face(picture);
  expect(stream.space(0)).toEqual(motionSpace(reference({ basis, keypoints }), picture, directions));
  expect([stream.space(1), stream.space(9)]).toEqual([null, null]); // a variant, and none
  for (const regions of [[], [null, null], [7, 9], [0, null]]) {
    expect(await stream.reconstruct(frame(0, regions), null)).toBe(picture);
  }
  const base = face(picture);
  const expected = new Compositor().composite(base, [undefined, { ...base, picture: variant }]).picture;
  expect(largest(expected.data, picture.data)).toBeGreaterThan(10);
  const shown = await stream.reconstruct(frame(0, [null, 1]), null);
  expect(largest(shown?.data ?? [], expected.data)).toBe(0);
  expect(await stream.reconstruct(frame(1, []), null)).toBe(picture); // no frame is led by a variant
  stream.close();
});

test("snapshots and variants without their base are not kept", async () => {
  const runtime = new StubRuntime();
  const stream = new Stream(size, dav1d, Promise.resolve(runtime), directions);
  await stream.addSource(source(0, 0, null), true, ignore);
  expect(stream.space(0)).toBeNull();
  const variant = await stream.addSource(source(1, 1, 0), false, ignore);
  expect(variant.side).toBe(size);
  expect(await stream.reconstruct(frame(1, [1, 1]), null)).toBeNull();
  const picture = await stream.addSource(source(0, 0, null), false, ignore); // the base, too late for that variant
  expect(await stream.reconstruct(frame(0, [1, 1]), null)).toBe(picture);
  await stream.addSource(source(1, 1, 0), false, ignore);
  expect(await stream.reconstruct(frame(0, [1, 1]), null)).not.toBe(picture);
  expect(runtime.prepared).toBe(1);
  stream.close();
});
