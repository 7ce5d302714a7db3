/** Messages on a call's data channels (client/link/messages.py). */

import { decode, encode } from "@msgpack/msgpack";
import { MAX_FRAME, type MotionPacket, parseMotion } from "../bitstream/packets";
import { Cursor, writeVarint } from "../bitstream/varint";
import { FormatError } from "../errors";

export const PROTOCOL = 3;
export const MOTION_CHANNEL = 1;
export const SOURCE_CHANNEL = 2;
export const CONTROL_CHANNEL = 3;
export const MAX_MESSAGE = 1200;
export const MAX_MESSAGE_FRAMES = 16;
const MAX_COARSENESS = 3;
export const MAX_SPAN_MS = 60_000;
/** Largest deviation of a frame's time from even spacing at which the times are sent as even, in ms. */
const UNEVEN_MS = 10;
const MAX_STAMP = 2 ** 40 - 1;
const MAX_SEQUENCE = 2 ** 32 - 1;
const MAX_UNITS = 1 << 20;
const MAX_UNIT = 1 << 16;
const IRREGULAR = 4;
const ACKNOWLEDGES = 8;

/** Some frames of keypoints. `stamps`: capture time of each frame in ms, on the sender's clock. */
export interface MotionMessage {
  sequence: number;
  stamps: number[];
  coarseness: number;
  /** Number of the newest decoded frame of the other direction, modulo 256. */
  acknowledged: number | null;
  packet: MotionPacket;
}

/** Part of a source unit. */
export interface SourceChunk {
  sequence: number;
  index: number;
  isSnapshot: boolean;
  length: number;
  offset: number;
  part: Uint8Array;
}

export interface Report {
  kind: "report";
  sentMs: number;
  echoMs: number | null;
  heldMs: number;
  messages: number;
  lost: number;
  queuedMs: number;
  acknowledged: number | null;
  shown: number;
}

export interface Hello {
  kind: "hello";
  protocol: number;
  /** 8 bytes. */
  model: Uint8Array;
  tables: number;
  stream: number;
  sequence: number | null;
  index: number;
}

export interface Status {
  kind: "status";
  cameraOff: boolean;
  faceLost: boolean;
}

export interface SourceAck {
  kind: "ack";
  sequence: number;
  index: number;
}

/** Begins an exchange of random numbers (verification.ts). */
export interface Commitment {
  kind: "commitment";
  /** SHA-256 of the sender's random number. */
  digest: Uint8Array;
}

/** The answer to the other side's commitment: 16 bytes. */
export interface Nonce {
  kind: "nonce";
  nonce: Uint8Array;
}

export type Control = Report | Hello | Status | SourceAck | Commitment | Nonce;

const KINDS = ["report", "hello", "status", "ack", "commitment", "nonce"] as const;

/** Parse frames of motion. Throws FormatError, as all parsers here do. */
export function parseMotionMessage(data: Uint8Array): MotionMessage {
  checkSize(data);
  const flags = byte(data, 0);
  if (flags & ~(MAX_COARSENESS | IRREGULAR | ACKNOWLEDGES)) throw new FormatError("A motion message has unknown flags.");
  const sequence = byte(data, 1);
  const cursor = new Cursor(data, 2);
  const stamp = cursor.varint(MAX_STAMP);
  const stamps = [stamp];
  let span = 0;
  if (flags & IRREGULAR) {
    const count = cursor.varint(MAX_MESSAGE_FRAMES - 1);
    for (let n = 0; n < count; n++) stamps.push(stamps[n] + cursor.varint(MAX_SPAN_MS));
  } else span = cursor.varint(MAX_SPAN_MS);
  const acknowledged = flags & ACKNOWLEDGES ? byte(data, cursor.at++) : null;
  const packet = parseMotion(data.subarray(cursor.at));
  const { count } = packet;
  if (count > MAX_MESSAGE_FRAMES) throw new FormatError(`A motion message holds ${count} frames.`);
  if (!(flags & IRREGULAR)) stamps.push(...evenly(stamp, span, count).slice(1));
  if (stamps.length !== count || (count === 1 && span)) {
    throw new FormatError("The times of a motion message do not match its frames.");
  }
  return { sequence, stamps, coarseness: flags & MAX_COARSENESS, acknowledged, packet };
}

/** Serialise frames of motion, whose packet is serialised already. */
export function motionMessageToBytes(
  { sequence, stamps, coarseness, acknowledged }: Omit<MotionMessage, "packet">,
  packet: Uint8Array,
): Uint8Array {
  const span = stamps[stamps.length - 1] - stamps[0];
  const even = evenly(stamps[0], span, stamps.length);
  let flags = coarseness;
  let times = writeVarint(span);
  if (stamps.some((stamp, n) => Math.abs(stamp - even[n]) > UNEVEN_MS)) {
    const gaps = stamps.slice(1).map((stamp, n) => stamp - stamps[n]);
    flags |= IRREGULAR;
    times = [gaps.length, ...gaps].flatMap(writeVarint);
  }
  if (acknowledged !== null) {
    flags |= ACKNOWLEDGES;
    times.push(acknowledged);
  }
  return Uint8Array.from([flags, sequence, ...writeVarint(stamps[0]), ...times, ...packet]);
}

