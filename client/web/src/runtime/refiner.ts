/** The second half of a reconstruction: the sources are sampled and blended, and the network refines the result
 * (models/runtime/onnx.py). */

import type { InferenceSession, Tensor } from "onnxruntime-web/wasm";
import type { Model } from "./onnx";
import { type Picture, remapPicture, resizeLinear } from "./pictures";

/** What attention makes of a frame, and the pictures of the sources that it attended to. */
export interface Attended {
  pictures: Picture[];
  /** (S, side, side, 3): shifts in pixels (x, y), and weights. */
  shifts: Float32Array;
  side: number;
  /** The decoder's features, and their shape. */
  features: Float32Array;
  dims: readonly number[];
}

export interface Refiner {
  /** Whether it works in another worker. */
  readonly isElsewhere: boolean;
  /** Return the picture; `shifts` and `features` may not be used any more. */
  refine(attended: Attended): Promise<Picture>;
}

/** Refines in this worker. */
export class OnnxRefiner implements Refiner {
  readonly isElsewhere = false;
  private readonly sampler: Sampler;
  private readonly planes: Float32Array;

  constructor(
    private readonly model: Model,
    private readonly session: InferenceSession,
    private readonly TensorOf: typeof Tensor,
  ) {
    this.sampler = new Sampler(model.size, model.net_size);
    this.planes = new Float32Array(3 * model.size ** 2);
  }

  async refine({ pictures, shifts, side, features, dims }: Attended): Promise<Picture> {
    const { size, net_size } = this.model;
    const fold = size === net_size ? 2 : 1;
    foldPicture(this.sampler.base(pictures, shifts, side), size, fold, this.planes);
    const { picture } = await this.session.run({
      base: new this.TensorOf("float32", this.planes, [1, 3 * fold ** 2, size / fold, size / fold]),
      features: new this.TensorOf("float32", features, dims),
    });
    return unfoldPicture(picture.data as Uint8Array, size, fold);
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

  /** Return the base picture (size, size, 3) in 0..255 from the fields (S, side, side, 3) of shifts and weights. It is
   * valid until the next one. */
  base(pictures: Picture[], fields: Float32Array, side: number): Float32Array | Uint8Array {
    const { size, netSize } = this;
    const fine = pictures.map((_, n) =>
      resizeLinear(fields.subarray(n * side * side * 3, (n + 1) * side * side * 3), side, netSize, 3),
    );
    if (pictures.length === 1) {
      this.locate(fine[0]);
      remapPicture(pictures[0], this.places, this.sampled);
      return this.sampled;
    }
    const shares = this.shares(fine);
    const base = new Float32Array(size * size * 3);
    pictures.forEach((picture, n) => {
      this.locate(fine[n]);
      remapPicture(picture, this.places, this.sampled);
      const share = shares[n];
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
    const total = new Float64Array(this.netSize ** 2);
    for (const field of fine) for (let n = 0; n < total.length; n++) total[n] += field[3 * n + 2];
    const shares = fine.map((field) => {
      const share = new Float32Array(total.length);
      for (let n = 0; n < total.length; n++) share[n] = field[3 * n + 2] / total[n];
      return share;
    });
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

/** Write planes in 0..1, pixel-unshuffled by `fold`, of a picture (size, size, 3) in 0..255. */
function foldPicture(picture: Float32Array | Uint8Array, size: number, fold: number, planes: Float32Array): void {
  const scale = 1 / 255;
  eachRow(size, fold, (from, to, side) => {
    for (let x = 0; x < side; x++) planes[to + x] = picture[from + 3 * fold * x] * scale;
  });
}

/** Inverse of `foldPicture` for bytes. */
function unfoldPicture(planes: Uint8Array, size: number, fold: number): Picture {
  const data = new Uint8Array(size * size * 3);
  eachRow(size, fold, (to, from, side) => {
    for (let x = 0; x < side; x++) data[to + 3 * fold * x] = planes[from + x];
  });
  return { side: size, data };
}

/** Call `work` for each row of each plane: where it begins in the picture, where it does in the planes, and its length. */
function eachRow(size: number, fold: number, work: (at: number, inPlanes: number, side: number) => void): void {
  const side = size / fold;
  for (let channel = 0, inPlanes = 0; channel < 3; channel++) {
    for (let row = 0; row < fold; row++) {
      for (let column = 0; column < fold; column++) {
        for (let y = 0; y < side; y++, inPlanes += side) work(((fold * y + row) * size + column) * 3 + channel, inPlanes, side);
      }
    }
  }
}
