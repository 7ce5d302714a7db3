/** The network's hourglasses, with batch normalisation folded into their convolutions (models/network/layers.py, UNet). */

import { type Convolution, type Convolutions, type Framed, type Order, VALUE } from "./convolutions";
import type { NetworkWeights } from "../weights";

interface Level {
  side: number;
  width: number;
  /** What is convolved to the level below: half of `merged`, but for the lowest level. */
  skip: Framed;
  /** The level below, enlarged, and `skip`. */
  merged: Framed;
  /** The level below, not yet enlarged; an address. */
  small: number;
  out: Framed;
  /** From the level above, from the level below, and of both. */
  down: Convolution | null;
  up: Convolution | null;
  merge: Convolution | null;
}

export class UNet {
  /** (side, side, inputs), for the caller to fill. */
  readonly input: Framed;
  /** (side, side, channels). */
  readonly output: Framed;
  private readonly stem: Convolution;
  private readonly levels: Level[] = [];

  /** `inputs`: which channel of the weights each channel of the input is. */
  constructor(
    private readonly c: Convolutions,
    weights: NetworkWeights,
    name: string,
    side: number,
    inputs: Order,
  ) {
    const convolution = (layer: string, of: number, stride = 1) => c.convolution(...weights.normalised(`${name}.${layer}`), of, stride);
    this.input = c.framed(side, side, inputs.length);
    this.stem = c.convolution(...weights.normalised(`${name}.stem`), side, 1, inputs);
    let width = this.stem.outputs;
    for (let n = 0; ; n++, side /= 2) {
      const isLowest = !weights.has(`${name}.down.${n}.0.weight`);
      const merged = c.framed(side, side, isLowest ? width : 2 * width);
      const skip = isLowest ? merged : { ...merged, channels: width, first: merged.first + width * VALUE };
      this.levels.push({
        side,
        width,
        merged,
        skip,
        small: c.room((side / 2) ** 2 * width),
        out: isLowest ? merged : c.framed(side, side, width),
        down: n ? convolution(`down.${n - 1}`, side, 2) : null,
        up: isLowest ? null : convolution(`up.${n}`, side / 2),
        merge: isLowest ? null : convolution(`merge.${n}`, side),
      });
      if (isLowest) break;
      width = weights.of(`${name}.down.${n}.0.weight`).shape[0];
    }
    this.output = this.levels[0].out;
  }

  run(): void {
    const { c, levels } = this;
    c.convolve(this.input, this.stem, levels[0].skip);
    levels.forEach(({ down, skip }, n) => down && c.convolve(levels[n - 1].skip, down, skip));
    for (let n = levels.length - 2; n >= 0; n--) {
      const { side, width, merged, small, out, up, merge } = levels[n];
      c.convolve(levels[n + 1].out, up as Convolution, small);
      c.run.place(small, width * VALUE, side / 2, side / 2, 2, merged.first, merged.pixel, merged.row);
      c.convolve(merged, merge as Convolution, out);
    }
  }
}
