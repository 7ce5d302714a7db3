/** Memory and weights of the convolutions in WebAssembly (kernels/decoder.ts). */

import kernels from "../../kernels/decoder.ts?wasm";
import type { Weights } from "./safetensors";

export const VALUE = Float32Array.BYTES_PER_ELEMENT;
const PAGE = 65_536;
/** Outputs that are computed together: others are filled up with zeros. */
const BLOCK = 8;
/** Of a transformed tile. */
const SIDE = 6;
/** Pixels of a tile's result. */
const TILE = 4;
/** As kernels/decoder.ts's SKEW. */
const SKEW = 64;
/** Matrix G of Winograd's F(4x4, 3x3). */
const G = [
  [1 / 4, 0, 0],
  [-1 / 6, -1 / 6, -1 / 6],
  [-1 / 6, 1 / 6, -1 / 6],
  [1 / 24, 1 / 12, 1 / 6],
  [1 / 24, -1 / 12, 1 / 6],
  [0, 0, 1],
];

/** What the WebAssembly exports; addresses, pitches and lengths in bytes. */
interface Exports {
  heap: WebAssembly.Global;
  multiply(x: number, weights: number, y: number, rows: number, inputs: number, outputs: number): void;
  convolve(x: number, weights: number, bias: number, y: number, pitch: number, side: number, inputs: number, outputs: number, least: number, spare: number): void;
  enlarge(x: number, from: number, to: number, channels: number, spare: number, y: number): void;
  share(fields: number, count: number, pixels: number, shares: number): void;
  sample(picture: number, side: number, field: number, scale: number, shares: number, base: number): void;
  fold(picture: number, side: number, to: number, pixel: number, row: number): void;
  transpose(x: number, rows: number, columns: number, y: number): void;
  spread(x: number, rows: number, columns: number, channels: number, bias: number, to: number, pixel: number, row: number): void;
  close(changes: number, gate: number, side: number): void;
  finish(changes: number, base: number, pixel: number, row: number, side: number, out: number): void;
}

/** A picture (side, side, channels) within an edge of zeros. */
export interface Framed {
  side: number;
  channels: number;
  /** Address of the edge's first pixel, and of the picture's. */
  edge: number;
  first: number;
  /** Bytes. */
  pixel: number;
  row: number;
}

/** Weights of a convolution, as the kernels take them; addresses. */
export interface Layer {
  weights: number;
  bias: number;
  inputs: number;
  outputs: number;
}

export class Convolutions {
  readonly run: Exports;
  private readonly memory = new WebAssembly.Memory({ initial: 1 });
  private used: number;
  private readonly spare: number;

  /** `side`, `channels`: most of a picture, and of a convolution's inputs and outputs together. */
  constructor(side: number, channels: number) {
    const binary = Uint8Array.from(atob(kernels), (letter) => letter.charCodeAt(0));
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(binary), { env: { memory: this.memory } });
    this.run = exports as unknown as Exports;
    this.used = this.run.heap.value as number;
    this.spare = this.room(SIDE ** 2 * ((side / TILE) * channels + (2 * SKEW) / VALUE));
  }

  /** Return the address of room for so many values, which are 0. */
  room(values: number): number {
    const at = this.used;
    this.used += Math.ceil((values * VALUE) / SKEW) * SKEW;
    const missing = Math.ceil(this.used / PAGE) - this.memory.buffer.byteLength / PAGE;
    if (missing > 0) this.memory.grow(missing);
    return at;
  }

  /** Return a view of memory, valid until more room is made. */
  floats(at: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, at, length);
  }

  bytes(at: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, length);
  }

  framed(side: number, channels: number): Framed {
    const edge = this.room((side + 2) ** 2 * channels);
    const [pixel, row] = [channels * VALUE, (side + 2) * channels * VALUE];
    return { side, channels, edge, first: edge + row + pixel, pixel, row };
  }

  /** Store the weights (O, I, 3, 3) of a convolution, or (O, I, 1, 1) of a product. `inputs`, `outputs`: which channel of
   * the weights each channel of the kernels is; null: none. */
  layer(weights: Weights, bias: Float32Array, inputs: readonly (number | null)[], outputs: readonly (number | null)[]): Layer {
    const [, columns, side] = weights.shape;
    const positions = side === 3 ? SIDE ** 2 : 1;
    const count = Math.ceil(outputs.length / BLOCK) * BLOCK;
    const arranged = new Float32Array(positions * count * inputs.length);
    outputs.forEach((o, n) => {
      inputs.forEach((i, m) => {
        if (o === null || i === null) return;
        const from = (o * columns + i) * side ** 2;
        const kernel = weights.values.subarray(from, from + side ** 2);
        (side === 3 ? transformed(kernel) : kernel).forEach((value, position) => {
          const block = position * (count / BLOCK) + Math.floor(n / BLOCK);
          arranged[(block * inputs.length + m) * BLOCK + (n % BLOCK)] = value;
        });
      });
    });
    const sums = Float32Array.from({ length: count }, (_, n) => bias[outputs[n] ?? -1] ?? 0);
    return { weights: this.stored(arranged), bias: this.stored(sums), inputs: inputs.length, outputs: count };
  }

  /** Convolve a picture into another one, without what is negative. */
  convolve(from: Framed, { weights, bias, inputs, outputs }: Layer, to: Framed): void {
    this.run.convolve(from.edge, weights, bias, to.first, to.row, from.side, inputs, outputs, 0, this.spare);
  }

  /** Convolve a picture into (side, side, outputs). */
  convolveTo(from: Framed, { weights, bias, inputs, outputs }: Layer, to: number): void {
    const pitch = from.side * outputs * VALUE;
    this.run.convolve(from.edge, weights, bias, to, pitch, from.side, inputs, outputs, -Infinity, this.spare);
  }

  private stored(values: Float32Array): number {
    const at = this.room(values.length);
    this.floats(at, values.length).set(values);
    return at;
  }
}

/** Return G k G' of a 3x3 kernel. */
function transformed(kernel: Float32Array): number[] {
  const half = G.map((row) => [0, 1, 2].map((x) => row.reduce((sum, value, y) => sum + value * kernel[3 * y + x], 0)));
  return half.flatMap((values) => G.map((row) => row.reduce((sum, value, x) => sum + value * values[x], 0)));
}
