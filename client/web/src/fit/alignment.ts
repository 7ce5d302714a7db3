/**
 * How a source's cells move with keypoints, how visible an error of each keypoint is, and the alignment of a warped source
 * with a picture by Gauss-Newton steps (codec/fit/alignment.py).
 */

import { type Cells, CellSums } from "./cell_sums";
import { type Picture, remapValues, resizeArea, resizeLinear, roundEven } from "../runtime/pictures";

export const FLOW_SIZE = 128;
/** Cells per side of the motion basis as it is used here. */
export const GRID = 32;
const CELLS = GRID * GRID;
/** Standard deviations of the blurs, in pixels; errors are measured at the last one. */
export const BLURS = [2.5, 1.2, 0.7];
const FINEST = BLURS[BLURS.length - 1];
const OUTLIER_GREY = 25;
const INVERSION_STEPS = 6;
const STIFFNESS = 4e3;
const PLACE_PRIOR = 0.02;
const STRENGTH_PRIOR = 0.005;
const FACE_REACH = 1.2;
const SHEAR_WEIGHTS = [-12, 14];
const SHEAR_HALVINGS = 6;

/** A source, prepared for moving its cells. */
export interface Reference {
  /** (CELLS, 3 K): motion per unit of x and of y (the same), of strength to the right, and of strength down. */
  basis: Float32Array;
  /** (3 K,): the source's own keypoints as unknowns: all x, all y, all strengths. */
  unknowns: Float64Array;
  /** (3 K, 3 K): see `shearing`, computed when it is first needed. */
  shearing?: Float64Array;
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

/** Return by how much a frame with unknowns (3 K,) shears the face, root mean square: 0 where it is only moved, turned in
 * the plane and scaled. */
export function shear(ref: Reference, values: Float64Array): number {
  const change = values.map((value, i) => value - ref.unknowns[i]);
  const by = times(shearing(ref), change);
  return Math.sqrt(Math.max(change.reduce((sum, value, i) => sum + value * by[i], 0), 0));
}

/** Return the square of `shear` as a quadratic form (3 K, 3 K) of the change of the unknowns. */
function shearing(ref: Reference): Float64Array {
  if (ref.shearing) return ref.shearing;
  const width = ref.unknowns.length;
  const count = width / 3;
  const falloff = [0, 1].map((axis) => faceWeights(ref.unknowns.subarray(axis * count, (axis + 1) * count)));
  const out = new Float64Array(width * width);
  const [real, imaginary] = [new Float64Array(width), new Float64Array(width)];
  for (let y = 0; y < GRID; y++) {
    for (let x = 0; x < GRID; x++) {
      const weight = falloff[0][x] * falloff[1][y];
      const gradient = (i: number) => [slope(ref.basis, width, i, x, y, 1, 0), slope(ref.basis, width, i, x, y, 0, 1)];
      for (let k = 0; k < count; k++) {
        const [right, down] = gradient(k);
        [real[k], imaginary[k]] = [right / 2, down / 2];
        [real[count + k], imaginary[count + k]] = [-down / 2, right / 2];
        const [acrossRight, acrossDown] = gradient(count + k);
        const [belowRight, belowDown] = gradient(2 * count + k);
        real[2 * count + k] = (acrossRight - belowDown) / 2;
        imaginary[2 * count + k] = (acrossDown + belowRight) / 2;
      }
      for (let a = 0; a < width; a++) {
        const [r, i] = [weight * real[a], weight * imaginary[a]];
        for (let b = 0; b <= a; b++) out[a * width + b] += r * real[b] + i * imaginary[b];
      }
    }
  }
  for (let a = 0; a < width; a++) for (let b = 0; b < a; b++) out[b * width + a] = out[a * width + b];
  return (ref.shearing = out);
}

/** Return how much columns or rows of cells (GRID,) belong to the face, given the keypoints along that axis. */
function faceWeights(places: Float64Array): Float64Array {
  const mean = places.reduce((sum, place) => sum + place, 0) / places.length;
  const deviation = Math.sqrt(places.reduce((sum, place) => sum + (place - mean) ** 2, 0) / places.length);
  const reach = FACE_REACH * Math.max(deviation, 2 / GRID);
  const at = (cell: number) => ((cell + 0.5) * 2) / GRID - 1;
  const weights = Float64Array.from({ length: GRID }, (_, n) => Math.exp(-0.5 * ((at(n) - mean) / reach) ** 2));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** Return the central difference of a column of the basis at a cell, one-sided at the rim, per unit of [-1, 1]. */
function slope(basis: Float32Array, width: number, column: number, x: number, y: number, dx: number, dy: number): number {
  const value = (step: number) => {
    const [atX, atY] = [x + step * dx, y + step * dy].map((at) => Math.min(GRID - 1, Math.max(0, at)));
    return [basis[(atY * GRID + atX) * width + column], dx ? atX : atY];
  };
  const [[low, from], [high, to]] = [value(-1), value(1)];
  return ((high - low) / (to - from)) * (GRID / 2);
}

/** Return the unknowns (3 K,) after a step from `values`, clipped. If they shear the face by more than `maxShear`, shear
 * counts as an error, with about the least weight that prevents it. */
export function stepped(ref: Reference, values: Float64Array, step: Equations, maxShear: number): Float64Array {
  const form = shearing(ref);
  const pull = times(form, values.map((value, i) => value - ref.unknowns[i]));
  const weighted = (weight: number) => {
    const gram = step.gram.map((value, i) => value + weight * form[i]);
    const change = solve({ gram, right: step.right.map((value, i) => value - weight * pull[i]) });
    return unknownsOf(keypointsOf(values.map((value, i) => value + change[i])));
  };
  let after = weighted(0);
  if (shear(ref, after) <= maxShear) return after;
  const unit = trace(step.gram, values.length) / trace(form, values.length);
  let [low, high] = SHEAR_WEIGHTS;
  after = weighted(unit * 2 ** high);
  for (let n = 0; n < SHEAR_HALVINGS; n++) {
    const middle = (low + high) / 2;
    const nearer = weighted(unit * 2 ** middle);
    if (shear(ref, nearer) <= maxShear) [after, high] = [nearer, middle];
    else low = middle;
  }
  return after;
}

function times(square: Float64Array, vector: Float64Array): Float64Array {
  const n = vector.length;
  return vector.map((_, i) => vector.reduce((sum, value, j) => sum + square[i * n + j] * value, 0));
}

function trace(square: Float64Array, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += square[i * n + i];
  return sum;
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
  const cells = emptyCells();
  const grey = blurred(smallGrey(picture), FINEST);
  eachGradient(grey, (cell, _, right, down) => {
    cells.xx[cell] += right * right;
    cells.xy[cell] += right * down;
    cells.yy[cell] += down * down;
  });
  return normalEquations(ref.basis, null, cells, new Float64Array(ref.unknowns.length)).gram;
}

/** A source warped by keypoints: the backward field (CELLS, 2) in cells, and the grey levels (FLOW_SIZE, FLOW_SIZE). */
export interface Warped {
  back: Float32Array;
  grey: Float32Array;
}

/** Warp a source, whose grey levels are given, to unknowns (3 K,). */
export function warped(ref: Reference, levels: Float32Array, values: Float64Array): Warped {
  const back = backward(moved(ref, keypointsOf(values)));
  return { back, grey: sampled(levels, back) };
}

/** Return the grey levels of a source at a backward field, interpolated to pixels. */
export function sampled(levels: Float32Array, back: Float32Array): Float32Array {
  const places = resizeLinear(back, GRID, FLOW_SIZE, 2);
  for (let n = 0; n < FLOW_SIZE ** 2; n++) {
    places[2 * n] = places[2 * n] * (FLOW_SIZE / GRID) + (n % FLOW_SIZE);
    places[2 * n + 1] = places[2 * n + 1] * (FLOW_SIZE / GRID) + Math.floor(n / FLOW_SIZE);
  }
  return remapValues(levels, FLOW_SIZE, 1, places);
}

/** Return the squared difference of grey levels, summed over the pixels. */
export function squaredError(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += (a[n] - b[n]) ** 2;
  return sum;
}

/** Normal equations of one Gauss-Newton step: gram * change = right. */
export interface Equations {
  /** (3 K, 3 K). */
  gram: Float64Array;
  /** (3 K,). */
  right: Float64Array;
}

/** Return the equations of the change of the unknowns that brings a warped source closer to grey levels. `offset` (3 K,):
 * difference of the unknowns from where the alignment started. */
export function alignmentEquations(ref: Reference, view: Warped, grey: Float32Array, offset: Float64Array): Equations {
  const cells = emptyCells();
  eachGradient(view.grey, (cell, pixel, right, down) => {
    const missing = grey[pixel] - view.grey[pixel];
    const weight = 1 / (1 + (missing / OUTLIER_GREY) ** 2);
    cells.xx[cell] += weight * right * right;
    cells.xy[cell] += weight * right * down;
    cells.yy[cell] += weight * down * down;
    cells.x[cell] += weight * missing * right;
    cells.y[cell] += weight * missing * down;
  });
  const places = view.back.map((value, i) => value + (i % 2 ? Math.floor(i / 2 / GRID) : (i / 2) % GRID));
  return normalEquations(ref.basis, places, cells, offset);
}

/** Solve equations by Cholesky decomposition. */
export function solve({ gram, right }: Equations): Float64Array {
  const n = right.length;
  const lower = new Float64Array(n * n);
  const out = Float64Array.from(right);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = gram[i * n + j];
      for (let k = 0; k < j; k++) sum -= lower[i * n + k] * lower[j * n + k];
      lower[i * n + j] = i === j ? Math.sqrt(Math.max(sum, 1e-12)) : sum / lower[j * n + j];
    }
    for (let k = 0; k < i; k++) out[i] -= lower[i * n + k] * out[k];
    out[i] /= lower[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) out[i] -= lower[k * n + i] * out[k];
    out[i] /= lower[i * n + i];
  }
  return out;
}

