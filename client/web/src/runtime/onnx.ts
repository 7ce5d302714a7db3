/** The runtime on ONNX Runtime's wasm (models/runtime/onnx.py). */

import type { InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { type Picture, resizeArea } from "./pictures";
import type { Refiner } from "./refiner";
import type { Attention, Runtime, Source } from "./types";

/** The ONNX graphs of a model. */
export const GRAPHS = ["detector", "source", "merge", "attend"] as const;
export type Graph = (typeof GRAPHS)[number];

/** A model as the server describes it. */
export interface Model {
  id: string;
  /** Hexadecimal. */
  digest: string;
  keypoints: number;
  /** Side in pixels of source and reconstructed pictures. */
  size: number;
  /** Side in pixels of the source pictures as the network reads them, and as the detector does. */
  net_size: number;
  detector_size: number;
  /** Address of each graph. */
  graphs: Record<Graph, string>;
  /** Address of the weights of the network's decoder, after attention. */
  decoder: string;
  /** Of graphs and weights together, before they are compressed for their way. */
  bytes: number;
}

/** Most sources in the attention of a frame. */
export const MAX_SOURCES = 4;

export class OnnxRuntime implements Runtime {
  private merged: Record<string, Tensor> = {};
  private mergedSources: Source[] = [];
  /** What the sessions of this worker do: they may not overlap. */
  private turn: Promise<unknown> = Promise.resolve();

  /** `TensorOf`: the constructor of onnxruntime-web, which only a worker loads. `refiner`: does what comes after attention. */
  constructor(
    private readonly model: Model,
    private readonly sessions: Record<Graph, InferenceSession>,
    private readonly TensorOf: typeof Tensor,
    private readonly refiner: Refiner,
  ) {}

  async detect(picture: Picture): Promise<Float32Array> {
    return floats(await this.inTurn(() => this.keypoints(picture)));
  }

  private async keypoints(picture: Picture): Promise<Tensor> {
    const small = this.pictureTensor(resizeArea(picture, this.model.detector_size));
    return (await this.sessions.detector.run({ picture: small })).keypoints;
  }

  prepare(picture: Picture): Promise<Source> {
    return this.inTurn(() => this.prepared(picture));
  }

  private async prepared(picture: Picture): Promise<Source> {
    const keypoints = await this.keypoints(picture);
    const net = this.pictureTensor(resizeArea(picture, this.model.net_size));
    const outputs = await this.sessions.source.run({ picture: net, keypoints });
    return {
      picture,
      keypoints: floats(keypoints),
      features: floats(outputs.rows),
      membership: floats(outputs.membership),
      basis: floats(outputs.basis),
    };
  }

  async attend(keypoints: Float32Array, sources: Source[]): Promise<Attention> {
    if (sources.length < 1 || sources.length > MAX_SOURCES) throw new RangeError(`${sources.length} sources`);
    const { fields, features } = await this.inTurn(() => this.attended(keypoints, sources));
    return { shifts: floats(fields), side: fields.dims[2], features: floats(features) };
  }

  async refine(sources: Source[], attention: Attention): Promise<Picture> {
    const attended = { ...attention, pictures: sources.map(({ picture }) => picture) };
    const { refiner } = this;
    return refiner.isElsewhere ? refiner.refine(attended) : this.inTurn(() => refiner.refine(attended));
  }

  async reconstruct(keypoints: Float32Array, sources: Source[], suppression: number): Promise<Picture> {
    const attention = await this.attend(keypoints, sources);
    if (suppression > 0) suppressSmallShifts(attention.shifts, suppression);
    return this.refine(sources, attention);
  }

  private inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.turn.then(work);
    this.turn = result.catch(() => {});
    return result;
  }

  private async attended(keypoints: Float32Array, sources: Source[]): Promise<Record<string, Tensor>> {
    await this.merge(sources);
    const driving = new this.TensorOf("float32", keypoints, [1, keypoints.length / 3, 3]);
    return this.sessions.attend.run({ driving, ...this.merged });
  }

  /** Merge the sources' features; reused while the set stays the same, apart from its pictures. */
  private async merge(sources: Source[]): Promise<void> {
    const same =
      sources.length === this.mergedSources.length &&
      sources.every((source, n) => source.features === this.mergedSources[n].features);
    if (same) return;
    const features = this.stacked(sources.map((source) => source.features), this.model.net_size ** 2 / 16);
    const { rows, keys, pooled } = await this.sessions.merge.run({ features });
    const k = this.model.keypoints;
    this.merged = {
      rows,
      keys,
      pooled,
      keypoints: this.stacked(sources.map((source) => source.keypoints), k),
      membership: this.stacked(sources.map((source) => source.membership), sources[0].membership.length / (k + 1)),
      basis: this.stacked(sources.map((source) => source.basis), sources[0].basis.length / (3 * k)),
    };
    this.mergedSources = [...sources];
  }

  /** Stack arrays of `rows` rows -> (1, S, rows, columns). */
  private stacked(arrays: Float32Array[], rows: number): Tensor {
    const length = arrays[0].length;
    const all = new Float32Array(arrays.length * length);
    arrays.forEach((array, n) => all.set(array, n * length));
    return new this.TensorOf("float32", all, [1, arrays.length, rows, length / rows]);
  }

  private pictureTensor({ side, data }: Picture): Tensor {
    return new this.TensorOf("uint8", data, [1, side, side, 3]);
  }
}

/** Scale shifts in pixels (x, y, weight) in place: 0 below half of `suppression`, rising to their length at it. */
export function suppressSmallShifts(fields: Float32Array, suppression: number): void {
  for (let n = 0; n < fields.length; n += 3) {
    const length = Math.hypot(fields[n], fields[n + 1]);
    const factor = Math.min(1, Math.max(0, (length * 2) / suppression - 1));
    fields[n] *= factor;
    fields[n + 1] *= factor;
  }
}

function floats(tensor: Tensor): Float32Array {
  return tensor.data as Float32Array;
}
