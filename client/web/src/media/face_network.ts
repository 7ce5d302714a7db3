/** CenterFace in WebAssembly (codec/media/crop/face_detector.py): a graph of convolutions, whose layers are laid out anew for
 * each size of pictures. */

import { BLOCK, byPlace, Convolutions, type Framed, VALUE } from "../runtime/network/convolutions";
import { pixelsOf } from "../runtime/network/geometry";
import { type Graph, type Node, readGraph } from "../runtime/network/onnx_graph";
import type { Weights } from "../runtime/weights";
import type { Maps } from "./face_detector";

/** Sizes whose layers are kept: those of face_detector.ts's LONG_SIDES. */
const KEPT_SIZES = 2;
/** Added to the variance in its batch normalisation. */
const NORM_EPSILON = 1e-3;

export class FaceNetwork {
  private readonly graph: Graph;
  private readonly layouts = new Map<string, Layout>();

  /** `file`: CenterFace's, as ONNX. */
  constructor(file: Uint8Array) {
    this.graph = readGraph(file);
  }

  /** Run on pixels (height, width, RGBA); sides are multiples of 32. */
  run(rgba: Uint8ClampedArray, width: number, height: number): Maps {
    const size = `${width}x${height}`;
    let layout = this.layouts.get(size);
    if (!layout) {
      if (this.layouts.size >= KEPT_SIZES) this.layouts.clear();
      this.layouts.set(size, (layout = new Layout(this.graph, width, height)));
    }
    return layout.run(rgba);
  }
}

/** The layers of a graph for one size of pictures. */
class Layout {
  private readonly c = new Convolutions();
  private readonly weights: Map<string, Weights>;
  private readonly nodes: Node[];
  private readonly values = new Map<string, Framed>();
  private readonly steps: (() => void)[] = [];
  private readonly input: Framed;
  /** Heat, size and offset. */
  private readonly outputs: Framed[];

  constructor(graph: Graph, width: number, height: number) {
    const isCast = ({ type }: Node) => type === "Cast";
    const cast = graph.nodes.filter(isCast).map(({ inputs, outputs }) => [outputs[0], graph.weights.get(inputs[0])] as [string, Weights]);
    this.weights = new Map([...graph.weights, ...cast]);
    this.nodes = graph.nodes.filter((node) => !isCast(node));
    this.input = this.c.framed(width, height, 3);
    this.values.set(this.nodes[0].inputs[0], this.input);
    for (const node of this.nodes) this.add(node);
    this.outputs = graph.outputs.slice(0, 3).map((name) => this.valueOf(name)); // places of eyes, nose and mouth are not used
  }

  run(rgba: Uint8ClampedArray): Maps {
    const { c, input } = this;
    const pixels = pixelsOf(c, input);
    for (let y = 0, n = 0; y < input.height; y++) {
      for (let x = 0, at = (y * input.row) / VALUE; x < input.width; x++, n += 4, at += input.channels) {
        for (let i = 0; i < 3; i++) pixels[at + i] = rgba[n + i];
      }
    }
    for (const step of this.steps) step();
    const [heat, size, offset] = this.outputs.map((map, n) => this.planes(map, n ? 2 : 1));
    const [{ width, height }] = this.outputs;
    return { width, height, heat: heat.map((logit) => 1 / (1 + Math.exp(-logit))), size, offset };
  }

  private planes(map: Framed, channels: number): Float32Array {
    const pixels = pixelsOf(this.c, map);
    const at = (n: number) => (Math.floor(n / map.width) * map.row + (n % map.width) * map.pixel) / VALUE;
    const cells = map.width * map.height;
    return Float32Array.from({ length: channels * cells }, (_, n) => pixels[at(n % cells) + Math.floor(n / cells)]);
  }

  private valueOf(name: string): Framed {
    return this.values.get(name) as Framed;
  }

