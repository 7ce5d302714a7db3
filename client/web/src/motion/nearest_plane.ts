/** Babai's nearest plane (codec/motion/nearest_plane.py). */

const RIDGE = 1e-5;

/** Return the upper triangular factor (n, n) of a Gram matrix (n, n) with its rows and columns in coding `order`: a value
 * missed by e after division by its diagonal element costs e ** 2 and shifts later targets by -e times its row. */
export function nearestPlaneFactor(gram: Float64Array, order = [...Array(Math.sqrt(gram.length)).keys()]): Float64Array {
  const n = order.length;
  let trace = 0;
  for (let i = 0; i < n; i++) trace += gram[i * n + i];
  const ridge = (RIDGE * trace) / n;
  // ordered + ridge = upper * transposed(upper), from the last row up.
  const upper = new Float64Array(n * n);
  for (let j = n - 1; j >= 0; j--) {
    for (let i = j; i >= 0; i--) {
      let sum = gram[order[i] * n + order[j]] + (i === j ? ridge : 0);
      for (let k = j + 1; k < n; k++) sum -= upper[i * n + k] * upper[j * n + k];
      upper[i * n + j] = i === j ? Math.sqrt(Math.max(sum, Number.MIN_VALUE)) : sum / upper[j * n + j];
    }
  }
  const inverse = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    inverse[j * n + j] = 1 / upper[j * n + j];
    for (let i = j - 1; i >= 0; i--) {
      let sum = 0;
      for (let k = i + 1; k <= j; k++) sum += upper[i * n + k] * inverse[k * n + j];
      inverse[i * n + j] = -sum / upper[i * n + i];
    }
  }
  return inverse;
}
