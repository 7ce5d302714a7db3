/** Weights as safetensors files hold them: names, shapes and values. */

export interface Weights {
  shape: number[];
  values: Float32Array;
}

/** Read a file of half precision tensors. Throws RangeError if it is cut. */
export function readTensors(file: ArrayBuffer): Map<string, Weights> {
  const length = Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
  const tensors = new Map<string, Weights>();
  for (const [name, { shape, data_offsets }] of Object.entries<{ shape: number[]; data_offsets: number[] }>(header)) {
    const [begin, end] = data_offsets;
    const view = new DataView(file, 8 + length + begin, end - begin);
    tensors.set(name, { shape, values: Float32Array.from({ length: (end - begin) / 2 }, (_, n) => half(view.getUint16(2 * n, true))) });
  }
  return tensors;
}

/** Return the number whose IEEE 754 half precision bits these are. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
}
