/**
 * What the decoder is made of, in WebAssembly (AssemblyScript): convolutions of 3x3 by Winograd's F(4x4, 3x3), which takes
 * a quarter of the multiplications (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016), and what
 * lies between them. Pictures are (height, width, channels) in float32. The caller lays out the memory from `heap` on, and
 * passes addresses and lengths in bytes.
 */

/** Pixels of a tile's side, outputs and inputs. */
const OUT: usize = 4;
const IN: usize = 6;
const POSITIONS: usize = IN * IN;

/** Parts of a pixel that places are rounded to; their squares are products that 16 bits hold. */
const PARTS: f32 = 128;
/** Bytes between matrices, which keep caches from mapping all of them to one set where channels are a power of two. */
const SKEW: usize = 64;

/** Values of one tile between the two passes of a transform. */
const SCRATCH: usize = 1024;
/** Where the caller's memory begins. */
export const heap: usize = 4096;

/** Multiply (rows, inputs) by weights (outputs / 8, inputs, 8) -> (rows, outputs); `rows` is a multiple of 4. */
export function multiply(x: usize, weights: usize, y: usize, rows: usize, inputs: usize, outputs: usize): void {
  const row = inputs << 2;
  const outRow = outputs << 2;
  for (let n: usize = 0; n < rows; n += 4, x += row << 2, y += outRow << 2) {
    let w = weights;
    for (let o: usize = 0; o < outRow; o += 32) {
      let a0 = f32x4.splat(0);
      let a1 = f32x4.splat(0);
      let b0 = f32x4.splat(0);
      let b1 = f32x4.splat(0);
      let c0 = f32x4.splat(0);
      let c1 = f32x4.splat(0);
      let d0 = f32x4.splat(0);
      let d1 = f32x4.splat(0);
      for (let i = x, end = x + row; i < end; i += 4, w += 32) {
        const w0 = v128.load(w);
        const w1 = v128.load(w, 16);
        const a = v128.load32_splat(i);
        a0 = f32x4.add(a0, f32x4.mul(a, w0));
        a1 = f32x4.add(a1, f32x4.mul(a, w1));
        const b = v128.load32_splat(i + row);
        b0 = f32x4.add(b0, f32x4.mul(b, w0));
        b1 = f32x4.add(b1, f32x4.mul(b, w1));
        const c = v128.load32_splat(i + 2 * row);
        c0 = f32x4.add(c0, f32x4.mul(c, w0));
        c1 = f32x4.add(c1, f32x4.mul(c, w1));
        const d = v128.load32_splat(i + 3 * row);
        d0 = f32x4.add(d0, f32x4.mul(d, w0));
        d1 = f32x4.add(d1, f32x4.mul(d, w1));
      }
      let out = y + o;
      v128.store(out, a0);
      v128.store(out, a1, 16);
      out += outRow;
      v128.store(out, b0);
      v128.store(out, b1, 16);
      out += outRow;
      v128.store(out, c0);
      v128.store(out, c1, 16);
      out += outRow;
      v128.store(out, d0);
      v128.store(out, d1, 16);
    }
  }
}

/**
 * Convolve a picture (side + 2, side + 2, inputs), whose edge is zero and side a multiple of 16, with 3x3 kernels,
 * transformed (36, outputs / 8, inputs, 8), and add `bias` (outputs) -> (side, side, outputs) at `y`, whose rows are
 * `pitch` bytes long. What is below `least` is raised to it. `spare`: room for 36 * (side / 4 * (inputs + outputs) + 32)
 * values.
 */
export function convolve(
  x: usize,
  weights: usize,
  bias: usize,
  y: usize,
  pitch: usize,
  side: usize,
  inputs: usize,
  outputs: usize,
  least: f32,
  spare: usize,
): void {
  const tiles = side / OUT;
  const transformed = spare;
  const pixel = inputs << 2;
  const row = (side + 2) * pixel;
  const outPixel = outputs << 2;
  const inStep = tiles * pixel + SKEW;
  const outStep = tiles * outPixel + SKEW;
  const products = spare + POSITIONS * inStep;
  for (let ty: usize = 0; ty < tiles; ty++) {
    const top = x + (ty * OUT) * row;
    for (let tx: usize = 0; tx < tiles; tx++) {
      const from = top + (tx * OUT) * pixel;
      const to = transformed + tx * pixel;
      for (let i: usize = 0; i < pixel; i += 16) enter(from + i, pixel, row, to + i, inStep);
    }
    let w = weights;
    for (let n: usize = 0; n < POSITIONS; n++) {
      multiply(transformed + n * inStep, w, products + n * outStep, tiles, inputs, outputs);
      w += (inputs * outputs) << 2;
    }
    const outTop = y + (ty * OUT) * pitch;
    for (let tx: usize = 0; tx < tiles; tx++) {
      const from = products + tx * outPixel;
      const to = outTop + (tx * OUT) * outPixel;
      for (let i: usize = 0; i < outPixel; i += 16) {
        leave(from + i, outStep, to + i, outPixel, pitch, v128.load(bias + i), f32x4.splat(least));
      }
    }
  }
}

