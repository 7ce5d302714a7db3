/** Predictive coder of calls and recorded calls (codec/motion/predictive_coder.py, prediction.py, decoder.py). */

import { MAX_PACKET_FRAMES, type MotionPacket } from "../bitstream/packets";
import { FormatError } from "../errors";
import { MAX_LEVEL } from "./quantiser";
import { RangeDecoder } from "./range_decoder";
import { RangeEncoder } from "./range_encoder";
import type { PredictiveTables } from "./tables";
import { classOf, encodeEscaped, ESCAPE_RANGE, escaped } from "./transform_coder";

const REACH = 31;
const ESCAPE = 2 * REACH + 1;
const OWN_CLASSES = 4;
const FRAME_CLASSES = 6;
const CAUSAL_CLASSES = 5;
const FRAME_EDGES = [1, 5, 11, 21, 41];
const CAUSAL_EDGES = [0, 2, 5, 10];
const INTRA = 2 * OWN_CLASSES * FRAME_CLASSES * CAUSAL_CLASSES;
export const SHIFT = 12;

/** What is known before a frame; levels, deltas and residuals are (K, 3). */
interface State {
  last: Int32Array;
  lastDelta: Int32Array;
  /** Residuals of the previous frame; null before an intra frame. */
  lastResiduals: Int32Array | null;
}

/** Decode the levels (K, 3) of each of `count` frames, given those of any reference frame. Throws FormatError. */
export function decodePredictive(
  tables: PredictiveTables,
  payload: Uint8Array,
  count: number,
  keypoints: number,
  reference: Int32Array | null,
): Int32Array[] {
  if (count < 1 || count > MAX_PACKET_FRAMES || keypoints < 1 || keypoints > 64) {
    throw new FormatError(`A motion message cannot hold ${count} frames of ${keypoints} keypoints.`);
  }
  if (payload.length > 64 + count * keypoints * 24) {
    throw new FormatError(`A motion message of ${payload.length} bytes is too long for ${count} frames.`);
  }
  const decoder = new RangeDecoder(payload);
  let state = firstState(tables, keypoints, reference);
  const frames: Int32Array[] = [];
  for (let n = 0; n < count; n++) {
    const { delta, residuals } = decodeFrame(tables, weightsOf(tables, state), decoder, state, keypoints);
    const levels = state.last.map((level, i) => level + delta[i]);
    if (levels.some((level) => Math.abs(level) > MAX_LEVEL)) {
      throw new FormatError("A motion message holds a level out of range.");
    }
    frames.push(levels);
    state = nextState(state, levels, delta, residuals);
  }
  return frames;
}

/** Encode the levels (K, 3) of each frame, given those of any reference frame. */
export function encodePredictive(
  tables: PredictiveTables,
  frames: Int32Array[],
  reference: Int32Array | null,
): Uint8Array {
  const encoder = new RangeEncoder();
  const keypoints = frames[0].length / 3;
  let state = firstState(tables, keypoints, reference);
  for (const levels of frames) {
    const delta = levels.map((level, i) => level - state.last[i]);
    const residuals = encodeFrame(tables, weightsOf(tables, state), encoder, state, delta);
    state = nextState(state, levels, delta, residuals);
  }
  return encoder.bytes();
}

function firstState(tables: PredictiveTables, keypoints: number, reference: Int32Array | null): State {
  const zeros = new Int32Array(3 * keypoints);
  if (reference) return { last: reference, lastDelta: zeros, lastResiduals: zeros };
  const known = tables.means.length === 3 * keypoints;
  return { last: known ? tables.means : zeros, lastDelta: zeros, lastResiduals: null };
}

function nextState(state: State, levels: Int32Array, delta: Int32Array, residuals: Int32Array): State {
  if (state.lastResiduals) return { last: levels, lastDelta: delta, lastResiduals: residuals };
  const zeros = new Int32Array(levels.length);
  return { last: levels, lastDelta: zeros, lastResiduals: zeros }; // deviations from the means do not predict motion
}

/** Return the weights of the next frame; null if the tables are for another number of keypoints. */
function weightsOf(tables: PredictiveTables, { last, lastResiduals }: State): Int32Array | null {
  if (tables.means.length !== last.length) return null;
  return lastResiduals ? tables.inter : tables.intra;
}

/** Encode the deltas (K, 3) of a frame; return its residuals. */
function encodeFrame(
  tables: PredictiveTables,
  weights: Int32Array | null,
  encoder: RangeEncoder,
  { lastDelta, lastResiduals }: State,
  delta: Int32Array,
): Int32Array {
  const keypoints = delta.length / 3;
  const contexts = frameContexts(lastResiduals, keypoints);
  const residuals = delta.map((value, i) =>
    wrap(value - (weights ? predict(weights, i, i % 3, delta, lastDelta, keypoints) : 0)),
  );
  let [places, strengths] = [0, 0];
  for (let k = 0; k < keypoints; k++) {
    const placeClass = causalClass(places, 2 * k);
    const classes = [placeClass, placeClass, causalClass(strengths, k)];
    const own = residuals.subarray(3 * k, 3 * k + 3);
    own.forEach((residual, axis) => {
      const symbol = Math.abs(residual) <= REACH ? residual + REACH : ESCAPE;
      encoder.encode(symbol, tables.models[contexts[3 * k + axis] + classes[axis]]);
    });
    for (const residual of own) if (Math.abs(residual) > REACH) encodeEscaped(encoder, residual);
    places += Math.abs(own[0]) + Math.abs(own[1]);
    strengths += Math.abs(own[2]);
  }
  return residuals;
}

