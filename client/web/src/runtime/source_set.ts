/** Keys and rows of the sources that a frame attends to, by blocks of 2x2 cells (models/network/network.py,
 * `merge_sources`; models/network/geometry.py, GeometricPrior). */

import { BLOCK, type Convolutions } from "./network/convolutions";
import { cellCentres } from "./network/geometry";
import { resizeLinear } from "./pictures";
import { CELLS, cellAt, PRIOR_DIMS } from "./network/queries";
import { MAX_SOURCES, type Source } from "./types";
import type { NetworkWeights } from "./weights";

/** Columns of a row for each source: 1, and the cell's place; 0 in rows of other sources. */
export const PLACE_COLUMNS = 3;

export class SourceSet {
  /** Columns of a row: values, key, colour, places; filled up. */
  readonly width: number;
  /** Columns before those of places. */
  readonly columns: number;
  /** (blocks, dims, CELLS), (blocks / BLOCK, dims, BLOCK): keys and their means; (blocks, width / BLOCK, CELLS, BLOCK):
   * rows. Addresses. */
  readonly keys: number;
  readonly pooled: number;
  readonly rows: number;
  private sources: Source[] = [];
  private readonly dims: number;
  private readonly centres: Float32Array;
  private readonly prior: { sharpness: number; still: number; second: number; costs: Float32Array; strengths: Float32Array };

  /** `values`, `keyDims`: columns of values and of keys in the features of sources; `side`: cells per side. */
  constructor(
    private readonly c: Convolutions,
    weights: NetworkWeights,
    private readonly values: number,
    private readonly keyDims: number,
    private readonly side: number,
  ) {
    this.dims = keyDims + PRIOR_DIMS;
    this.columns = values + keyDims + 3;
    this.width = Math.ceil((this.columns + PLACE_COLUMNS * MAX_SOURCES) / BLOCK) * BLOCK;
    const cells = MAX_SOURCES * side ** 2;
    this.keys = c.room(cells * this.dims);
    this.pooled = c.room((cells / CELLS) * this.dims);
    this.rows = c.room(cells * this.width);
    this.centres = cellCentres(side).map((centre) => (centre * side) / 2);
    this.prior = {
      sharpness: Math.exp(weights.value("prior.log_sharpness")),
      still: Math.exp(weights.value("prior.log_still")),
      second: Math.exp(weights.value("prior.log_second")),
      costs: weights.of("prior.log_cost").values.map(Math.exp),
      strengths: weights.of("prior.log_strength").values.map(Math.exp),
    };
  }

  /** Number of blocks of all sources. */
  get blocks(): number {
    return (this.sources.length * this.side ** 2) / CELLS;
  }

  /** Arrange a set of sources; done once while it stays the same, apart from its pictures. */
  set(sources: Source[]): void {
    const isSame = sources.length === this.sources.length && sources.every(({ features }, n) => features === this.sources[n].features);
    this.sources = [...sources];
    if (!isSame) sources.forEach((source, n) => this.arrange(source, n));
  }

  private arrange({ features }: Source, number: number): void {
    const { c, centres, columns, dims, keyDims, side, values, width } = this;
    const cells = MAX_SOURCES * side ** 2;
    const [keys, pooled] = [c.floats(this.keys, cells * dims), c.floats(this.pooled, (cells / CELLS) * dims)];
    const rows = c.floats(this.rows, cells * width);
    const first = number * side ** 2;
    pooled.fill(0, (first / CELLS) * dims, ((first + side ** 2) / CELLS) * dims);
    for (let n = 0; n < side ** 2; n++) {
      const { x, y } = cellAt(n, side);
      const from = (y * side + x) * columns;
      const [block, cell] = [(first + n) >> 2, n % CELLS];
      for (let i = 0; i < keyDims; i++) {
        const value = features[from + values + i];
        keys[(block * dims + i) * CELLS + cell] = value;
        pooled[this.pooledAt(block, i)] += value / CELLS;
      }
      const row = block * width * CELLS + cell * BLOCK;
      const set = (column: number, value: number) => (rows[row + (column >> 3) * BLOCK * CELLS + (column % BLOCK)] = value);
      for (let i = 0; i < columns; i++) set(i, features[from + i]);
      for (let i = columns; i < width; i++) set(i, 0);
      [1, centres[x], centres[y]].forEach((value, i) => set(columns + PLACE_COLUMNS * number + i, value));
    }
  }

