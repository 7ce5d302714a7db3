import { expect, test } from "vitest";
import type { Header } from "../src/bitstream/header";
import type { Packet } from "../src/bitstream/packets";
import { Decoder, PreparedSources, suppressSmallShifts } from "../src/decoder";
import { makeTables } from "../src/motion/tables";
import { RECORDED_SOURCES } from "../src/sources/library";
import { StubRuntime } from "./support/stubs";
import { bytes, vectorsOf } from "./support/vectors";

const vectors = vectorsOf("motion");

const SIDE = 64;
/** Pictures of one grey each. */
const grey = async () => {
  let luma = 0;
  const decode = async () => ({
    side: SIDE,
    luma: new Uint8Array(SIDE ** 2).fill((luma += 40)),
    cb: new Uint8Array(SIDE ** 2 / 4).fill(128),
    cr: new Uint8Array(SIDE ** 2 / 4).fill(128),
  });
  return { decode, close: () => {} };
};

test("recorded calls keep the sources whose regions are shown", async () => {
  const tables = makeTables(vectors.tables);
  const { payload, count } = vectors.predictive.find(
    // eslint-disable-next-line @typescript-eslint/no-explicit-any
    (one: any) => one.levels && !one.reference && one.keypoints === 20,
  );
  const header = {
    size: SIDE,
    keypoints: 20,
    tables: tables.predictive.id,
    active: 3,
    suppression: 0,
    stepXy: 1 / 60,
    stepStrength: 1 / 15,
  } as Header;
  const decoder = new Decoder(header, new StubRuntime(), tables, grey, new PreparedSources(), () => {});
  const source = (slot: number, base: number | null): Packet =>
    ({ kind: "source", slot, payload: Uint8Array.of(0x0a, 0, 0x30, 1), frame: null, base });
  await decoder.push(source(0, null));
  await decoder.push(source(1, 0));
  for (let slot = 2; slot < RECORDED_SOURCES; slot++) await decoder.push(source(slot, null));
  const [motion] = await decoder.push({
    kind: "motion",
    first: 0,
    count,
    reference: null,
    payload: bytes(payload),
    scale: null, alike: false,
    runs: [{ slot: 0, frames: count }],
    regions: [[{ slot: 0, frames: count }], [{ slot: 2, frames: count }]],
  });
  expect(motion.regions).toEqual([null, 1]);
  const shown = await decoder.picture(motion, null);
  expect(shown).not.toBe(await decoder.picture({ ...motion, regions: [] }, null));
  await decoder.push(source(RECORDED_SOURCES, 0)); // replaces the source that was used longest ago
  expect(await decoder.picture(motion, null)).toBe(shown);
});

test("small shifts are suppressed, and weights stay", () => {
  const fields = Float32Array.of(0.3, 0.3, 1, 0, 0.75, 2, 3, 4, 3);
  suppressSmallShifts(fields, 1);
  expect([...fields]).toEqual([0, 0, 1, 0, 0.375, 2, 3, 4, 3]);
  suppressSmallShifts(fields, 0);
  expect([...fields]).toEqual([0, 0, 1, 0, 0.375, 2, 3, 4, 3]);
});
