/** Received messages into frames and source units (client/link/receive.py). Throws FormatError for what is dropped. */

import { MAX_PACKET_FRAMES, parseSource, regionsOf, type SourcePacket } from "../bitstream/packets";
import { FormatError } from "../errors";
import { MotionDecoder } from "../motion/predictive_coder";
import { dequantise, quantiserOf } from "../motion/quantiser";
import type { MotionSpace } from "../motion/space";
import type { Tables } from "../motion/tables";
import { TransformedMotion } from "../motion/transformed_motion";
import { TokenBucket } from "../token_bucket";
import { type TimedFrame, VideoJitterBuffer } from "../video/jitter_buffer";
import { type MotionMessage, parseMotionMessage, parseSourceChunk } from "./messages";

const MAX_OFF_S = 10;
const EXPECTED_S = 15;
const MAX_RATE = 250;
const FRAMES_PER_S = 120;
const FRAME_BURST = 300;
const NEW_FRAMES_PER_S = 40;
const NEW_FRAME_BURST = 150;
const MAX_REORDERING = 64;
const MAX_ENDED = 64;

/** What a peer's frames may cost, whatever streams it begins: those to decode, and the new ones among them. */
export class FrameBudget {
  private readonly decodable = new TokenBucket(FRAMES_PER_S, FRAME_BURST);
  private readonly showable = new TokenBucket(NEW_FRAMES_PER_S, NEW_FRAME_BURST);

  take(nowS: number, count: number, fresh: number): boolean {
    return this.showable.take(nowS, fresh) && this.decodable.take(nowS, count);
  }
}

/** A message that is dropped, but that an honest peer's path may have caused: late, repeated or reordered. */
export class Untimely extends FormatError {}

/** Decodes motion messages into the jitter buffer. */
export class MotionReceiver {
  readonly jitterBuffer = new VideoJitterBuffer();
  /** When the last valid message arrived. */
  arrivedS: number | null = null;
  /** Messages received and lost since the owner last reset this. */
  counts = { messages: 0, lost: 0 };
  /** Frames that arrived so far; repeated ones count once. */
  arrived = 0;
  private readonly decoder: MotionDecoder;
  private readonly transformed: TransformedMotion;
  private highest: number | null = null;
  private recent = new Set<number>();
  private newest: { number: number; stampS: number } | null = null;
  /** Number of the newest frame that was charged to the budget. */
  private charged = -1;
  /** Numbers of the MAX_PACKET_FRAMES newest frames, as far as they were decoded. */
  private decoded = new Set<number>();

  /** `spaces`: coordinates of the peer's sources, by slot. `budget`: of frames to decode. */
  constructor(
    tables: Tables,
    keypoints: number,
    spaces: (slot: number) => MotionSpace | undefined,
    private readonly budget = new FrameBudget(),
  ) {
    this.decoder = new MotionDecoder(tables.predictive, keypoints);
    this.transformed = new TransformedMotion(tables.transform, keypoints, spaces);
  }

  /** Number of the newest decoded frame. */
  get acknowledged(): number | null {
    return this.newest?.number ?? null;
  }

  /** Take a message; return the acknowledgement in it: number of a frame of the other direction modulo 256, if any. */
  take(data: Uint8Array, nowS: number): number | null {
    const message = parseMotionMessage(data);
    this.check(message, nowS);
    this.account(this.unwrap(message.sequence, nowS));
    this.charge(message, nowS);
    const frames = message.packet.scale === null ? this.predicted(message) : this.inSpaces(message, message.packet.scale);
    this.arrivedS = nowS;
    const last = frames[frames.length - 1];
    if (!this.newest || last.number > this.newest.number) this.newest = last;
    for (const { number } of frames) {
      if (!this.decoded.has(number)) this.arrived += 1;
      this.decoded.add(number);
    }
    const oldest = this.newest.number - MAX_PACKET_FRAMES;
    if (this.decoded.size > MAX_PACKET_FRAMES) this.decoded = new Set([...this.decoded].filter((number) => number > oldest));
    this.jitterBuffer.push(frames, nowS);
    return message.acknowledged;
  }

  private inSpaces({ packet, stamps }: MotionMessage, scale: number): TimedFrame[] {
    return this.transformed.decode(packet, scale).map((frame, n) => ({ ...frame, stampS: stamps[n] / 1000 }));
  }

