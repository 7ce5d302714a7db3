/** Memory and weights of the convolutions in WebAssembly (kernels/). */

import kernels from "../../../kernels/index.ts?wasm";
import type { Weights } from "../weights";

export const VALUE = Float32Array.BYTES_PER_ELEMENT;
const PAGE = 65_536;
/** Outputs that are computed together: others are filled up with zeros. */
export const BLOCK = 8;
/** Pixels that are multiplied together. */
const ROWS = 4;
/** Values that are read together: inputs of convolutions are filled up to a multiple. */
const LANES = 4;
/** Side and area of a transformed tile, and pixels of its result. */
const SIDE = 6;
const POSITIONS = SIDE ** 2;
const TILE = 4;
/** As SKEW and BATCH in kernels/convolution.ts. */
const SKEW = 64;
const BATCH = 16;
/** Smallest pictures that are transformed. */
const LEAST_SIDE = 8;
/** Pixels that are convolved together as patches, at least. */
const PATCHES = 16;
/** What the WebAssembly exports; addresses, pitches and lengths in bytes. */
interface Exports {
  heap: WebAssembly.Global;
  /** Of so many zeros as a layer has outputs. */
  ZEROS: WebAssembly.Global;
  multiply(x: number, xPitch: number, weights: number, bias: number, more: number, morePitch: number, y: number, yPitch: number, rows: number, inputs: number, outputs: number, least: number): void;
  convolve(x: number, pixel: number, row: number, weights: number, bias: number, y: number, outPixel: number, outRow: number, side: number, inputs: number, outputs: number, least: number, spare: number): void;
  patches(x: number, pixel: number, row: number, stride: number, width: number, height: number, length: number, to: number): void;
  place(x: number, length: number, width: number, height: number, times: number, to: number, pixel: number, row: number): void;
  depthwise(x: number, pixel: number, row: number, weights: number, bias: number, y: number, width: number, height: number, size: number, stride: number, least: number): void;
  spread(x: number, rows: number, columns: number, length: number, to: number, pixel: number, row: number): void;
  attend(queries: number, means: number, count: number, pooled: number, keys: number, rows: number, blocks: number, dims: number, width: number, extraKeys: number, extras: number, near: number, kept: number, out: number, spare: number): void;
  correlate(a: number, aPitch: number, b: number, bPitch: number, count: number, rows: number, columns: number, out: number): void;
  remap(values: number, side: number, length: number, places: number, count: number, out: number): void;
  displace(basis: number, change: number, cells: number, keypoints: number, scale: number, out: number): void;
  invert(field: number, side: number, steps: number, out: number): void;
  warp(levels: number, side: number, shifts: number, scale: number, out: number): void;
  mirror(levels: number, side: number, edge: number, to: number): void;
  blur(framed: number, side: number, taps: number, radius: number, spare: number, out: number): void;
  tensors(framed: number, levels: number, side: number, scale: number, outlier: number, out: number): void;
  weigh(basis: number, cells: number, keypoints: number, tensors: number, shifts: number, stiffness: number, columns: number, out: number): void;
  direct(vectors: number, count: number, length: number, scale: number, queries: number, means: number, pitch: number): void;
  enlarge(x: number, from: number, to: number, channels: number, spare: number, y: number): void;
  share(fields: number, count: number, pixels: number, shares: number): void;
  sample(picture: number, side: number, field: number, scale: number, shares: number, base: number): void;
  fold(picture: number, side: number, to: number, pixel: number, row: number): void;
  close(changes: number, gate: number, side: number): void;
  finish(changes: number, base: number, pixel: number, row: number, side: number, out: number): void;
}

/** Pixels in memory: address of the first one, and bytes from one to the next, and from row to row. */
export interface Pixels {
  first: number;
  pixel: number;
  row: number;
}

/** A picture (height, width, channels) within an edge of zeros. */
export interface Framed extends Pixels {
  width: number;
  height: number;
  channels: number;
  /** Width of the edge, pixels. */
  edge: number;
}

/** Weights of a product, as the kernels take them; addresses. */
export interface Layer {
  weights: number;
  bias: number;
  inputs: number;
  outputs: number;
}

/** A convolution of 3x3. */
export interface Convolution extends Layer {
  stride: number;
  isTransformed: boolean;
}

