/** Products with a motion basis and sums over its cells, in WebAssembly (kernels/alignment.ts). */

import { BLOCK, Convolutions, VALUE } from "../runtime/convolutions";
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
    const columns = (this.columns = Math.ceil(((5 * width) / 3 + 2) / BLOCK) * BLOCK);
    const room = (values: number) => this.c.room(values);
    this.rooms = {
      source: room(CELLS * width),
      change: room(width),
      places: room(2 * CELLS),
      shifts: room(2 * CELLS),
      tensors: room(TENSOR * CELLS),
      basis: room(CELLS * width),
      weighted: room(CELLS * columns),
      sums: room(width * columns),
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
    c.run.correlate(rooms.basis, width * VALUE, rooms.weighted, columns * VALUE, CELLS, width, columns, rooms.sums);
    return unpacked(c.floats(rooms.sums, width * columns), width / 3, columns);
  }
}

/** Unpack the products of a basis with what `weigh` makes of it. Rows: along, right, down. Columns: along by xx, xy and yy,
 * strengths by x and y, gradients. */
function unpacked(sums: Float32Array, k: number, columns: number): Sums {
  const width = 3 * k;
  const at = (row: number, a: number, column: number, b: number) => sums[(row * k + a) * columns + column * k + b];
  const gram = new Float64Array(width * width);
  const gradient = new Float64Array(width);
  for (let a = 0; a < k; a++) {
    for (let b = 0; b < k; b++) {
      gram[a * width + b] = at(0, a, 0, b);
      gram[a * width + k + b] = gram[(k + b) * width + a] = at(0, a, 1, b);
      gram[(k + a) * width + k + b] = at(0, a, 2, b);
      gram[a * width + 2 * k + b] = gram[(2 * k + b) * width + a] = at(0, a, 3, b);
      gram[(k + a) * width + 2 * k + b] = gram[(2 * k + b) * width + k + a] = at(0, a, 4, b);
      gram[(2 * k + a) * width + 2 * k + b] = at(1, a, 3, b) + at(2, a, 4, b);
    }
    gradient[a] = at(0, a, 5, 0);
    gradient[k + a] = at(0, a, 5, 1);
    gradient[2 * k + a] = at(1, a, 5, 0) + at(2, a, 5, 1);
  }
  return { gram, gradient };
}

/** By the number of unknowns. */
const made = new Map<number, CellSums>();

export function sumsOf(width: number): CellSums {
  let sums = made.get(width);
  if (!sums) made.set(width, (sums = new CellSums(width)));
  return sums;
}
