/** How each cell of a source moves with the keypoints (models/network/motion_basis.py). */

import { type Convolution, type Convolutions, count, type Framed, type Layer, VALUE } from "./convolutions";
import { cellCentres, drawFolded, drawGaussians, foldedOrder, membership, pixelsOf } from "./geometry";
import { cellMeans, type Picture, resizeLinear } from "../pictures";
import { UNet } from "./unet";
import type { NetworkWeights } from "../weights";

export class MotionBasis {
  /** Cells per side of the layers of motion, half of those of the basis, and what a cell is folded from. */
  private readonly side: number;
  private readonly fold: number;
  private readonly layerCount: number;
  private readonly unet: UNet;
  private readonly layers: { head: Layer; masks: Convolution };
  private readonly maps: { head: Framed; masks: Framed };
  /** (side, side, layers * 3 K): of all speakers. */
  private readonly common: Framed;

  constructor(
    private readonly c: Convolutions,
    private readonly weights: NetworkWeights,
    private readonly size: number,
    private readonly keypoints: number,
  ) {
    const [, inputs] = weights.of("basis_net.unet.stem.0.weight").shape;
    const fold = (this.fold = Math.sqrt((inputs - keypoints - 2) / 3));
    const side = (this.side = size / fold);
    const folded = 3 * fold ** 2;
    this.unet = new UNet(c, weights, "basis_net.unet", side, [...foldedOrder(fold), ...count(keypoints + 2).map((n) => folded + n)]);
    const head = c.product(...weights.layer("basis_net.head"));
    const masks = c.convolution(...weights.layer("basis_net.masks"), side);
    this.layers = { head, masks };
    this.layerCount = weights.of("basis_net.masks.weight").shape[0] / 4;
    this.common = c.framed(side, side, head.outputs, 0);
    this.maps = { head: c.framed(side, side, head.outputs, 0), masks: c.framed(side, side, masks.outputs, 0) };
    const { values } = weights.of("basis_net.common");
    const out = pixelsOf(c, this.common);
    for (let cell = 0; cell < side ** 2; cell++) {
      for (let i = 0; i < 3 * keypoints * this.layerCount; i++) out[cell * head.outputs + i] = values[i * side ** 2 + cell];
    }
    this.drawPlaces(folded + keypoints);
  }

  /** Return the basis ((2 * side)^2, 3 K) of a picture of the network's size. */
  of(picture: Picture, keypoints: Float32Array): Float32Array {
    const { c, fold, maps, side, unet } = this;
    drawFolded(c, cellMeans(picture, this.size), 1, fold, unet.input);
    drawGaussians(c, keypoints, unet.input, 3 * fold ** 2);
    unet.run();
    c.multiply(unet.output, this.layers.head, maps.head, -Infinity, this.common);
    c.convolve(unet.output, this.layers.masks, maps.masks, -Infinity);
    const { channels } = maps.head;
    const fields = resizeLinear(pixelsOf(c, maps.head).slice(), side, 2 * side, channels);
    const shares = this.shares();
    const along = membership(this.weights, keypoints, 2 * side, null);
    const width = 3 * this.keypoints;
    const out = new Float32Array(4 * side ** 2 * width);
    for (let cell = 0; cell < 4 * side ** 2; cell++) {
      for (let k = 0; k < this.keypoints; k++) out[cell * width + k] = along[cell * (this.keypoints + 1) + k];
      for (let layer = 0; layer < this.layerCount; layer++) {
        const share = shares[cell * this.layerCount + layer];
        for (let i = 0; i < width; i++) out[cell * width + i] += share * fields[cell * channels + layer * width + i];
      }
    }
    return out;
  }

  /** Return what each layer takes of each cell of the basis, ((2 * side)^2, layers): softmax of the masks. */
  private shares(): Float32Array {
    const { layerCount, side } = this;
    const masks = pixelsOf(this.c, this.maps.masks);
    const out = new Float32Array(4 * side ** 2 * layerCount);
    for (let cell = 0; cell < 4 * side ** 2; cell++) {
      const [x, y] = [cell % (2 * side), Math.floor(cell / (2 * side))];
      const at = ((y >> 1) * side + (x >> 1)) * this.maps.masks.channels + (y % 2) * 2 + (x % 2);
      const powers = count(layerCount).map((layer) => Math.exp(masks[at + 4 * layer]));
      const sum = powers.reduce((a, b) => a + b, 0);
      out.set(powers.map((power) => power / sum), cell * layerCount);
    }
    return out;
  }

  private drawPlaces(channel: number): void {
    const { input } = this.unet;
    const out = pixelsOf(this.c, input);
    const centres = cellCentres(this.side);
    for (let y = 0; y < this.side; y++) {
      for (let x = 0; x < this.side; x++) out.set([centres[x], centres[y]], (y * input.row) / VALUE + x * input.channels + channel);
    }
  }
}
