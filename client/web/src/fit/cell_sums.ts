/** Sums over the cells of a motion basis, which are most of a fit, in WebAssembly (kernels/alignment.ts). */

import { BLOCK, Convolutions, VALUE } from "../runtime/convolutions";

/** Of each cell, its structure tensor (xx, xy, yy), and the gradient (x, y) of half its squared error. */
export interface Cells {
  xx: Float64Array;
  xy: Float64Array;
  yy: Float64Array;
  x: Float64Array;
  y: Float64Array;
}

/** Memory for bases (side * side, 3 K). */
export class CellSums {
  private readonly c = new Convolutions();
  private readonly cells: number;
  private readonly columns: number;
  private readonly rooms: Record<"source" | "places" | "basis" | "weighted" | "sums", number>;

  constructor(
    private readonly side: number,
    private readonly width: number,
  ) {
    const cells = (this.cells = side ** 2);
    this.columns = Math.ceil(((5 * width) / 3 + 2) / BLOCK) * BLOCK;
    const [source, places, basis, weighted, sums] = [cells * width, 2 * cells, cells * width, cells * this.columns, width * this.columns];
    this.rooms = { source: this.c.room(source), places: this.c.room(places), basis: this.c.room(basis), weighted: this.c.room(weighted), sums: this.c.room(sums) };
  }

  /** Load a basis, sampled at places (cells, 2) in cells. Return a view of it. */
  load(basis: Float32Array, places: Float32Array | null): Float32Array {
    const { c, cells, rooms, width } = this;
    c.floats(places ? rooms.source : rooms.basis, basis.length).set(basis);
    if (places) {
      c.floats(rooms.places, places.length).set(places);
      c.run.remap(rooms.source, this.side, width * VALUE, rooms.places, cells, rooms.basis);
    }
    return c.floats(rooms.basis, cells * width);
  }

  /** Return the Gram matrix (3 K, 3 K) of the loaded basis by the cells' tensors, and its products (3 K,) with their
   * gradients. */
  of({ xx, xy, yy, x, y }: Cells): { gram: Float64Array; gradient: Float64Array } {
    const { c, cells, columns, rooms, width } = this;
    const k = width / 3;
    const basis = c.floats(rooms.basis, cells * width);
    const weighted = c.floats(rooms.weighted, cells * columns);
    for (let cell = 0, from = 0, to = 0; cell < cells; cell++, from += width, to += columns) {
      const [a, b, d] = [xx[cell], xy[cell], yy[cell]];
      for (let i = 0; i < k; i++) {
        const [along, right, down] = [basis[from + i], basis[from + k + i], basis[from + 2 * k + i]];
        weighted[to + i] = a * along;
        weighted[to + k + i] = b * along;
        weighted[to + 2 * k + i] = d * along;
        weighted[to + 3 * k + i] = a * right + b * down;
        weighted[to + 4 * k + i] = b * right + d * down;
      }
      weighted[to + 5 * k] = x[cell];
      weighted[to + 5 * k + 1] = y[cell];
    }
    c.run.correlate(rooms.basis, width * VALUE, rooms.weighted, columns * VALUE, cells, width, columns, rooms.sums);
    const sums = c.floats(rooms.sums, width * columns);
    // Rows: along, right, down. Columns: along by xx, xy and yy, strengths by x and y, gradients.
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
}
