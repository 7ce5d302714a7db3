/**
 * How a source's cells move with keypoints, how visible an error of each keypoint is, and the alignment of a warped source
 * with a picture by Gauss-Newton steps (codec/fit/alignment.py).
 */

import { type Picture, resizeArea, resizeLinear } from "../runtime/pictures";
import type { Source } from "../runtime/types";
import { sumsOf } from "./cell_sums";
import { blurred, CELLS, FLOW_SIZE, GRID, inverted, sampled, tensorsOf } from "./views";

/** Standard deviations of the blurs, in pixels; errors are measured at the last one. */
export const BLURS = [2.5, 1.2, 0.7];
const FINEST = BLURS[BLURS.length - 1];
const STIFFNESS = 4e3;
const PLACE_PRIOR = 0.02;
const STRENGTH_PRIOR = 0.005;
const FACE_REACH = 1.2;
const SHEAR_WEIGHTS = [-12, 14];
const SHEAR_HALVINGS = 6;

/** A source, prepared for moving its cells. */
export interface Reference {
  /** (CELLS, 3 K): motion per unit of x and of y (the same), of strength to the right, and of strength down. */
  basis: Float32Array;
  /** (3 K,): the source's own keypoints as unknowns: all x, all y, all strengths. */
  unknowns: Float64Array;
  /** (3 K, 3 K): see `shearing`, computed when it is first needed. */
  shearing?: Float64Array;
}

/** By motion basis, which variants of a source share with it. */
const references = new WeakMap<Float32Array, Reference>();

/** Return a source, prepared from its motion basis (b, 3 K) and its keypoints (K, 3); it is done once. */
export function reference({ basis, keypoints }: Pick<Source, "basis" | "keypoints">): Reference {
  let known = references.get(basis);
  if (!known) {
    const width = keypoints.length;
    const side = Math.round(Math.sqrt(basis.length / width));
    known = { basis: resizeLinear(basis, side, GRID, width), unknowns: unknownsOf(keypoints) };
    references.set(basis, known);
  }
  return known;
}

/** Return keypoints (K, 3) as unknowns (3 K,): all x, all y, all strengths. */
export function unknownsOf(keypoints: Float32Array): Float64Array {
  const count = keypoints.length / 3;
  return Float64Array.from(keypoints, (_, i) => keypoints[(i % count) * 3 + Math.floor(i / count)]);
}

/** Return unknowns (3 K,) as keypoints (K, 3), positions clipped to [-1, 1] and strengths to [0, 1]. */
export function keypointsOf(unknowns: Float64Array): Float32Array {
  const count = unknowns.length / 3;
  return Float32Array.from(unknowns, (_, i) => {
    const value = unknowns[(i % 3) * count + Math.floor(i / 3)];
    return Math.min(1, Math.max(i % 3 === 2 ? 0 : -1, value));
  });
}

/** Return the displacements (CELLS, 2), in cells, of a source's cells in a frame with keypoints (K, 3). */
export function moved(ref: Reference, keypoints: Float32Array): Float32Array {
  const change = unknownsOf(keypoints).map((value, i) => value - ref.unknowns[i]);
  return sumsOf(change.length).moved(ref.basis, change);
}

/** Return by how much a frame with unknowns (3 K,) shears the face, root mean square: 0 where it is only moved, turned in
 * the plane and scaled. */
export function shear(ref: Reference, values: Float64Array): number {
  const change = values.map((value, i) => value - ref.unknowns[i]);
  const by = times(shearing(ref), change);
  return Math.sqrt(Math.max(change.reduce((sum, value, i) => sum + value * by[i], 0), 0));
}