/** Which channel of the weights each channel of a kernel is; null: none. */
export type Order = readonly (number | null)[];

let compiled: WebAssembly.Module | null = null;

/** Memory, and the best kernels that the browser runs. */
export class Convolutions {
  readonly run: Exports;
  /** What adds nothing, in place of a picture. */
  readonly nothing: Pixels;
  private readonly memory = new WebAssembly.Memory({ initial: 1 });
  private used: number;
  private spare = { at: 0, values: 0 };

  constructor() {
    compiled ??= new WebAssembly.Module(kernels.map(decoded).find((one) => WebAssembly.validate(one)) as BufferSource);
    const { exports } = new WebAssembly.Instance(compiled, { env: { memory: this.memory } });
    this.run = exports as unknown as Exports;
    this.used = this.run.heap.value as number;
    this.nothing = { first: this.run.ZEROS.value as number, pixel: 0, row: 0 };
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

  /** Copy values to an address. */
  put(at: number, values: ArrayLike<number>): void {
    this.floats(at, values.length).set(values);
  }

  /** Return the address of a copy of values. */
  stored(values: ArrayLike<number>): number {
    const at = this.room(values.length);
    this.put(at, values);
    return at;
  }

  /** Return room for a picture. What is multiplied by fours of pixels may write beyond its end. */
  framed(width: number, height: number, channels: number, edge = 1): Framed {
    const filled = Math.ceil(channels / LANES) * LANES;
    const [pixel, row] = [filled * VALUE, (width + 2 * edge) * filled * VALUE];
    const at = this.room(((width + 2 * edge) * (height + 2 * edge) + ROWS) * filled);
    return { width, height, channels: filled, edge, first: at + edge * (row + pixel), pixel, row };
  }

  /** Store the weights (O, I, 1, 1) of a product. */
  product(weights: Weights, bias: Float32Array, inputs?: Order, outputs?: Order): Layer {
    return this.layer(weights, bias, inputs ?? count(weights.shape[1]), outputs ?? count(weights.shape[0]), false);
  }

  /** Store the weights (O, I, 3, 3) of a convolution whose result is `width` x `height` pixels. */
  convolution(weights: Weights, bias: Float32Array, width: number, stride = 1, inputs?: Order, outputs?: Order, height = width): Convolution {
    const isTransformed = stride === 1 && width === height && width >= LEAST_SIDE;
    const order = inputs ?? count(weights.shape[1]);
    const filled = isTransformed ? Array.from({ length: Math.ceil(order.length / LANES) * LANES }, (_, n) => order[n] ?? null) : order;
    const layer = this.layer(weights, bias, filled, outputs ?? count(weights.shape[0]), isTransformed);
    const both = layer.inputs + layer.outputs;
    const tiles = POSITIONS * (Math.max(BATCH, width / TILE) * both + (2 * SKEW) / VALUE);
    const patches = (bandOf(width, height) * width + ROWS) * (9 * layer.inputs + layer.outputs);
    const values = isTransformed ? tiles : patches;
    if (values > this.spare.values) this.spare = { at: this.room(values), values };
    return { ...layer, stride, isTransformed };
  }

  /** Multiply each pixel by a layer's weights, and add its bias and `more`. */
  multiply(from: Framed, { weights, bias, inputs, outputs }: Layer, to: Pixels, least = -Infinity, more = this.nothing): void {
    const { width, height } = from;
    for (let y = 0; y < height; y++) {
      const [x, other, out] = [from, more, to].map(({ first, row }) => first + y * row);
      this.run.multiply(x, from.pixel, weights, bias, other, more.pixel, out, to.pixel, width, inputs, outputs, least);
      if (width % ROWS) this.bytes(out + width * to.pixel, (ROWS - (width % ROWS)) * to.pixel).fill(0);
    }
  }

  /** Convolve a picture into another one, or (height, width, outputs). */
  convolve(from: Framed, layer: Convolution, to: number | Pixels, least = 0): void {
    const { weights, bias, inputs, outputs, stride } = layer;
    const [width, height] = [from.width / stride, from.height / stride];
    const { at } = this.spare;
    const length = outputs * VALUE;
    const { first, pixel, row } = typeof to === "number" ? { first: to, pixel: length, row: width * length } : to;
    const corner = from.first - from.row - from.pixel;
    if (layer.isTransformed) {
      this.run.convolve(corner, from.pixel, from.row, weights, bias, first, pixel, row, width, inputs, outputs, least, at);
      return;
    }
    const band = bandOf(width, height);
    const patch = 9 * inputs * VALUE;
    const products = at + (band * width + ROWS) * patch;
    for (let y = 0; y < height; y += band) {
      this.run.patches(corner + y * stride * from.row, from.pixel, from.row, stride, width, band, inputs * VALUE, at);
      this.run.multiply(at, patch, weights, bias, this.nothing.first, 0, products, length, band * width, 9 * inputs, outputs, least);
      this.run.place(products, length, width, band, 1, first + y * row, pixel, row);
    }
  }

  /** Arrange the weights (O, I, k, k) of a layer: transformed, (POSITIONS, blocks of outputs, inputs, BLOCK), or (blocks of
   * outputs, places of a kernel, inputs, BLOCK). */
  private layer({ shape, values }: Weights, bias: Float32Array, inputs: Order, outputs: Order, isTransformed: boolean): Layer {
    const [, columns, side] = shape;
    const area = side ** 2;
    const size = isTransformed ? POSITIONS : area;
    const filled = Math.ceil(outputs.length / BLOCK) * BLOCK;
    const sums = this.stored(Float32Array.from({ length: filled }, (_, n) => bias[outputs[n] ?? -1] ?? 0));
    const at = this.room(size * filled * inputs.length);
    const arranged = this.floats(at, size * filled * inputs.length);
    const row = inputs.length * BLOCK;
    const [byPosition, byBlock] = isTransformed ? [filled * inputs.length, row] : [row, size * row];
    const kernel = new Float32Array(size);
    for (const [n, o] of outputs.entries()) {
      if (o === null) continue;
      const block = Math.floor(n / BLOCK) * byBlock + (n % BLOCK);
      for (let m = 0; m < inputs.length; m++) {
        const i = inputs[m];
        if (i === null) continue;
        const from = (o * columns + i) * area;
        if (isTransformed) transform(values, from, kernel);
        else for (let p = 0; p < size; p++) kernel[p] = values[from + p];
        for (let p = 0, to = block + m * BLOCK; p < size; p++, to += byPosition) arranged[to] = kernel[p];
      }
    }
    return { weights: at, bias: sums, inputs: inputs.length, outputs: filled };
  }
}

/** Return depthwise kernels (C, 1, k, k) as (k, k, C). */
export function byPlace({ shape: [channels, , side], values }: Weights): Float32Array {
  return values.map((_, n) => values[(n % channels) * side ** 2 + Math.floor(n / channels)]);
}

function decoded(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** Return 0 to `channels` - 1. */
export function count(channels: number): number[] {
  return Array.from({ length: channels }, (_, n) => n);
}

/** Return how many rows of a picture are convolved together as patches, of which its height is a multiple. */
function bandOf(width: number, height: number): number {
  return width < PATCHES && height % (PATCHES / width) === 0 ? PATCHES / width : 1;
}

/** Write G k G' of a kernel (3, 3) that begins at `from`, with the matrix G of Winograd's F(4x4, 3x3). */
function transform(values: Float32Array, from: number, out: Float32Array): void {
  for (let x = 0; x < 3; x++) pass(values[from + x], values[from + 3 + x], values[from + 6 + x], SCRATCH, x, 3);
  for (let y = 0; y < SIDE; y++) pass(SCRATCH[3 * y], SCRATCH[3 * y + 1], SCRATCH[3 * y + 2], out, SIDE * y, 1);
}

const SCRATCH = new Float64Array(3 * SIDE);

/** Multiply three values by G; the results are `step` apart. */
function pass(a: number, b: number, c: number, out: Float64Array | Float32Array, at: number, step: number): void {
  out[at] = a / 4;
  out[at + step] = (a + b + c) / -6;
  out[at + 2 * step] = (a - b + c) / -6;
  out[at + 3 * step] = a / 24 + b / 12 + c / 6;
  out[at + 4 * step] = a / 24 - b / 12 + c / 6;
  out[at + 5 * step] = c;
}
