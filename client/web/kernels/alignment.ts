/** What the fit of keypoints consists of, in WebAssembly (AssemblyScript): a source's cells are displaced and the source is
 * warped, and sums over cells tell the next step. Grey levels and fields are float32; pitches and lengths are in bytes. */

import { sumOf } from "./attention";
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

/** Write the displacements (cells, 2) of cells by a change (3 * keypoints) of unknowns, times `scale`: products with a motion
 * basis (cells, 3 * keypoints). `keypoints` is a multiple of 4. */
export function displace(basis: usize, change: usize, cells: usize, keypoints: usize, scale: f32, out: usize): void {
  const third = keypoints << 2;
  for (let n: usize = 0; n < cells; n++, basis += 2 * third, out += 8) {
    let right = f32x4.splat(0);
    let down = right;
    for (let i: usize = 0; i < third; i += 16, basis += 16) {
      const along = v128.load(basis);
      const strength = v128.load(change + 2 * third + i);
      right = fma(along, v128.load(change + i), fma(v128.load(basis + third), strength, right));
      down = fma(along, v128.load(change + third + i), fma(v128.load(basis + 2 * third), strength, down));
    }
    f32.store(out, sumOf(right) * scale);
    f32.store(out, sumOf(down) * scale, 4);
  }
}

