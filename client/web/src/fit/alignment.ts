/**
 * The parts of the alignment that a receiver needs: how a source's cells move with keypoints, and how visible an error of
 * each keypoint is (codec/fit/alignment.py).
 */

import { type Picture, remapValues, resizeArea, resizeLinear } from "../runtime/pictures";

const FLOW_SIZE = 128;
/** Cells per side of the motion basis as it is used here. */
export const GRID = 32;
const CELLS = GRID * GRID;
const BLUR = 0.7;
const INVERSION_STEPS = 6;
const STIFFNESS = 4e3;
const PLACE_PRIOR = 0.02;
const STRENGTH_PRIOR = 0.005;

/** A source, prepared for moving its cells. */
export interface Reference {
  /** (CELLS, 3 K): motion per unit of x and of y (the same), of strength to the right, and of strength down. */
  basis: Float32Array;
  /** (3 K,): the source's own keypoints as unknowns: all x, all y, all strengths. */
  unknowns: Float64Array;
}

/** Prepare a source from its motion basis (b, 3 K) and its keypoints (K, 3). */
export function reference(basis: Float32Array, keypoints: Float32Array): Reference {
  const width = keypoints.length;
  const side = Math.round(Math.sqrt(basis.length / width));
  return { basis: resizeLinear(basis, side, GRID, width), unknowns: unknownsOf(keypoints) };
}

/** Return keypoints (K, 3) as unknowns (3 K,): all x, all y, all strengths. */
export function unknownsOf(keypoints: Float32Array): Float64Array {
  const count = keypoints.length / 3;
  return Float64Array.from(keypoints, (_, i) => keypoints[(i % count) * 3 + Math.floor(i / count)]);
}

/** Return unknowns (3 K,) as keypoints (K, 3), positions clipped to [-1, 1] and strengths to [0, 1]. */
export function keypointsOf(unknowns: Float64Array): Float32Array {
  const count = unknowns.length / 3;
  return Float32Array.from(unknowns, (_, i) => {
    const value = unknowns[(i % 3) * count + Math.floor(i / 3)];
    return Math.min(1, Math.max(i % 3 === 2 ? 0 : -1, value));
  });
}

/** Return the displacements (CELLS, 2), in cells, of a source's cells in a frame with keypoints (K, 3). */
export function moved(ref: Reference, keypoints: Float32Array): Float32Array {
  const change = unknownsOf(keypoints).map((value, i) => value - ref.unknowns[i]);
  const count = keypoints.length / 3;
  const out = new Float32Array(2 * CELLS);
  for (let cell = 0; cell < CELLS; cell++) {
    const row = cell * 3 * count;
    let [right, down] = [0, 0];
    for (let k = 0; k < count; k++) {
      const along = ref.basis[row + k];
      const strength = change[2 * count + k];
      right += along * change[k] + ref.basis[row + count + k] * strength;
      down += along * change[count + k] + ref.basis[row + 2 * count + k] * strength;
    }
    out[2 * cell] = right * (GRID / 2);
    out[2 * cell + 1] = down * (GRID / 2);
  }
  return out;
}

/** Invert a field (CELLS, 2) of source cells by fixed-point iteration. */
export function backward(forward: Float32Array): Float32Array {
  let back = forward.map((value) => -value);
  for (let step = 0; step < INVERSION_STEPS; step++) {
    const places = back.map((value, i) => value + (i % 2 ? Math.floor(i / 2 / GRID) : (i / 2) % GRID));
    back = remapValues(forward, GRID, 2, places).map((value) => -value);
  }
  return back;
}

