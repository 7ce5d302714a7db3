/** Keypoints to motion packets of calls (codec/motion/encoder.py). */

import { MAX_PACKET_FRAMES, type MotionPacket, motionToBytes, regionRuns, runsOf } from "../bitstream/packets";
import { unknownsOf } from "../fit/alignment";
import { roundEven } from "../runtime/pictures";
import { encodePredictive } from "./predictive_coder";
import { chooseLevels } from "./predictive_rdo";
import { quantise, type Quantiser, STEP_XY } from "./quantiser";
import { coordinatesIn, identity, metricIn, type MotionSpace } from "./space";
import type { Tables } from "./tables";
import { type CodedFrame, decodedRuns } from "./transform_coder";
import { type Fit, quantisedMessage } from "./transform_rdo";

const LIVE_SCALE = 78;

type Regions = (number | null)[];

interface Frame {
  keypoints: Float32Array;
  reference: number | null;
  regions: Regions;
  /** In the coordinates of the reference source, if they are known. */
  fit: Fit | null;
  /** Whether the Gram matrix of the fit is known. */
  isFitted: boolean;
}

/** Quantises frames, numbered from 0, and packs them. The last MAX_PACKET_FRAMES can be packed, in any grouping and
 * repeatedly. A transform-coded frame has other keypoints in each packet that holds it; the one that later packets refer
 * to is the last frame of the packet that ended with it. */
export class MotionEncoder {
  private readonly frames = new Map<number, Frame>();
  /** Levels (K, 3) of predictively coded frames. */
  private readonly levels = new Map<number, Int32Array>();
  /** Last frames of transform-coded packets. */
  private readonly ends = new Map<number, CodedFrame>();
  private last: Int32Array | null = null;
  private lastDelta: Int32Array | null = null;
  private count = 0;
  private acknowledged: number | null = null;

  constructor(
    private readonly tables: Tables,
    private quantiser: Quantiser,
  ) {}

  /** Take the next frame and return its number. `reference`: slot of the reference source. With the Gram matrix of its
   * fit, quantisation is rate-distortion optimised. `regions`: slots that the regions show. `space`: coordinates of the
   * reference source; with them and the Gram matrix the frame is transform-coded. */
  push(
    keypoints: Float32Array,
    reference: number | null,
    gram: Float64Array | null,
    regions: Regions,
    space: MotionSpace | null,
  ): number {
    const number = this.count;
    const frame: Frame = { keypoints, reference, regions, fit: null, isFitted: false };
    if (space && reference !== null) {
      const metric = gram ? metricIn(space, gram) : identity(keypoints.length);
      frame.fit = { target: coordinatesIn(space, unknownsOf(keypoints)), gram: metric, slot: reference };
      frame.isFitted = gram !== null;
      this.last = this.lastDelta = null;
    } else this.levels.set(number, this.quantised(keypoints, reference, gram));
    this.frames.set(number, frame);
    for (const kept of [this.frames, this.levels, this.ends]) kept.delete(number - MAX_PACKET_FRAMES);
    this.count += 1;
    return number;
  }

  private quantised(keypoints: Float32Array, reference: number | null, gram: Float64Array | null): Int32Array {
    const { last } = this;
    const { inter, means } = this.tables.predictive;
    const before = this.frames.get(this.count - 1);
    let levels: Int32Array;
    if (last && gram && means.length === keypoints.length && before && reference === before.reference) {
      levels = chooseLevels(keypoints, gram, this.quantiser, last, this.lastDelta ?? new Int32Array(last.length), inter);
    } else levels = quantise(keypoints, this.quantiser, last);
    this.lastDelta = last && levels.map((level, i) => level - last[i]);
    this.last = levels;
    return levels;
  }

  /** Change the quantiser from the next frame on. Earlier frames of the predictive coder can no longer be packed or
   * predicted from. */
  requantise(quantiser: Quantiser): void {
    this.quantiser = quantiser;
    this.last = this.lastDelta = null;
    this.levels.clear();
  }

  /** Predict from no frame pushed so far, and name no sources of theirs: the receiver may have lost its state, or the
   * slots may hold other sources. */
  forget(): void {
    for (const [number, { keypoints }] of this.frames) {
      this.frames.set(number, { keypoints, reference: null, regions: [], fit: null, isFitted: false });
    }
    this.levels.clear();
    this.ends.clear();
    this.last = this.lastDelta = this.acknowledged = null;
  }

