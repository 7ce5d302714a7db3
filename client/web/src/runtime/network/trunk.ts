/** The decoder's trunk: attended rows -> features, and a correction of the places attended to (models/network/decoder.py). */

import { byPlace, type Convolution, type Convolutions, count, type Framed, type Layer, VALUE } from "./convolutions";
import type { Queries } from "./queries";
import { PLACE_COLUMNS, type SourceSet } from "../source_set";
import type { NetworkWeights, Weights } from "../weights";

/** Side of the depthwise kernels. */
const KERNEL = 5;

interface Block {
  spread: { weights: number; bias: number };
  grow: Layer;
  shrink: Layer;
}

export class Trunk {
  /** (side, side, channels). */
  readonly features: Framed;
  /** (side, side, 8): corrections of places (x, y), in cells before tanh; then nothing. */
  readonly nudges: Framed;
  private readonly layers: Record<"ofRows" | "ofQueries" | "residual" | "entry", Layer>;
  private readonly nudge: Convolution;
  private readonly blocks: Block[] = [];
  private readonly rooms: Record<"hidden" | "values" | "entered", number>;
  private readonly spreadOut: Framed;
  private readonly grown: Framed;

  /** `values`: columns of values in attended rows. */
  constructor(
    private readonly c: Convolutions,
    weights: NetworkWeights,
    private readonly set: SourceSet,
    private readonly queries: Queries,
    private readonly values: number,
    private readonly side: number,
  ) {
    const dim = queries.unitDims;
    const [first, bias] = weights.layer("decoder.residual.0");
    const [hidden, inputs] = first.shape;
    // The network's order is colours, keys, queries, attention in all; that of rows is keys, colours, places.
    const places = count(set.width - set.columns).map((n) => (n % PLACE_COLUMNS ? null : inputs - 1));
    this.layers = {
      ofRows: c.product(first, ofCentred(first, bias), [...count(dim).map((n) => 3 + n), ...count(3), ...places]),
      ofQueries: c.product(divided(first, queries.temperature), new Float32Array(hidden), count(dim).map((n) => 3 + dim + n)),
      residual: c.product(...weights.layer("decoder.residual.2")),
      entry: c.product(...weights.layer("decoder.entry")),
    };
    const trunk = this.layers.entry.outputs;
    const cells = 2 * side;
    this.rooms = { hidden: c.room(cells * hidden), values: c.room(cells * values), entered: c.room(cells * trunk) };
    for (let n = 0; weights.has(`decoder.blocks.${n}.grow.weight`); n++) {
      const [spread, spreadBias] = weights.layer(`decoder.blocks.${n}.spread`);
      this.blocks.push({
        spread: { weights: c.stored(byPlace(spread)), bias: c.stored(spreadBias) },
        grow: c.product(...weights.layer(`decoder.blocks.${n}.grow`)),
        shrink: c.product(...weights.layer(`decoder.blocks.${n}.shrink`)),
      });
    }
    this.features = c.framed(side, side, trunk, KERNEL >> 1);
    this.spreadOut = c.framed(side, side, trunk, 0);
    this.grown = c.framed(side, 1, this.blocks[0].grow.outputs, 0);
    this.nudge = c.convolution(...weights.layer("decoder.nudge"), side);
    this.nudges = c.framed(side, side, this.nudge.outputs, 0);
  }

  /** Compute the features from attended rows by blocks; an address. */
  run(attended: number): void {
    for (let row = 0; row < this.side / 2; row++) this.enter(attended, row);
    for (const block of this.blocks) this.apply(block);
    this.c.convolve(this.features, this.nudge, this.nudges, -Infinity);
  }

  /** Compute what enters the trunk in a row of blocks: values, and a correction of them. */
  private enter(attended: number, blockRow: number): void {
    const { c, features, layers, queries, rooms, set, side, values } = this;
    const cells = 2 * side;
    const pitch = set.width * VALUE;
    const rows = attended + blockRow * cells * pitch;
    const query = queries.all + blockRow * cells * queries.dims * VALUE;
    const { ofRows, ofQueries, residual, entry } = layers;
    const multiply = (x: number, xPitch: number, { weights, bias, inputs, outputs }: Layer, more: number, morePitch: number, y: number, least: number) =>
      c.run.multiply(x, xPitch, weights, bias, more, morePitch, y, outputs * VALUE, cells, inputs, outputs, least);
    const hidden = ofRows.outputs * VALUE;
    multiply(rows + values * VALUE, pitch, ofRows, c.nothing.first, 0, rooms.hidden, -Infinity);
    multiply(query, queries.dims * VALUE, ofQueries, rooms.hidden, hidden, rooms.hidden, 0);
    multiply(rooms.hidden, hidden, residual, rows, pitch, rooms.values, -Infinity);
    multiply(rooms.values, values * VALUE, entry, c.nothing.first, 0, rooms.entered, -Infinity);
    c.run.spread(rooms.entered, 1, side / 2, features.pixel, features.first + 2 * blockRow * features.row, features.pixel, features.row);
  }

  /** Add a residual block to the features. */
  private apply({ spread, grow, shrink }: Block): void {
    const { c, features, grown, side, spreadOut } = this;
    const corner = features.first - features.edge * (features.row + features.pixel);
    c.run.depthwise(corner, features.pixel, features.row, spread.weights, spread.bias, spreadOut.first, side, side, KERNEL, 1, -Infinity);
    const rowOf = (pixels: Framed, y: number) => ({ ...pixels, height: 1, first: pixels.first + y * pixels.row });
    for (let y = 0; y < side; y++) {
      const row = rowOf(features, y);
      c.multiply(rowOf(spreadOut, y), grow, grown, 0);
      c.multiply(grown, shrink, row, -Infinity, row);
    }
  }
}

/** Return the bias for colours in 0..1, the first three inputs, where the weights expect them in -0.5..0.5. */
function ofCentred({ shape: [, inputs], values }: Weights, bias: Float32Array): Float32Array {
  return bias.map((value, o) => value - 0.5 * [0, 1, 2].reduce((sum, i) => sum + values[o * inputs + i], 0));
}

function divided({ shape, values }: Weights, by: number): Weights {
  return { shape, values: values.map((value) => value / by) };
}
