/** Unsigned LEB128 integers of bounded length (codec/bitstream/varint.py). */

import { FormatError } from "../errors";

const MAX_BYTES = 9;

/** A position in bytes that are being parsed. */
export class Cursor {
  at: number;

  constructor(
    readonly data: Uint8Array,
    at = 0,
  ) {
    this.at = at;
  }

  /** Parse an integer. Throws FormatError if it is cut off, too long, not minimal, or greater than `largest`. */
  varint(largest: number): number {
    let value = 0;
    let unit = 1; // 128 ** n; numbers above 2 ** 53 are inexact, but far above every `largest`
    for (let n = 0; n < MAX_BYTES; n++) {
      if (this.at >= this.data.length) throw new FormatError("A number is cut off.");
      const byte = this.data[this.at++];
      value += (byte & 0x7f) * unit;
      if (byte < 0x80) {
        if (n && !byte) throw new FormatError("A number is longer than necessary.");
        if (value > largest) throw new FormatError(`A number is out of range: ${value} is above ${largest}.`);
        return value;
      }
      unit *= 128;
    }
    throw new FormatError("A number is too long.");
  }

  /** Return all bytes from here on. Throws FormatError if there are none, or more than `largest`. */
  rest(largest: number): Uint8Array {
    const payload = this.data.subarray(this.at);
    if (!payload.length) throw new FormatError("A packet is empty.");
    if (payload.length > largest) throw new FormatError(`A packet is too large: ${payload.length} bytes.`);
    return payload;
  }
}

/** Serialise 7 bits per byte, lowest first. */
export function writeVarint(value: number): number[] {
  const out: number[] = [];
  while (value >= 0x80) {
    out.push((value % 128) | 0x80);
    value = Math.floor(value / 128);
  }
  out.push(value);
  return out;
}