/** Enlarge values (from, from, channels) bilinearly to (to, to, channels); `spare`: room for (from, to, channels). */
export function enlarge(x: usize, from: usize, to: usize, channels: usize, spare: usize, y: usize): void {
  const step = <f32>from / <f32>to;
  const row = (to * channels) << 2;
  for (let n: usize = 0; n < to; n++) {
    const place = (<f32>n + 0.5) * step - 0.5;
    const left = <usize>max(place, 0);
    const right = min(left + 1, from - 1);
    const share = max<f32>(place - <f32>left, 0);
    for (let v: usize = 0; v < from; v++) {
      const a = x + ((v * from + left) * channels << 2);
      const b = x + ((v * from + right) * channels << 2);
      const at = spare + v * row + (n * channels << 2);
      for (let i: usize = 0; i < channels << 2; i += 4) {
        const near = f32.load(a + i);
        f32.store(at + i, near + share * (f32.load(b + i) - near));
      }
    }
  }
  for (let n: usize = 0; n < to; n++, y += row) {
    const place = (<f32>n + 0.5) * step - 0.5;
    const above = <usize>max(place, 0);
    const a = spare + above * row;
    const b = spare + min(above + 1, from - 1) * row;
    const share = f32x4.splat(max<f32>(place - <f32>above, 0));
    for (let i: usize = 0; i < row; i += 16) {
      const near = v128.load(a + i);
      v128.store(y + i, f32x4.add(near, f32x4.mul(share, f32x4.sub(v128.load(b + i), near))));
    }
  }
}

/** Return in `shares` (count, pixels) what each source takes of a pixel: its part of the weights of `count` fields
 * (pixels, 3). */
export function share(fields: usize, count: usize, pixels: usize, shares: usize): void {
  for (let n: usize = 0; n < pixels << 2; n += 4) {
    let total: f32 = 0;
    for (let s: usize = 0; s < count; s++) total += f32.load(fields + 12 * pixels * s + 3 * n + 8);
    for (let s: usize = 0; s < count; s++) {
      f32.store(shares + 4 * pixels * s + n, f32.load(fields + 12 * pixels * s + 3 * n + 8) / total);
    }
  }
}

/**
 * Add a picture (side, side, 3) of bytes, four more of which may be read, to `base`, sampled where the shifts of a field
 * (side, side, 3) point, times `scale`. The edge is repeated. `shares`: (side, side),
 * or 0: all of it, in place of what `base` was.
 */
export function sample(picture: usize, side: usize, field: usize, scale: f32, shares: usize, base: usize): void {
  const most = <i32>side - 1;
  const pitch = 3 * <i32>side;
  for (let v = 0; v <= most; v++) {
    for (let u = 0; u <= most; u++, field += 12, base += 12) {
      const px = <i32>nearest((f32.load(field) * scale + <f32>u) * PARTS);
      const py = <i32>nearest((f32.load(field, 4) * scale + <f32>v) * PARTS);
      const x = px >> 7;
      const y = py >> 7;
      const left = 3 * clamp(x, most);
      const right = 3 * clamp(x + 1, most);
      const above = <i32>picture + pitch * clamp(y, most);
      const below = <i32>picture + pitch * clamp(y + 1, most);
      const top = v128.load32_lane(above + right, v128.load32_zero(above + left), 1);
      const all = v128.load32_lane(below + right, v128.load32_lane(below + left, top, 2), 3);
      const pairs = i8x16.shuffle(all, all, 0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
      const fx = px & 127;
      const fy = py & 127;
      const across = (fx << 16) | (128 - fx);
      const upper = i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(pairs), i32x4.splat(across * (128 - fy)));
      const lower = i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(pairs), i32x4.splat(across * fy));
      const rounded = i32x4.shr_s(i32x4.add(i32x4.add(upper, lower), i32x4.splat(1 << 13)), 14);
      let value = f32x4.convert_i32x4_s(rounded);
      if (shares) {
        value = f32x4.add(f32x4.mul(value, v128.load32_splat(shares)), v128.load(base));
        shares += 4;
      }
      v128.store64_lane(base, value, 0);
      v128.store32_lane(base, value, 2, 8);
    }
  }
}

