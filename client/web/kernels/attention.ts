/**
 * Attention of blocks of 2x2 cells in WebAssembly (AssemblyScript), as models/network/attention.py's `block_attention`:
 * each query block keeps the `kept` source blocks of the best mean score, and its four cells attend to their cells and to
 * the extras. Addresses and pitches are in bytes.
 */

import { fma, multiply, ZEROS } from "./convolution";

/**
 * Write what `count` query blocks attend to, (4 * count, width). With n source blocks of `dims` dimensions:
 * - `queries` (4 * count, dims), `means` (count, dims): of the four queries of a block; `count` is a multiple of 4.
 * - `pooled` (n / 8, dims, 8): mean keys; `keys` (n, dims, 4); `rows` (n, width / 8, 4, 8).
 * - `extraKeys` (extras / 8, dims, 8); `near` (width / 8, 4 * kept + extras, 8), which holds the rows of the extras.
 * - `spare`: room for 4 * (n + 4 * kept + extras) + kept values, the last of which are the blocks to begin with: any.
 */
export function attend(
  queries: usize,
  means: usize,
  count: usize,
  pooled: usize,
  keys: usize,
  rows: usize,
  blocks: usize,
  dims: usize,
  width: usize,
  extraKeys: usize,
  extras: usize,
  near: usize,
  kept: usize,
  out: usize,
  spare: usize,
): void {
  const length = dims << 2;
  const scored = blocks << 2;
  const cells = (kept << 2) + extras;
  const weights = spare + 4 * scored;
  const picked = weights + 16 * cells;
  for (let b: usize = 0; b < count; b += 4) {
    multiply(means + b * length, length, pooled, ZEROS, ZEROS, 0, spare, scored, 4, dims, blocks, -Infinity);
    for (let n: usize = 0; n < 4; n++, queries += 4 * length, out += 16 * width) {
      select(spare + n * scored, blocks, kept, picked);
      for (let k: usize = 0; k < kept; k++) {
        const block = <usize>load<u32>(picked + (k << 2));
        compare(queries, length, keys + block * 4 * length, weights + (k << 4), cells << 2);
        gather(rows + block * 16 * width, width, near + (k << 7), cells << 5);
      }
      multiply(queries, length, extraKeys, ZEROS, ZEROS, 0, weights + (kept << 4), cells << 2, 4, dims, extras, -Infinity);
      for (let q: usize = 0; q < 4; q++) normalise(weights + q * (cells << 2), cells << 2);
      multiply(weights, cells << 2, near, ZEROS, ZEROS, 0, out, width << 2, 4, cells, width, -Infinity);
    }
  }
}

/** Scale vectors (4 * count, length / 4) to a length of `scale` -> queries (4 * count, pitch / 4), and write the means of each
 * four of them. `length` is a multiple of 16. */
export function direct(vectors: usize, count: usize, length: usize, scale: f32, queries: usize, means: usize, pitch: usize): void {
  for (let b: usize = 0; b < count; b++, means += pitch) {
    for (let i: usize = 0; i < length; i += 16) v128.store(means + i, f32x4.splat(0));
    for (let n: usize = 0; n < 4; n++, vectors += length, queries += pitch) {
      let squares = f32x4.splat(0);
      for (let i: usize = 0; i < length; i += 16) {
        const value = v128.load(vectors + i);
        squares = fma(value, value, squares);
      }
      const factor = f32x4.splat(scale / max<f32>(sqrt(sumOf(squares)), 1e-12));
      for (let i: usize = 0; i < length; i += 16) {
        const value = f32x4.mul(v128.load(vectors + i), factor);
        v128.store(queries + i, value);
        v128.store(means + i, fma(value, f32x4.splat(0.25), v128.load(means + i)));
      }
    }
  }
}

/** Replace the numbers (kept,) in `picked` by those of the best scores (blocks,), in any order. They are few to replace if
 * they were best for a neighbour. */