function decodeFrame(
  tables: PredictiveTables,
  weights: Int32Array | null,
  decoder: RangeDecoder,
  { last, lastDelta, lastResiduals }: State,
  keypoints: number,
): { delta: Int32Array; residuals: Int32Array } {
  const delta = new Int32Array(3 * keypoints);
  const residuals = new Int32Array(3 * keypoints);
  const contexts = frameContexts(lastResiduals, keypoints);
  let [places, strengths] = [0, 0]; // magnitudes decoded so far in this frame
  for (let k = 0; k < keypoints; k++) {
    const placeClass = causalClass(places, 2 * k);
    const classes = [placeClass, placeClass, causalClass(strengths, k)];
    const symbols = classes.map((causal, axis) => decoder.decode(tables.models[contexts[3 * k + axis] + causal]));
    for (let axis = 0; axis < 3; axis++) {
      residuals[3 * k + axis] = symbols[axis] === ESCAPE ? escaped(decoder) : symbols[axis] - REACH;
    }
    for (let axis = 0; axis < 3; axis++) {
      const i = 3 * k + axis;
      const predicted = weights ? predict(weights, i, axis, delta, lastDelta, keypoints) : 0;
      delta[i] = wrap(last[i] + predicted + residuals[i]) - last[i];
    }
    places += Math.abs(residuals[3 * k]) + Math.abs(residuals[3 * k + 1]);
    strengths += Math.abs(residuals[3 * k + 2]);
  }
  return { delta, residuals };
}

/** Predict the delta of value `i` from those before it, whatever `delta` holds from it on (their weights are 0). The sum of products stays far below 2 ** 53, so it is exact. */
function predict(
  weights: Int32Array,
  i: number,
  axis: number,
  delta: Int32Array,
  lastDelta: Int32Array,
  keypoints: number,
): number {
  let sum = 0;
  const row = i * 2 * keypoints;
  for (let k = 0; k < keypoints; k++) {
    sum += weights[row + k] * delta[3 * k + axis] + weights[row + keypoints + k] * lastDelta[3 * k + axis];
  }
  return Math.floor((sum + (1 << (SHIFT - 1))) / (1 << SHIFT));
}

function frameContexts(lastResiduals: Int32Array | null, keypoints: number): number[] {
  if (!lastResiduals) {
    return Array.from({ length: 3 * keypoints }, (_, i) => INTRA + (i % 3 === 2 ? CAUSAL_CLASSES : 0));
  }
  let [places, strengths] = [0, 0];
  lastResiduals.forEach((residual, i) => {
    if (i % 3 === 2) strengths += Math.abs(residual);
    else places += Math.abs(residual);
  });
  const placeClass = classOf(FRAME_EDGES, Math.floor(places / 2));
  const strengthClass = classOf(FRAME_EDGES, strengths);
  return Array.from(lastResiduals, (residual, i) => {
    const strength = i % 3 === 2;
    const own = (strength ? OWN_CLASSES : 0) + Math.min(Math.abs(residual), OWN_CLASSES - 1);
    return (own * FRAME_CLASSES + (strength ? strengthClass : placeClass)) * CAUSAL_CLASSES;
  });
}

function causalClass(sum: number, coded: number): number {
  return classOf(CAUSAL_EDGES, coded ? Math.floor((sum * 8) / coded) : 4);
}

/** Wrap to signed 16 bits. */
function wrap(value: number): number {
  return ((value + ESCAPE_RANGE / 2) & (ESCAPE_RANGE - 1)) - ESCAPE_RANGE / 2;
}

/** Decodes packets in any order; keeps the levels of the newest frames, from which further ones may be predicted. */
export class MotionDecoder {
  private readonly levels = new Map<number, { coarseness: number; levels: Int32Array }>();

  constructor(
    private readonly tables: PredictiveTables,
    private readonly keypoints: number,
  ) {}

  /** Highest frame number decoded; null before the first. */
  get newest(): number | null {
    return this.levels.size ? Math.max(...this.levels.keys()) : null;
  }

  /** Return the levels (K, 3) of a packet's frames, coded with steps 2 ** `coarseness` times the usual ones. Throws
   * FormatError, also if the reference frame is missing or was coded with other steps. */
  decode(packet: MotionPacket, coarseness = 0): Int32Array[] {
    if (packet.scale !== null) throw new FormatError("The packet is of the transform coder, which calls do not use.");
    let reference: Int32Array | null = null;
    if (packet.reference !== null) {
      const kept = this.levels.get(packet.reference);
      reference = kept?.coarseness === coarseness ? kept.levels : null;
      if (!reference) {
        throw new FormatError(`A motion packet refers to frame ${packet.reference}, which is not available.`);
      }
    }
    const frames = decodePredictive(this.tables, packet.payload, packet.count, this.keypoints, reference);
    frames.forEach((levels, n) => this.levels.set(packet.first + n, { coarseness, levels }));
    const numbers = [...this.levels.keys()].sort((a, b) => a - b);
    for (const number of numbers.slice(0, Math.max(0, numbers.length - MAX_PACKET_FRAMES))) this.levels.delete(number);
    return frames;
  }
}