// @ts-ignore: decorator
@inline
function clamp(index: i32, most: i32): i32 {
  return index < 0 ? 0 : index > most ? most : index;
}

/** Fold a picture (side, side, 3) in 0..255 to -0.5..0.5: four pixels, 12 values, on one of another picture, whose pixels
 * and rows are `pixel` and `row` bytes long. */
export function fold(picture: usize, side: usize, to: usize, pixel: usize, row: usize): void {
  const scale = f32x4.splat(1 / 255);
  const half = f32x4.splat(0.5);
  for (let v: usize = 0; v < side; v++) {
    let at = to + (v >> 1) * row + (v & 1) * 24;
    for (let u: usize = 0; u < side; u += 2, picture += 24, at += pixel) {
      v128.store(at, f32x4.sub(f32x4.mul(v128.load(picture), scale), half));
      v128.store64_lane(at, f32x4.sub(f32x4.mul(v128.load64_zero(picture, 16), scale), half), 0, 16);
    }
  }
}

/** Transpose (rows, columns) to (columns, rows). */
export function transpose(x: usize, rows: usize, columns: usize, y: usize): void {
  for (let r: usize = 0; r < rows; r++) {
    let to = y + (r << 2);
    for (let end = x + (columns << 2); x < end; x += 4, to += rows << 2) f32.store(to, f32.load(x));
  }
}

/** Add `bias` to cells (rows, columns, 4 * channels), make what is negative 0, and put the four groups of each cell on
 * 2x2 pixels of a picture, whose pixels and rows are `pixel` and `row` bytes long. */
export function spread(
  x: usize,
  rows: usize,
  columns: usize,
  channels: usize,
  bias: usize,
  to: usize,
  pixel: usize,
  row: usize,
): void {
  const group = channels << 2;
  const zero = f32x4.splat(0);
  for (let v: usize = 0; v < rows; v++) {
    for (let u: usize = 0; u < columns; u++) {
      for (let n: usize = 0; n < 4; n++) {
        const at = to + (2 * v + (n >> 1)) * row + (2 * u + (n & 1)) * pixel;
        for (let i: usize = 0; i < group; i += 16, x += 16) {
          v128.store(at + i, f32x4.max(f32x4.add(v128.load(x), v128.load(bias + n * group + i)), zero));
        }
      }
    }
  }
}

/** Multiply changes (2 * side, 2 * side, 16) by a gate (side, side), enlarged bilinearly. */
export function close(changes: usize, gate: usize, side: usize): void {
  for (let v: usize = 0; v < 2 * side; v++) {
    const near = gate + (v >> 1) * side * 4;
    const far = gate + neighbour(v, side) * side * 4;
    for (let u: usize = 0; u < 2 * side; u++, changes += 64) {
      const a = (u >> 1) * 4;
      const b = neighbour(u, side) * 4;
      const top = f32.load(near + a) * 0.75 + f32.load(near + b) * 0.25;
      const bottom = f32.load(far + a) * 0.75 + f32.load(far + b) * 0.25;
      const open = f32x4.splat(top * 0.75 + bottom * 0.25);
      v128.store(changes, f32x4.mul(v128.load(changes), open));
      v128.store(changes, f32x4.mul(v128.load(changes, 16), open), 16);
      v128.store(changes, f32x4.mul(v128.load(changes, 32), open), 32);
    }
  }
}

/** Return the cell that the n-th of twice as many samples lies next to, apart from the one that it lies in. */
// @ts-ignore: decorator
@inline
function neighbour(n: usize, side: usize): usize {
  const cell = n >> 1;
  if (n & 1) return cell + 1 < side ? cell + 1 : cell;
  return cell ? cell - 1 : cell;
}

/** Add changes (side, side, 16), of which 12 count, to a folded base picture in -0.5..0.5, whose pixels and rows are
 * `pixel` and `row` bytes long, and write it as bytes (2 * side, 2 * side, 3). */
export function finish(changes: usize, base: usize, pixel: usize, row: usize, side: usize, out: usize): void {
  const outRow: usize = 6 * side;
  for (let v: usize = 0; v < side; v++, base += row, out += outRow) {
    let from = base;
    for (let u: usize = 0; u < side; u++, changes += 64, from += pixel, out += 6) {
      const a = level(v128.load(from), v128.load(changes));
      const b = level(v128.load(from, 16), v128.load(changes, 16));
      const c = level(v128.load(from, 32), v128.load(changes, 32));
      const bytes = i8x16.narrow_i16x8_u(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, c));
      v128.store32_lane(out, bytes, 0);
      v128.store16_lane(out, bytes, 2, 4);
      v128.store16_lane(out + outRow, bytes, 3);
      v128.store32_lane(out + outRow, bytes, 2, 2);
    }
  }
}