  /** Add a node and those of its successors that can be computed with it. */
  private add(node: Node): void {
    const [first, second] = node.inputs;
    const from = this.valueOf(first);
    if (node.type === "Add") this.values.set(node.outputs[0], this.sum(from, this.valueOf(second)));
    else if (node.type === "Sigmoid") this.values.set(node.outputs[0], from); // of the heat: see `run`
    else if (node.type === "Conv" || node.type === "ConvTranspose") {
      const isConvolution = node.type === "Conv";
      const norm = isConvolution ? null : this.successor(node, "BatchNormalization");
      const relu = this.successor(norm ?? node, "Relu");
      const least = relu ? 0 : -Infinity;
      const value = isConvolution ? this.convolution(node, from, least) : this.enlargement(node, norm, from, least);
      for (const one of [node, norm, relu]) if (one) this.values.set(one.outputs[0], value);
    }
  }

  private successor({ outputs }: Node, type: string): Node | null {
    return this.nodes.find((node) => node.type === type && node.inputs[0] === outputs[0]) ?? null;
  }

  private tensor(name: string): Weights {
    return this.weights.get(name) as Weights;
  }

  private convolution({ inputs, numbers }: Node, from: Framed, least: number): Framed {
    const { c } = this;
    const [weights, bias] = [this.tensor(inputs[1]), this.tensor(inputs[2]).values];
    const [outputs, , side] = weights.shape;
    const stride = numbers.get("strides")?.[0] ?? 1;
    const [width, height] = [from.width / stride, from.height / stride];
    if ((numbers.get("group")?.[0] ?? 1) > 1) {
      const to = c.framed(width, height, outputs, 0);
      const [kernels, sums] = [c.stored(byPlace(weights)), c.stored(bias)];
      const corner = from.first - from.row - from.pixel;
      this.steps.push(() => c.run.depthwise(corner, from.pixel, from.row, kernels, sums, to.first, width, height, side, stride, least));
      return to;
    }
    const to = c.framed(width, height, Math.ceil(outputs / BLOCK) * BLOCK);
    if (side === 1) {
      const layer = c.product(weights, bias);
      this.steps.push(() => c.multiply(from, layer, to, least));
    } else {
      const layer = c.convolution(weights, bias, width, stride, undefined, undefined, height);
      this.steps.push(() => c.convolve(from, layer, to, least));
    }
    return to;
  }

  /** A transposed convolution of 2x2, stride 2, normalised: each pixel becomes four. */
  private enlargement({ inputs }: Node, norm: Node | null, from: Framed, least: number): Framed {
    const { c } = this;
    const { shape, values } = this.tensor(inputs[1]);
    const [ins, outs] = shape;
    const [gain, shift, mean, variance] = (norm as Node).inputs.slice(1).map((name) => this.tensor(name).values);
    const factor = gain.map((value, o) => value / Math.sqrt(variance[o] + NORM_EPSILON));
    // Four groups of outputs, (dy, dx).
    const product = new Float32Array(4 * outs * ins);
    for (let n = 0; n < product.length; n++) {
      const [group, o, i] = [Math.floor(n / (outs * ins)), Math.floor(n / ins) % outs, n % ins];
      product[n] = values[(i * outs + o) * 4 + group] * factor[o];
    }
    const bias = Float32Array.from({ length: 4 * outs }, (_, n) => shift[n % outs] - mean[n % outs] * factor[n % outs]);
    const layer = c.product({ shape: [4 * outs, ins, 1, 1], values: product }, bias);
    const groups = c.framed(from.width, from.height, layer.outputs, 0);
    const to = c.framed(2 * from.width, 2 * from.height, outs);
    this.steps.push(() => {
      c.multiply(from, layer, groups, least);
      c.run.spread(groups.first, from.height, from.width, outs * VALUE, to.first, to.pixel, to.row);
    });
    return to;
  }

  private sum(a: Framed, b: Framed): Framed {
    const to = this.c.framed(a.width, a.height, a.channels);
    this.steps.push(() => {
      const [x, y, out] = [a, b, to].map((map) => pixelsOf(this.c, map));
      for (let n = 0; n < out.length; n++) out[n] = x[n] + y[n];
    });
    return to;
  }
}