function emptyCells(): Cells {
  const [xx, xy, yy, x, y] = [0, 1, 2, 3, 4].map(() => new Float64Array(CELLS));
  return { xx, xy, yy, x, y };
}

/** Return the normal equations in the unknowns from a basis (CELLS, 3 K), sampled at places (CELLS, 2), and cells. Moving a
 * cell costs STIFFNESS times its squared displacement, `offset` (3 K,) included, and priors tie the unknowns to their start. */
function normalEquations(basis: Float32Array, places: Float32Array | null, cells: Cells, offset: Float64Array): Equations {
  const width = offset.length;
  const count = width / 3;
  const sums = sumsOf(width);
  const loaded = sums.load(basis, places);
  const [xx, yy] = [cells.xx, cells.yy].map((tensor) => tensor.map((value) => value + STIFFNESS));
  const [x, y] = [cells.x.slice(), cells.y.slice()];
  for (let cell = 0, at = 0; cell < CELLS; cell++, at += width) {
    let [right, down] = [0, 0];
    for (let k = 0; k < count; k++) {
      const [along, strength] = [loaded[at + k], offset[2 * count + k]];
      right += along * offset[k] + loaded[at + count + k] * strength;
      down += along * offset[count + k] + loaded[at + 2 * count + k] * strength;
    }
    x[cell] += STIFFNESS * right;
    y[cell] += STIFFNESS * down;
  }
  const { gram, gradient } = sums.of({ xx, xy: cells.xy, yy, x, y });
  const right = gradient.map((value) => -value);
  for (let a = 0; a < width; a++) {
    const prior = STIFFNESS * (a < 2 * count ? PLACE_PRIOR : STRENGTH_PRIOR);
    gram[a * width + a] += prior;
    right[a] -= prior * offset[a];
  }
  return { gram, right };
}