  /** Predict where the cells are in a frame with keypoints (K, 3), and what it costs to attend to them. */
  predict(keypoints: Float32Array): void {
    this.sources.forEach((source, n) => this.predictOf(source, n, keypoints));
  }

  private predictOf({ keypoints: own, membership, basis }: Source, number: number, keypoints: Float32Array): void {
    const { c, centres, dims, keyDims, prior, side } = this;
    const change = keypoints.map((value, i) => value - own[i]);
    const moved = displacements(basis, change);
    const places = resizeLinear(moved, Math.sqrt(moved.length / 2), side, 2);
    const costs = this.costs(change);
    const cells = MAX_SOURCES * side ** 2;
    const [keys, pooled] = [c.floats(this.keys, cells * dims), c.floats(this.pooled, (cells / CELLS) * dims)];
    const extra = number ? prior.second : 0;
    const { sharpness } = prior;
    for (let block = (number * side ** 2) / CELLS, n = 0; n < side ** 2; block++) {
      const key = (block * dims + keyDims) * CELLS;
      const mean = this.pooledAt(block, keyDims);
      pooled[mean] = pooled[mean + BLOCK] = pooled[mean + 3 * BLOCK] = 0;
      pooled[mean + 2 * BLOCK] = -sharpness;
      for (let cell = 0; cell < CELLS; cell++, n++) {
        const { x, y } = cellAt(n, side);
        const raster = y * side + x;
        let cost = extra;
        for (let k = 0, at = raster * costs.length; k < costs.length; k++, at++) cost += membership[at] * costs[k];
        const px = centres[x] + (places[2 * raster] * side) / 2;
        const py = centres[y] + (places[2 * raster + 1] * side) / 2;
        const bias = -sharpness * (px * px + py * py) - cost;
        keys[key + cell] = 2 * sharpness * px;
        keys[key + CELLS + cell] = 2 * sharpness * py;
        keys[key + 2 * CELLS + cell] = -sharpness;
        keys[key + 3 * CELLS + cell] = bias;
        pooled[mean] += (2 * sharpness * px) / CELLS;
        pooled[mean + BLOCK] += (2 * sharpness * py) / CELLS;
        pooled[mean + 3 * BLOCK] += bias / CELLS;
      }
    }
  }

  /** Return what cells pay that belong to each keypoint, and to the background. */
  private costs(change: Float32Array): Float32Array {
    const { costs, still, strengths } = this.prior;
    const distances = strengths.map((weight, k) => change[3 * k] ** 2 + change[3 * k + 1] ** 2 + weight * change[3 * k + 2] ** 2);
    const mean = distances.reduce((sum, distance) => sum + distance, 0) / distances.length;
    return costs.map((cost, k) => cost * Math.log1p((distances[k] ?? mean) / still));
  }

  private pooledAt(block: number, dim: number): number {
    return ((block >> 3) * this.dims + dim) * BLOCK + (block % BLOCK);
  }
}

/** Return the displacements (b, 2) of cells by a basis (b, 3 K) when keypoints change by (K, 3). */
function displacements(basis: Float32Array, change: Float32Array): Float32Array {
  const width = change.length;
  const count = width / 3;
  const out = new Float32Array((basis.length / width) * 2);
  for (let cell = 0, row = 0; row < basis.length; cell++, row += width) {
    let [right, down] = [0, 0];
    for (let k = 0; k < count; k++) {
      const [along, strength] = [basis[row + k], change[3 * k + 2]];
      right += along * change[3 * k] + basis[row + count + k] * strength;
      down += along * change[3 * k + 1] + basis[row + 2 * count + k] * strength;
    }
    out[2 * cell] = right;
    out[2 * cell + 1] = down;
  }
  return out;
}
