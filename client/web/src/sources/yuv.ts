/** Colour conversion of source pictures in integer arithmetic: BT.601, full range (codec/sources/yuv.py). */

import type { Picture } from "../runtime/pictures";

const TO_RED = 91_881;
const TO_GREEN = [-22_554, -46_802];
const TO_BLUE = 116_130;

/** Three planes of 8-bit 4:2:0 of a square picture: luma (side, side), chroma (side / 2, side / 2). */
export interface Planes {
  side: number;
  luma: Uint8Array;
  cb: Uint8Array;
  cr: Uint8Array;
}

/** Convert to RGB. Chroma is interpolated linearly along each axis, with weights 3/4 and 1/4. */
export function yuvToRgb({ side, luma, cb, cr }: Planes): Picture {
  const fineCb = doubled(cb, side);
  const fineCr = doubled(cr, side);
  const data = new Uint8Array(side * side * 3);
  for (let n = 0; n < luma.length; n++) {
    // Chroma is times 16, factors times 2 ** 16; sums reach 2 ** 29.
    const scaled = luma[n] * (1 << 20) + (1 << 19);
    data[3 * n] = clamped((scaled + TO_RED * fineCr[n]) >> 20);
    data[3 * n + 1] = clamped((scaled + TO_GREEN[0] * fineCb[n] + TO_GREEN[1] * fineCr[n]) >> 20);
    data[3 * n + 2] = clamped((scaled + TO_BLUE * fineCb[n]) >> 20);
  }
  return { side, data };
}

function clamped(value: number): number {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

/** Interpolate a chroma plane, minus 128, to twice the side, times 16. */
function doubled(plane: Uint8Array, side: number): Int32Array {
  const half = side / 2;
  const rows = new Int32Array(side * half);
  for (let y = 0; y < side; y++) {
    const near = y >> 1;
    const other = Math.min(half - 1, Math.max(0, near + (y & 1 ? 1 : -1)));
    for (let x = 0; x < half; x++) {
      rows[y * half + x] = 3 * (plane[near * half + x] - 128) + plane[other * half + x] - 128;
    }
  }
  const out = new Int32Array(side * side);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const near = x >> 1;
      const other = Math.min(half - 1, Math.max(0, near + (x & 1 ? 1 : -1)));
      out[y * side + x] = 3 * rows[y * half + near] + rows[y * half + other];
    }
  }
  return out;
}

/** Convert RGB to yuv420p: luma, then both chroma planes. Chroma is computed from sums of four pixels. */
export function rgbToYuv({ side, data }: Picture): Uint8Array {
  const half = side / 2;
  const out = new Uint8Array((side * side * 3) / 2);
  for (let n = 0; n < side * side; n++) {
    out[n] = (19595 * data[3 * n] + 38470 * data[3 * n + 1] + 7471 * data[3 * n + 2] + (1 << 15)) >> 16;
  }
  const [cb, cr] = [side * side, side * side + half * half];
  for (let y = 0, n = 0; y < half; y++) {
    for (let x = 0; x < half; x++, n++) {
      const a = (2 * y * side + 2 * x) * 3;
      const b = a + 3 * side;
      const [red, green, blue] = [0, 1, 2].map((c) => data[a + c] + data[a + 3 + c] + data[b + c] + data[b + 3 + c]);
      const middle = (128 << 18) + (1 << 17) - 1;
      out[cb + n] = (-11059 * red - 21709 * green + 32768 * blue + middle) >> 18;
      out[cr + n] = (32768 * red - 27439 * green - 5329 * blue + middle) >> 18;
    }
  }
  return out;
}