/** Return grey levels of base pictures and changes, halves rounded to even. */
// @ts-ignore: decorator
@inline
function level(base: v128, change: v128): v128 {
  const value = f32x4.mul(f32x4.add(f32x4.add(base, change), f32x4.splat(0.5)), f32x4.splat(255));
  return i32x4.trunc_sat_f32x4_s(f32x4.nearest(value));
}

/** Transform four channels of a tile: 6x6 pixels, `pixel` and `row` bytes apart, to 36 values `step` bytes apart. */
// @ts-ignore: decorator
@inline
function enter(from: usize, pixel: usize, row: usize, to: usize, step: usize): void {
  for (let n: usize = 0; n < IN; n++, from += row) pass(from, pixel, SCRATCH + (n << 4), IN << 4);
  for (let n: usize = 0; n < IN; n++, to += step) pass(SCRATCH + n * (IN << 4), 16, to, step * IN);
}

/** Multiply six vectors by the transposed matrix B. */
// @ts-ignore: decorator
@inline
function pass(from: usize, apart: usize, to: usize, step: usize): void {
  const x0 = v128.load(from);
  const x1 = v128.load(from + apart);
  const x2 = v128.load(from + 2 * apart);
  const x3 = v128.load(from + 3 * apart);
  const x4 = v128.load(from + 4 * apart);
  const x5 = v128.load(from + 5 * apart);
  const two = f32x4.splat(2);
  const four = f32x4.splat(4);
  const five = f32x4.splat(5);
  v128.store(to, f32x4.add(f32x4.sub(f32x4.mul(x0, four), f32x4.mul(x2, five)), x4));
  const even = f32x4.sub(x4, f32x4.mul(x2, four));
  const odd = f32x4.sub(x3, f32x4.mul(x1, four));
  v128.store(to + step, f32x4.add(even, odd));
  v128.store(to + 2 * step, f32x4.sub(even, odd));
  const far = f32x4.sub(x4, x2);
  const turn = f32x4.mul(f32x4.sub(x3, x1), two);
  v128.store(to + 3 * step, f32x4.add(far, turn));
  v128.store(to + 4 * step, f32x4.sub(far, turn));
  v128.store(to + 5 * step, f32x4.add(f32x4.sub(f32x4.mul(x1, four), f32x4.mul(x3, five)), x5));
}

/** Transform the products of four channels, `step` bytes apart, to the 4x4 pixels of a tile. */
// @ts-ignore: decorator
@inline
function leave(from: usize, step: usize, to: usize, pixel: usize, pitch: usize, bias: v128, least: v128): void {
  const zero = f32x4.splat(0);
  const none = f32x4.splat(-Infinity);
  for (let n: usize = 0; n < IN; n++) unpass(from + n * step, IN * step, SCRATCH + (n << 4), IN << 4, zero, none);
  for (let n: usize = 0; n < OUT; n++, to += pitch) unpass(SCRATCH + n * (IN << 4), 16, to, pixel, bias, least);
}

/** Multiply six vectors by the transposed matrix A, add `bias`, and raise what is below `least`. */
// @ts-ignore: decorator
@inline
function unpass(from: usize, apart: usize, to: usize, step: usize, bias: v128, least: v128): void {
  const x1 = v128.load(from + apart);
  const x2 = v128.load(from + 2 * apart);
  const x3 = v128.load(from + 3 * apart);
  const x4 = v128.load(from + 4 * apart);
  const near = f32x4.add(x1, x2);
  const far = f32x4.add(x3, x4);
  const turn = f32x4.sub(x1, x2);
  const wide = f32x4.sub(x3, x4);
  const first = f32x4.add(f32x4.add(v128.load(from), near), far);
  const second = f32x4.add(turn, f32x4.mul(wide, f32x4.splat(2)));
  const third = f32x4.add(near, f32x4.mul(far, f32x4.splat(4)));
  const fourth = f32x4.add(f32x4.add(turn, f32x4.mul(wide, f32x4.splat(8))), v128.load(from + 5 * apart));
  v128.store(to, f32x4.max(f32x4.add(first, bias), least));
  v128.store(to + step, f32x4.max(f32x4.add(second, bias), least));
  v128.store(to + 2 * step, f32x4.max(f32x4.add(third, bias), least));
  v128.store(to + 3 * step, f32x4.max(f32x4.add(fourth, bias), least));
}
