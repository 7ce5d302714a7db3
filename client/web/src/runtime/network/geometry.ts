/** Keypoints and grids (models/network/geometry.py). Positions are in [-1, 1] from edge to edge of the picture. */

import { type Convolutions, type Framed, VALUE } from "./convolutions";
import { resizeLinear } from "../pictures";
import type { NetworkWeights, Weights } from "../weights";

const GAUSSIAN_VARIANCE = 0.01;

/** Return the positions of the cells of a row or a column. */
export function cellCentres(side: number): Float32Array {
  return Float32Array.from({ length: side }, (_, n) => ((n + 0.5) * 2) / side - 1);
}

/** Write Gaussians of keypoints (K, 3) to channels of a picture, from `channel` on. */
export function drawGaussians(c: Convolutions, keypoints: Float32Array, to: Framed, channel: number): void {
  const { width: side, channels } = to;
  const centres = cellCentres(side);
  const falloff = (place: number) => centres.map((centre) => Math.exp(-((place - centre) ** 2) / (2 * GAUSSIAN_VARIANCE)));
  const out = pixelsOf(c, to);
  for (let k = 0; k < keypoints.length / 3; k++) {
    const [across, down] = [falloff(keypoints[3 * k]), falloff(keypoints[3 * k + 1])];
    for (let y = 0; y < side; y++) {
      const strength = keypoints[3 * k + 2] * down[y];
      let at = (y * to.row) / VALUE + channel + k;
      for (let x = 0; x < side; x++, at += channels) out[at] = strength * across[x];
    }
  }
}

/** Write a picture (side, side, 3), each square of `fold` pixels to the first channels of one pixel: values times `scale`,
 * less a half. */
export function drawFolded(c: Convolutions, values: ArrayLike<number>, scale: number, fold: number, to: Framed): void {
  const out = pixelsOf(c, to);
  const side = fold * to.width;
  for (let y = 0, n = 0; y < side; y++) {
    let at = (Math.floor(y / fold) * to.row) / VALUE + (y % fold) * 3 * fold;
    for (let x = 0; x < side; x += fold, at += to.channels) {
      for (let i = 0; i < 3 * fold; i++, n++) out[at + i] = values[n] * scale - 0.5;
    }
  }
}

/** Return which channel of the weights each channel of a folded picture is: here they are (dy, dx, colour), there (colour,
 * dy, dx). */
export function foldedOrder(fold: number): number[] {
  return Array.from({ length: 3 * fold ** 2 }, (_, n) => (n % 3) * fold ** 2 + Math.floor(n / 3));
}

/** Return a view of a picture in memory, from its first pixel on. */
export function pixelsOf(c: Convolutions, { first, row, height }: Framed): Float32Array {
  return c.floats(first, (row * height) / VALUE);
}

/** Return how much each cell belongs to each keypoint, and to the background (M, K + 1). `learned`: logits. */
export function membership(
  weights: NetworkWeights,
  keypoints: Float32Array,
  side: number,
  learned: { values: Float32Array; width: number } | null,
): Float32Array {
  const reach = weights.of("prior.log_spread").values.map(Math.exp);
  const background = weights.value("prior.background");
  const centres = cellCentres(side);
  const count = keypoints.length / 3;
  const out = new Float32Array(side ** 2 * (count + 1));
  const logits = new Float32Array(count + 1);
  const strengths = Float32Array.from({ length: count }, (_, k) => Math.log(keypoints[3 * k + 2] + 1e-4));
  for (let cell = 0, at = 0; cell < side ** 2; cell++, at += count + 1) {
    const [x, y] = [centres[cell % side], centres[Math.floor(cell / side)]];
    let most = -Infinity;
    for (let k = 0; k <= count; k++) {
      let logit = background;
      if (k < count) logit = strengths[k] - ((keypoints[3 * k] - x) ** 2 + (keypoints[3 * k + 1] - y) ** 2) / reach[k];
      if (learned) logit += learned.values[cell * learned.width + k];
      logits[k] = logit;
      if (logit > most) most = logit;
    }
    let sum = 0;
    for (let k = 0; k <= count; k++) sum += out[at + k] = Math.exp(logits[k] - most);
    for (let k = 0; k <= count; k++) out[at + k] /= sum;
  }
  return out;
}

/** Return position embeddings (1, d, from, from) as (side, side, d). */
export function positions({ shape, values }: Weights, side: number): Float32Array {
  const [, dims, from] = shape;
  const cells = values.map((_, n) => values[(n % dims) * from ** 2 + Math.floor(n / dims)]);
  return resizeLinear(cells, from, side, dims);
}
