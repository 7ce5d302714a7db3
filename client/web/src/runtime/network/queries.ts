/** Queries from a frame's keypoints (models/network/encoders.py, QueryNet), by blocks of 2x2 cells. */

import { type Convolutions, count, type Framed, type Layer, VALUE } from "./convolutions";
import { cellCentres, drawGaussians, pixelsOf, positions } from "./geometry";
import { UNet } from "./unet";
import type { NetworkWeights } from "../weights";

/** Dimensions that the geometric prior adds to queries and keys. */
export const PRIOR_DIMS = 4;
/** Cells of a block. */
export const CELLS = 4;

export class Queries {
  /** Of unit queries, and with those of the prior. */
  readonly unitDims: number;
  readonly dims: number;
  /** That unit queries are multiplied by. */
  readonly temperature: number;
  /** (blocks, CELLS, dims) and (blocks, dims): queries and their means; addresses. */
  readonly all: number;
  readonly means: number;
  private readonly unet: UNet;
  private readonly head: Layer;
  private readonly positions: Framed;
  private readonly features: Framed;

  /** `side`: cells per side of the attention grid. */
  constructor(
    private readonly c: Convolutions,
    weights: NetworkWeights,
    private readonly side: number,
    keypoints: number,
  ) {
    const dim = (this.unitDims = weights.of("query_net.position").shape[1]);
    this.dims = dim + PRIOR_DIMS;
    this.temperature = Math.exp(weights.value("log_temperature"));
    this.unet = new UNet(c, weights, "query_net.unet", side / 2, count(keypoints));
    const groups = count(CELLS).flatMap((cell) => count(dim).map((n) => CELLS * n + cell));
    this.head = c.product(...weights.layer("query_net.head"), count(weights.of("query_net.head.weight").shape[1]), groups);
    this.positions = blocksOf(c, positions(weights.of("query_net.position"), side), side);
    this.features = c.framed(side / 2, side / 2, CELLS * dim, 0);
    this.all = c.room(side ** 2 * this.dims);
    this.means = c.room((side ** 2 / CELLS) * this.dims);
    this.fillPrior();
  }

  /** Compute the queries of keypoints (K, 3). */
  run(keypoints: Float32Array): void {
    const { c, dims, side, temperature, unitDims } = this;
    drawGaussians(c, keypoints, this.unet.input, 0);
    this.unet.run();
    c.multiply(this.unet.output, this.head, this.features, -Infinity, this.positions);
    c.run.direct(this.features.first, side ** 2 / CELLS, unitDims * VALUE, temperature, this.all, this.means, dims * VALUE);
  }

  /** Fill the dimensions of the prior, in which keys have their predicted places. */
  private fillPrior(): void {
    const { c, dims, side, unitDims } = this;
    const [all, means] = [c.floats(this.all, side ** 2 * dims), c.floats(this.means, (side ** 2 / CELLS) * dims)];
    const centres = cellCentres(side).map((centre) => (centre * side) / 2);
    for (let n = 0; n < side ** 2; n++) {
      const { x, y } = cellAt(n, side);
      const prior = [centres[x], centres[y], centres[x] ** 2 + centres[y] ** 2, 1];
      prior.forEach((value, i) => {
        all[n * dims + unitDims + i] = value;
        means[(n >> 2) * dims + unitDims + i] += value / CELLS;
      });
    }
  }
}

/** Return where the n-th cell is, counted by blocks. */
export function cellAt(n: number, side: number): { x: number; y: number } {
  const block = n >> 2;
  return { x: 2 * (block % (side / 2)) + (n & 1), y: 2 * Math.floor(block / (side / 2)) + ((n >> 1) & 1) };
}

/** Store values (side, side, d) by blocks. */
function blocksOf(c: Convolutions, values: Float32Array, side: number): Framed {
  const dim = values.length / side ** 2;
  const map = c.framed(side / 2, side / 2, CELLS * dim, 0);
  const out = pixelsOf(c, map);
  for (let n = 0; n < side ** 2; n++) {
    const { x, y } = cellAt(n, side);
    out.set(values.subarray((y * side + x) * dim, (y * side + x + 1) * dim), n * dim);
  }
  return map;
}
