/** Transform-coded motion of calls: differences from acknowledged frames (codec/motion/decoder.py). */

import { MAX_PACKET_FRAMES, type MotionPacket, regionsOf } from "../bitstream/packets";
import { FormatError } from "../errors";
import { keypointsIn, type MotionSpace } from "./space";
import type { TransformTables } from "./tables";
import { type CodedFrame, decodedRuns, decodeTransform } from "./transform_coder";

/** Largest magnitude of a coordinate: beyond all that keypoints can have. */
const MAX_COORDINATE = 1e6;

/** A decoded frame, before its picture is reconstructed. */
export interface TransformedFrame {
  number: number;
  /** (K, 3). */
  keypoints: Float32Array;
  reference: number;
  /** Slot of the source that each region shows; null: the reference source. */
  regions: (number | null)[];
}

/** Decodes packets in any order. */
export class TransformedMotion {
  private readonly ends = new Map<number, CodedFrame>();

  /** `spaces`: coordinates of the source in a slot, if it is available. */
  constructor(
    private readonly tables: TransformTables,
    private readonly keypoints: number,
    private readonly spaces: (slot: number) => MotionSpace | undefined,
  ) {}

  /** Return the frames of a packet with this scale. Throws FormatError, also if its reference frame or a reference source
   * is missing. */
  decode(packet: MotionPacket, scale: number): TransformedFrame[] {
    const { reference, count, alike } = packet;
    const before = reference === null ? null : (this.ends.get(reference) ?? null);
    if (reference !== null && !before) {
      throw new FormatError(`A motion packet refers to frame ${reference}, which is not available.`);
    }
    const runs = before && alike ? [{ slot: before.slot, frames: count }] : packet.runs;
    const width = 3 * this.keypoints;
    const lengths = runs.map(({ frames }) => frames);
    const levels = decodeTransform(this.tables, packet.payload, lengths, width);
    const coordinates = decodedRuns(levels, runs, scale, before);
    if (coordinates.some((rows) => rows.some((value) => Math.abs(value) > MAX_COORDINATE))) {
      throw new FormatError("A motion packet holds a coordinate out of range.");
    }
    const frames = runs.flatMap(({ slot }, n) => {
      const space = this.spaces(slot);
      if (!space) throw new FormatError(`A motion packet names source ${slot}, which is not available.`);
      return keypointsIn(space, coordinates[n]).map((keypoints) => ({ keypoints, reference: slot }));
    });
    const decoded = frames.map((frame, n) => {
      const regions = before && alike ? before.regions : regionsOf(packet, n);
      return { number: packet.first + n, ...frame, regions };
    });
    const { number, reference: slot, regions } = decoded[count - 1];
    this.ends.set(number, { coordinates: coordinates[runs.length - 1].slice(-width), slot, regions });
    if (this.ends.size > MAX_PACKET_FRAMES) this.ends.delete(Math.min(...this.ends.keys()));
    return decoded;
  }
}
