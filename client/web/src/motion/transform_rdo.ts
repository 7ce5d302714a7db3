/** Rate-distortion optimised quantisation of whole messages (codec/motion/transform_rdo.py). */

import type { Run } from "../bitstream/packets";
import { roundEven } from "../runtime/pictures";
import { nearestPlaneFactor } from "./nearest_plane";
import { MAX_LEVEL } from "./quantiser";
import type { TransformTables } from "./tables";
import { encodeTransform, REACH, Rows, stepOf, usedFrequencies } from "./transform_coder";

const ERROR_PER_BIT = 0.01;
const DESCENT_PASSES = 2;
const DESCENT_PRICE = 1.5;
const MIN_DESCENT_MOVE = 0.35;
const MIN_COEFFICIENT = 0.3;
const MIN_METRIC_SHARE = 1e-3;
const RAW_BITS = 16;

/** A fitted frame in the coordinates of the source in `slot`: its error is (x - target)^T gram (x - target). */
export interface Fit {
  /** (3 K,). */
  target: Float64Array;
  /** (3 K, 3 K). */
  gram: Float64Array;
  slot: number;
}

/** The coded motion of consecutive frames. */
export interface Message {
  /** (n, 3 K) of each run of n frames. */
  levels: Int32Array[];
  runs: Run[];
  payload: Uint8Array;
}

/** Quantise and code consecutive frames. */
export function quantisedMessage(tables: TransformTables, frames: Fit[], scale: number): Message {
  const runs: Run[] = [];
  for (const { slot } of frames) {
    if (runs[runs.length - 1]?.slot === slot) runs[runs.length - 1].frames += 1;
    else runs.push({ slot, frames: 1 });
  }
  let at = 0;
  const levels = runs.map((run) => quantisedRun(tables, frames.slice(at, (at += run.frames)), stepOf(scale)));
  return { levels, runs, payload: encodeTransform(tables, levels, runs.map((run) => run.frames)) };
}

/** Return the levels (n, 3 K) of a run of n frames. */
function quantisedRun({ bits }: TransformTables, frames: Fit[], step: number): Int32Array {
  const count = frames.length;
  const width = frames[0].target.length;
  const levels = new Int32Array(count * width);
  const gram = meanOf(frames.map((frame) => frame.gram));
  if (!gram.some((value) => value !== 0)) return levels;
  const factor = nearestPlaneFactor(gram);
  const waves = dctMatrix(count);
  const targets = interpolatedTargets(frames);
  const rows = new Rows(count, width);
  const price = ERROR_PER_BIT * step ** 2;
  for (let frequency = 0; frequency < count; frequency++) {
    rows.begin(frequency);
    const target = new Float64Array(width);
    targets.forEach((row, t) => row.forEach((value, i) => (target[i] += waves[frequency][t] * value)));
    if (!target.some((value) => Math.abs(value) >= MIN_COEFFICIENT * step)) continue;
    for (let i = 0; i < width; i++) {
      const known = bits[rows.at(i)];
      const scale = factor[i * width + i];
      const nearest = Math.max(-MAX_LEVEL, Math.min(MAX_LEVEL, roundEven(target[i] / step)));
      let [level, missed, least] = [0, target[i] / scale, Infinity];
      for (const candidate of [0, nearest, nearest - Math.sign(nearest)]) {
        const miss = (target[i] - candidate * step) / scale;
        const cost = miss * miss + price * bitsOf(known, candidate);
        if (cost < least) [level, missed, least] = [candidate, miss, cost];
      }
      levels[frequency * width + i] = level;
      rows.set(i, level);
      for (let later = i + 1; later < width; later++) target[later] -= missed * factor[i * width + later];
    }
  }
  descend(bits, levels, frames, targets, waves, step);
  return levels;
}

