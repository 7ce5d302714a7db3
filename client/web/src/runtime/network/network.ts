/** The runtime: the network in WebAssembly (models/runtime/onnx.py). */

import { SourceAttention } from "./attention";
import { Convolutions } from "./convolutions";
import { KeypointDetector } from "../detector";
import { type Picture, resizeArea } from "../pictures";
import type { Refiner } from "../refinement/refiner";
import { SourceEncoder } from "./source_encoder";
import { type Attention, MAX_SOURCES, type Model, type Runtime, type Source } from "../types";
import type { NetworkWeights } from "../weights";

export class NetworkRuntime implements Runtime {
  private readonly detector: KeypointDetector;
  private readonly encoder: SourceEncoder;
  private readonly attention: SourceAttention;

  /** `refiner`: does what comes after attention. */
  constructor(
    private readonly model: Model,
    weights: NetworkWeights,
    private readonly refiner: Refiner,
  ) {
    const { detector_size, keypoints, net_size } = model;
    const c = new Convolutions();
    this.detector = new KeypointDetector(c, weights, detector_size, keypoints);
    this.encoder = new SourceEncoder(c, weights, net_size, detector_size, keypoints);
    this.attention = new SourceAttention(c, weights, model);
  }

  async detect(picture: Picture): Promise<Float32Array> {
    return this.detector.detect(resizeArea(picture, this.model.detector_size));
  }

  async prepare(picture: Picture): Promise<Source> {
    const keypoints = await this.detect(picture);
    return { picture, keypoints, ...this.encoder.encode(resizeArea(picture, this.model.net_size), keypoints) };
  }

  async attend(keypoints: Float32Array, sources: Source[]): Promise<Attention> {
    if (sources.length < 1 || sources.length > MAX_SOURCES) throw new RangeError(`${sources.length} sources`);
    return this.attention.run(keypoints, sources);
  }

  refine(sources: Source[], attention: Attention): Promise<Picture> {
    return this.refiner.refine({ ...attention, pictures: sources.map(({ picture }) => picture) });
  }

  async reconstruct(keypoints: Float32Array, sources: Source[]): Promise<Picture> {
    return this.refine(sources, await this.attend(keypoints, sources));
  }
}
