/** Packets of sources, motion and sound (codec/bitstream/packets.py; layout: codec/bitstream/container.py). */

import { FormatError } from "../errors";
import { Cursor, writeVarint } from "./varint";

export const MAX_SLOT = 65_535;
export const MAX_FRAME = 2 ** 40 - 1;
export const MAX_PACKET_FRAMES = 256;
const MAX_BACK = 4096;
const MAX_PAYLOAD = 1 << 18;
const MAX_GROUP = 8;
const MAX_SCALE = 255;
const MAX_SAMPLE = 2 ** 48 - 1;
const MAX_OPUS_PACKETS = 256;
const MAX_OPUS_BYTES = 1275 * 3 + 7;
const MAX_REGIONS = 4;
const REFERENCE = 1;
const RUNS = 2;
const REGIONS = 4;
const TRANSFORMED = 8;
const ALIKE = 16;

/** A source picture: one AV1 unit for a slot of the library. `frame`: number of the frame that it is, if any. `base`: slot
 * of the source of which it is a variant, if it is one: the same picture with other eyes or another mouth. */
export interface SourcePacket {
  kind: "source";
  slot: number;
  payload: Uint8Array;
  frame: number | null;
  base: number | null;
}

/** Consecutive frames with the same reference source, or whose region shows the source in `slot` - 1 (0: the
 * reference source). */
export interface Run {
  slot: number;
  frames: number;
}

/** The motion of consecutive frames. `scale`: quantisation scale of the transform coder; null: predictive coder. */
export interface MotionPacket {
  kind: "motion";
  first: number;
  count: number;
  reference: number | null;
  payload: Uint8Array;
  runs: Run[];
  scale: number | null;
  /** For each region, runs of slots + 1; empty: all regions show the reference source. */
  regions: Run[][];
  /** All frames have the reference source and the regions of the reference frame: no runs, no regions. */
  alike: boolean;
}

/** Consecutive Opus packets; `first`: number of the first sample at 48 kHz, counting the pre-skip. */
export interface AudioPacket {
  kind: "audio";
  first: number;
  packets: Uint8Array[];
}

export type Packet = SourcePacket | MotionPacket | AudioPacket;

/** Parse a source. Throws FormatError, as all parsers here do. */
export function parseSource(data: Uint8Array): SourcePacket {
  const cursor = new Cursor(data);
  const slot = cursor.varint(MAX_SLOT);
  const kind = cursor.varint(2 * MAX_FRAME + 1);
  const payload = cursor.rest(MAX_PAYLOAD);
  if (kind % 2 || !kind) return { kind: "source", slot, payload, frame: kind ? (kind - 1) / 2 : null, base: null };
  return { kind: "source", slot, payload, frame: null, base: baseOf(kind / 2 - 1) };
}

/** Parse a group of sources. */
export function parseSources(data: Uint8Array): SourcePacket[] {
  const cursor = new Cursor(data);
  const slot = cursor.varint(MAX_SLOT - MAX_GROUP);
  const more = cursor.varint(MAX_GROUP - 2);
  const first = cursor.varint(2 * MAX_FRAME + 1);
  if (first % 2) {
    const base = baseOf((first - 1) / 2);
    return parsePayloads(cursor, more + 1, MAX_PAYLOAD).map((payload, n) => {
      return { kind: "source", slot: slot + n, payload, frame: null, base };
    });
  }
  const frames = [first / 2];
  for (let n = 0; n <= more; n++) {
    const step = cursor.varint(2 * MAX_FRAME);
    frames.push(frames[n] + (step % 2 ? -(step + 1) / 2 : step / 2));
  }
  if (frames.some((frame) => frame < 0 || frame > MAX_FRAME)) {
    throw new FormatError("The frame number of a source is out of range.");
  }
  const payloads = parsePayloads(cursor, more + 1, MAX_PAYLOAD);
  return payloads.map((payload, n) => ({ kind: "source", slot: slot + n, payload, frame: frames[n], base: null }));
}

function baseOf(slot: number): number {
  if (slot > MAX_SLOT) throw new FormatError("The base of a source is out of range.");
  return slot;
}

/** Parse motion. */
export function parseMotion(data: Uint8Array): MotionPacket {
  const cursor = new Cursor(data);
  const first = cursor.varint(MAX_FRAME);
  const count = cursor.varint(MAX_PACKET_FRAMES - 1) + 1;
  const flags = cursor.varint(REFERENCE | RUNS | REGIONS | TRANSFORMED | ALIKE);
  const alike = (flags & ALIKE) !== 0;
  if (alike && flags !== (ALIKE | TRANSFORMED | REFERENCE)) {
    throw new FormatError("A motion packet cannot be like its reference frame.");
  }
  if (flags & TRANSFORMED && !(flags & (RUNS | ALIKE))) {
    throw new FormatError("A transform-coded motion packet lacks reference sources.");
  }
  let reference: number | null = null;
  if (flags & REFERENCE) {
    const back = cursor.varint(MAX_BACK);
    if (back < 1 || back > first) {
      throw new FormatError(`A motion packet refers to ${back} frames before frame ${first}.`);
    }
    reference = first - back;
  }
  const runs = flags & RUNS ? parseRuns(cursor, count, MAX_SLOT) : [];
  const regions: Run[][] = [];
  if (flags & REGIONS) {
    const more = cursor.varint(MAX_REGIONS - 1);
    for (let n = 0; n <= more; n++) regions.push(parseRuns(cursor, count, MAX_SLOT + 1));
  }
  const scale = flags & TRANSFORMED ? cursor.varint(MAX_SCALE) : null;
  return { kind: "motion", first, count, reference, payload: cursor.rest(MAX_PAYLOAD), runs, scale, regions, alike };
}

