/** The keypoint detector (models/network/detector.py). */

import { type Convolution, type Convolutions, type Framed, type Layer } from "./network/convolutions";
import { cellCentres, drawFolded, foldedOrder } from "./network/geometry";
import type { Picture } from "./pictures";
import { UNet } from "./network/unet";
import type { NetworkWeights } from "./weights";

const TEMPERATURE = 0.1;
/** Differences of heat whose weight, e^-30, is nothing. */
const COLD = 30 * TEMPERATURE;

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
    const { c, keypoints, layers, maps, side } = this;
    drawFolded(c, picture.data, 1 / 255, this.fold, this.hourglass.input);
    this.hourglass.run();
    c.convolve(this.hourglass.output, layers.heatmaps, maps.heat, -Infinity);
    c.multiply(this.hourglass.output, layers.strengths, maps.strengths);
    const { channels } = maps.heat;
    const heat = c.floats(maps.heat.first, side ** 2 * channels);
    const strengths = c.floats(maps.strengths.first, side ** 2 * channels);
    const most = new Float32Array(keypoints).fill(-Infinity);
    for (let at = 0; at < heat.length; at += channels) {
      for (let k = 0; k < keypoints; k++) if (heat[at + k] > most[k]) most[k] = heat[at + k];
    }
    const centres = cellCentres(side);
    const sums = new Float64Array(4 * keypoints);
    for (let cell = 0, at = 0; at < heat.length; cell++, at += channels) {
      const x = centres[cell % side];
      const y = centres[Math.floor(cell / side)];
      for (let k = 0; k < keypoints; k++) {
        const below = most[k] - heat[at + k];
        if (below > COLD) continue;
        const weight = Math.exp(-below / TEMPERATURE);
        sums[4 * k] += weight;
        sums[4 * k + 1] += weight * x;
        sums[4 * k + 2] += weight * y;
        sums[4 * k + 3] += weight * strengths[at + k];
      }
    }
    const out = new Float32Array(3 * keypoints);
    for (let k = 0; k < keypoints; k++) {
      const [sum, x, y, strength] = sums.subarray(4 * k, 4 * k + 4);
      out.set([x / sum, y / sum, 1 / (1 + Math.exp(-strength / sum))], 3 * k);
    }
    return out;
  }
}
