/** Frames into motion messages, source units into paced chunks (client/link/send.py). Times in seconds. */

import { MotionEncoder } from "../motion/encoder";
import { quantiserOf } from "../motion/quantiser";
import type { MotionSpace } from "../motion/space";
import type { Tables } from "../motion/tables";
import type { SourceSequence } from "../video/source_sequence";
import type { SendParameters } from "./congestion_control";
import { MAX_MESSAGE_FRAMES, MAX_SPAN_MS, motionMessageToBytes, type SourceChunk } from "./messages";

const PART = 400;
const LAST_PART = 1.2;
const NARROW_PART = 150;
const NARROW_KBPS = 5;
const MAX_BEHIND = 8;
const FIRST_PART = 840;
const MIN_PART = 64;
const SAVED = LAST_PART * PART;
const FRAME_MS = 40;
const MAX_GAP_MS = 250;
const MAX_REPEATS = 2;
const KEPT_STAMPS = 256;

/** A camera frame as one peer gets it. */
export interface OutgoingFrame {
  stampMs: number;
  /** (K, 3). */
  keypoints: Float32Array;
  /** Slot in the peer's library. */
  reference: number | null;
  /** (3 K, 3 K). */
  gram: Float64Array | null;
  regions: (number | null)[];
}

/** Packs frames into motion messages. Frames are numbered per link, in the order in which they are taken. */
export class MotionSender {
  private readonly encoder: MotionEncoder;
  private readonly captured = new Map<number, number>();
  private coarseness: number;
  private stride: number;
  private offered = 0;
  private count = 0;
  private earliest = 0;
  private next = 0;
  private repeatable: number[] = [];
  private acknowledged = -1;
  private sequence = 0;

  constructor(
    tables: Tables,
    public sending: SendParameters,
  ) {
    [this.coarseness, this.stride] = [sending.coarseness, sending.stride];
    this.encoder = new MotionEncoder(tables, quantiserOf(sending.coarseness));
  }

  /** Frames that have not been sent yet. */
  get waiting(): number {
    return this.count - this.next;
  }

  /** Take a camera frame, or drop it according to the stride. Return whether the message is full. `space`: coordinates of
   * the reference source, with which the frame takes half the bytes. */
  take({ stampMs, keypoints, reference, gram, regions }: OutgoingFrame, space: MotionSpace | null): boolean {
    this.offered += 1;
    if ((this.offered - 1) % this.sending.stride) return false;
    if (this.sending.coarseness !== this.coarseness && !this.waiting) {
      this.coarseness = this.sending.coarseness;
      this.encoder.requantise(quantiserOf(this.coarseness));
      this.earliest = this.count;
    }
    let gapMs = stampMs - (this.captured.get(this.count - 1) ?? stampMs);
    if (gapMs < 0 || gapMs > MAX_SPAN_MS / MAX_MESSAGE_FRAMES) {
      this.dropAll(); // no message spans a pause
      gapMs = 0;
    }
    const number = this.encoder.push(keypoints, reference, gram, regions, space);
    this.captured.set(number, stampMs);
    this.captured.delete(number - KEPT_STAMPS);
    const isMixed = this.waiting > 0 && this.sending.stride !== this.stride;
    [this.count, this.stride] = [number + 1, this.sending.stride];
    return isMixed || this.isFull(stampMs, gapMs);
  }

  /** Whether the unsent frames span the time of a message. The next frame is expected `gapMs` after the newest. */
  private isFull(stampMs: number, gapMs: number): boolean {
    const usualMs = this.sending.stride * FRAME_MS;
    const spanMs = stampMs - (this.captured.get(this.next) ?? stampMs) + Math.min(gapMs || usualMs, MAX_GAP_MS);
    return spanMs > (this.sending.messageFrames - 0.5) * usualMs || this.waiting >= MAX_MESSAGE_FRAMES;
  }

  /** Drop all unsent frames but the newest `kept` (default: one message). */
  skip(kept = this.sending.messageFrames): void {
    this.next += Math.max(0, this.waiting - kept);
  }

