/** Sums over cells that the fit of keypoints consists of, in WebAssembly (AssemblyScript). Pitches and lengths are in bytes. */

import { fma } from "./convolution";

/** Parts of a cell that places are rounded to, as by OpenCV. */
const PARTS: f32 = 32;

/** Multiply a (count, rows), transposed, by b (count, columns) -> (rows, columns); `rows` is a multiple of 4, `columns` of 8. */
export function correlate(a: usize, aPitch: usize, b: usize, bPitch: usize, count: usize, rows: usize, columns: usize, out: usize): void {
  const outRow = columns << 2;
  for (let r: usize = 0; r < rows << 2; r += 16, out += 4 * outRow) {
    for (let c: usize = 0; c < outRow; c += 32) {
      let a0 = f32x4.splat(0);
      let a1 = a0;
      let b0 = a0;
      let b1 = a0;
      let c0 = a0;
      let c1 = a0;
      let d0 = a0;
      let d1 = a0;
      let left = a + r;
      let right = b + c;
      for (let n: usize = 0; n < count; n++, left += aPitch, right += bPitch) {
        const w0 = v128.load(right);
        const w1 = v128.load(right, 16);
        const first = v128.load32_splat(left);
        a0 = fma(first, w0, a0);
        a1 = fma(first, w1, a1);
        const second = v128.load32_splat(left, 4);
        b0 = fma(second, w0, b0);
        b1 = fma(second, w1, b1);
        const third = v128.load32_splat(left, 8);
        c0 = fma(third, w0, c0);
        c1 = fma(third, w1, c1);
        const fourth = v128.load32_splat(left, 12);
        d0 = fma(fourth, w0, d0);
        d1 = fma(fourth, w1, d1);
      }
      let to = out + c;
      v128.store(to, a0);
      v128.store(to, a1, 16);
      to += outRow;
      v128.store(to, b0);
      v128.store(to, b1, 16);
      to += outRow;
      v128.store(to, c0);
      v128.store(to, c1, 16);
      to += outRow;
      v128.store(to, d0);
      v128.store(to, d1, 16);
    }
  }
}

/** Sample values (side, side, length / 4) bilinearly at places (count, 2), in their units -> (count, length / 4). The edge is
 * repeated. `length` is a multiple of 16. */
export function remap(values: usize, side: usize, length: usize, places: usize, count: usize, out: usize): void {
  const most = <i32>side - 1;
  for (let n: usize = 0; n < count; n++, places += 8) {
    const px = <i32>nearest(f32.load(places) * PARTS);
    const py = <i32>nearest(f32.load(places, 4) * PARTS);
    const x = px >> 5;
    const y = py >> 5;
    const left = clamp(x, most);
    const right = clamp(x + 1, most);
    const above = values + clamp(y, most) * side * length;
    const below = values + clamp(y + 1, most) * side * length;
    const fx = <f32>(px & 31) / PARTS;
    const fy = <f32>(py & 31) / PARTS;
    const a = f32x4.splat((1 - fx) * (1 - fy));
    const b = f32x4.splat(fx * (1 - fy));
    const c = f32x4.splat((1 - fx) * fy);
    const d = f32x4.splat(fx * fy);
    for (let i: usize = 0; i < length; i += 16, out += 16) {
      const upper = fma(a, v128.load(above + left * length + i), f32x4.mul(b, v128.load(above + right * length + i)));
      v128.store(out, fma(c, v128.load(below + left * length + i), fma(d, v128.load(below + right * length + i), upper)));
    }
  }
}

// @ts-ignore: decorator
@inline
function clamp(index: i32, most: i32): usize {
  return <usize>(index < 0 ? 0 : index > most ? most : index);
}
