/** Units of source pictures, one AV1 inter sequence, and their decoding: by the browser, else by dav1d in wasm
 * (codec/sources/av1.py). */

import { writeVarint } from "../bitstream/varint";
import { FormatError } from "../errors";
import { type Picture, resizeCubic } from "../runtime/pictures";
import { type Planes, yuvToRgb } from "./yuv";

export const SEQUENCE_HEADER = 0x0a;
const FRAME = 0x30;
const FRAME_WITH_SIZE = 0x32;
const TEMPORAL_DELIMITER = [0x12, 0x00];
const MAX_SEQUENCE_HEADER = 64;
const SMALLEST = 64;

/** An AV1 decoder that returns each picture at once. */
export interface Av1 {
  decode(temporalUnit: Uint8Array, key: boolean): Promise<Planes>;
  close(): void;
}

/** Makes a decoder for pictures of `size` pixels. */
export type Av1Maker = (size: number) => Promise<Av1>;

/** Return the reduced side of coded pictures of this size; `size` itself if it has none. */
export function smallerSide(size: number): number {
  const side = Math.floor((size * 3) / 4 / 8) * 8;
  return side >= SMALLEST ? side : size;
}

/** Return the temporal unit that decoders expect. Throws FormatError unless a unit has exactly the documented form. */
export function restore(unit: Uint8Array, longest: number): Uint8Array {
  if (unit.length > longest) {
    throw new FormatError(`A source unit has ${unit.length} bytes; at most ${longest} are allowed.`);
  }
  let position = 0;
  if (unit[0] === SEQUENCE_HEADER) {
    const { value, behind } = readSize(unit, 1);
    if (value > MAX_SEQUENCE_HEADER) throw new FormatError("A source unit's sequence header is too long.");
    position = behind + value;
  }
  if (unit.length < position + 2 || unit[position] !== FRAME) throw new FormatError("A source unit holds no frame.");
  const frame = unit.subarray(position + 1);
  const size = writeVarint(frame.length);
  return Uint8Array.from([...TEMPORAL_DELIMITER, ...unit.subarray(0, position), FRAME_WITH_SIZE, ...size, ...frame]);
}

/** Return the unit of a temporal unit that an encoder made. Throws Error for one of another form. */
export function stripped(temporalUnit: Uint8Array): Uint8Array {
  let position = temporalUnit[0] === TEMPORAL_DELIMITER[0] && temporalUnit[1] === 0 ? 2 : 0;
  let head = new Uint8Array();
  if (temporalUnit[position] === SEQUENCE_HEADER) {
    const { value, behind } = readSize(temporalUnit, position + 1);
    head = temporalUnit.slice(position, behind + value);
    position = behind + value;
  }
  const kind = temporalUnit[position];
  if (kind !== FRAME_WITH_SIZE && kind !== FRAME) throw new Error(`The encoder wrote OBU ${kind} instead of a frame.`);
  const { value, behind } = kind === FRAME ? { value: -1, behind: position + 1 } : readSize(temporalUnit, position + 1);
  if (value >= 0 && behind + value !== temporalUnit.length) throw new Error("The encoder wrote more than one frame.");
  return Uint8Array.from([...head, FRAME, ...temporalUnit.subarray(behind)]);
}

function readSize(data: Uint8Array, position: number): { value: number; behind: number } {
  let value = 0;
  for (let i = 0; i < 4 && position + i < data.length; i++) {
    value += (data[position + i] & 0x7f) * 128 ** i;
    if (data[position + i] < 0x80) return { value, behind: position + i + 1 };
  }
  throw new FormatError("A source unit has an invalid size field.");
}

/** Decodes units to pictures of one size, one for one. After a FormatError or `reset` only a key unit is accepted. */
export class SourceDecoder {
  private codec: Av1 | null = null;

  constructor(
    private readonly size: number,
    private readonly make: Av1Maker,
  ) {}

  /** Drop all state; call this when a unit is known to be lost. */
  reset(): void {
    this.codec?.close();
    this.codec = null;
  }

  /** Decode a unit. Throws FormatError if it does not continue the sequence or has another size. */
  async add(unit: Uint8Array): Promise<Picture> {
    const key = unit[0] === SEQUENCE_HEADER;
    if (!this.codec && !key) throw new FormatError("The source sequence has to start with a key picture.");
    try {
      const temporalUnit = restore(unit, (this.size ** 2 * 3) / 2);
      this.codec ??= await this.make(this.size);
      const planes = await this.codec.decode(temporalUnit, key);
      if (planes.side !== this.size && planes.side !== smallerSide(this.size)) {
        throw new FormatError(`A source picture has ${planes.side} pixels a side instead of ${this.size}.`);
      }
      return resizeCubic(yuvToRgb(planes), this.size);
    } catch (error) {
      this.reset();
      throw error instanceof FormatError ? error : new FormatError("A source unit has invalid AV1 data.");
    }
  }
}

/** Split yuv420p bytes of a square picture into planes. */
export function planesOf(side: number, data: Uint8Array): Planes {
  const luma = side * side;
  if (side % 2 || data.length < (luma * 3) / 2) throw new FormatError("A source picture has an odd size.");
  return {
    side,
    luma: data.subarray(0, luma),
    cb: data.subarray(luma, (luma * 5) / 4),
    cr: data.subarray((luma * 5) / 4, (luma * 3) / 2),
  };
}
