/** Transform coder: the motion of a message as DCT coefficients (codec/motion/transform_coder.py). */

import { MAX_PACKET_FRAMES, type Run } from "../bitstream/packets";
import { FormatError } from "../errors";
import { RangeDecoder, UniformModel } from "./range_decoder";
import { RangeEncoder } from "./range_encoder";
import type { TransformTables } from "./tables";

export const REACH = 15;
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
  const rows = new Rows(length, coordinates);
  for (let frequency = 0; frequency < used; frequency++) {
    rows.begin(frequency);
    for (let i = 0; i < coordinates; i++) {
      const symbol = decoder.decode(tables.models[rows.at(i)]);
      const level = symbol === ESCAPE ? escaped(decoder) : symbol - REACH;
      levels[frequency * coordinates + i] = level;
      rows.set(i, level);
    }
  }
  return levels;
}

/** Encode the levels (n, 3 K) of each run, given the runs' `lengths` n in frames. */
export function encodeTransform(tables: TransformTables, runs: Int32Array[], lengths: number[]): Uint8Array {
  const encoder = new RangeEncoder();
  for (const [n, levels] of runs.entries()) {
    const coordinates = levels.length / lengths[n];
    const used = usedFrequencies(levels, coordinates);
    encoder.encode(used, new UniformModel(lengths[n] + 1));
    const rows = new Rows(lengths[n], coordinates);
    for (let frequency = 0; frequency < used; frequency++) {
      rows.begin(frequency);
      for (let i = 0; i < coordinates; i++) {
        const level = levels[frequency * coordinates + i];
        const isEscaped = Math.abs(level) > REACH;
        encoder.encode(isEscaped ? ESCAPE : level + REACH, tables.models[rows.at(i)]);
        if (isEscaped) encodeEscaped(encoder, level);
        rows.set(i, level);
      }
    }
  }
  return encoder.bytes();
}

/** Return the number of lowest frequencies that hold every level (n, 3 K) other than 0. */
export function usedFrequencies(levels: Int32Array, coordinates: number): number {
  let last = levels.length - 1;
  while (last >= 0 && !levels[last]) last -= 1;
  return Math.floor(last / coordinates) + 1;
}

/** Selects the tables of a run's levels, from the lowest frequency up: by frequency, coordinate, and the magnitudes of
 * the neighbours that are known. */
export class Rows {
  /** Magnitudes of the frequency in hand and of the two below it; two zeros precede coordinate 0, one follows. */
  private own: Int32Array;
  private last: Int32Array;
  private before: Int32Array;
  private base = 0;
  private readonly coordinateRows: number[];

  constructor(
    private readonly length: number,
    coordinates: number,
  ) {
    [this.own, this.last, this.before] = [0, 1, 2].map(() => new Int32Array(coordinates + 3));
    this.coordinateRows = Array.from({ length: coordinates }, (_, i) => classOf(COORDINATE_EDGES, i) * ACTIVITIES);
  }

  /** Go on to a frequency: 0, then the next one each time. `levels` (3 K,): those known beforehand. */
  begin(frequency: number, levels?: Int32Array): void {
    [this.own, this.last, this.before] = [this.before, this.own, this.last];
    this.own.fill(0);
    levels?.forEach((level, i) => this.set(i, level));
    this.base = classOf(FREQUENCY_EDGES, (frequency * (FRAME_RATE / 2)) / this.length) * COORDINATES * ACTIVITIES;
  }

  /** Note the level of coordinate `i`. */
  set(i: number, level: number): void {
    this.own[i + 2] = Math.abs(level);
  }

  /** Return the row of coordinate `i`. */
  at(i: number): number {
    const { own, last, before } = this;
    const activity = 2 * own[i + 1] + own[i] + 2 * last[i + 2] + last[i + 1] + last[i + 3] + before[i + 2];
    return this.base + this.coordinateRows[i] + ACTIVITY[Math.min(activity >> 1, MOST_ACTIVE)];
  }
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

/** A transform-coded frame as decoded, from which others may be predicted. */
export interface CodedFrame {
  /** (3 K,): in the coordinates of the source in `slot`. */
  coordinates: Float64Array;
  slot: number;
  /** Slots of the sources that the regions show; null: the source in `slot`. */
  regions: (number | null)[];
}

/** Return the coordinates (n, 3 K) of each run's frames from its levels (n, 3 K). `before`: the reference frame. */
export function decodedRuns(levels: Int32Array[], runs: Run[], scale: number, before: CodedFrame | null): Float64Array[] {
  return runs.map(({ slot, frames }, n) => {
    const rows = inverseTransform(levels[n], frames, scale);
    const origin = before?.slot === slot ? before.coordinates : null;
    return origin ? rows.map((value, i) => value + origin[i % origin.length]) : rows;
  });
}
