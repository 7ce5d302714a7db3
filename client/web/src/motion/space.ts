/** Coordinates of a source's motion in which every quantisation error is equally visible (codec/motion/space.py). */

import { gramAtRest, keypointsOf, type Reference } from "../fit/alignment";
import type { Picture } from "../runtime/pictures";

/** 1.5 grey levels RMS over a picture of 128 x 128 count as an error of 1. */
const ERROR_UNIT = 1.5 ** 2 * 128 ** 2;

/** The coordinates y of one source: unknowns = own + sum of y[i] times row i. */
export interface MotionSpace {
  /** (3 K,): the source's own keypoints as unknowns. */
  own: Float64Array;
  /** (3 K, 3 K): orthonormal in the metric of the picture; the first n span the first n directions. */
  rows: Float64Array;
}

/** Return the coordinates of a source. `directions` (3 K, 3 K) are ignored if made for another K. */
export function motionSpace(ref: Reference, picture: Picture, directions: Float64Array): MotionSpace {
  const width = ref.unknowns.length;
  const gram = gramAtRest(ref, picture).map((value) => value / ERROR_UNIT);
  const known = directions.length === width * width ? directions : identity(width);
  const factor = cholesky(product(transposed(known, width), product(gram, known, width), width), width);
  return { own: ref.unknowns, rows: forwardSubstituted(factor, transposed(known, width), width) };
}

/** Return the keypoints (K, 3) of each frame from the coordinates (n, 3 K). */
export function keypointsIn(space: MotionSpace, coordinates: Float64Array): Float32Array[] {
  const width = space.own.length;
  return Array.from({ length: coordinates.length / width }, (_, frame) => {
    const unknowns = Float64Array.from(space.own);
    for (let i = 0; i < width; i++) {
      const factor = coordinates[frame * width + i];
      if (factor) for (let j = 0; j < width; j++) unknowns[j] += factor * space.rows[i * width + j];
    }
    return keypointsOf(unknowns);
  });
}

/** Return the coordinates (3 K,) of unknowns (3 K,). */
export function coordinatesIn({ own, rows }: MotionSpace, unknowns: Float64Array): Float64Array {
  return solved(transposed(rows, own.length), unknowns.map((value, i) => value - own[i]));
}

/** Transform a quadratic form (3 K, 3 K) of the unknowns to one of the coordinates. */
export function metricIn({ own, rows }: MotionSpace, gram: Float64Array): Float64Array {
  return product(product(rows, gram, own.length), transposed(rows, own.length), own.length);
}

/** Return the unit matrix (width, width). */
export function identity(width: number): Float64Array {
  return Float64Array.from({ length: width * width }, (_, n) => (n % (width + 1) ? 0 : 1));
}

function transposed(matrix: Float64Array, width: number): Float64Array {
  return matrix.map((_, n) => matrix[(n % width) * width + Math.floor(n / width)]);
}

function product(a: Float64Array, b: Float64Array, width: number): Float64Array {
  const out = new Float64Array(width * width);
  for (let i = 0; i < width; i++) {
    for (let k = 0; k < width; k++) {
      const factor = a[i * width + k];
      for (let j = 0; j < width; j++) out[i * width + j] += factor * b[k * width + j];
    }
  }
  return out;
}

/** Return the lower triangular factor of a positive definite matrix. */
function cholesky(matrix: Float64Array, width: number): Float64Array {
  const factor = new Float64Array(width * width);
  for (let i = 0; i < width; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = matrix[i * width + j];
      for (let k = 0; k < j; k++) sum -= factor[i * width + k] * factor[j * width + k];
      factor[i * width + j] = i === j ? Math.sqrt(Math.max(sum, 1e-12)) : sum / factor[j * width + j];
    }
  }
  return factor;
}

/** Solve factor @ x = right for a lower triangular factor. */
function forwardSubstituted(factor: Float64Array, right: Float64Array, width: number): Float64Array {
  const out = Float64Array.from(right);
  for (let i = 0; i < width; i++) {
    for (let k = 0; k < i; k++) {
      const weight = factor[i * width + k];
      for (let j = 0; j < width; j++) out[i * width + j] -= weight * out[k * width + j];
    }
    for (let j = 0; j < width; j++) out[i * width + j] /= factor[i * width + i];
  }
  return out;
}

/** Solve matrix @ x = right by Gaussian elimination with pivots of columns. */
function solved(matrix: Float64Array, right: Float64Array): Float64Array {
  const width = right.length;
  const rows = Array.from({ length: width }, (_, i) => [...matrix.subarray(i * width, (i + 1) * width), right[i]]);
  for (let i = 0; i < width; i++) {
    let pivot = i;
    for (let j = i + 1; j < width; j++) if (Math.abs(rows[j][i]) > Math.abs(rows[pivot][i])) pivot = j;
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    const own = rows[i];
    for (let j = i + 1; j < width; j++) {
      const row = rows[j];
      const factor = row[i] / own[i];
      if (factor) for (let k = i + 1; k <= width; k++) row[k] -= factor * own[k];
    }
  }
  const out = new Float64Array(width);
  for (let i = width - 1; i >= 0; i--) {
    let sum = rows[i][width];
    for (let k = i + 1; k < width; k++) sum -= rows[i][k] * out[k];
    out[i] = sum / rows[i][i];
  }
  return out;
}