  private predicted(message: MotionMessage): TimedFrame[] {
    const { stepXy, stepStrength } = quantiserOf(message.coarseness);
    const slots = message.packet.runs.flatMap(({ slot, frames }) => new Array<number>(frames).fill(slot));
    return this.decoder.decode(message.packet, message.coarseness).map((levels, n): TimedFrame => {
      const keypoints = dequantise(levels, stepXy, stepStrength);
      const number = message.packet.first + n;
      const regions = regionsOf(message.packet, n);
      return { number, stampS: message.stamps[n] / 1000, keypoints, reference: slots[n] ?? null, regions };
    });
  }

  /** Take the frames of a message from the budget. Repeated ones cost as much as new ones: a message can only be decoded
   * as a whole. */
  private charge({ packet: { first, count } }: MotionMessage, nowS: number): void {
    const oldest = this.newest ? this.newest.number - MAX_PACKET_FRAMES : -1;
    const isKnown = (number: number) => number <= oldest || this.decoded.has(number);
    if (Array.from({ length: count }, (_, n) => first + n).every(isKnown)) throw new Untimely("A message is repeated.");
    const fresh = Math.min(count, Math.max(0, first + count - 1 - this.charged));
    if (!this.budget.take(nowS, count, fresh)) throw new FormatError("Too many frames arrive.");
    this.charged = Math.max(this.charged, first + count - 1);
  }

  private check({ stamps, packet }: MotionMessage, nowS: number): void {
    if (!this.newest || this.arrivedS === null || nowS - this.arrivedS > EXPECTED_S) return;
    const aheadS = stamps[stamps.length - 1] / 1000 - this.newest.stampS;
    const ahead = packet.first + packet.count - 1 - this.newest.number;
    if (Math.abs(aheadS - (nowS - this.arrivedS)) > MAX_OFF_S || ahead > MAX_RATE * (Math.max(0, aheadS) + 1)) {
      throw new Untimely("A message is implausible.");
    }
  }

  private unwrap(low: number, nowS: number): number {
    if (this.highest === null) return low;
    if (this.arrivedS === null || nowS - this.arrivedS > EXPECTED_S) {
      return this.highest + 1 + ((low - this.highest - 1) & 0xff); // more than 256 may have been lost: count on
    }
    const sequence = this.highest + ((low - this.highest + 128) & 0xff) - 128;
    if (this.recent.has(sequence) || sequence < this.highest - MAX_REORDERING) {
      throw new Untimely("A message is replayed.");
    }
    return sequence;
  }

  private account(sequence: number): void {
    this.counts.messages += 1;
    if (this.highest === null || sequence > this.highest) {
      this.counts.lost += this.highest === null ? 0 : sequence - this.highest - 1;
      this.highest = sequence;
    } else this.counts.lost -= 1;
    this.recent.add(sequence);
    const oldest = this.highest - MAX_REORDERING;
    this.recent = new Set([...this.recent].filter((number) => number >= oldest));
  }
}

/** A whole source unit, and whether it is a scene snapshot. */
export interface Unit {
  packet: SourcePacket;
  isSnapshot: boolean;
}

/** A chunk that does not continue the sequence. */
export class OutOfSequence extends FormatError {}

/** Joins chunks to source units, in the order of their sequence. */
export class SourceAssembler {
  sequence: number | null = null;
  /** The unit that is being received. */
  index = 0;
  private part: number[] = [];
  private ended: number[] = [];

  /** Take a chunk; return the unit that it completes, if any. */
  take(data: Uint8Array): Unit | null {
    const chunk = parseSourceChunk(data);
    const isBehind =
      chunk.index < this.index || (chunk.index === this.index && chunk.offset < this.part.length);
    if ((chunk.sequence === this.sequence && isBehind) || this.ended.includes(chunk.sequence)) {
      throw new Untimely("A message is replayed.");
    }
    if (chunk.sequence !== this.sequence && !chunk.index && !chunk.offset) {
      if (this.sequence !== null) this.ended = [...this.ended.slice(1 - MAX_ENDED), this.sequence];
      [this.sequence, this.index, this.part] = [chunk.sequence, 0, []];
    }
    if (chunk.sequence !== this.sequence || chunk.index !== this.index || chunk.offset !== this.part.length) {
      throw new OutOfSequence("A message is out of sequence.");
    }
    this.part.push(...chunk.part);
    if (this.part.length < chunk.length) return null;
    const whole = Uint8Array.from(this.part);
    this.index += 1;
    this.part = [];
    return { packet: parseSource(whole), isSnapshot: chunk.isSnapshot };
  }

  /** Accept only the start of a sequence from now on. */
  forget(): void {
    [this.sequence, this.index, this.part, this.ended] = [null, 0, [], []];
  }

  /** Discard the part of a unit: on another connection the sender begins it again. */
  restartUnit(): void {
    this.part = [];
  }
}
