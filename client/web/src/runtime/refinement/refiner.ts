/**
 * The second half of a reconstruction: the sources are sampled and blended, and the network's decoder corrects the result
 * (models/network/decoder.py).
 */

import { type Convolution, Convolutions, count, type Framed, type Layer, VALUE } from "../network/convolutions";
import { fetched } from "../fetched";
import { pixelsOf } from "../network/geometry";
import { type Picture, resizeLinear } from "../pictures";
import { Sampler } from "./sampler";
import type { Attention, Model } from "../types";
import { NetworkWeights, type Weights } from "../weights";

/** What attention makes of a frame, and the pictures of the sources that it attended to. */
export interface Attended extends Attention {
  pictures: Picture[];
}

export interface Refiner {
  /** Return the picture; `shifts` and `features` may not be used any more. */
  refine(attended: Attended): Promise<Picture>;
}

/** Channels of a folded picture. Here they are (dy, dx, colour), in the weights (colour, dy, dx). */
const FOLDED = 12;
/** The same of a convolution's result. */
const FILLED = 16;
const FOLDS = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11];

/** Refines in this worker. */
export class WasmRefiner implements Refiner {
  private readonly convolutions: Convolutions;
  private readonly sampler: Sampler;
  private readonly trunk: number;
  /** Channels that the features are unfolded to. */
  private readonly half: number;
  private readonly unfold: Layer;
  private readonly layers: Record<"fuse" | "refine" | "out", Convolution>;
  /** Features as they come, and unfolded; changes of the picture; the picture. */
  private readonly rooms: Record<"features" | "unfolded" | "changes" | "picture", number>;
  private readonly framed: Record<"fused" | "refined" | "detailed", Framed>;
  /** In models of larger pictures than the network reads. */
  private readonly up: UpBlock | null;

  /** Return a refiner with the weights at an address. */
  static async load(model: Model, decoder: string): Promise<WasmRefiner> {
    return new WasmRefiner(model, NetworkWeights.read(await (await fetched(decoder)).arrayBuffer()));
  }

  /** `weights`: of the network's decoder, by name. Throws Error if there are others than those of the model. */
  constructor(
    private readonly model: Model,
    weights: NetworkWeights,
  ) {
    const { size, net_size } = model;
    const [unfold, unfoldBias] = weights.layer("decoder.unfold");
    const trunk = (this.trunk = unfold.shape[1]);
    const half = (this.half = unfold.shape[0] / 4);
    const detail = weights.of("decoder.refine.weight").shape[0];
    const c = (this.convolutions = new Convolutions());
    this.sampler = new Sampler(c, net_size / 4, net_size, size);
    const upsamples = size > net_size; // twice: more up blocks are not known here
    if ((upsamples && size !== 2 * net_size) || net_size % 32) throw new RangeError(`pictures of ${size} pixels`);
    const details = upsamples ? groups(detail / 4) : count(detail);
    const inputs = [...count(half), ...FOLDS.map((n) => half + n)];
    this.unfold = c.product(unfold, unfoldBias, count(trunk), groups(half));
    this.layers = {
      fuse: c.convolution(...weights.layer("decoder.fuse"), net_size / 2, 1, inputs),
      refine: c.convolution(...weights.layer("decoder.refine"), net_size / 2, 1, count(detail), details),
      out: c.convolution(...weights.layer("decoder.out"), net_size / 2, 1, details, FOLDS),
    };
    const cells = (net_size / 4) ** 2;
    this.rooms = {
      features: c.room((trunk + 1) * cells),
      unfolded: c.room(4 * half * cells),
      changes: c.room(4 * FILLED * cells),
      picture: c.room((3 * size ** 2) / VALUE),
    };
    this.framed = {
      fused: c.framed(net_size / 2, net_size / 2, half + FOLDED),
      refined: c.framed(net_size / 2, net_size / 2, detail),
      detailed: c.framed(net_size / 2, net_size / 2, detail),
    };
    this.up = upsamples ? new UpBlock(c, weights, net_size, detail / 4) : null;
  }

  async refine({ pictures, shifts, side, features }: Attended): Promise<Picture> {
    const { convolutions: c, half, layers, rooms, trunk, up } = this;
    const { size, net_size } = this.model;
    const { fused, refined, detailed } = this.framed;
    this.sampler.run(pictures, shifts);
    c.floats(rooms.features, features.length).set(features);
    const { weights, bias, outputs } = this.unfold;
    c.run.multiply(rooms.features, trunk * VALUE, weights, bias, c.nothing.first, 0, rooms.unfolded, outputs * VALUE, side ** 2, trunk, outputs, 0);
    c.run.spread(rooms.unfolded, side, side, half * VALUE, fused.first, fused.pixel, fused.row);
    c.run.fold(up ? up.halved(this.sampler.base) : this.sampler.base, net_size, fused.first + half * VALUE, fused.pixel, fused.row);
    c.convolve(fused, layers.fuse, refined);
    c.convolve(refined, layers.refine, detailed);
    c.convolve(detailed, layers.out, rooms.changes, -Infinity);
    c.run.close(rooms.changes, rooms.features + trunk * side ** 2 * VALUE, side);
    if (up) up.finish(this.sampler.base, detailed, rooms.changes, rooms.picture);
    else c.run.finish(rooms.changes, fused.first + half * VALUE, fused.pixel, fused.row, net_size / 2, rooms.picture);
    return { side: size, data: c.bytes(rooms.picture, 3 * size ** 2).slice() };
  }
}

/** Doubles the resolution of a change (models/network/decoder.py). */
class UpBlock {
  private readonly layers: { enter: Convolution; out: Convolution };
  private readonly entered: Framed;
  private readonly detailed: Framed;
  private readonly changes: number;
  private readonly half: number;

