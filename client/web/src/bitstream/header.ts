/** The header of an .iwc file (codec/bitstream/header.py). */

import { decode } from "@msgpack/msgpack";
import { FormatError } from "../errors";

const FIELDS = 13;
const MAX_ACTIVE = 4;

/** The sound of a file: Opus, mono, 48 kHz. */
export interface AudioHeader {
  preSkip: number;
  packetSamples: number;
}

/** What a decoder must know before the first packet. */
export interface Header {
  modelId: string;
  /** Hexadecimal. */
  modelDigest: string;
  keypoints: number;
  stepXy: number;
  stepStrength: number;
  tables: number;
  fps: number;
  /** Width and height in pixels. */
  size: number;
  /** 0 if unknown. */
  frames: number;
  active: number;
  audio: AudioHeader | null;
  /** Small-shift suppression in pixels. */
  suppression: number;
}

/** Parse a header. Throws FormatError if a value is missing, of a wrong type or out of range. */
export function parseHeader(data: Uint8Array): Header {
  let values: unknown;
  try {
    // Nothing in a header is large; without bounds a few bytes could claim gigabytes.
    values = decode(data, { maxStrLength: 65_536, maxBinLength: 65_536, maxArrayLength: 64, maxMapLength: 64, maxExtLength: 64 });
  } catch {
    throw new FormatError("The file's header cannot be read.");
  }
  if (!Array.isArray(values) || values.length !== FIELDS) {
    throw new FormatError(`The file's header is not an array of ${FIELDS} values.`);
  }
  const [name, digest, keypoints, stepXy, stepStrength, tables, fps, size, frames, active, audio, , suppression] =
    values as unknown[];
  if (!(digest instanceof Uint8Array && digest.length === 8)) {
    throw new FormatError("The file's model digest cannot be read.");
  }
  if (typeof name !== "string" || !/^[^\p{C}\p{Zl}\p{Zp}]{1,64}$/u.test(name)) {
    throw new FormatError("The file's model name cannot be read.");
  }
  return {
    modelId: name,
    modelDigest: hex(digest),
    keypoints: whole(keypoints, "keypoints", 1, 64),
    stepXy: real(stepXy, "step_xy", 1e-5, 1),
    stepStrength: real(stepStrength, "step_strength", 1e-5, 1),
    tables: whole(tables, "tables", 0, 2 ** 32 - 1),
    fps: frameRate(fps),
    size: whole(size, "size", 64, 4096),
    frames: whole(frames, "frames", 0, 2 ** 40),
    active: whole(active, "active", 1, MAX_ACTIVE),
    audio: audio === null ? null : audioHeader(audio),
    suppression: whole(suppression, "suppression", 0, 100) / 10,
  };
}

/** Return bytes in hexadecimal. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function frameRate(value: unknown): number {
  if (!Array.isArray(value) || value.length !== 2) throw new FormatError("The file's frame rate cannot be read.");
  const fps = whole(value[0], "fps", 1, 1e9) / whole(value[1], "fps", 1, 1e7);
  if (fps < 0.1 || fps > 1000) throw new FormatError(`The file's frame rate is impossible: ${fps}.`);
  return fps;
}

function audioHeader(value: unknown): AudioHeader {
  if (!Array.isArray(value) || value.length !== 2) throw new FormatError("The file's audio header cannot be read.");
  return {
    preSkip: whole(value[0], "pre_skip", 0, 48_000),
    packetSamples: whole(value[1], "packet_samples", 120, 5760),
  };
}

function whole(value: unknown, name: string, low: number, high: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < low || value > high) {
    throw new FormatError(`The file's ${name} is not an integer from ${low} to ${high}.`);
  }
  return value;
}

function real(value: unknown, name: string, low: number, high: number): number {
  if (typeof value !== "number" || !(value >= low && value <= high)) {
    throw new FormatError(`The file's ${name} is not a number from ${low} to ${high}.`);
  }
  return value;
}