function evenly(first: number, span: number, count: number): number[] {
  return Array.from({ length: count }, (_, n) => first + Math.floor((span * n) / Math.max(1, count - 1)));
}

/** Serialise part of a source. */
export function sourceChunkToBytes({ sequence, index, isSnapshot, length, offset, part }: SourceChunk): Uint8Array {
  return Uint8Array.from([...[sequence, index, Number(isSnapshot), length, offset].flatMap(writeVarint), ...part]);
}

/** Parse part of a source. */
export function parseSourceChunk(data: Uint8Array): SourceChunk {
  checkSize(data);
  const cursor = new Cursor(data);
  const sequence = cursor.varint(MAX_SEQUENCE);
  const index = cursor.varint(MAX_UNITS - 1);
  const isSnapshot = cursor.varint(1) === 1;
  const length = cursor.varint(MAX_UNIT);
  const offset = cursor.varint(MAX_UNIT);
  const part = data.subarray(cursor.at);
  if (!part.length || offset + part.length > length) {
    throw new FormatError("A source chunk exceeds the length of its packet.");
  }
  return { sequence, index, isSnapshot, length, offset, part };
}

/** Return whether a message is a report or another control message. */
export function isControl(data: Uint8Array): boolean {
  return data.length > 0 && data[0] >= 0x80;
}

/** Serialise a control message. */
export function controlToBytes(message: Control): Uint8Array {
  const { kind, ...fields } = message;
  return Uint8Array.from([0x80 + KINDS.indexOf(kind), ...encode(Object.values(fields))]);
}

/** Parse a control message. */
export function parseControl(data: Uint8Array): Control {
  checkSize(data);
  const kind = KINDS[byte(data, 0) - 0x80];
  if (!kind) throw new FormatError("There is no such control message.");
  let fields: unknown;
  try {
    fields = decode(data.subarray(1), { maxArrayLength: 16, maxBinLength: 64, maxStrLength: 0, maxMapLength: 0 });
  } catch {
    throw new FormatError("A control message is not msgpack.");
  }
  const counts = { report: 8, hello: 6, status: 2, ack: 2, commitment: 1, nonce: 1 };
  if (!Array.isArray(fields) || fields.length !== counts[kind]) {
    throw new FormatError("A control message has the wrong number of fields.");
  }
  const [a, b, c, d, e, f, g, h] = fields as unknown[];
  if (kind === "report") {
    return {
      kind,
      sentMs: integer(a, MAX_STAMP),
      echoMs: optional(b, MAX_STAMP),
      heldMs: integer(c, MAX_STAMP),
      messages: integer(d, MAX_STAMP),
      lost: integer(e, MAX_STAMP),
      queuedMs: integer(f, MAX_STAMP),
      acknowledged: optional(g, MAX_FRAME),
      shown: integer(h, MAX_STAMP),
    };
  }
  if (kind === "hello") {
    if (!(b instanceof Uint8Array) || b.length !== 8) throw new FormatError("A model's digest has 8 bytes.");
    return {
      kind,
      protocol: integer(a, MAX_SEQUENCE),
      model: b,
      tables: integer(c, MAX_SEQUENCE),
      stream: integer(d, MAX_SEQUENCE),
      sequence: optional(e, MAX_SEQUENCE),
      index: integer(f, MAX_UNITS),
    };
  }
  if (kind === "commitment") return { kind, digest: binary(a, 32) };
  if (kind === "nonce") return { kind, nonce: binary(a, 16) };
  if (kind === "ack") return { kind, sequence: integer(a, MAX_SEQUENCE), index: integer(b, MAX_UNITS) };
  if (typeof a !== "boolean" || typeof b !== "boolean") throw new FormatError("A status is true or false.");
  return { kind, cameraOff: a, faceLost: b };
}

function checkSize(data: Uint8Array): void {
  if (data.length > MAX_MESSAGE) throw new FormatError(`A message of ${data.length} bytes is too large.`);
}

function byte(data: Uint8Array, at: number): number {
  if (at >= data.length) throw new FormatError("A message is cut off.");
  return data[at];
}

function binary(value: unknown, length: number): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length !== length) {
    throw new FormatError(`A control message has no ${length} bytes where it should.`);
  }
  return value.slice();
}

function integer(value: unknown, most: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > most) {
    throw new FormatError("A control message holds a number out of range.");
  }
  return value;
}

function optional(value: unknown, most: number): number | null {
  return value === null ? null : integer(value, most);
}