/** Invert a field (side, side, 2), in cells, by `steps` fixed-point iterations -> (side, side, 2). */
export function invert(field: usize, side: usize, steps: usize, out: usize): void {
  const most = i32x4.splat(<i32>side - 1);
  const row = <i32>side << 3;
  for (let y: usize = 0; y < side; y++) {
    for (let x: usize = 0; x < side; x++, out += 8) {
      const cell = f32x4(<f32>x, <f32>y, 0, 0);
      let back = f32x4.neg(v128.load64_zero(field + ((y * side + x) << 3)));
      for (let step: usize = 0; step < steps; step++) {
        const place = placeOf(f32x4.add(back, cell));
        const near = clamped(i32x4.shr_s(place, 5), most);
        const far = clamped(i32x4.add(i32x4.shr_s(place, 5), i32x4.splat(1)), most);
        const left = i32x4.extract_lane(near, 0) << 3;
        const right = i32x4.extract_lane(far, 0) << 3;
        const above = field + i32x4.extract_lane(near, 1) * row;
        const below = field + i32x4.extract_lane(far, 1) * row;
        const share = shareOf(place);
        const across = i8x16.shuffle(share, share, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
        const down = i8x16.shuffle(share, share, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
        const top = between(v128.load64_zero(above + left), v128.load64_zero(above + right), across);
        const bottom = between(v128.load64_zero(below + left), v128.load64_zero(below + right), across);
        back = f32x4.neg(between(top, bottom, down));
      }
      v128.store64_lane(out, back, 0);
    }
  }
}

/** Sample levels (side, side) bilinearly at shifts (side, side, 2) times `scale`, in pixels -> (side, side). The edge is
 * repeated. `side` is even. */
export function warp(levels: usize, side: usize, shifts: usize, scale: f32, out: usize): void {
  const most = i32x4.splat(<i32>side - 1);
  const factor = f32x4.splat(scale);
  const row = <i32>side << 2;
  for (let v: usize = 0; v < side; v++) {
    for (let u: usize = 0; u < side; u += 2, shifts += 16, out += 8) {
      const place = placeOf(fma(v128.load(shifts), factor, f32x4(<f32>u, <f32>v, <f32>(u + 1), <f32>v)));
      const near = clamped(i32x4.shr_s(place, 5), most);
      const far = clamped(i32x4.add(i32x4.shr_s(place, 5), i32x4.splat(1)), most);
      const share = shareOf(place);
      let left = i32x4.extract_lane(near, 0) << 2;
      let right = i32x4.extract_lane(far, 0) << 2;
      let above = levels + i32x4.extract_lane(near, 1) * row;
      let below = levels + i32x4.extract_lane(far, 1) * row;
      f32.store(out, sampled(above + left, above + right, below + left, below + right, f32x4.extract_lane(share, 0), f32x4.extract_lane(share, 1)));
      left = i32x4.extract_lane(near, 2) << 2;
      right = i32x4.extract_lane(far, 2) << 2;
      above = levels + i32x4.extract_lane(near, 3) * row;
      below = levels + i32x4.extract_lane(far, 3) * row;
      f32.store(out, sampled(above + left, above + right, below + left, below + right, f32x4.extract_lane(share, 2), f32x4.extract_lane(share, 3)), 4);
    }
  }
}

/** Copy levels (side, side) into a frame of `edge` pixels that mirrors them, the edge itself not repeated. */
export function mirror(levels: usize, side: usize, edge: usize, to: usize): void {
  for (let v: usize = 0; v < side + 2 * edge; v++) {
    const from = levels + ((reflected(<i32>v - <i32>edge, <i32>side) * side) << 2);
    for (let u: usize = 0; u < edge; u++) {
      f32.store(to + (u << 2), f32.load(from + ((edge - u) << 2)));
      f32.store(to + ((edge + side + u) << 2), f32.load(from + ((side - 2 - u) << 2)));
    }
    memory.copy(to + (edge << 2), from, side << 2);
    to += (side + 2 * edge) << 2;
  }
}

/** Blur levels (side, side), given within a mirrored edge of `radius` pixels, by taps (2 * radius + 1) in both directions.
 * `side` is a multiple of 4; `spare`: room for (side + 2 * radius, side). */
export function blur(framed: usize, side: usize, taps: usize, radius: usize, spare: usize, out: usize): void {
  const wide = side + 2 * radius;
  sumTaps(framed, wide << 2, 4, wide, side, taps, radius, spare);
  sumTaps(spare, side << 2, side << 2, side, side, taps, radius, out);
}

/** Sum `taps` times values `step` bytes apart, of rows `pitch` bytes apart -> (rows, width). */
function sumTaps(from: usize, pitch: usize, step: usize, rows: usize, width: usize, taps: usize, radius: usize, out: usize): void {
  const end = taps + ((2 * radius + 1) << 2);
  for (let v: usize = 0; v < rows; v++, from += pitch) {
    for (let u: usize = 0; u < width << 2; u += 16, out += 16) {
      let sum = f32x4.splat(0);
      for (let tap = taps, at = from + u; tap < end; tap += 4, at += step) sum = fma(v128.load32_splat(tap), v128.load(at), sum);
      v128.store(out, sum);
    }
  }
}

/** Write of each cell of 4x4 pixels its structure tensor (xx, xy, yy) and the gradient (x, y) of half its squared error ->
 * (cells, 8). `framed`: a view (side, side) within a mirrored edge of one pixel; `levels` (side, side) are what it should
 * be. Gradients are Sobel's times `scale`; pixels that miss more than about `outlier` count less. */
export function tensors(framed: usize, levels: usize, side: usize, scale: f32, outlier: f32, out: usize): void {
  const pitch = (side + 2) << 2;
  const two = f32x4.splat(2);
  const one = f32x4.splat(1);
  const factor = f32x4.splat(scale);
  const narrow = f32x4.splat(1 / outlier);
  for (let v: usize = 0; v < side; v += 4) {
    for (let u: usize = 0; u < side; u += 4, out += 32) {
      let xx = f32x4.splat(0);
      let xy = xx;
      let yy = xx;
      let x = xx;
      let y = xx;
      for (let row: usize = v; row < v + 4; row++) {
        const above = framed + row * pitch + (u << 2);
        const here = above + pitch;
        const below = here + pitch;
        const nw = v128.load(above);
        const ne = v128.load(above, 8);
        const sw = v128.load(below);
        const se = v128.load(below, 8);
        const level = v128.load(here, 4);
        const diagonal = f32x4.sub(se, nw);
        const other = f32x4.sub(ne, sw);
        const across = fma(two, f32x4.sub(v128.load(here, 8), v128.load(here)), f32x4.add(diagonal, other));
        const along = fma(two, f32x4.sub(v128.load(below, 4), v128.load(above, 4)), f32x4.sub(diagonal, other));
        const right = f32x4.mul(across, factor);
        const down = f32x4.mul(along, factor);
        const missing = f32x4.sub(v128.load(levels + ((row * side + u) << 2)), level);
        const share = f32x4.mul(missing, narrow);
        const weight = f32x4.div(one, fma(share, share, one));
        const weighted = f32x4.mul(weight, right);
        const lower = f32x4.mul(weight, down);
        xx = fma(weighted, right, xx);
        xy = fma(weighted, down, xy);
        yy = fma(lower, down, yy);
        x = fma(weighted, missing, x);
        y = fma(lower, missing, y);
      }
      f32.store(out, sumOf(xx));
      f32.store(out, sumOf(xy), 4);
      f32.store(out, sumOf(yy), 8);
      f32.store(out, sumOf(x), 12);
      f32.store(out, sumOf(y), 16);
    }
  }
}

/** Weight a motion basis (cells, 3 * keypoints) by cells' tensors, (cells, 8) as above, to each of which moving costs
 * `stiffness`, from `shifts` (cells, 2) on -> (cells, columns): motion by xx, xy and yy, strengths by x, the gradient's x and
 * three that are left as they are, and the same by y. */
export function weigh(basis: usize, cells: usize, keypoints: usize, tensors: usize, shifts: usize, stiffness: f32, columns: usize, out: usize): void {
  const third = keypoints << 2;
  for (let n: usize = 0; n < cells; n++, basis += 2 * third, tensors += 32, shifts += 8, out += columns << 2) {
    const xx = f32x4.splat(f32.load(tensors) + stiffness);
    const xy = v128.load32_splat(tensors, 4);
    const yy = f32x4.splat(f32.load(tensors, 8) + stiffness);
    for (let to = out; to < out + third; to += 16, basis += 16) {
      const along = v128.load(basis);
      const right = v128.load(basis + third);
      const down = v128.load(basis + 2 * third);
      v128.store(to, f32x4.mul(xx, along));
      v128.store(to + third, f32x4.mul(xy, along));
      v128.store(to + 2 * third, f32x4.mul(yy, along));
      v128.store(to + 3 * third, fma(xx, right, f32x4.mul(xy, down)));
      v128.store(to + 4 * third + 16, fma(xy, right, f32x4.mul(yy, down)));
    }
    f32.store(out + 4 * third, f32.load(tensors, 12) + stiffness * f32.load(shifts));
    f32.store(out + 5 * third + 16, f32.load(tensors, 16) + stiffness * f32.load(shifts, 4));
  }
}

// @ts-ignore: decorator
@inline
function sampled(a: usize, b: usize, c: usize, d: usize, across: f32, down: f32): f32 {
  const top = f32.load(a) + across * (f32.load(b) - f32.load(a));
  return top + down * (f32.load(c) + across * (f32.load(d) - f32.load(c)) - top);
}

/** Return places in PARTS of a cell. */
// @ts-ignore: decorator
@inline
function placeOf(places: v128): v128 {
  return i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(places, f32x4.splat(PARTS))));
}

/** Return what of a cell lies before places in PARTS. */
// @ts-ignore: decorator
@inline
function shareOf(places: v128): v128 {
  return f32x4.mul(f32x4.convert_i32x4_s(v128.and(places, i32x4.splat(31))), f32x4.splat(1 / PARTS));
}

// @ts-ignore: decorator
@inline
function clamped(indices: v128, most: v128): v128 {
  return i32x4.max_s(i32x4.min_s(indices, most), i32x4.splat(0));
}

// @ts-ignore: decorator
@inline
function between(a: v128, b: v128, share: v128): v128 {
  return fma(share, f32x4.sub(b, a), a);
}

// @ts-ignore: decorator
@inline
function reflected(index: i32, side: i32): usize {
  return <usize>(index < 0 ? -index : index >= side ? 2 * side - 2 - index : index);
}

// @ts-ignore: decorator
@inline
function clamp(index: i32, most: i32): usize {
  return <usize>(index < 0 ? 0 : index > most ? most : index);
}
