/** Keypoints to motion packets of the predictive coder (codec/motion/encoder.py). */

import { MAX_PACKET_FRAMES, type MotionPacket, motionToBytes, regionRuns, runsOf } from "../bitstream/packets";
import { encodePredictive } from "./predictive_coder";
import { chooseLevels } from "./predictive_rdo";
import { quantise, type Quantiser } from "./quantiser";
import type { PredictiveTables } from "./tables";

interface Frame {
  keypoints: Float32Array;
  levels: Int32Array | null;
  reference: number | null;
  regions: (number | null)[];
}

/** Quantises frames, numbered from 0, and packs them. The last MAX_PACKET_FRAMES can be packed, in any grouping. */
export class MotionEncoder {
  private readonly frames = new Map<number, Frame>();
  private last: Int32Array | null = null;
  private lastDelta: Int32Array | null = null;
  private count = 0;
  private acknowledged: number | null = null;

  constructor(
    private readonly tables: PredictiveTables,
    private quantiser: Quantiser,
  ) {}

  /** Quantise the next frame and return its number. `reference`: slot of the reference source. With the Gram matrix of
   * its fit, quantisation is rate-distortion optimised. `regions`: slots that the regions show. */
  push(
    keypoints: Float32Array,
    reference: number | null,
    gram: Float64Array | null,
    regions: (number | null)[],
  ): number {
    const { last } = this;
    const known = this.tables.means.length === keypoints.length;
    const before = this.frames.get(this.count - 1)?.reference ?? null;
    let levels: Int32Array;
    if (last && gram && known && reference === before) {
      const lastDelta = this.lastDelta ?? new Int32Array(last.length);
      levels = chooseLevels(keypoints, gram, this.quantiser, last, lastDelta, this.tables.inter);
    } else levels = quantise(keypoints, this.quantiser, last);
    this.lastDelta = last && levels.map((level, i) => level - last[i]);
    this.last = levels;
    this.frames.set(this.count, { keypoints, levels, reference, regions });
    this.frames.delete(this.count - MAX_PACKET_FRAMES);
    this.count += 1;
    return this.count - 1;
  }

  /** Change the quantiser from the next frame on. Earlier frames can no longer be packed or predicted from. */
  requantise(quantiser: Quantiser): void {
    this.quantiser = quantiser;
    this.last = this.lastDelta = this.acknowledged = null;
    this.frames.clear();
  }

  /** Predict from no frame pushed so far, and name no sources of theirs: the receiver may have lost its state, or the
   * slots may hold other sources. */
  forget(): void {
    for (const [number, { keypoints }] of this.frames) {
      this.frames.set(number, { keypoints, levels: null, reference: null, regions: [] });
    }
    this.last = this.lastDelta = this.acknowledged = null;
  }

  /** The receiver has decoded this frame; numbers no longer kept, or older ones, have no effect. */
  acknowledge(number: number): void {
    if (this.frames.has(number) && number > (this.acknowledged ?? -1)) this.acknowledged = number;
  }

  /** Pack `count` kept frames, independently or predicted from the newest acknowledged frame, whichever is shorter. */
  pack(first: number, count: number): Uint8Array {
    const frames = Array.from({ length: count }, (_, n) => this.frames.get(first + n) as Frame);
    const levels = frames.map((_, n) => this.levelsOf(first + n));
    const runs = runsOf(frames.map((frame) => frame.reference));
    const regions = regionRuns(frames.map((frame) => frame.regions));
    const packed = (reference: number | null, before: Int32Array | null) => {
      const payload = encodePredictive(this.tables, levels, before);
      const packet: MotionPacket = { kind: "motion", first, count, reference, payload, runs, scale: null, regions, alike: false };
      return motionToBytes(packet);
    };
    const independent = packed(null, null);
    const reference = this.acknowledged;
    const before = reference !== null && reference < first ? this.frames.get(reference)?.levels : null;
    if (!before) return independent;
    const predicted = packed(reference, before);
    return predicted.length < independent.length ? predicted : independent;
  }

  private levelsOf(number: number): Int32Array {
    const frame = this.frames.get(number) as Frame;
    frame.levels ??= quantise(frame.keypoints, this.quantiser, this.frames.get(number - 1)?.levels ?? null);
    return frame.levels;
  }
}
