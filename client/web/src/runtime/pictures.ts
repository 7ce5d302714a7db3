/** Picture operations with the results of their OpenCV twins (models/runtime/pictures.py, onnx.py). */

/** An RGB picture: `data` holds (side, side, 3). */
export interface Picture {
  side: number;
  data: Uint8Array;
}

/** Scale a picture down by area averaging; `side` divides its side. As `cv2.resize(..., INTER_AREA)`. */
export function resizeArea(picture: Picture, side: number): Picture {
  const step = picture.side / side;
  if (step === 1) return picture;
  const data = new Uint8Array(side * side * 3);
  if (step === 2) halve(picture, data);
  else average(picture, step, data);
  return { side, data };
}

/** OpenCV rounds halves of 2 x 2 pixels up. */
function halve({ side, data }: Picture, out: Uint8Array): void {
  const row = 3 * side;
  for (let y = 0, at = 0; y < side; y += 2) {
    for (let i = y * row, j = i + row, end = j; i < end; i += 6, j += 6, at += 3) {
      out[at] = (data[i] + data[i + 3] + data[j] + data[j + 3] + 2) >> 2;
      out[at + 1] = (data[i + 1] + data[i + 4] + data[j + 1] + data[j + 4] + 2) >> 2;
      out[at + 2] = (data[i + 2] + data[i + 5] + data[j + 2] + data[j + 5] + 2) >> 2;
    }
  }
}

/** Other halves to even. */
function average(picture: Picture, step: number, out: Uint8Array): void {
  const side = picture.side / step;
  const area = step * step;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let dy = 0; dy < step; dy++) {
          let from = ((y * step + dy) * picture.side + x * step) * 3 + channel;
          for (let dx = 0; dx < step; dx++, from += 3) sum += picture.data[from];
        }
        out[(y * side + x) * 3 + channel] = roundEven(sum / area);
      }
    }
  }
}

/** Return the mean colour of each cell (side, side, 3), in 0..1. */
export function cellMeans({ side: from, data }: Picture, side: number): Float32Array {
  const out = new Float32Array(3 * side ** 2);
  const step = from / side;
  const share = 1 / (255 * step ** 2);
  for (let y = 0, n = 0; y < from; y++) {
    const row = Math.floor(y / step) * side;
    for (let x = 0; x < from; x++, n += 3) {
      const at = 3 * (row + Math.floor(x / step));
      for (let i = 0; i < 3; i++) out[at + i] += data[n + i] * share;
    }
  }
  return out;
}

/** Round halves to even. */
export function roundEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.floor(value + 0.5);
  return floor % 2 ? floor + 1 : floor;
}

/** Where each of `to` samples lies between `from` samples: index of the left one, and weight of the right one. */
function positions(from: number, to: number): { left: Int32Array; weight: Float32Array } {
  const left = new Int32Array(to);
  const weight = new Float32Array(to);
  for (let n = 0; n < to; n++) {
    const place = Math.fround(((n + 0.5) * from) / to - 0.5);
    const floor = Math.floor(place);
    left[n] = Math.min(Math.max(floor, 0), from - 1);
    weight[n] = floor < 0 || floor >= from - 1 ? 0 : place - floor;
  }
  return { left, weight };
}

/** Resize values (from, from, n) bilinearly to (to, to, n). As `cv2.resize(..., INTER_LINEAR)` of float32. */
export function resizeLinear(values: Float32Array, from: number, to: number, n: number): Float32Array {
  if (from === to) return values;
  const { left, weight } = positions(from, to);
  const wide = new Float32Array(from * to * n);
  for (let y = 0; y < from; y++) {
    for (let x = 0; x < to; x++) {
      const a = (y * from + left[x]) * n;
      const b = left[x] + 1 < from ? a + n : a;
      const share = weight[x];
      const out = (y * to + x) * n;
      for (let i = 0; i < n; i++) wide[out + i] = values[a + i] + share * (values[b + i] - values[a + i]);
    }
  }
  const out = new Float32Array(to * to * n);
  const row = to * n;
  for (let y = 0; y < to; y++) {
    const a = left[y] * row;
    const b = left[y] + 1 < from ? a + row : a;
    const share = weight[y];
    const at = y * row;
    for (let i = 0; i < row; i++) out[at + i] = wide[a + i] + share * (wide[b + i] - wide[a + i]);
  }
  return out;
}

/**
 * Sample a picture at places (n, 2) into `out` (n, 3), repeating its edge. As `cv2.remap` of bytes, which rounds places
 * to a 32nd of a pixel.
 */
export function remapPicture(picture: Picture, places: Float32Array, out: Uint8Array): void {
  const { side, data } = picture;
  const most = side - 1;
  for (let n = 0; n < places.length / 2; n++) {
    const px = Math.round(places[2 * n] * 32);
    const py = Math.round(places[2 * n + 1] * 32);
    const x = px >> 5;
    const y = py >> 5;
    const fx = px & 31;
    const fy = py & 31;
    const x0 = x < 0 ? 0 : x > most ? most : x;
    const y0 = y < 0 ? 0 : y > most ? most : y;
    const x1 = x < -1 ? 0 : x >= most ? most : x + 1;
    const y1 = y < -1 ? 0 : y >= most ? most : y + 1;
    const a = (y0 * side + x0) * 3;
    const b = (y0 * side + x1) * 3;
    const c = (y1 * side + x0) * 3;
    const d = (y1 * side + x1) * 3;
    const wa = (32 - fx) * (32 - fy);
    const wb = fx * (32 - fy);
    const wc = (32 - fx) * fy;
    const wd = fx * fy;
    const at = 3 * n;
    out[at] = (data[a] * wa + data[b] * wb + data[c] * wc + data[d] * wd + 512) >> 10;
    out[at + 1] = (data[a + 1] * wa + data[b + 1] * wb + data[c + 1] * wc + data[d + 1] * wd + 512) >> 10;
    out[at + 2] = (data[a + 2] * wa + data[b + 2] * wb + data[c + 2] * wc + data[d + 2] * wd + 512) >> 10;
  }
}