/** Memory of sums, by the number of unknowns. */
const memory = new Map<number, CellSums>();

function sumsOf(width: number): CellSums {
  let sums = memory.get(width);
  if (!sums) memory.set(width, (sums = new CellSums(GRID, width)));
  return sums;
}

/** Call `take` for each pixel with its cell and its gradient, in grey levels per unit of [-1, 1]. */
function eachGradient(
  grey: Float32Array,
  take: (cell: number, pixel: number, right: number, down: number) => void,
): void {
  const scale = FLOW_SIZE / 16;
  for (let y = 0; y < FLOW_SIZE; y++) {
    const [above, here, below] = [mirror(y - 1), y, mirror(y + 1)].map((row) => row * FLOW_SIZE);
    for (let x = 0; x < FLOW_SIZE; x++) {
      const west = mirror(x - 1);
      const east = mirror(x + 1);
      const fromWest = grey[above + west] + grey[below + west];
      const fromEast = grey[above + east] + grey[below + east];
      const right = fromEast - fromWest + 2 * (grey[here + east] - grey[here + west]);
      const top = grey[above + west] + grey[above + east] + 2 * grey[above + x];
      const bottom = grey[below + west] + grey[below + east] + 2 * grey[below + x];
      take((y >> 2) * GRID + (x >> 2), here + x, right * scale, (bottom - top) * scale);
    }
  }
}

