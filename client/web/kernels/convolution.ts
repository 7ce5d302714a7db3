/**
 * Convolutions in WebAssembly (AssemblyScript): of 3x3 by Winograd's F(4x4, 3x3), which takes a quarter of the
 * multiplications (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016), or as products of patches;
 * pointwise and depthwise ones. Pictures are (height, width, channels) in float32. The caller lays out the memory from
 * `heap` on (index.ts), and passes addresses and pitches in bytes. `least`: what is below it is raised to it.
 */

/** Pixels of a tile's side, outputs and inputs. */
const OUT: usize = 4;
const IN: usize = 6;
const POSITIONS: usize = IN * IN;
/** Bytes between matrices, which keep caches from mapping all of them to one set where channels are a power of two. */
const SKEW: usize = 64;
/** Tiles that are transformed together, at least: each reading of the weights then serves so many. */
const BATCH: usize = 16;

/** Values of one tile between the two passes of a transform. */
const SCRATCH: usize = 1024;
/** Zeros up to `heap`. */
export const ZEROS: usize = 4096;

/** Return a * b + c, rounded once where the instructions for that are allowed. */
// @ts-ignore: decorator
@inline
export function fma(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}

/** Multiply x (rows, inputs) by weights (outputs / 8, inputs, 8), and add `bias` (outputs) and `more` (rows, outputs) -> y
 * (rows, outputs); `rows` is a multiple of 4. With a `morePitch` of 0 all rows get the same. `more` may be y. */
export function multiply(
  x: usize,
  xPitch: usize,
  weights: usize,
  bias: usize,
  more: usize,
  morePitch: usize,
  y: usize,
  yPitch: usize,
  rows: usize,
  inputs: usize,
  outputs: usize,
  least: f32,
): void {
  const row = inputs << 2;
  const outRow = outputs << 2;
  const floor = f32x4.splat(least);
  for (let n: usize = 0; n < rows; n += 4, x += xPitch << 2, y += yPitch << 2, more += morePitch << 2) {
    let w = weights;
    for (let o: usize = 0; o < outRow; o += 32) {
      const bias0 = v128.load(bias + o);
      const bias1 = v128.load(bias + o, 16);
      let m = more + o;
      let a0 = f32x4.add(bias0, v128.load(m));
      let a1 = f32x4.add(bias1, v128.load(m, 16));
      m += morePitch;
      let b0 = f32x4.add(bias0, v128.load(m));
      let b1 = f32x4.add(bias1, v128.load(m, 16));
      m += morePitch;
      let c0 = f32x4.add(bias0, v128.load(m));
      let c1 = f32x4.add(bias1, v128.load(m, 16));
      m += morePitch;
      let d0 = f32x4.add(bias0, v128.load(m));
      let d1 = f32x4.add(bias1, v128.load(m, 16));
      for (let i = x, end = x + row; i < end; i += 4, w += 32) {
        const w0 = v128.load(w);
        const w1 = v128.load(w, 16);
        const a = v128.load32_splat(i);
        a0 = fma(a, w0, a0);
        a1 = fma(a, w1, a1);
        const b = v128.load32_splat(i + xPitch);
        b0 = fma(b, w0, b0);
        b1 = fma(b, w1, b1);
        const c = v128.load32_splat(i + 2 * xPitch);
        c0 = fma(c, w0, c0);
        c1 = fma(c, w1, c1);
        const d = v128.load32_splat(i + 3 * xPitch);
        d0 = fma(d, w0, d0);
        d1 = fma(d, w1, d1);
      }
      let out = y + o;
      v128.store(out, f32x4.max(a0, floor));
      v128.store(out, f32x4.max(a1, floor), 16);
      out += yPitch;
      v128.store(out, f32x4.max(b0, floor));
      v128.store(out, f32x4.max(b1, floor), 16);
      out += yPitch;
      v128.store(out, f32x4.max(c0, floor));
      v128.store(out, f32x4.max(c1, floor), 16);
      out += yPitch;
      v128.store(out, f32x4.max(d0, floor));
      v128.store(out, f32x4.max(d1, floor), 16);
    }
  }
}

/**
 * Convolve a picture (side + 2, side + 2, inputs), whose edge is zero and whose side is 8, 16 or a multiple of 16, with 3x3
 * kernels, transformed (36, outputs / 8, inputs, 8), and add `bias` (outputs) -> (side, side, outputs). `spare`: room for
 * 36 * (max(16, side / 4) * (inputs + outputs) + 32) values.
 */
export function convolve(
  x: usize,
  pixel: usize,
  row: usize,
  weights: usize,
  bias: usize,
  y: usize,
  outPixel: usize,
  outRow: usize,
  side: usize,
  inputs: usize,
  outputs: usize,
  least: f32,
  spare: usize,
): void {
  const tiles = side / OUT;
  const band = min(tiles, max<usize>(1, BATCH / tiles));
  const length = inputs << 2;
  const outLength = outputs << 2;
  const inStep = band * tiles * length + SKEW;
  const outStep = band * tiles * outLength + SKEW;
  const products = spare + POSITIONS * inStep;
  const floor = f32x4.splat(least);
  for (let top: usize = 0; top < tiles; top += band) {
    let to = spare;
    for (let ty = top; ty < top + band; ty++) {
      for (let tx: usize = 0; tx < tiles; tx++, to += length) {
        const from = x + ty * OUT * row + tx * OUT * pixel;
        for (let i: usize = 0; i < length; i += 16) enter(from + i, pixel, row, to + i, inStep);
      }
    }
    let w = weights;
    for (let n: usize = 0; n < POSITIONS; n++, w += inputs * outLength) {
      multiply(spare + n * inStep, length, w, ZEROS, ZEROS, 0, products + n * outStep, outLength, band * tiles, inputs, outputs, -Infinity);
    }
    let from = products;
    for (let ty = top; ty < top + band; ty++) {
      for (let tx: usize = 0; tx < tiles; tx++, from += outLength) {
        const at = y + ty * OUT * outRow + tx * OUT * outPixel;
        for (let i: usize = 0; i < outLength; i += 16) leave(from + i, outStep, at + i, outPixel, outRow, v128.load(bias + i), floor);
      }
    }
  }
}

