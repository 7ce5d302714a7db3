/** Products with a motion basis and sums over its cells, in WebAssembly (kernels/alignment.ts). */

import { BLOCK, Convolutions, VALUE } from "../runtime/network/convolutions";
import { CELLS, GRID, TENSOR } from "./views";

/** The Gram matrix (3 K, 3 K) of a motion basis by its cells' tensors, and its products (3 K,) with their gradients. */
interface Sums {
  gram: Float64Array;
  gradient: Float64Array;
}

/** Memory for bases (CELLS, 3 K). */
class CellSums {
  private readonly c = new Convolutions();
  private readonly columns: number;
  private readonly rooms: Record<"source" | "change" | "places" | "shifts" | "tensors" | "basis" | "weighted" | "sums", number>;

  /** `width`: 3 K. */
  constructor(private readonly width: number) {
    const columns = (this.columns = blocks(4 * (width / 3) + 4 + blocks(width / 3 + 1)));
    const room = (values: number) => this.c.room(values);
    this.rooms = {
      source: room(CELLS * width),
      change: room(width),
      places: room(2 * CELLS),
      shifts: room(2 * CELLS),
      tensors: room(TENSOR * CELLS),
      basis: room(CELLS * width),
      weighted: room(CELLS * columns),
      sums: room((width / 3) * (columns + 2 * blocks(width / 3 + 1))),
    };
  }

  /** Return the displacements (CELLS, 2), in cells, by a change (3 K,) of the unknowns. */
  moved(basis: Float32Array, change: Float64Array): Float32Array {
    const { c, rooms, width } = this;
    c.put(rooms.source, basis);
    c.put(rooms.change, change);
    c.run.displace(rooms.source, rooms.change, CELLS, width / 3, GRID / 2, rooms.shifts);
    return c.floats(rooms.shifts, 2 * CELLS).slice();
  }

  /** Return the sums of a basis, sampled at a field (CELLS, 2) in cells, and tensors (CELLS, TENSOR). Moving a cell costs
   * `stiffness` times its squared displacement, that of `offset` (3 K,) included. */
  of(basis: Float32Array, field: Float32Array, tensors: Float32Array, offset: Float64Array, stiffness: number): Sums {
    const { c, columns, rooms, width } = this;
    c.put(rooms.source, basis);
    c.put(rooms.places, field.map((value, i) => value + (i % 2 ? Math.floor(i / 2 / GRID) : (i / 2) % GRID)));
    c.run.remap(rooms.source, GRID, width * VALUE, rooms.places, CELLS, rooms.basis);
    c.put(rooms.change, offset);
    c.run.displace(rooms.basis, rooms.change, CELLS, width / 3, 1, rooms.shifts);
    c.put(rooms.tensors, tensors);
    c.run.weigh(rooms.basis, CELLS, width / 3, rooms.tensors, rooms.shifts, stiffness, columns, rooms.weighted);
    const k = width / 3;
    const [all, few] = [columns, blocks(k + 1)];
    // Motion with everything; strengths to the right, and down, with those by x, and y, and their gradients.
    const [byX, byY] = [3 * k, 4 * k + 4];
    const at = [0, k * all, k * (all + few)].map((values) => rooms.sums + values * VALUE);
    const multiply = (group: number, from: number, count: number) =>
      c.run.correlate(rooms.basis + group * k * VALUE, width * VALUE, rooms.weighted + from * VALUE, columns * VALUE, CELLS, k, count, at[group]);
    multiply(0, 0, all);
    multiply(1, byX, few);
    multiply(2, byY, few);
    const [along, right, down] = [c.floats(at[0], k * all), c.floats(at[1], k * few), c.floats(at[2], k * few)];
    const gram = new Float64Array(width * width);
    const gradient = new Float64Array(width);
    for (let a = 0; a < k; a++) {
      for (let b = 0; b < k; b++) {
        const row = a * all + b;
        gram[a * width + b] = along[row];
        gram[a * width + k + b] = gram[(k + b) * width + a] = along[row + k];
        gram[(k + a) * width + k + b] = along[row + 2 * k];
        gram[a * width + 2 * k + b] = gram[(2 * k + b) * width + a] = along[row + byX];
        gram[(k + a) * width + 2 * k + b] = gram[(2 * k + b) * width + k + a] = along[row + byY];
        gram[(2 * k + a) * width + 2 * k + b] = right[a * few + b] + down[a * few + b];
      }
      gradient[a] = along[a * all + byX + k];
      gradient[k + a] = along[a * all + byY + k];
      gradient[2 * k + a] = right[a * few + k] + down[a * few + k];
    }
    return { gram, gradient };
  }
}

/** Return the next multiple of BLOCK. */
function blocks(columns: number): number {
  return Math.ceil(columns / BLOCK) * BLOCK;
}

/** By the number of unknowns. */
const made = new Map<number, CellSums>();

export function sumsOf(width: number): CellSums {
  let sums = made.get(width);
  if (!sums) made.set(width, (sums = new CellSums(width)));
  return sums;
}
