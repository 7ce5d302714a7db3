/** Weights as safetensors files hold them: names, shapes and values. */

/** Of batch normalisation, as PyTorch has it. */
const EPSILON = 1e-5;

export interface Weights {
  shape: number[];
  values: Float32Array;
}

/** The weights of a network, or of parts of it. */
export class NetworkWeights {
  constructor(private readonly tensors: Map<string, Weights>) {}

  /** Read a file of half precision tensors. Throws RangeError if it is cut. */
  static read(file: ArrayBuffer): NetworkWeights {
    return new NetworkWeights(readTensors(file));
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** Throws Error if there is none. */
  of(name: string): Weights {
    const found = this.tensors.get(name);
    if (!found) throw new Error(`The model has no ${name}.`);
    return found;
  }

  /** Return the only value of a tensor. */
  value(name: string): number {
    return this.of(name).values[0];
  }

  /** Return the weights and the bias of a layer. */
  layer(name: string): [Weights, Float32Array] {
    return [this.of(`${name}.weight`), this.of(`${name}.bias`).values];
  }

  /** Return those of a convolution with the batch normalisation after it (models/network/layers.py, ConvBlock). */
  normalised(name: string): [Weights, Float32Array] {
    const { shape, values } = this.of(`${name}.0.weight`);
    const [gain, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map((of) => this.of(`${name}.1.${of}`).values);
    const factors = gain.map((value, n) => value / Math.sqrt(variance[n] + EPSILON));
    const size = values.length / shape[0];
    const scaled = new Float32Array(values.length);
    for (let o = 0, n = 0; o < shape[0]; o++) for (let end = n + size; n < end; n++) scaled[n] = values[n] * factors[o];
    return [{ shape, values: scaled }, bias.map((value, n) => value - mean[n] * factors[n])];
  }
}

/** Read a file of half precision tensors. Throws RangeError if it is cut. */
export function readTensors(file: ArrayBuffer): Map<string, Weights> {
  const length = Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
  const tensors = new Map<string, Weights>();
  for (const [name, { shape, data_offsets }] of Object.entries<{ shape: number[]; data_offsets: number[] }>(header)) {
    const [begin, end] = data_offsets;
    tensors.set(name, { shape, values: widened(new DataView(file, 8 + length + begin, end - begin)) });
  }
  return tensors;
}

/** Return numbers in IEEE 754 half precision. */
export function widened(view: DataView): Float32Array {
  const out = new Float32Array(view.byteLength / 2);
  for (let n = 0; n < out.length; n++) out[n] = HALVES[view.getUint16(2 * n, true)];
  return out;
}

/** All numbers of half precision. */
const HALVES = Float32Array.from({ length: 65_536 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
});