  /** The receiver has decoded this frame; numbers no longer kept, or older ones, have no effect. */
  acknowledge(number: number): void {
    const isKnown = this.levels.has(number) || this.ends.has(number);
    if (isKnown && number > (this.acknowledged ?? -1)) this.acknowledged = number;
  }

  /** Pack `count` kept frames, independently or predicted from the newest acknowledged frame. */
  pack(first: number, count: number): Uint8Array {
    const frames = Array.from({ length: count }, (_, n) => this.frames.get(first + n) as Frame);
    const fits = frames.flatMap(({ fit }) => (fit ? [fit] : []));
    const regions = frames.map((frame) => frame.regions);
    if (fits.length === count && frames.some(({ isFitted }) => isFitted)) return this.transformed(first, fits, regions);
    const levels = frames.map(({ keypoints }, n) => this.levelsOf(first + n, keypoints));
    const runs = runsOf(frames.map((frame) => frame.reference));
    const packed = (reference: number | null, before: Int32Array | null) => {
      const payload = encodePredictive(this.tables.predictive, levels, before);
      return bytesOf({ first, count, reference, payload, runs, regions: regionRuns(regions) });
    };
    const independent = packed(null, null);
    const reference = this.acknowledged;
    const before = reference !== null && reference < first ? this.levels.get(reference) : null;
    if (!before) return independent;
    const predicted = packed(reference, before);
    return predicted.length < independent.length ? predicted : independent;
  }

  /** Return the levels of a frame, also of one that could be transform-coded if the others of its packet could. */
  private levelsOf(number: number, keypoints: Float32Array): Int32Array {
    let levels = this.levels.get(number);
    if (!levels) {
      levels = quantise(keypoints, this.quantiser, this.levels.get(number - 1) ?? null);
      this.levels.set(number, levels);
    }
    return levels;
  }

  private transformed(first: number, fits: Fit[], regions: Regions[]): Uint8Array {
    const count = fits.length;
    const reference = this.referenceOf(fits, first);
    const before = reference === null ? null : (this.ends.get(reference) as CodedFrame);
    const scale = LIVE_SCALE + roundEven(16 * Math.log2(this.quantiser.stepXy / STEP_XY));
    const { levels, runs, payload } = quantisedMessage(this.tables.transform, differences(fits, before), scale);
    const { slot } = fits[count - 1];
    const coordinates = decodedRuns(levels, runs, scale, before)[runs.length - 1].slice(-fits[0].target.length);
    this.ends.set(first + count - 1, { coordinates, slot, regions: regions[count - 1] });
    const isAlike = before && runs.length === 1 && regions.every((shown) => areEqual(shown, before.regions));
    const packet = { first, count, reference, payload, scale };
    return bytesOf(isAlike ? { ...packet, alike: true } : { ...packet, runs, regions: regionRuns(regions) });
  }

  /** Return the frame that a packet is predicted from; null if there is none, or the sources themselves are nearer. */
  private referenceOf(fits: Fit[], first: number): number | null {
    const number = this.acknowledged;
    const before = number === null || number >= first ? undefined : this.ends.get(number);
    if (!before) return null;
    const targets = fits.filter(({ slot }) => slot === before.slot).map(({ target }) => target);
    if (!targets.length) return null;
    let [without, withIt] = [0, 0];
    for (const target of targets) {
      target.forEach((value, i) => {
        without += value ** 2;
        withIt += (value - before.coordinates[i]) ** 2;
      });
    }
    return withIt <= without ? number : null;
  }
}

/** Return fits less the coordinates of the reference frame, where its source is theirs. */
function differences(fits: Fit[], before: CodedFrame | null): Fit[] {
  if (!before) return fits;
  return fits.map((fit) =>
    fit.slot === before.slot ? { ...fit, target: fit.target.map((value, i) => value - before.coordinates[i]) } : fit,
  );
}

function areEqual(a: Regions, b: Regions): boolean {
  return a.length === b.length && a.every((slot, n) => slot === b[n]);
}

function bytesOf(packet: Partial<MotionPacket> & Pick<MotionPacket, "first" | "count" | "reference" | "payload">): Uint8Array {
  return motionToBytes({ kind: "motion", runs: [], regions: [], scale: null, alike: false, ...packet });
}
