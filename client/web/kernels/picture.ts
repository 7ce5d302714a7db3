/** Sampling, blending and correcting pictures, in WebAssembly (AssemblyScript). Pictures are (height, width, channels) in
 * float32. The caller lays out the memory, and passes addresses and lengths in bytes. */

/** Parts of a pixel that places are rounded to; their squares are products that 16 bits hold. */
const PARTS: f32 = 128;

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