/** Improve the levels (n, 3 K) of a run in place by coordinate descent on the error and bits of all frames. */
function descend(
  bits: Float64Array[],
  levels: Int32Array,
  frames: Fit[],
  targets: Float64Array[],
  unitWaves: Float64Array[],
  step: number,
): void {
  const count = frames.length;
  const width = targets[0].length;
  const price = DESCENT_PRICE * ERROR_PER_BIT * step ** 2;
  const used = Math.min(usedFrequencies(levels, width) + 1, count);
  const waves = unitWaves.map((wave) => wave.map((value) => value * step));
  const gradients = frames.map(({ gram }, t) => gradientOf(gram, residualOf(targets[t], levels, unitWaves, t, step)));
  const slopeOf = (frequency: number, i: number) =>
    gradients.reduce((sum, gradient, t) => sum + gradient[i] * waves[frequency][t], 0);
  const curvatures = waves.map((wave) =>
    targets[0].map((_, i) => frames.reduce((sum, { gram }, t) => sum + wave[t] ** 2 * gram[i * width + i], 0)),
  );
  for (let pass = 0; pass < DESCENT_PASSES; pass++) {
    let changed = false;
    const rows = new Rows(count, width);
    for (let frequency = 0; frequency < used; frequency++) {
      const row = levels.subarray(frequency * width, (frequency + 1) * width);
      rows.begin(frequency, row);
      // Chosen before any of them is changed.
      const isFar = Uint8Array.from(row, (level, i) =>
        Number(level !== 0 || Math.abs(slopeOf(frequency, i)) > MIN_DESCENT_MOVE * curvatures[frequency][i]),
      );
      for (let i = 0; i < width; i++) {
        if (!isFar[i]) continue;
        const level = row[i];
        const known = bits[rows.at(i)];
        const slope = slopeOf(frequency, i);
        let [best, least] = [level, price * bitsOf(known, level)];
        for (const candidate of [level - 1, level + 1, 0]) {
          if (Math.abs(candidate) > MAX_LEVEL) continue;
          const by = candidate - level;
          const cost = by * (by * curvatures[frequency][i] - 2 * slope) + price * bitsOf(known, candidate);
          if (cost < least) [best, least] = [candidate, cost];
        }
        if (best === level) continue;
        frames.forEach(({ gram }, t) => {
          const weight = (best - level) * waves[frequency][t];
          for (let j = 0; j < width; j++) gradients[t][j] -= weight * gram[j * width + i];
        });
        row[i] = best;
        rows.set(i, best);
        changed = true;
      }
    }
    if (!changed) return;
  }
}

/** Return the deviation of frame `t` from its target (3 K,). */
function residualOf(
  target: Float64Array,
  levels: Int32Array,
  waves: Float64Array[],
  t: number,
  step: number,
): Float64Array {
  const out = Float64Array.from(target);
  const width = target.length;
  waves.forEach((wave, frequency) => {
    for (let i = 0; i < width; i++) out[i] -= wave[t] * levels[frequency * width + i] * step;
  });
  return out;
}

/** Return minus half the derivative (3 K,) of a frame's error. */
function gradientOf(gram: Float64Array, residual: Float64Array): Float64Array {
  const width = residual.length;
  return residual.map((_, i) => residual.reduce((sum, value, j) => sum + gram[i * width + j] * value, 0));
}

/** Return the bits of a level, given the bits of each symbol of its table. */
function bitsOf(bits: Float64Array, level: number): number {
  return Math.abs(level) <= REACH ? bits[level + REACH] : bits[bits.length - 1] + RAW_BITS;
}

/** Return the orthonormal DCT-II over `count` frames; rows are frequencies. */
function dctMatrix(count: number): Float64Array[] {
  return Array.from({ length: count }, (_, frequency) => {
    const weight = Math.sqrt((frequency ? 2 : 1) / count);
    return Float64Array.from({ length: count }, (_, t) => weight * Math.cos((frequency * (t + 0.5) * Math.PI) / count));
  });
}

function meanOf(grams: Float64Array[]): Float64Array {
  return grams[0].map((_, n) => grams.reduce((sum, gram) => sum + gram[n], 0) / grams.length);
}

/** Return the targets of frames; those whose metric is below MIN_METRIC_SHARE are interpolated linearly over time. */
function interpolatedTargets(frames: Fit[]): Float64Array[] {
  const width = frames[0].target.length;
  const traces = frames.map(({ gram }) => {
    let trace = 0;
    for (let i = 0; i < width; i++) trace += gram[i * width + i];
    return trace;
  });
  const least = MIN_METRIC_SHARE * Math.max(...traces);
  const kept = frames.flatMap((_, t) => (traces[t] > least ? [t] : []));
  return frames.map(({ target }, t) => {
    if (traces[t] > least) return target;
    const right = kept.findIndex((other) => other > t);
    if (right <= 0) return frames[right < 0 ? kept[kept.length - 1] : kept[0]].target;
    const [from, to] = [kept[right - 1], kept[right]];
    const share = (t - from) / (to - from);
    return frames[from].target.map((value, i) => value + share * (frames[to].target[i] - value));
  });
}