/** Return the Gram matrix (3 K, 3 K) of the alignment at the source's own keypoints, in squared grey levels. */
export function gramAtRest(ref: Reference, picture: Picture): Float64Array {
  const { xx, xy, yy } = structureTensors(picture);
  const width = ref.unknowns.length;
  const count = width / 3;
  const gram = new Float64Array(width * width);
  const row = new Float64Array(width);
  const byX = new Float64Array(count);
  const byY = new Float64Array(count);
  for (let cell = 0; cell < CELLS; cell++) {
    row.set(ref.basis.subarray(cell * width, (cell + 1) * width));
    for (let k = 0; k < count; k++) {
      byX[k] = xx[cell] * row[count + k] + xy[cell] * row[2 * count + k];
      byY[k] = xy[cell] * row[count + k] + yy[cell] * row[2 * count + k];
    }
    for (let a = 0; a < count; a++) {
      const along = row[a];
      const right = row[count + a];
      const down = row[2 * count + a];
      for (let b = 0; b < count; b++) {
        const both = along * row[b];
        gram[a * width + b] += both * xx[cell];
        gram[a * width + count + b] += both * xy[cell];
        gram[(count + a) * width + count + b] += both * yy[cell];
        gram[a * width + 2 * count + b] += along * byX[b];
        gram[(count + a) * width + 2 * count + b] += along * byY[b];
        gram[(2 * count + a) * width + 2 * count + b] += right * byX[b] + down * byY[b];
      }
    }
  }
  for (let a = 0; a < width; a++) {
    gram[a * width + a] += STIFFNESS * (a < 2 * count ? PLACE_PRIOR : STRENGTH_PRIOR);
    for (let b = 0; b < a; b++) gram[a * width + b] = gram[b * width + a];
  }
  return gram;
}

/** Return the structure tensor of each cell, summed over its pixels, with the stiffness that holds cells of no texture. */
function structureTensors(picture: Picture): { xx: Float64Array; xy: Float64Array; yy: Float64Array } {
  const grey = blurred(greyLevels(resizeArea(picture, FLOW_SIZE)));
  const [xx, xy, yy] = [0, 1, 2].map(() => new Float64Array(CELLS));
  const at = (x: number, y: number) => grey[mirror(y) * FLOW_SIZE + mirror(x)];
  const scale = FLOW_SIZE / 16;
  for (let y = 0; y < FLOW_SIZE; y++) {
    for (let x = 0; x < FLOW_SIZE; x++) {
      const [nw, n, ne] = [at(x - 1, y - 1), at(x, y - 1), at(x + 1, y - 1)];
      const [sw, s, se] = [at(x - 1, y + 1), at(x, y + 1), at(x + 1, y + 1)];
      const right = (ne - nw + 2 * (at(x + 1, y) - at(x - 1, y)) + se - sw) * scale;
      const down = (sw - nw + 2 * (s - n) + se - ne) * scale;
      const cell = (y >> 2) * GRID + (x >> 2);
      xx[cell] += right * right;
      xy[cell] += right * down;
      yy[cell] += down * down;
    }
  }
  return { xx: xx.map((value) => value + STIFFNESS), xy, yy: yy.map((value) => value + STIFFNESS) };
}

/** Return the grey levels of a picture, as `cv2.cvtColor` rounds them. */
function greyLevels({ side, data }: Picture): Float32Array {
  return Float32Array.from({ length: side * side }, (_, n) =>
    (9798 * data[3 * n] + 19235 * data[3 * n + 1] + 3735 * data[3 * n + 2] + (1 << 14)) >> 15,
  );
}

function blurred(grey: Float32Array): Float32Array {
  const radius = 3;
  const taps = Array.from({ length: 2 * radius + 1 }, (_, n) => Math.exp(-((n - radius) ** 2) / (2 * BLUR * BLUR)));
  const total = taps.reduce((sum, tap) => sum + tap, 0);
  const pass = (values: Float32Array, across: boolean) =>
    values.map((_, n) => {
      const x = n % FLOW_SIZE;
      const y = (n - x) / FLOW_SIZE;
      return taps.reduce((sum, tap, i) => {
        const step = i - radius;
        const place = across ? y * FLOW_SIZE + mirror(x + step) : mirror(y + step) * FLOW_SIZE + x;
        return sum + (tap / total) * values[place];
      }, 0);
    });
  return pass(pass(grey, true), false);
}

/** Reflect an index beyond the edge, the edge itself not repeated. */
function mirror(index: number): number {
  return index < 0 ? -index : index >= FLOW_SIZE ? 2 * FLOW_SIZE - 2 - index : index;
}
