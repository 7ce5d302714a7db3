/** Reads graphs of ONNX files, as far as the face detector's needs it (https://onnx.ai, onnx.proto). */

import type { Weights } from "../weights";
import { widened } from "../weights";

export interface Node {
  type: string;
  inputs: string[];
  outputs: string[];
  /** Attributes that are numbers, or several. */
  numbers: Map<string, number[]>;
}

export interface Graph {
  nodes: Node[];
  weights: Map<string, Weights>;
  outputs: string[];
}

/** Types of values, and the type of tensors in half precision. */
const [VARINT, FIXED64, BYTES, FIXED32] = [0, 1, 2, 5];
const FLOAT16 = 10;

/** Read a model. Throws RangeError if the file is cut. */
export function readGraph(file: Uint8Array): Graph {
  const graph: Graph = { nodes: [], weights: new Map(), outputs: [] };
  for (const [field, model] of fields(file)) {
    if (field !== 7) continue;
    for (const [part, value] of fields(bytesOf(model))) {
      if (part === 1) graph.nodes.push(readNode(bytesOf(value)));
      else if (part === 5) readTensor(bytesOf(value), graph.weights);
      else if (part === 12) graph.outputs.push(nameIn(bytesOf(value), 1));
    }
  }
  return graph;
}

function readNode(data: Uint8Array): Node {
  const node: Node = { type: "", inputs: [], outputs: [], numbers: new Map() };
  for (const [field, value] of fields(data)) {
    if (field === 1) node.inputs.push(textOf(value));
    else if (field === 2) node.outputs.push(textOf(value));
    else if (field === 4) node.type = textOf(value);
    else if (field === 5) {
      const attribute = bytesOf(value);
      const numbers = fields(attribute).flatMap(([part, number]) => (part === 3 || part === 8 ? varints(number) : []));
      node.numbers.set(nameIn(attribute, 1), numbers);
    }
  }
  return node;
}

/** Read a tensor of floats, in single precision, packed or raw, or in half precision. */
function readTensor(data: Uint8Array, into: Map<string, Weights>): void {
  const shape: number[] = [];
  let [type, values] = [0, new Uint8Array()];
  for (const [field, value] of fields(data)) {
    if (field === 1) shape.push(...varints(value));
    else if (field === 2) type = value as number;
    else if (field === 4 || field === 9) values = bytesOf(value).slice();
  }
  const view = new DataView(values.buffer);
  into.set(nameIn(data, 8), { shape, values: type === FLOAT16 ? widened(view) : new Float32Array(values.buffer) });
}

function nameIn(data: Uint8Array, field: number): string {
  return textOf((fields(data).find(([number]) => number === field) ?? [field, new Uint8Array()])[1]);
}

/** Return the fields of a message: numbers of fields, and values: integers or bytes. */
function fields(data: Uint8Array): [number, number | Uint8Array][] {
  const found: [number, number | Uint8Array][] = [];
  for (let at = 0; at < data.length; ) {
    const [tag, begin] = varint(data, at);
    const type = tag & 7;
    let value: number | Uint8Array;
    [value, at] = varint(data, begin);
    if (type === BYTES) [value, at] = [data.subarray(at, at + value), at + value];
    else if (type === FIXED32) [value, at] = [0, begin + 4];
    else if (type === FIXED64) [value, at] = [0, begin + 8];
    else if (type !== VARINT) throw new RangeError(`field type ${type}`);
    if (at > data.length) throw new RangeError("a graph is cut");
    found.push([tag >> 3, value]);
  }
  return found;
}

function varint(data: Uint8Array, at: number): [number, number] {
  let value = 0;
  for (let shift = 1; ; shift *= 128) {
    const byte = data[at++];
    value += (byte & 127) * shift;
    if (!(byte & 128)) return [value, at];
  }
}

/** Return one integer, or several in bytes. */
function varints(value: number | Uint8Array): number[] {
  if (typeof value === "number") return [value];
  const all: number[] = [];
  for (let at = 0; at < value.length; ) {
    const [one, next] = varint(value, at);
    all.push(one);
    at = next;
  }
  return all;
}

function bytesOf(value: number | Uint8Array): Uint8Array {
  return typeof value === "number" ? new Uint8Array() : value;
}

function textOf(value: number | Uint8Array): string {
  return new TextDecoder().decode(bytesOf(value));
}