/** Return the grey levels (FLOW_SIZE, FLOW_SIZE) of a picture. */
export function smallGrey(picture: Picture): Float32Array {
  return greyLevels(resizeArea(picture, FLOW_SIZE));
}

/** Return the grey levels (side, side) of a picture, as `cv2.cvtColor` rounds them. */
export function greyLevels({ side, data }: Picture): Float32Array {
  const grey = new Float32Array(side * side);
  for (let n = 0; n < grey.length; n++) {
    grey[n] = (9798 * data[3 * n] + 19235 * data[3 * n + 1] + 3735 * data[3 * n + 2] + (1 << 14)) >> 15;
  }
  return grey;
}

/** Blur grey levels (FLOW_SIZE, FLOW_SIZE) by a Gaussian of this standard deviation, as `cv2.GaussianBlur` of float32. */
export function blurred(grey: Float32Array, deviation: number): Float32Array {
  const radius = (roundEven(deviation * 8 + 1) | 1) >> 1;
  const weights = Array.from({ length: 2 * radius + 1 }, (_, n) => Math.exp(-((n - radius) ** 2) / (2 * deviation ** 2)));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const taps = Float32Array.from(weights, (weight) => weight / total);
  const wide = new Float32Array(grey.length);
  const out = new Float32Array(grey.length);
  const columns = Int32Array.from({ length: FLOW_SIZE + 2 * radius }, (_, n) => mirror(n - radius));
  for (let y = 0; y < FLOW_SIZE; y++) {
    for (let x = 0; x < FLOW_SIZE; x++) {
      let sum = 0;
      for (let i = 0; i < taps.length; i++) sum += taps[i] * grey[y * FLOW_SIZE + columns[x + i]];
      wide[y * FLOW_SIZE + x] = sum;
    }
  }
  for (let y = 0; y < FLOW_SIZE; y++) {
    for (let i = 0; i < taps.length; i++) {
      const [tap, from] = [taps[i], columns[y + i] * FLOW_SIZE];
      for (let x = 0; x < FLOW_SIZE; x++) out[y * FLOW_SIZE + x] += tap * wide[from + x];
    }
  }
  return out;
}

/** Reflect an index beyond the edge, the edge itself not repeated. */
function mirror(index: number): number {
  return index < 0 ? -index : index >= FLOW_SIZE ? 2 * FLOW_SIZE - 2 - index : index;
}
