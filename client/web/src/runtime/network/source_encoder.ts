/** Encodes a source picture once, so that frames can attend to it (models/network/network.py, `encode_sources`). */

import { type Convolution, type Convolutions, count, type Framed, type Layer } from "./convolutions";
import { drawFolded, drawGaussians, foldedOrder, membership, pixelsOf, positions } from "./geometry";
import { MotionBasis } from "./motion_basis";
import { cellMeans, type Picture } from "../pictures";
import type { Source } from "../types";
import { UNet } from "./unet";
import type { NetworkWeights } from "../weights";

/** What is computed of a source. */
export type Encoded = Pick<Source, "features" | "membership" | "basis">;

export class SourceEncoder {
  private readonly side: number;
  private readonly fold: number;
  private readonly unet: UNet;
  private readonly layers: { keys: Layer; parts: Layer; first: Convolution; second: Convolution };
  private readonly positions: Framed;
  private readonly maps: Record<"keys" | "parts" | "values" | "picture" | "half", Framed>;
  private readonly basis: MotionBasis;

  /** `size`: of the pictures that the network reads; `basisSize`: of those from which it predicts motion. */
  constructor(
    private readonly c: Convolutions,
    private readonly weights: NetworkWeights,
    size: number,
    basisSize: number,
    keypoints: number,
  ) {
    const [, inputs] = weights.of("key_net.unet.stem.0.weight").shape;
    const fold = (this.fold = Math.sqrt((inputs - keypoints) / 3));
    const side = (this.side = size / fold);
    const folded = 3 * fold ** 2;
    this.unet = new UNet(c, weights, "key_net.unet", side, [...foldedOrder(fold), ...count(keypoints).map((k) => folded + k)]);
    this.layers = {
      keys: c.product(...weights.layer("key_net.keys")),
      parts: c.product(...weights.layer("key_net.parts")),
      first: c.convolution(...weights.layer("value_net.0"), size / 2, 2),
      second: c.convolution(...weights.layer("value_net.2"), size / 4, 2),
    };
    if (fold !== 4) throw new RangeError(`cells of ${fold} pixels`);
    this.positions = c.framed(side, side, this.layers.keys.outputs, 0);
    pixelsOf(c, this.positions).set(positions(weights.of("key_net.position"), side));
    const map = (channels: number) => c.framed(side, side, channels, 0);
    this.maps = {
      keys: map(this.layers.keys.outputs),
      parts: map(this.layers.parts.outputs),
      values: map(this.layers.second.outputs),
      picture: c.framed(size, size, 3),
      half: c.framed(size / 2, size / 2, this.layers.first.outputs),
    };
    this.basis = new MotionBasis(c, weights, basisSize, keypoints);
  }

  /** `picture`: of the network's size. */
  encode(picture: Picture, keypoints: Float32Array): Encoded {
    const { c, fold, layers, maps, unet } = this;
    drawFolded(c, picture.data, 1 / 255, fold, unet.input);
    drawGaussians(c, keypoints, unet.input, 3 * fold ** 2);
    unet.run();
    c.multiply(unet.output, layers.keys, maps.keys, -Infinity, this.positions);
    c.multiply(unet.output, layers.parts, maps.parts);
    drawFolded(c, picture.data, 1 / 255, 1, maps.picture);
    c.convolve(maps.picture, layers.first, maps.half);
    c.convolve(maps.half, layers.second, maps.values, -Infinity);
    const parts = pixelsOf(c, maps.parts);
    return {
      features: this.rows(picture),
      membership: membership(this.weights, keypoints, this.side, { values: parts, width: maps.parts.channels }),
      basis: this.basis.of(picture, keypoints),
    };
  }

  /** Return for each cell its values, unit key and mean colour. */
  private rows(picture: Picture): Float32Array {
    const { c, maps, side } = this;
    const [values, keys] = [pixelsOf(c, maps.values), pixelsOf(c, maps.keys)];
    const [count, dim] = [this.layers.second.outputs, this.layers.keys.outputs];
    const width = count + dim + 3;
    const out = new Float32Array(side ** 2 * width);
    const colours = cellMeans(picture, side);
    for (let cell = 0, at = 0; cell < side ** 2; cell++, at += width) {
      out.set(values.subarray(cell * count, (cell + 1) * count), at);
      let square = 0;
      for (let i = cell * dim; i < (cell + 1) * dim; i++) square += keys[i] ** 2;
      const scale = 1 / Math.max(Math.sqrt(square), 1e-12);
      for (let i = 0; i < dim; i++) out[at + count + i] = keys[cell * dim + i] * scale;
      for (let i = 0; i < 3; i++) out[at + count + dim + i] = colours[3 * cell + i];
    }
    return out;
  }
}