  /** Return the next message; some frame must wait. `acknowledged`: the newest frame decoded of the other direction. */
  message(acknowledged: number | null): Uint8Array {
    let first = this.next;
    const { repeats } = this.sending;
    if (repeats && this.repeatable.length) {
      const repeated = this.repeatable[this.repeatable.length - Math.min(repeats, this.repeatable.length)];
      first = Math.max(repeated, this.acknowledged + 1, this.earliest);
    }
    first = Math.max(Math.min(first, this.next), this.count - MAX_MESSAGE_FRAMES);
    const packet = this.encoder.pack(first, this.count - first);
    const stamps = Array.from({ length: this.count - first }, (_, n) => this.captured.get(first + n) as number);
    const { sequence, coarseness } = this;
    const low = acknowledged === null ? null : acknowledged & 0xff;
    this.sequence = (sequence + 1) & 0xff;
    this.repeatable = [...this.repeatable.slice(1 - MAX_REPEATS), this.next];
    this.next = this.count;
    return motionMessageToBytes({ sequence, stamps, coarseness, acknowledged: low }, packet);
  }

  /** The receiver has decoded this frame, so later ones may refer to it. */
  acknowledge(number: number): void {
    if (number <= this.acknowledged || number >= this.next) return;
    this.acknowledged = number;
    this.encoder.acknowledge(number);
  }

  /** The same, with the frame's number modulo 256; ignored if two frames could match. */
  acknowledgeLow(low: number): void {
    const newest = this.next - 1;
    if (newest - this.acknowledged <= 0xff) this.acknowledge(newest - ((newest - low) & 0xff));
  }

  /** The receiver may have lost its state, or the slots hold other sources: the next messages refer to no earlier frame
   * and repeat none, and frames that wait name no source. */
  forgetAcknowledged(): void {
    this.encoder.forget();
    this.earliest = this.next;
    this.repeatable = [];
  }

  private dropAll(): void {
    this.next = this.count;
    this.repeatable = [];
  }
}

/** Splits the units of a sequence into chunks, at a limited rate. */
export class SourceSender {
  sequence: SourceSequence | null = null;
  /** The unit that is being sent, or the next one. */
  index = 0;
  private offset = 0;
  private first: number | null = null;
  private part = PART;
  private burst = PART;
  private budget = 0;
  private filledS: number | null = null;

  /** Send a sequence from the unit at `index` on. `first`: the receiver has no picture, so chunks are larger. */
  start(sequence: SourceSequence | null, index = 0, first = false): void {
    [this.sequence, this.index, this.offset] = [sequence, index, 0];
    this.first = first ? index : null;
    this.part = this.burst = this.budget = first ? FIRST_PART : PART;
    this.filledS = null;
  }

  /** Units not sent yet. */
  get backlog(): number {
    return this.sequence ? this.sequence.next - this.index : 0;
  }

  /** Return whether a receiver that has what comes before this unit can go on with the present sequence. */
  canResume(number: number | null, index: number): boolean {
    const { sequence } = this;
    if (!sequence || number !== sequence.number || index > sequence.next || sequence.next - index > MAX_BEHIND) return false;
    for (let n = index; n < sequence.next; n++) if (!sequence.units.has(n)) return false;
    return true;
  }

  /** Return whether the receiver is more than MAX_BEHIND units behind, or its next unit is not kept any more. */
  get isLost(): boolean {
    const { sequence } = this;
    return !!sequence && (this.backlog > MAX_BEHIND || this.index < sequence.next - sequence.units.size);
  }

  /** Add to the budget for the time since the last call, at `kbps`. Budget that is not used is lost. */
  fill(nowS: number, kbps: number): void {
    if (this.index !== this.first) this.part = kbps > NARROW_KBPS ? PART : NARROW_PART;
    if (this.filledS !== null) {
      this.budget += (nowS - this.filledS) * kbps * 125;
      const most = this.backlog ? this.burst : MIN_PART;
      this.budget = Math.min(this.budget, kbps > NARROW_KBPS ? Math.max(most, SAVED) : most);
    }
    this.filledS = nowS;
  }

  /** Return the next chunk, if there is one and the budget covers all of it. */
  chunk(): SourceChunk | null {
    const { sequence, index, offset } = this;
    const unit = sequence?.units.get(index);
    if (!sequence || !unit) return null;
    const rest = unit.packet.length - offset;
    const longest = (index === this.first ? 1 : LAST_PART) * this.part;
    const length = rest <= longest ? rest : this.part;
    if (length > this.budget) return null;
    const part = unit.packet.subarray(offset, offset + length);
    this.budget -= length;
    [this.index, this.offset] = length === rest ? [index + 1, 0] : [index, offset + length];
    return { sequence: sequence.number, index, isSnapshot: unit.isSnapshot, length: unit.packet.length, offset, part };
  }
}