/** Return the square of `shear` as a quadratic form (3 K, 3 K) of the change of the unknowns. */
function shearing(ref: Reference): Float64Array {
  if (ref.shearing) return ref.shearing;
  const { basis, unknowns } = ref;
  const width = unknowns.length;
  const count = width / 3;
  const falloff = [0, 1].map((axis) => faceWeights(unknowns.subarray(axis * count, (axis + 1) * count)));
  const out = new Float64Array(width * width);
  const [real, imaginary] = [new Float64Array(width), new Float64Array(width)];
  for (let y = 0; y < GRID; y++) {
    const [above, below] = [Math.max(0, y - 1), Math.min(GRID - 1, y + 1)];
    for (let x = 0; x < GRID; x++) {
      const [left, right] = [Math.max(0, x - 1), Math.min(GRID - 1, x + 1)];
      const [west, east, north, south] = [y * GRID + left, y * GRID + right, above * GRID + x, below * GRID + x].map((cell) => cell * width);
      const weight = falloff[0][x] * falloff[1][y];
      // Central differences per unit of [-1, 1], one-sided at the rim, halved.
      const [perColumn, perRow] = [GRID / 4 / (right - left), GRID / 4 / (below - above)];
      for (let k = 0; k < count; k++) {
        real[k] = imaginary[count + k] = (basis[east + k] - basis[west + k]) * perColumn;
        imaginary[k] = (basis[south + k] - basis[north + k]) * perRow;
        real[count + k] = -imaginary[k];
        const [a, b] = [count + k, 2 * count + k]; // strengths move to the right, and down
        real[b] = (basis[east + a] - basis[west + a]) * perColumn - (basis[south + b] - basis[north + b]) * perRow;
        imaginary[b] = (basis[south + a] - basis[north + a]) * perRow + (basis[east + b] - basis[west + b]) * perColumn;
      }
      addSquares(out, real, imaginary, weight);
    }
  }
  for (let a = 0; a < width; a++) for (let b = 0; b < a; b++) out[b * width + a] = out[a * width + b];
  return (ref.shearing = out);
}

/** Add the lower triangle of products of a complex vector with its conjugate, real parts. */
function addSquares(out: Float64Array, real: Float64Array, imaginary: Float64Array, weight: number): void {
  const width = real.length;
  for (let a = 0; a < width; a++) {
    const [r, i, row] = [weight * real[a], weight * imaginary[a], a * width];
    for (let b = 0; b <= a; b++) out[row + b] += r * real[b] + i * imaginary[b];
  }
}