/** Copy the 3x3 pixels around each `stride`-th pixel of a picture, whose edge is one pixel wide -> (height * width, 9 *
 * length bytes). */
export function patches(x: usize, pixel: usize, row: usize, stride: usize, width: usize, height: usize, length: usize, to: usize): void {
  for (let v: usize = 0; v < height; v++) {
    for (let u: usize = 0; u < width; u++) {
      for (let dy: usize = 0; dy < 3; dy++) {
        let from = x + (v * stride + dy) * row + u * stride * pixel;
        for (let dx: usize = 0; dx < 3; dx++, from += pixel, to += length) memory.copy(to, from, length);
      }
    }
  }
}

/** Copy pixels (height, width) of `length` bytes into a picture, each to `times` x `times` pixels. */
export function place(x: usize, length: usize, width: usize, height: usize, times: usize, to: usize, pixel: usize, row: usize): void {
  for (let v: usize = 0; v < height * times; v++) {
    for (let u: usize = 0; u < width * times; u++) {
      memory.copy(to + v * row + u * pixel, x + ((v / times) * width + u / times) * length, length);
    }
  }
}

/** Convolve each channel of a picture, whose edge is `size / 2` pixels wide, with its own kernel, and add `bias` ->
 * (height, width, channels). Weights: (size, size, channels). */
export function depthwise(
  x: usize,
  pixel: usize,
  row: usize,
  weights: usize,
  bias: usize,
  y: usize,
  width: usize,
  height: usize,
  size: usize,
  stride: usize,
  least: f32,
): void {
  const floor = f32x4.splat(least);
  const step = stride * pixel;
  const four = width & ~3;
  for (let v: usize = 0; v < height; v++) {
    let from = x + v * stride * row;
    let u: usize = 0;
    for (; u < four; u += 4, from += 4 * step, y += 4 * pixel) {
      for (let i: usize = 0; i < pixel; i += 16) {
        let a = v128.load(bias + i);
        let b = a;
        let c = a;
        let d = a;
        let w = weights + i;
        for (let dy: usize = 0; dy < size; dy++) {
          let at = from + i + dy * row;
          for (let dx: usize = 0; dx < size; dx++, at += pixel, w += pixel) {
            const kernel = v128.load(w);
            a = fma(kernel, v128.load(at), a);
            b = fma(kernel, v128.load(at + step), b);
            c = fma(kernel, v128.load(at + 2 * step), c);
            d = fma(kernel, v128.load(at + 3 * step), d);
          }
        }
        v128.store(y + i, f32x4.max(a, floor));
        v128.store(y + i + pixel, f32x4.max(b, floor));
        v128.store(y + i + 2 * pixel, f32x4.max(c, floor));
        v128.store(y + i + 3 * pixel, f32x4.max(d, floor));
      }
    }
    for (; u < width; u++, from += step, y += pixel) {
      for (let i: usize = 0; i < pixel; i += 16) {
        let a = v128.load(bias + i);
        let w = weights + i;
        for (let dy: usize = 0; dy < size; dy++) {
          let at = from + i + dy * row;
          for (let dx: usize = 0; dx < size; dx++, at += pixel, w += pixel) a = fma(v128.load(w), v128.load(at), a);
        }
        v128.store(y + i, f32x4.max(a, floor));
      }
    }
  }
}

/** Put the four groups of each cell (rows, columns, 4 * length bytes) on 2x2 pixels of a picture. */
export function spread(x: usize, rows: usize, columns: usize, length: usize, to: usize, pixel: usize, row: usize): void {
  for (let v: usize = 0; v < rows; v++) {
    for (let u: usize = 0; u < columns; u++) {
      for (let n: usize = 0; n < 4; n++, x += length) {
        memory.copy(to + (2 * v + (n >> 1)) * row + (2 * u + (n & 1)) * pixel, x, length);
      }
    }
  }
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
  const five = f32x4.splat(-5);
  const minus = f32x4.splat(-4);
  v128.store(to, fma(x0, four, fma(x2, five, x4)));
  const even = fma(x2, minus, x4);
  const odd = fma(x1, minus, x3);
  v128.store(to + step, f32x4.add(even, odd));
  v128.store(to + 2 * step, f32x4.sub(even, odd));
  const far = f32x4.sub(x4, x2);
  const turn = f32x4.mul(f32x4.sub(x3, x1), two);
  v128.store(to + 3 * step, f32x4.add(far, turn));
  v128.store(to + 4 * step, f32x4.sub(far, turn));
  v128.store(to + 5 * step, fma(x1, four, fma(x3, five, x5)));
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
  const second = fma(wide, f32x4.splat(2), turn);
  const third = fma(far, f32x4.splat(4), near);
  const fourth = f32x4.add(fma(wide, f32x4.splat(8), turn), v128.load(from + 5 * apart));
  v128.store(to, f32x4.max(f32x4.add(first, bias), least));
  v128.store(to + step, f32x4.max(f32x4.add(second, bias), least));
  v128.store(to + 2 * step, f32x4.max(f32x4.add(third, bias), least));
  v128.store(to + 3 * step, f32x4.max(f32x4.add(fourth, bias), least));
}
