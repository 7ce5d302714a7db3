/** The runtime on ONNX Runtime's wasm; sampling and blending of the sources is done here (models/runtime/onnx.py). */

import type { InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { type Picture, remapPicture, resizeArea, resizeLinear } from "./pictures";
import type { Runtime, Source } from "./types";

/** The ONNX graphs of a model. */
export const GRAPHS = ["detector", "source", "merge", "attend", "refine"] as const;
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
  /** Of all graphs together, before they are compressed for their way. */
  bytes: number;
}

const MAX_SOURCES = 4;

export class OnnxRuntime implements Runtime {
  private merged: Record<string, Tensor> = {};
  private mergedSources: Source[] = [];
  private readonly sampler: Sampler;

  /** `TensorOf`: the constructor of onnxruntime-web, which only a worker loads. */
  constructor(
    private readonly model: Model,
    private readonly sessions: Record<Graph, InferenceSession>,
    private readonly TensorOf: typeof Tensor,
  ) {
    this.sampler = new Sampler(model.size, model.net_size);
  }

  async detect(picture: Picture): Promise<Float32Array> {
    return floats(await this.keypoints(picture));
  }

  private async keypoints(picture: Picture): Promise<Tensor> {
    const small = this.pictureTensor(resizeArea(picture, this.model.detector_size));
    return (await this.sessions.detector.run({ picture: small })).keypoints;
  }

  async prepare(picture: Picture): Promise<Source> {
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

  async reconstruct(keypoints: Float32Array, sources: Source[], suppression: number): Promise<Picture> {
    if (sources.length < 1 || sources.length > MAX_SOURCES) throw new RangeError(`${sources.length} sources`);
    await this.merge(sources);
    const driving = new this.TensorOf("float32", keypoints, [1, keypoints.length / 3, 3]);
    const { fields, features } = await this.sessions.attend.run({ driving, ...this.merged });
    const shifts = floats(fields);
    if (suppression > 0) suppressSmallShifts(shifts, suppression);
    const base = this.sampler.base(sources, shifts, fields.dims[2]);
    const fold = this.model.size === this.model.net_size ? 2 : 1;
    const side = this.model.size / fold;
    const folded = new this.TensorOf("float32", foldPicture(base, this.model.size, fold), [1, 3 * fold ** 2, side, side]);
    const { picture } = await this.sessions.refine.run({ base: folded, features });
    return unfoldPicture(picture.data as Uint8Array, this.model.size, fold);
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

/** Samples and blends the sources into the base picture. */
class Sampler {
  private readonly places: Float32Array;
  private readonly sampled: Uint8Array;

  constructor(
    private readonly size: number,
    private readonly netSize: number,
  ) {
    this.places = new Float32Array(size * size * 2);
    this.sampled = new Uint8Array(size * size * 3);
  }

  /** Return the base picture (size, size, 3) in 0..255 from the fields (S, side, side, 3) of shifts and weights. */
  base(sources: Source[], fields: Float32Array, side: number): Float32Array {
    const { size, netSize } = this;
    const fine = sources.map((_, n) =>
      resizeLinear(fields.subarray(n * side * side * 3, (n + 1) * side * side * 3), side, netSize, 3),
    );
    const shares = sources.length > 1 ? this.shares(fine) : [];
    const base = new Float32Array(size * size * 3);
    sources.forEach(({ picture }, n) => {
      this.locate(fine[n]);
      remapPicture(picture, this.places, this.sampled);
      const share = shares[n];
      if (!share) {
        base.set(this.sampled);
        return;
      }
      for (let i = 0; i < size * size; i++) {
        const weight = share[i];
        base[3 * i] += weight * this.sampled[3 * i];
        base[3 * i + 1] += weight * this.sampled[3 * i + 1];
        base[3 * i + 2] += weight * this.sampled[3 * i + 2];
      }
    });
    return base;
  }

  /** Return each source's share of every pixel, (size, size). */
  private shares(fine: Float32Array[]): Float32Array[] {
    const count = this.netSize ** 2;
    const shares = fine.map(() => new Float32Array(count));
    for (let n = 0; n < count; n++) {
      let total = 0;
      for (const field of fine) total += field[3 * n + 2];
      fine.forEach((field, source) => (shares[source][n] = field[3 * n + 2] / total));
    }
    return shares.map((share) => resizeLinear(share, this.netSize, this.size, 1));
  }

  /** Convert shifts (netSize, netSize, 3) to absolute places (size, size, 2) in the full source picture. */
  private locate(field: Float32Array): void {
    const { size, netSize, places } = this;
    if (size === netSize) {
      for (let y = 0, n = 0; y < size; y++) {
        for (let x = 0; x < size; x++, n++) {
          places[2 * n] = field[3 * n] + x;
          places[2 * n + 1] = field[3 * n + 1] + y;
        }
      }
      return;
    }
    const wide = resizeLinear(field, netSize, size, 3);
    const scale = size / netSize;
    for (let n = 0; n < size * size; n++) {
      places[2 * n] = wide[3 * n] * scale + (n % size);
      places[2 * n + 1] = wide[3 * n + 1] * scale + Math.floor(n / size);
    }
  }
}

/** Return planes in 0..1, pixel-unshuffled by `fold`, of a picture (size, size, 3) in 0..255. */
function foldPicture(picture: Float32Array, size: number, fold: number): Float32Array {
  const side = size / fold;
  const planes = new Float32Array(size * size * 3);
  const scale = 1 / 255;
  for (let y = 0, at = 0; y < size; y++) {
    const row = Math.floor(y / fold) * side;
    for (let x = 0; x < size; x++) {
      const plane = (y % fold) * fold + (x % fold);
      const place = row + Math.floor(x / fold);
      for (let channel = 0; channel < 3; channel++, at++) {
        planes[(channel * fold * fold + plane) * side * side + place] = picture[at] * scale;
      }
    }
  }
  return planes;
}

/** Inverse of `foldPicture` for bytes. */
function unfoldPicture(planes: Uint8Array, size: number, fold: number): Picture {
  const side = size / fold;
  const data = new Uint8Array(size * size * 3);
  for (let y = 0, at = 0; y < size; y++) {
    const row = Math.floor(y / fold) * side;
    for (let x = 0; x < size; x++) {
      const plane = (y % fold) * fold + (x % fold);
      const place = row + Math.floor(x / fold);
      for (let channel = 0; channel < 3; channel++, at++) {
        data[at] = planes[(channel * fold * fold + plane) * side * side + place];
      }
    }
  }
  return { side: size, data };
}

function floats(tensor: Tensor): Float32Array {
  return tensor.data as Float32Array;
}