function select(scores: usize, blocks: usize, kept: usize, picked: usize): void {
  let last = worst(scores, kept, picked);
  let least = f32.load(scores + (load<u32>(last) << 2));
  for (let n: usize = 0; n < blocks; n += 4) {
    if (!v128.any_true(f32x4.gt(v128.load(scores + (n << 2)), f32x4.splat(least)))) continue;
    for (let i = n; i < n + 4; i++) {
      if (!(f32.load(scores + (i << 2)) > least) || isIn(picked, kept, <u32>i)) continue;
      store<u32>(last, <u32>i);
      last = worst(scores, kept, picked);
      least = f32.load(scores + (load<u32>(last) << 2));
    }
  }
}

/** Return the address of the number of the worst score. */
function worst(scores: usize, kept: usize, picked: usize): usize {
  let at = picked;
  let least: f32 = Infinity;
  for (let k = picked; k < picked + (kept << 2); k += 4) {
    const score = f32.load(scores + (load<u32>(k) << 2));
    if (score < least) {
      least = score;
      at = k;
    }
  }
  return at;
}

function isIn(picked: usize, kept: usize, number: u32): bool {
  for (let k = picked; k < picked + (kept << 2); k += 4) if (load<u32>(k) === number) return true;
  return false;
}

/** Write the products of four queries with the four keys (dims, 4) of a block to four rows, `pitch` bytes apart. */
function compare(queries: usize, length: usize, keys: usize, to: usize, pitch: usize): void {
  let a = f32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  for (let end = queries + length; queries < end; queries += 4, keys += 16) {
    const key = v128.load(keys);
    a = fma(v128.load32_splat(queries), key, a);
    b = fma(v128.load32_splat(queries + length), key, b);
    c = fma(v128.load32_splat(queries + 2 * length), key, c);
    d = fma(v128.load32_splat(queries + 3 * length), key, d);
  }
  v128.store(to, a);
  v128.store(to + pitch, b);
  v128.store(to + 2 * pitch, c);
  v128.store(to + 3 * pitch, d);
}

/** Copy the rows of a block (width / 8, 4, 8) to parts `pitch` bytes apart. */
function gather(rows: usize, width: usize, to: usize, pitch: usize): void {
  for (let end = rows + 16 * width; rows < end; to += pitch) {
    for (let i: usize = 0; i < 128; i += 16, rows += 16) v128.store(to + i, v128.load(rows));
  }
}

/** Replace logits, `length` bytes, by their softmax. */
function normalise(logits: usize, length: usize): void {
  const end = logits + length;
  let most = v128.load(logits);
  for (let i = logits + 16; i < end; i += 16) most = f32x4.max(most, v128.load(i));
  const largest = f32x4.splat(max(max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)), max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3))));
  let sums = f32x4.splat(0);
  for (let i = logits; i < end; i += 16) {
    const value = exponential(f32x4.sub(v128.load(i), largest));
    v128.store(i, value);
    sums = f32x4.add(sums, value);
  }
  const share = f32x4.splat(1 / sumOf(sums));
  for (let i = logits; i < end; i += 16) v128.store(i, f32x4.mul(v128.load(i), share));
}

// @ts-ignore: decorator
@inline
export function sumOf(x: v128): f32 {
  return f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1) + f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3);
}

/** Return e^x of values of 0 or less, to 2e-7 of it: a power of 2, and a Taylor series of the rest. */
// @ts-ignore: decorator
@inline
function exponential(x: v128): v128 {
  const scaled = f32x4.mul(f32x4.max(x, f32x4.splat(-87)), f32x4.splat(1.4426950408889634));
  const whole = f32x4.nearest(scaled);
  const rest = f32x4.mul(f32x4.sub(scaled, whole), f32x4.splat(0.6931471805599453));
  let series = f32x4.splat(1 / 720);
  series = fma(series, rest, f32x4.splat(1 / 120));
  series = fma(series, rest, f32x4.splat(1 / 24));
  series = fma(series, rest, f32x4.splat(1 / 6));
  series = fma(series, rest, f32x4.splat(0.5));
  series = fma(series, rest, f32x4.splat(1));
  series = fma(series, rest, f32x4.splat(1));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(whole), i32x4.splat(127)), 23);
  return f32x4.mul(series, power);
}
