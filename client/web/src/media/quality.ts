/** How near pictures are to their originals (codec/media/quality.py). */

import type { Picture } from "../runtime/pictures";

const PERFECT_DB = 60;

/** Return the PSNR over all RGB values in dB, at most PERFECT_DB. */
export function psnr(a: Picture, b: Picture): number {
  let sum = 0;
  for (let n = 0; n < a.data.length; n++) sum += (a.data[n] - b.data[n]) ** 2;
  return sum ? Math.min(PERFECT_DB, 10 * Math.log10((255 ** 2 * a.data.length) / sum)) : PERFECT_DB;
}