/** Parse sound. */
export function parseAudio(data: Uint8Array): AudioPacket {
  const cursor = new Cursor(data);
  const first = cursor.varint(MAX_SAMPLE);
  const count = cursor.varint(MAX_OPUS_PACKETS - 1);
  return { kind: "audio", first, packets: parsePayloads(cursor, count, MAX_OPUS_BYTES) };
}

/** Return the value of a packet's frame `frame` (0 is its first) in runs. */
export function slotAt(runs: Run[], frame: number): number {
  for (const run of runs) {
    if (frame < run.frames) return run.slot;
    frame -= run.frames;
  }
  throw new RangeError("a frame outside its packet");
}

/** Return the slot of the source that each region of a packet's frame shows; null: the reference source. */
export function regionsOf(packet: MotionPacket, frame: number): (number | null)[] {
  return packet.regions.map((runs) => {
    const slot = slotAt(runs, frame);
    return slot ? slot - 1 : null;
  });
}

/** Parse `counted` lengths, then that many payloads and one that takes the remaining bytes. */
function parsePayloads(cursor: Cursor, counted: number, largest: number): Uint8Array[] {
  const lengths: number[] = [];
  for (let n = 0; n < counted; n++) lengths.push(cursor.varint(largest));
  const last = cursor.data.length - cursor.at - lengths.reduce((sum, length) => sum + length, 0);
  lengths.push(last);
  if (last <= 0 || last > largest || lengths.includes(0)) {
    throw new FormatError("The lengths in a packet do not add up.");
  }
  return lengths.map((length) => cursor.data.subarray(cursor.at, (cursor.at += length)));
}

function parseRuns(cursor: Cursor, count: number, maxSlot: number): Run[] {
  const more = cursor.varint(count - 1);
  let slot = cursor.varint(maxSlot);
  let left = count;
  const runs: Run[] = [];
  for (let n = 0; n < more; n++) {
    const frames = cursor.varint(left - 1);
    if (!frames) throw new FormatError("A motion packet has a run of no frames.");
    runs.push({ slot, frames });
    left -= frames;
    slot = cursor.varint(maxSlot);
  }
  runs.push({ slot, frames: left });
  return runs;
}

/** Serialise a source that is no frame. */
export function sourceToBytes({ slot, base, payload }: Pick<SourcePacket, "slot" | "base" | "payload">): Uint8Array {
  return Uint8Array.from([...writeVarint(slot), ...writeVarint(base === null ? 0 : 2 * (base + 1)), ...payload]);
}

/** Serialise motion. */
export function motionToBytes({ first, count, reference, runs, regions, scale, alike, payload }: MotionPacket): Uint8Array {
  let flags = (reference === null ? 0 : REFERENCE) | (runs.length ? RUNS : 0) | (regions.length ? REGIONS : 0);
  flags |= (scale === null ? 0 : TRANSFORMED) | (alike ? ALIKE : 0);
  const head = [...writeVarint(first), ...writeVarint(count - 1), ...writeVarint(flags)];
  if (reference !== null) head.push(...writeVarint(first - reference));
  if (runs.length) head.push(...writeRuns(runs));
  if (regions.length) head.push(...writeVarint(regions.length - 1), ...regions.flatMap(writeRuns));
  if (scale !== null) head.push(...writeVarint(scale));
  return Uint8Array.from([...head, ...payload]);
}

/** Group the slots of consecutive frames' reference sources into runs; none if any is null. */
export function runsOf(slots: (number | null)[]): Run[] {
  const runs: Run[] = [];
  for (const slot of slots) {
    if (slot === null) return [];
    const last = runs[runs.length - 1];
    if (last?.slot === slot) last.frames += 1;
    else runs.push({ slot, frames: 1 });
  }
  return runs;
}

/** Group the slots that the regions of consecutive frames show into runs of slots + 1 (0: the reference source); none if
 * no region shows another source. */
export function regionRuns(frames: (number | null)[][]): Run[][] {
  const count = Math.max(0, ...frames.map(({ length }) => length));
  const slots = Array.from({ length: count }, (_, n) => frames.map((frame) => (frame[n] ?? -1) + 1));
  return slots.some((row) => row.some(Boolean)) ? slots.map(runsOf) : [];
}

function writeRuns(runs: Run[]): number[] {
  const out = [...writeVarint(runs.length - 1), ...writeVarint(runs[0].slot)];
  for (let n = 1; n < runs.length; n++) out.push(...writeVarint(runs[n - 1].frames), ...writeVarint(runs[n].slot));
  return out;
}
