/** The keypoint detector (models/network/detector.py). */

import { type Convolution, type Convolutions, type Framed, type Layer } from "./convolutions";
import { cellCentres, drawFolded, foldedOrder } from "./geometry";
import type { Picture } from "./pictures";
import { UNet } from "./unet";
import type { NetworkWeights } from "./weights";

const TEMPERATURE = 0.1;

export class KeypointDetector {
  private readonly hourglass: UNet;
  private readonly fold: number;
  private readonly side: number;
  private readonly layers: { heatmaps: Convolution; strengths: Layer };
  private readonly maps: { heat: Framed; strengths: Framed };

  /** `size`: of the pictures that it reads. */
  constructor(
    private readonly c: Convolutions,
    weights: NetworkWeights,
    size: number,
    private readonly keypoints: number,
  ) {
    this.fold = Math.sqrt(weights.of("detector.hourglass.stem.0.weight").shape[1] / 3);
    this.side = size / this.fold;
    this.hourglass = new UNet(c, weights, "detector.hourglass", this.side, foldedOrder(this.fold));
    this.layers = {
      heatmaps: c.convolution(...weights.layer("detector.heatmaps"), this.side),
      strengths: c.product(...weights.layer("detector.strengths")),
    };
    const map = () => c.framed(this.side, this.side, this.layers.strengths.outputs, 0);
    this.maps = { heat: map(), strengths: map() };
  }

  /** Return the keypoints (K, 3) of a picture of the detector's size. */
  detect(picture: Picture): Float32Array {
    const { c, layers, maps, side } = this;
    drawFolded(c, picture.data, 1 / 255, this.fold, this.hourglass.input);
    this.hourglass.run();
    c.convolve(this.hourglass.output, layers.heatmaps, maps.heat, -Infinity);
    c.multiply(this.hourglass.output, layers.strengths, maps.strengths);
    const { channels } = maps.heat;
    const [heat, strengths] = [maps.heat, maps.strengths].map(({ first }) => c.floats(first, side ** 2 * channels));
    const centres = cellCentres(side);
    const out = new Float32Array(3 * this.keypoints);
    for (let k = 0; k < this.keypoints; k++) {
      let most = -Infinity;
      for (let n = k; n < heat.length; n += channels) most = Math.max(most, heat[n]);
      let [sum, x, y, strength] = [0, 0, 0, 0];
      for (let cell = 0, n = k; n < heat.length; cell++, n += channels) {
        const weight = Math.exp((heat[n] - most) / TEMPERATURE);
        sum += weight;
        x += weight * centres[cell % side];
        y += weight * centres[Math.floor(cell / side)];
        strength += weight * strengths[n];
      }
      out.set([x / sum, y / sum, 1 / (1 + Math.exp(-strength / sum))], 3 * k);
    }
    return out;
  }
}
