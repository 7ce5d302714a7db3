/** Transform coder of files: the motion of a message as DCT coefficients (codec/motion/transform_coder.py). */

import { MAX_PACKET_FRAMES } from "../bitstream/packets";
import { FormatError } from "../errors";
import { RangeDecoder, UniformModel } from "./range_decoder";
import type { RangeEncoder } from "./range_encoder";
import type { TransformTables } from "./tables";

const REACH = 15;
const ESCAPE = 2 * REACH + 1;
export const ESCAPE_RANGE = 1 << 16;
const FREQUENCY_EDGES = [0.01, 0.3, 0.6, 1.1, 2.1, 4.1, 7.0];
const COORDINATE_EDGES = [1, 3, 6, 10, 16, 24, 36];
const ACTIVITY_EDGES = [0, 1, 2, 3, 5, 8];
const FRAME_RATE = 27;
const COORDINATES = COORDINATE_EDGES.length + 1;
const ACTIVITIES = ACTIVITY_EDGES.length + 1;
const MOST_ACTIVE = ACTIVITY_EDGES[ACTIVITY_EDGES.length - 1];
const ACTIVITY = Array.from({ length: MOST_ACTIVE + 1 }, (_, n) => classOf(ACTIVITY_EDGES, n));
const RAW = new UniformModel(ESCAPE_RANGE);

/** Return how many of the ascending edges are at most `value`. */
export function classOf(edges: number[], value: number): number {
  return edges.filter((edge) => edge <= value).length;
}

/** Decode the levels (n, 3 K) of each run, given the runs' `lengths` n in frames and `coordinates` 3 K. Throws
 * FormatError for an invalid payload. */
export function decodeTransform(
  tables: TransformTables,
  payload: Uint8Array,
  lengths: number[],
  coordinates: number,
): Int32Array[] {
  const count = lengths.reduce((sum, length) => sum + length, 0);
  if (count < 1 || count > MAX_PACKET_FRAMES || lengths.some((length) => length < 1)) {
    throw new FormatError(`A motion message cannot hold runs of ${lengths} frames.`);
  }
  if (payload.length > 64 + count * coordinates * 8) {
    throw new FormatError(`A motion message of ${payload.length} bytes is too long for ${count} frames.`);
  }
  const decoder = new RangeDecoder(payload);
  return lengths.map((length) => decodeRun(tables, decoder, length, coordinates));
}

function decodeRun(tables: TransformTables, decoder: RangeDecoder, length: number, coordinates: number): Int32Array {
  const used = decoder.decode(new UniformModel(length + 1));
  const levels = new Int32Array(length * coordinates);
  // Magnitudes of the frequency being decoded and of the two below it; two zeros precede coordinate 0, one follows.
  let [own, last, before] = [0, 1, 2].map(() => new Int32Array(coordinates + 3));
  for (let frequency = 0; frequency < used; frequency++) {
    [own, last, before] = [before, own, last];
    own.fill(0);
    const frequencyClass = classOf(FREQUENCY_EDGES, (frequency * (FRAME_RATE / 2)) / length);
    for (let i = 0; i < coordinates; i++) {
      const activity = 2 * own[i + 1] + own[i] + 2 * last[i + 2] + last[i + 1] + last[i + 3] + before[i + 2];
      const base = (frequencyClass * COORDINATES + classOf(COORDINATE_EDGES, i)) * ACTIVITIES;
      const symbol = decoder.decode(tables.models[base + ACTIVITY[Math.min(activity >> 1, MOST_ACTIVE)]]);
      const level = symbol === ESCAPE ? escaped(decoder) : symbol - REACH;
      levels[frequency * coordinates + i] = level;
      own[i + 2] = Math.abs(level);
    }
  }
  return levels;
}

/** Decode a level that has no symbol of its own. */
export function escaped(decoder: RangeDecoder): number {
  return (decoder.decode(RAW) ^ (ESCAPE_RANGE / 2)) - ESCAPE_RANGE / 2;
}

/** Encode a level that has no symbol of its own. */
export function encodeEscaped(encoder: RangeEncoder, level: number): void {
  encoder.encode(level & (ESCAPE_RANGE - 1), RAW);
}

/** Return the quantisation step of a scale 0 to 255. */
export function stepOf(scale: number): number {
  return 2 ** (scale / 16 - 6);
}

/** Return the coordinates (n, 3 K) of a run's frames from the levels (n, 3 K) of its frequencies: inverse DCT-II. */
export function inverseTransform(levels: Int32Array, length: number, scale: number): Float64Array {
  const width = levels.length / length;
  const out = new Float64Array(levels.length);
  for (let frequency = 0; frequency < length; frequency++) {
    const row = levels.subarray(frequency * width, (frequency + 1) * width);
    if (row.every((level) => level === 0)) continue;
    const weight = stepOf(scale) * Math.sqrt((frequency ? 2 : 1) / length);
    for (let frame = 0; frame < length; frame++) {
      const factor = weight * Math.cos((frequency * (frame + 0.5) * Math.PI) / length);
      for (let i = 0; i < width; i++) out[frame * width + i] += factor * row[i];
    }
  }
  return out;
}