  /** `side`: of the folded picture; `details`: channels, in the shuffled features. */
  constructor(
    private readonly c: Convolutions,
    weights: NetworkWeights,
    private readonly side: number,
    private readonly details: number,
  ) {
    const [[ofFeatures, bias], [ofPicture, otherBias]] = ["enter", "see"].map((name) => weights.layer(`decoder.up.0.${name}`));
    const enter = joined(ofFeatures, ofPicture, details);
    const [outputs, inputs] = enter.shape;
    this.layers = {
      enter: c.convolution(enter, bias.map((value, n) => value + otherBias[n]), side),
      out: c.convolution(...weights.layer("decoder.up.0.out"), side, 1, count(outputs), FOLDS),
    };
    this.entered = c.framed(side, side, inputs);
    this.detailed = c.framed(side, side, outputs);
    this.changes = c.room(FILLED * side ** 2);
    this.half = c.room(3 * side ** 2);
  }

  /** Return the means of 2x2 pixels of a picture (2 * side, 2 * side, 3); an address. */
  halved(picture: number): number {
    const { c, side } = this;
    const [from, to, row] = [c.floats(picture, 12 * side ** 2), c.floats(this.half, 3 * side ** 2), 6 * side];
    for (let y = 0, n = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        for (let i = 2 * (y * row + 3 * x), end = i + 3; i < end; i++, n++) {
          to[n] = (from[i] + from[i + 3] + from[i + row] + from[i + row + 3]) / 4;
        }
      }
    }
    return this.half;
  }

  /** Write the picture: `base` (2 * side, 2 * side, 3) in 0..255, features (side / 2, side / 2, 4 * details) in groups and
   * folded changes (side / 2, side / 2, FILLED) of a picture half its size. */
  finish(base: number, features: Framed, changes: number, out: number): void {
    const { c, side, details, entered } = this;
    for (let y = 0; y < side / 2; y++) {
      const [from, to] = [features.first + y * features.row, entered.first + 2 * y * entered.row];
      c.run.spread(from, 1, side / 2, details * VALUE, to, entered.pixel, entered.row);
    }
    c.run.fold(base, 2 * side, entered.first + details * VALUE, entered.pixel, entered.row);
    const coarse = unfolded(c.floats(changes, (FILLED * side ** 2) / 4), side);
    const all = pixelsOf(c, entered);
    for (let y = 0, n = 0; y < side; y++) {
      let at = (y * entered.row) / VALUE + details + FOLDED;
      for (let x = 0; x < side; x++, n += 3, at += entered.channels) all.set(coarse.subarray(n, n + 3), at);
    }
    c.convolve(entered, this.layers.enter, this.detailed);
    c.convolve(this.detailed, this.layers.out, this.changes, -Infinity);
    addFolded(c.floats(this.changes, FILLED * side ** 2), resizeLinear(coarse, side, 2 * side, 3), side);
    c.run.finish(this.changes, entered.first + details * VALUE, entered.pixel, entered.row, side, out);
  }
}

/** Order of channels (channels, 4) as four groups. */
function groups(channels: number): number[] {
  return [0, 1, 2, 3].flatMap((group) => count(channels).map((n) => 4 * n + group));
}

/** Join `enter` (O, details + 3, 3, 3) and `see` (O, 3, 4, 4), of stride 2, to (O, details + FOLDED + 4, 3, 3), whose
 * inputs are details, a folded picture, a change and nothing. */
function joined(enter: Weights, see: Weights, details: number): Weights {
  const [outputs, inputs] = enter.shape;
  const channels = details + FOLDED + 4;
  const values = new Float32Array(outputs * channels * 9);
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      const [from, to] = [(o * inputs + i) * 9, (o * channels + (i < details ? i : i + FOLDED)) * 9];
      values.set(enter.values.subarray(from, from + 9), to);
    }
    for (let n = 0; n < FOLDED; n++) {
      const [dy, dx, colour] = [Math.floor(n / 6), Math.floor(n / 3) % 2, n % 3];
      for (let tap = 0; tap < 9; tap++) {
        const [y, x] = [2 * Math.floor(tap / 3) + dy - 1, 2 * (tap % 3) + dx - 1];
        if (y < 0 || y > 3 || x < 0 || x > 3) continue;
        values[(o * channels + details + n) * 9 + tap] = see.values[((o * 3 + colour) * 4 + y) * 4 + x];
      }
    }
  }
  return { shape: [outputs, channels, 3, 3], values };
}

/** Return folded changes (side / 2, side / 2, FILLED) as (side, side, 3). */
function unfolded(changes: Float32Array, side: number): Float32Array {
  const out = new Float32Array(3 * side ** 2);
  eachFolded(side / 2, (folded, at) => (out[at] = changes[folded]));
  return out;
}

/** Add a picture (2 * side, 2 * side, 3) to folded changes (side, side, FILLED). */
function addFolded(changes: Float32Array, picture: Float32Array, side: number): void {
  eachFolded(side, (folded, at) => (changes[folded] += picture[at]));
}

/** Call `work` with each place in a folded picture (side, side, FILLED), and in the unfolded one. */
function eachFolded(side: number, work: (folded: number, at: number) => void): void {
  for (let y = 0; y < 2 * side; y++) {
    for (let x = 0; x < 2 * side; x++) {
      const folded = ((y >> 1) * side + (x >> 1)) * FILLED + (y & 1) * 6 + (x & 1) * 3;
      for (let colour = 0; colour < 3; colour++) work(folded + colour, 3 * (y * 2 * side + x) + colour);
    }
  }
}