/** Sample values (side, side, n) at places (m, 2) in their units -> (m, n). Beyond the edge it is repeated, or with
 * `outside` that value is taken. As `cv2.remap` of float32. */
export function remapValues(
  values: Float32Array,
  side: number,
  n: number,
  places: Float32Array,
  outside: number | null = null,
): Float32Array {
  const out = new Float32Array((places.length / 2) * n);
  const most = side - 1;
  for (let m = 0; m < places.length / 2; m++) {
    const px = roundEven(places[2 * m] * 32);
    const py = roundEven(places[2 * m + 1] * 32);
    const x = px >> 5;
    const y = py >> 5;
    const fx = (px & 31) / 32;
    const fy = (py & 31) / 32;
    if (outside !== null && (x < 0 || y < 0 || x >= most || y >= most)) {
      const at = (column: number, row: number, i: number) =>
        column < 0 || row < 0 || column > most || row > most ? outside : values[(row * side + column) * n + i];
      for (let i = 0; i < n; i++) {
        const top = at(x, y, i) * (1 - fx) + at(x + 1, y, i) * fx;
        const bottom = at(x, y + 1, i) * (1 - fx) + at(x + 1, y + 1, i) * fx;
        out[m * n + i] = top * (1 - fy) + bottom * fy;
      }
      continue;
    }
    const left = x < 0 ? 0 : x > most ? most : x;
    const right = x < -1 ? 0 : x >= most ? most : x + 1;
    const above = (y < 0 ? 0 : y > most ? most : y) * side;
    const below = (y < -1 ? 0 : y >= most ? most : y + 1) * side;
    const a = (above + left) * n;
    const b = (above + right) * n;
    const c = (below + left) * n;
    const d = (below + right) * n;
    for (let i = 0; i < n; i++) {
      const top = values[a + i] * (1 - fx) + values[b + i] * fx;
      const bottom = values[c + i] * (1 - fx) + values[d + i] * fx;
      out[m * n + i] = top * (1 - fy) + bottom * fy;
    }
  }
  return out;
}

/** Enlarge a picture by OpenCV's bicubic kernel (a = -0.75), in 11-bit fixed point. */
export function resizeCubic(picture: Picture, side: number): Picture {
  if (picture.side === side) return picture;
  const from = picture.side;
  const taps = Array.from({ length: side }, (_, n) => {
    const place = Math.fround(((n + 0.5) * from) / side - 0.5);
    const left = Math.floor(place);
    return { left: left - 1, weights: cubicWeights(place - left).map((weight) => roundEven(weight * 2048)) };
  });
  const clamp = (index: number) => Math.min(Math.max(index, 0), from - 1);
  const wide = new Int32Array(from * side * 3);
  for (let y = 0; y < from; y++) {
    taps.forEach(({ left, weights }, x) => {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let tap = 0; tap < 4; tap++) {
          sum += weights[tap] * picture.data[(y * from + clamp(left + tap)) * 3 + channel];
        }
        wide[(y * side + x) * 3 + channel] = sum;
      }
    });
  }
  const data = new Uint8Array(side * side * 3);
  taps.forEach(({ left, weights }, y) => {
    for (let i = 0; i < side * 3; i++) {
      let sum = 0;
      for (let tap = 0; tap < 4; tap++) sum += weights[tap] * wide[clamp(left + tap) * side * 3 + i];
      data[y * side * 3 + i] = Math.min(255, Math.max(0, Math.floor((sum + (1 << 21)) / (1 << 22))));
    }
  });
  return { side, data };
}

function cubicWeights(x: number): number[] {
  const a = -0.75;
  const outer = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
  const near = ((a + 2) * x - (a + 3)) * x * x + 1;
  const far = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
  return [outer, near, far, 1 - outer - near - far];
}

/** Sample a picture at places (n, 2) into `out` (n, 3) by the same kernel, repeating its edge, where `mask` (n,) is
 * positive. As `cv2.remap(..., INTER_CUBIC)`. */
export function remapCubic({ side, data }: Picture, places: Float32Array, mask: Float32Array, out: Uint8Array): void {
  const clamp = (index: number) => Math.min(Math.max(index, 0), side - 1);
  for (let n = 0; n < mask.length; n++) {
    if (mask[n] <= 0) continue;
    const [px, py] = [roundEven(places[2 * n] * 32), roundEven(places[2 * n + 1] * 32)];
    const [x, y] = [px >> 5, py >> 5];
    const across = cubicWeights((px & 31) / 32);
    const down = cubicWeights((py & 31) / 32);
    for (let channel = 0; channel < 3; channel++) {
      let sum = 0;
      for (let row = 0; row < 4; row++) {
        for (let column = 0; column < 4; column++) {
          const at = clamp(y + row - 1) * side + clamp(x + column - 1);
          sum += down[row] * across[column] * data[3 * at + channel];
        }
      }
      out[3 * n + channel] = Math.min(255, Math.max(0, roundEven(sum)));
    }
  }
}

/** Return the RGBA pixels of a picture, as canvases take them. */
export function rgba({ side, data }: Picture): ArrayBuffer {
  const out = new Uint8Array(side * side * 4);
  for (let n = 0; n < side * side; n++) {
    out[4 * n] = data[3 * n];
    out[4 * n + 1] = data[3 * n + 1];
    out[4 * n + 2] = data[3 * n + 2];
    out[4 * n + 3] = 255;
  }
  return out.buffer;
}
