/** Rate-distortion optimised quantisation of single frames (codec/motion/predictive_rdo.py). */

import { unknownsOf } from "../fit/alignment";
import { roundEven } from "../runtime/pictures";
import { nearestPlaneFactor } from "./nearest_plane";
import { SHIFT } from "./predictive_coder";
import { type Quantiser, STEP_XY } from "./quantiser";

const ERROR_PER_BIT = 1.2e-3;
const FIRST_BITS = 2.5;
const BITS_PER_DOUBLING = 1.3;

/**
 * Return the levels (K, 3) of a frame with keypoints (K, 3), whose errors cost as the Gram matrix (3 K, 3 K) of its fit
 * says. `last`: levels of the previous frame; `lastDelta`: their change from the frame before; `weights`: inter weights
 * (K, 3, 2 K) of the predictor.
 */
export function chooseLevels(
  keypoints: Float32Array,
  gram: Float64Array,
  { stepXy, stepStrength }: Quantiser,
  last: Int32Array,
  lastDelta: Int32Array,
  weights: Int32Array,
): Int32Array {
  const size = keypoints.length;
  const count = size / 3;
  const order = Array.from({ length: size }, (_, i) => (i % 3) * count + Math.floor(i / 3));
  const factor = nearestPlaneFactor(gram, order);
  const unknowns = unknownsOf(keypoints);
  const targets = order.map((place) => unknowns[place]);
  const price = (ERROR_PER_BIT * stepXy) / STEP_XY;
  const steps = [stepXy, stepXy, stepStrength].map(Math.fround);
  const levels = new Int32Array(size);
  const predicted = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    for (let k = 0; k < count; k++) predicted[i] += weights[i * 2 * count + count + k] * lastDelta[3 * k + (i % 3)];
  }
  for (let i = 0; i < size; i++) {
    const axis = i % 3;
    const diagonal = factor[i * size + i];
    const expected = last[i] + Math.floor((predicted[i] + (1 << (SHIFT - 1))) / (1 << SHIFT));
    levels[i] = expected;
    let miss = (targets[i] - expected * steps[axis]) / diagonal;
    const nearest = roundEven(targets[i] / steps[axis]);
    if (nearest !== expected) {
      const nearestMiss = (targets[i] - nearest * steps[axis]) / diagonal;
      const bits = FIRST_BITS + BITS_PER_DOUBLING * Math.log2(Math.abs(nearest - expected));
      if (nearestMiss ** 2 + price * bits < miss ** 2) [levels[i], miss] = [nearest, nearestMiss];
    }
    for (let later = i + 1; later < size; later++) targets[later] -= miss * factor[i * size + later];
    const delta = levels[i] - last[i];
    if (!delta) continue;
    const k = Math.floor(i / 3);
    for (let other = axis + 3 * (k + 1); other < size; other += 3) predicted[other] += weights[other * 2 * count + k] * delta;
  }
  return levels;
}
