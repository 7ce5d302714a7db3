/** How alike two regions look: patches as vectors, and the error between them (codec/sources/region_signature.py). */

import { greyLevels } from "../fit/alignment";
import { type Picture, resizeArea } from "../runtime/pictures";
import { BOX_SIDE, MASK, RIM } from "./regions";

const CONTRAST_WEIGHT = 2;
const FOCUS = [
  [0.476, 0.2, 0.16],
  [0, 0.45, 0.4],
];
const FOCUS_SHARE = [1, 0.9];
const SIDE = BOX_SIDE / 2;

/** (SIDE * SIDE,): of a patch. The squared distance of two is the mean squared error of their patches, and the norm is the
 * contrast. */
export type Signature = Float32Array;

const SMALL_MASK = Float32Array.from({ length: SIDE * SIDE }, (_, n) => {
  const at = 2 * Math.floor(n / SIDE) * BOX_SIDE + 2 * (n % SIDE);
  return (MASK[at] + MASK[at + 1] + MASK[at + BOX_SIDE] + MASK[at + BOX_SIDE + 1]) / 4;
});
const RIM_WEIGHTS = normalised(SMALL_MASK.map((share) => Number(share > RIM[0] && share < RIM[1])));
/** Roots of the weights with which squared errors of a region count. */
const ERROR_WEIGHTS = FOCUS.map(([middle, wide, high], region) => {
  const weights = SMALL_MASK.map((share, n) => {
    const across = (((n % SIDE) + 0.5) / SIDE) * 2 - 1;
    const down = ((Math.floor(n / SIDE) + 0.5) / SIDE) * 2 - 1;
    const focus = Math.exp(-0.5 * (((Math.abs(across) - middle) / wide) ** 2 + (down / high) ** 2));
    return share * (1 - FOCUS_SHARE[region] + FOCUS_SHARE[region] * focus);
  });
  return normalised(weights).map(Math.sqrt);
});

function normalised(weights: Float32Array): Float32Array {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** Return the signature of a patch of BOX_SIDE pixels. */
export function signature(patch: Picture, region: number): Signature {
  const levels = greyLevels(resizeArea(patch, SIDE));
  const mean = dot(levels, RIM_WEIGHTS);
  return levels.map((level, n) => (level - mean) * ERROR_WEIGHTS[region][n]);
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += a[n] * b[n];
  return sum;
}

/** Return the error between two signatures, in squared grey levels. */
export function errorOf(a: Signature, b: Signature): number {
  let [sum, ofA, ofB] = [0, 0, 0];
  for (let n = 0; n < a.length; n++) {
    sum += (a[n] - b[n]) ** 2;
    ofA += a[n] ** 2;
    ofB += b[n] ** 2;
  }
  return sum + CONTRAST_WEIGHT * (Math.sqrt(ofA) - Math.sqrt(ofB)) ** 2;
}
