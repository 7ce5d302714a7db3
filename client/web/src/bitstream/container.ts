/** Reader of .iwc files, version 7, also of truncated or damaged ones (codec/bitstream/container.py, reader.py). */

import { FormatError, VersionError } from "../errors";
import { crc32 } from "./crc32";
import { type Header, parseHeader } from "./header";
import { type Packet, parseAudio, parseMotion, parseSource, parseSources } from "./packets";
import { Cursor } from "./varint";

const MAGIC = 0x43574989; // "\x89IWC", little-endian
const FOOTER_MAGIC = 0x58435749; // "IWCX"
const FOOTER_BYTES = 12;
export const VERSION = 7;
const SOURCE = 0xa1;
const MOTION = 0xa2;
const AUDIO = 0xa3;
const SOURCES = 0xa5;
const MAX_HEADER = 65_536;
const MAX_RECORD = (1 << 18) + 64;
/** Bytes of candidate records checked in total while searching for the next valid one. */
const RESYNC_BUDGET = 1 << 26;
/** Damaged places that are counted; a file with more is refused. */
const MAX_DAMAGE = 1000;

/** What a file holds. */
export interface Container {
  header: Header;
  /** In file order. */
  packets: Packet[];
  bytes: number;
  /** Whether the end of the file is missing. */
  truncated: boolean;
  /** Records that were skipped, and why. */
  damage: string[];
}

interface Record {
  kind: number;
  payload: Uint8Array;
  behind: number;
}

/** Read a whole file. Throws FormatError if it is not an .iwc file, VersionError if it has another version. */
export function readContainer(data: Uint8Array): Container {
  const { header, start } = readHeader(data);
  const footer = data.length - FOOTER_BYTES;
  const truncated = footer < start || word(data, footer + 8) !== FOOTER_MAGIC;
  const reader = new RecordReader(data, truncated ? data.length : footer, truncated);
  const packets = reader.packets(start);
  return { header, packets, bytes: data.length, truncated, damage: reader.damage };
}

function readHeader(data: Uint8Array): { header: Header; start: number } {
  if (data.length < 10 || word(data, 0) !== MAGIC) throw new FormatError("This is not an .iwc file.");
  const version = data[4] | (data[5] << 8);
  if (version !== VERSION) {
    throw new VersionError(`This .iwc file has version ${version}; this player reads version ${VERSION}.`);
  }
  const end = 10 + word(data, 6);
  if (end > 10 + MAX_HEADER) throw new FormatError("The file's header is too large.");
  if (data.length < end + 4) throw new FormatError("The file ends inside its header.");
  if (crc32(data.subarray(0, end)) !== word(data, end)) {
    throw new FormatError("The file's header is damaged: its checksum is wrong.");
  }
  return { header: parseHeader(data.subarray(10, end)), start: end + 4 };
}

class RecordReader {
  readonly damage: string[] = [];
  private budget = RESYNC_BUDGET;

  constructor(
    private readonly data: Uint8Array,
    private readonly end: number,
    private readonly truncated: boolean,
  ) {}

  packets(at: number): Packet[] {
    const packets: Packet[] = [];
    while (at < this.end) {
      try {
        const record = this.record(at);
        try {
          packets.push(...parse(record));
        } catch (error) {
          this.report(at, error);
        }
        at = record.behind;
      } catch (error) {
        const following = this.resync(at + 1);
        if (this.truncated && following >= this.end) break; // the record that was cut
        this.report(at, error);
        at = following;
      }
    }
    return packets;
  }

  private report(at: number, error: unknown): void {
    if (!(error instanceof FormatError)) throw error;
    if (this.damage.length >= MAX_DAMAGE) throw new FormatError("The file is damaged in too many places.");
    this.damage.push(`record at byte ${at}: ${error.message}`);
  }

  private record(at: number): Record {
    const { kind, length, payloadAt } = this.head(at);
    const behind = payloadAt + length + 4;
    if (behind > this.end) throw new FormatError("The record is cut off.");
    if (crc32(this.data.subarray(at, behind - 4)) !== word(this.data, behind - 4)) {
      throw new FormatError("CRC mismatch.");
    }
    return { kind, payload: this.data.subarray(payloadAt, behind - 4), behind };
  }

  private head(at: number): { kind: number; length: number; payloadAt: number } {
    const kind = this.data[at];
    if (at >= this.end || kind < SOURCE || kind > SOURCES) throw new FormatError("No record starts here.");
    const cursor = new Cursor(this.data.subarray(0, Math.min(this.end, at + 6)), at + 1);
    const length = cursor.varint(MAX_RECORD);
    if (this.data[cursor.at] !== (crc32(this.data.subarray(at, cursor.at)) & 0xff)) {
      throw new FormatError("The length is damaged.");
    }
    return { kind, length, payloadAt: cursor.at + 1 };
  }

  /** Return the offset of the next record with a valid checksum, or of the end. */
  private resync(at: number): number {
    for (; at < this.end; at++) {
      const kind = this.data[at];
      if (kind >= SOURCE && kind <= SOURCES && this.isRecord(at)) return at;
    }
    return this.end;
  }

  private isRecord(at: number): boolean {
    if (this.budget <= 0) return false;
    try {
      this.budget -= this.head(at).length;
      this.record(at);
      return true;
    } catch {
      this.budget -= 16;
      return false;
    }
  }
}

function parse({ kind, payload }: Record): Packet[] {
  if (kind === SOURCE) return [parseSource(payload)];
  if (kind === SOURCES) return parseSources(payload);
  if (kind === MOTION) return [parseMotion(payload)];
  return kind === AUDIO ? [parseAudio(payload)] : []; // the index: everything is in memory
}

function word(data: Uint8Array, at: number): number {
  return (data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24)) >>> 0;
}