/** Return how much columns or rows of cells (GRID,) belong to the face, given the keypoints along that axis. */
function faceWeights(places: Float64Array): Float64Array {
  const mean = places.reduce((sum, place) => sum + place, 0) / places.length;
  const deviation = Math.sqrt(places.reduce((sum, place) => sum + (place - mean) ** 2, 0) / places.length);
  const reach = FACE_REACH * Math.max(deviation, 2 / GRID);
  const at = (cell: number) => ((cell + 0.5) * 2) / GRID - 1;
  const weights = Float64Array.from({ length: GRID }, (_, n) => Math.exp(-0.5 * ((at(n) - mean) / reach) ** 2));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** Return the unknowns (3 K,) after a step from `values`, clipped. If they shear the face by more than `maxShear`, shear
 * counts as an error, with about the least weight that prevents it. */
export function stepped(ref: Reference, values: Float64Array, step: Equations, maxShear: number): Float64Array {
  const form = shearing(ref);
  const pull = times(form, values.map((value, i) => value - ref.unknowns[i]));
  const weighted = (weight: number) => {
    const gram = step.gram.map((value, i) => value + weight * form[i]);
    const change = solve({ gram, right: step.right.map((value, i) => value - weight * pull[i]) });
    return unknownsOf(keypointsOf(values.map((value, i) => value + change[i])));
  };
  let after = weighted(0);
  if (shear(ref, after) <= maxShear) return after;
  const unit = trace(step.gram, values.length) / trace(form, values.length);
  let [low, high] = SHEAR_WEIGHTS;
  after = weighted(unit * 2 ** high);
  for (let n = 0; n < SHEAR_HALVINGS; n++) {
    const middle = (low + high) / 2;
    const nearer = weighted(unit * 2 ** middle);
    if (shear(ref, nearer) <= maxShear) [after, high] = [nearer, middle];
    else low = middle;
  }
  return after;
}

function times(square: Float64Array, vector: Float64Array): Float64Array {
  const n = vector.length;
  return vector.map((_, i) => vector.reduce((sum, value, j) => sum + square[i * n + j] * value, 0));
}

function trace(square: Float64Array, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += square[i * n + i];
  return sum;
}

/** Return the field (CELLS, 2), in cells, from which a frame with keypoints (K, 3) is sampled: the inverse of `moved`. */
export function backward(ref: Reference, keypoints: Float32Array): Float32Array {
  return inverted(moved(ref, keypoints));
}

/** Return the Gram matrix (3 K, 3 K) of the alignment at the source's own keypoints, in squared grey levels. */
export function gramAtRest(ref: Reference, picture: Picture): Float64Array {
  const grey = blurred(smallGrey(picture), FINEST);
  return alignmentEquations(ref, { back: new Float32Array(2 * CELLS), grey }, grey, new Float64Array(ref.unknowns.length)).gram;
}

/** A source warped by keypoints: the backward field (CELLS, 2) in cells, and the grey levels (FLOW_SIZE, FLOW_SIZE). */
export interface Warped {
  back: Float32Array;
  grey: Float32Array;
}

/** Warp a source, whose grey levels are given, to unknowns (3 K,). */
export function warped(ref: Reference, levels: Float32Array, values: Float64Array): Warped {
  const back = backward(ref, keypointsOf(values));
  return { back, grey: sampled(levels, back) };
}

/** Return the squared difference of grey levels, summed over the pixels. */
export function squaredError(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += (a[n] - b[n]) ** 2;
  return sum;
}

/** Normal equations of one Gauss-Newton step: gram * change = right. */
export interface Equations {
  /** (3 K, 3 K). */
  gram: Float64Array;
  /** (3 K,). */
  right: Float64Array;
}

/** Return the equations of the change of the unknowns that brings a warped source closer to grey levels. `offset` (3 K,):
 * difference of the unknowns from where the alignment started; moving a cell costs STIFFNESS times its squared displacement
 * from there, and priors tie the unknowns to their start. */
export function alignmentEquations(ref: Reference, view: Warped, grey: Float32Array, offset: Float64Array): Equations {
  const { gram, gradient } = sumsOf(offset.length).of(ref.basis, view.back, tensorsOf(view.grey, grey), offset, STIFFNESS);
  const width = offset.length;
  const right = gradient.map((value) => -value);
  for (let a = 0; a < width; a++) {
    const prior = STIFFNESS * (a < (2 * width) / 3 ? PLACE_PRIOR : STRENGTH_PRIOR);
    gram[a * width + a] += prior;
    right[a] -= prior * offset[a];
  }
  return { gram, right };
}

/** Solve equations by Cholesky decomposition. */
export function solve({ gram, right }: Equations): Float64Array {
  const n = right.length;
  const lower = new Float64Array(n * n);
  const out = Float64Array.from(right);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = gram[i * n + j];
      for (let k = 0; k < j; k++) sum -= lower[i * n + k] * lower[j * n + k];
      lower[i * n + j] = i === j ? Math.sqrt(Math.max(sum, 1e-12)) : sum / lower[j * n + j];
    }
    for (let k = 0; k < i; k++) out[i] -= lower[i * n + k] * out[k];
    out[i] /= lower[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) out[i] -= lower[k * n + i] * out[k];
    out[i] /= lower[i * n + i];
  }
  return out;
}

/** Return the grey levels (FLOW_SIZE, FLOW_SIZE) of a picture. */
export function smallGrey(picture: Picture): Float32Array {
  return greyLevels(resizeArea(picture, FLOW_SIZE));
}

/** Return the grey levels (side, side) of a picture, as `cv2.cvtColor` rounds them. */
export function greyLevels({ side, data }: Picture): Float32Array {
  const grey = new Float32Array(side * side);
  for (let n = 0; n < grey.length; n++) {
    grey[n] = (9798 * data[3 * n] + 19235 * data[3 * n + 1] + 3735 * data[3 * n + 2] + (1 << 14)) >> 15;
  }
  return grey;
}
