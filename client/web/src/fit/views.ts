/** Grey levels of pictures and the fields that warp them, in WebAssembly (kernels/alignment.ts). */

import { Convolutions } from "../runtime/network/convolutions";
import { roundEven } from "../runtime/pictures";

/** Side of grey levels in pixels, and of fields in cells. */
export const FLOW_SIZE = 128;
export const GRID = 32;
export const CELLS = GRID ** 2;
/** Values of a cell's tensor: xx, xy, yy and the gradient (x, y) of half its squared error; the others are nothing. */
export const TENSOR = 8;
const PIXELS = FLOW_SIZE ** 2;
const INVERSION_STEPS = 6;
const OUTLIER_GREY = 25;
/** From Sobel's differences to gradients per unit of [-1, 1]. */
const SLOPE = FLOW_SIZE / 16;
/** Radius of the largest blur, in pixels. */
const MAX_RADIUS = 10;
const FRAMED = FLOW_SIZE + 2 * MAX_RADIUS;

const c = new Convolutions();
const rooms = {
  levels: c.room(PIXELS),
  view: c.room(PIXELS),
  framed: c.room(FRAMED ** 2),
  spare: c.room(FRAMED * FLOW_SIZE),
  field: c.room(2 * CELLS),
  inverse: c.room(2 * CELLS),
  enlarged: c.room(2 * PIXELS),
  taps: c.room(2 * MAX_RADIUS + 1),
  tensors: c.room(TENSOR * CELLS),
};

/** Invert a field (CELLS, 2), in cells, by fixed-point iteration. */
export function inverted(field: Float32Array): Float32Array {
  c.put(rooms.field, field);
  c.run.invert(rooms.field, GRID, INVERSION_STEPS, rooms.inverse);
  return c.floats(rooms.inverse, 2 * CELLS).slice();
}

/** Sample grey levels (FLOW_SIZE, FLOW_SIZE) at a field (CELLS, 2), in cells, that is interpolated to pixels. */
export function sampled(levels: Float32Array, field: Float32Array): Float32Array {
  c.put(rooms.levels, levels);
  c.put(rooms.field, field);
  c.run.enlarge(rooms.field, GRID, FLOW_SIZE, 2, rooms.spare, rooms.enlarged);
  c.run.warp(rooms.levels, FLOW_SIZE, rooms.enlarged, FLOW_SIZE / GRID, rooms.view);
  return c.floats(rooms.view, PIXELS).slice();
}

/** Blur grey levels (FLOW_SIZE, FLOW_SIZE) by a Gaussian of this standard deviation, as `cv2.GaussianBlur` of float32. */
export function blurred(levels: Float32Array, deviation: number): Float32Array {
  const radius = (roundEven(deviation * 8 + 1) | 1) >> 1;
  const weights = Array.from({ length: 2 * radius + 1 }, (_, n) => Math.exp(-((n - radius) ** 2) / (2 * deviation ** 2)));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  c.put(rooms.taps, weights.map((weight) => weight / total));
  c.put(rooms.levels, levels);
  c.run.mirror(rooms.levels, FLOW_SIZE, radius, rooms.framed);
  c.run.blur(rooms.framed, FLOW_SIZE, rooms.taps, radius, rooms.spare, rooms.view);
  return c.floats(rooms.view, PIXELS).slice();
}

/** Return the cells' tensors (CELLS, TENSOR) of a view (FLOW_SIZE, FLOW_SIZE) that should be `levels`. */
export function tensorsOf(view: Float32Array, levels: Float32Array): Float32Array {
  c.put(rooms.view, view);
  c.put(rooms.levels, levels);
  c.run.mirror(rooms.view, FLOW_SIZE, 1, rooms.framed);
  c.run.tensors(rooms.framed, rooms.levels, FLOW_SIZE, SLOPE, OUTLIER_GREY, rooms.tensors);
  return c.floats(rooms.tensors, TENSOR * CELLS).slice();
}
