/** Keypoints to levels and back (codec/motion/types.py). */

import { roundEven } from "../runtime/pictures";

export const STEP_XY = 1 / 60;
export const STEP_STRENGTH = 1 / 15;
const DEAD_ZONE = 0.7;
/** Largest magnitude of a level. */
export const MAX_LEVEL = (1 << 15) - 1;

/** Steps of positions and of strengths. */
export interface Quantiser {
  stepXy: number;
  stepStrength: number;
}

/** Return the quantiser of a call: the usual steps, doubled `coarseness` times. */
export function quantiserOf(coarseness: number): Quantiser {
  return { stepXy: STEP_XY * 2 ** coarseness, stepStrength: STEP_STRENGTH * 2 ** coarseness };
}

/** Return the nearest levels (K, 3). A value within DEAD_ZONE of the level of the previous frame keeps that level. */
export function quantise(keypoints: Float32Array, { stepXy, stepStrength }: Quantiser, last: Int32Array | null): Int32Array {
  const steps = [stepXy, stepXy, stepStrength].map(Math.fround);
  return Int32Array.from(keypoints, (value, i) => {
    const exact = Math.fround(value / steps[i % 3]);
    return last && Math.abs(exact - last[i]) < DEAD_ZONE ? last[i] : roundEven(exact);
  });
}

/** Return keypoints (K, 3) from levels, positions clipped to [-1, 1] and strengths to [0, 1]. */
export function dequantise(levels: Int32Array, stepXy: number, stepStrength: number): Float32Array {
  return Float32Array.from(levels, (level, i) =>
    i % 3 === 2
      ? Math.min(1, Math.max(0, level * Math.fround(stepStrength)))
      : Math.min(1, Math.max(-1, level * Math.fround(stepXy))),
  );
}
