/**
 * The receiving half of a link: decoding of sources, rendering of frames, reports to the peer (client/link/incoming.py).
 * Times in seconds.
 */

import type { SourcePacket } from "../bitstream/packets";
import type { MotionSpace } from "../motion/space";
import type { Tables } from "../motion/tables";
import { TokenBucket } from "../token_bucket";
import type { TimedFrame } from "../video/jitter_buffer";
import { Clocks } from "./clocks";
import { Conduct } from "./conduct";
import type { Report, SourceAck, Status } from "./messages";
import { FrameBudget, MotionReceiver, OutOfSequence, SourceAssembler, type Unit, Untimely } from "./receive";

const REPORT_S = 1;
const BAD_REPORT_S = 0.5;
const QUEUED_S = 0.05;
const MAX_QUEUED_UNITS = 64;
const UNITS_PER_S = 8;
const UNIT_BURST = 32;
const SOURCES_PER_S = 2;
const SOURCE_BURST = 16;
const RENDERED_PER_S = 36;
const RENDER_BURST = 8;
const MAX_RENDER_S = 0.3;
/** Frames that are rendered at a time: attention to one goes on while the one before is refined. */
const MAX_RENDERED_AT_ONCE = 2;
const RENDER_TIMES = 30;
/** Sources whose coordinates are kept, the newest; more than a peer uses. */
const MAX_SPACES = 128;

/** RGBA. */
export interface Pixels {
  side: number;
  data: ArrayBuffer;
}

/** A decoded source, and the coordinates of motion from it; null for a snapshot or a variant. */
export interface DecodedSource extends Pixels {
  space: MotionSpace | null;
}

/** Runs the networks for one peer. Null: what it was asked for cannot be done. */
export interface Renderer {
  /** `first`: shows the first source of a stream, before the network has prepared it. */
  source(packet: SourcePacket, isSnapshot: boolean, first: (pixels: Pixels) => void): Promise<DecodedSource | null>;
  /** `later`: a frame that will follow, if one is known: what lies between two frames is quicker to render. */
  frame(frame: TimedFrame, later: TimedFrame | null): Promise<Pixels | null>;
  /** Begin another stream of the peer. */
  reset(): void;
}

/** What both sides must agree on. */
export interface Model {
  digest: Uint8Array;
  keypoints: number;
  tables: Tables;
}

/** Turns one peer's messages into rendered frames. */
export class IncomingVideo {
  /** Frames shown so far. */
  shown = 0;
  /** Estimated time from the peer's camera to here, of the last frame, in ms; null if unknown. */
  delayMs: number | null = null;
  /** Share of the peer's messages that were lost, in the last report, 0..1. */
  loss = 0;
  status: Status = { kind: "status", cameraOff: false, faceLost: false };
  /** Whether the peer's sequence cannot be continued. The link asks for another one and resets this. */
  wantsFresh = false;
  hasSource = false;
  readonly conduct = new Conduct();
  private assembler = new SourceAssembler();
  private spaces = new Map<number, MotionSpace>();
  private motion: MotionReceiver;
  /** Frames that arrived in streams before the present one. */
  private arrivedBefore = 0;
  private clocks = new Clocks();
  private newestReportMs = -1;
  /** Units that are being decoded. */
  private units = 0;
  private readonly frames = new FrameBudget();
  private readonly preparableSources = new TokenBucket(SOURCES_PER_S, SOURCE_BURST);
  private readonly renderable = new TokenBucket(RENDERED_PER_S, RENDER_BURST);
  private readonly decodableUnits = new TokenBucket(UNITS_PER_S, UNIT_BURST);
  private reportedS = now();
  private shownSinceReport = 0;
  private ackDue = false;
  private rendering = 0;
  /** Seconds from taking a frame out of the jitter buffer to its picture, of the newest frames. */
  private renderTimes: number[] = [];
  /** The same, but counted from the picture before if that came later: two frames are rendered at once. */
  private frameTimes: number[] = [];
  /** When the newest picture was rendered. */
  private renderedS = 0;
  /** Number of the newest rendered frame. */
  private renderedNumber = -1;
  private alarm = 0;

  /** `show`: draw a picture of the peer, now. `sourceDecoded`: an acknowledgement of sources is due. */
  constructor(
    private readonly model: Model,
    private readonly renderer: Renderer,
    private readonly show: (pixels: Pixels) => void,
    private readonly sourceDecoded: () => void,
  ) {
    this.motion = this.receiver();
  }

  /** Frames of the peer that arrived so far; repeated ones count once. */
  get arrived(): number {
    return this.arrivedBefore + this.motion.arrived;
  }

  /** When the newest motion message arrived; null before the first. */
  get arrivedS(): number | null {
    return this.motion.arrivedS;
  }

  /** Median time in ms between two pictures at the highest rate that this machine reaches, over the newest frames. */
  get renderMs(): number {
    return 1000 * quantile(this.frameTimes, 0.5);
  }

  /** Delay of the picture from its arrival on, in seconds: what sound needs to be in step with it. */
  get playoutS(): number {
    return this.motion.jitterBuffer.playoutS;
  }

  /** The peer's sequence (null before one), and the number of its units that have arrived. */
  get place(): { sequence: number | null; index: number } {
    const { sequence, index } = this.assembler;
    return { sequence, index };
  }

  /** Number of the newest decoded frame. */
  get acknowledged(): number | null {
    return this.motion.acknowledged;
  }

  /** Begin another stream of the peer: forget everything about the one before. */
  reset(): void {
    this.assembler = new SourceAssembler();
    this.spaces.clear();
    this.arrivedBefore += this.motion.arrived;
    this.motion = this.receiver();
    this.clocks = new Clocks();
    this.newestReportMs = -1;
    this.hasSource = false;
    this.renderedNumber = -1;
    this.units = 0;
    this.renderer.reset();
  }

  /** What is received from now on took another path. */
  newConnection(): void {
    this.assembler.restartUnit();
    this.motion.jitterBuffer.newPath();
  }

  close(): void {
    clearTimeout(this.alarm);
  }

  // Messages

  /** Decode a motion message; returns the acknowledgement in it (modulo 256), if any. Throws FormatError. */
  receiveMotion(data: Uint8Array, nowS: number): number | null {
    const acknowledged = this.motion.take(data, nowS);
    this.render();
    return acknowledged;
  }

  /** Take a source chunk, and decode the unit that it completes. */
  receiveSource(data: Uint8Array): void {
    const nowS = now();
    let unit: Unit | null;
    try {
      unit = this.assembler.take(data);
    } catch (error) {
      if (error instanceof OutOfSequence) this.abandonSequence();
      else if (error instanceof Untimely) this.ackDue = true; // a sender that restarted a unit does not know it arrived
      else this.conduct.offended(nowS);
      return;
    }
    if (!unit) return;
    const isCostly = unit.packet.base === null && !unit.isSnapshot;
    const isWithin = this.decodableUnits.take(nowS) && (!isCostly || this.preparableSources.take(nowS));
    if (!isWithin) this.conduct.offended(nowS);
    if (isWithin && this.units < MAX_QUEUED_UNITS) void this.decode(unit);
    else this.abandonSequence();
  }

  /** Return false for a report that is older than one before it, or repeated. */
  receiveReport({ sentMs, echoMs, heldMs }: Report, nowS: number): boolean {
    if (sentMs <= this.newestReportMs) return false;
    this.newestReportMs = sentMs;
    this.clocks.take(stampMs(nowS), sentMs, echoMs, heldMs, nowS);
    return true;
  }

  // Messages to the peer

  /** Return the acknowledgement of sources, if one is due. */
  takeAck(): SourceAck | null {
    const { sequence, index } = this.assembler;
    if (!this.ackDue || sequence === null) return null;
    this.ackDue = false;
    return { kind: "ack", sequence, index };
  }

  /** Return the next report, if it is due. */
  takeReport(nowS: number): Report | null {
    const queuedS = this.motion.jitterBuffer.queuedS(nowS, BAD_REPORT_S);
    const { messages, lost } = this.motion.counts;
    if (nowS - this.reportedS < (lost > 0 || queuedS > QUEUED_S ? BAD_REPORT_S : REPORT_S)) return null;
    this.reportedS = nowS;
    this.motion.counts = { messages: 0, lost: 0 };
    this.loss = lost > 0 ? lost / (messages + lost) : 0;
    const shown = this.shownSinceReport;
    this.shownSinceReport = 0;
    const { echoMs, heldS } = this.clocks.echo(nowS);
    return {
      kind: "report",
      sentMs: stampMs(nowS),
      echoMs,
      heldMs: Math.round(1000 * heldS),
      messages,
      lost: Math.max(0, lost),
      queuedMs: Math.max(0, Math.round(1000 * queuedS)),
      acknowledged: this.motion.acknowledged,
      shown,
    };
  }

  /** Render what is due; else come back when it is. */
  render(): void {
    clearTimeout(this.alarm);
    if (this.rendering >= MAX_RENDERED_AT_ONCE || !this.hasSource) return;
    const { jitterBuffer } = this.motion;
    const nowS = now();
    const nextS = jitterBuffer.nextS(nowS);
    if (nextS === null) return;
    if (nextS > nowS) {
      this.alarm = window.setTimeout(() => this.render(), 1000 * (nextS - nowS));
      return;
    }
    const due = jitterBuffer.pop(nowS);
    if (!due || this.conduct.isIgnored(nowS) || !this.renderable.take(nowS)) return;
    this.rendering += 1;
    const { number } = due.frame;
    const later = jitterBuffer.waitingAs(2 * number - this.renderedNumber);
    this.renderedNumber = number;
    void this.renderer.frame(due.frame, later).then((pixels) => {
      this.rendering -= 1;
      const doneS = now();
      this.renderTimes = [...this.renderTimes.slice(1 - RENDER_TIMES), doneS - nowS];
      this.frameTimes = [...this.frameTimes.slice(1 - RENDER_TIMES), doneS - Math.max(nowS, this.renderedS)];
      this.renderedS = doneS;
      jitterBuffer.renderS = Math.min(MAX_RENDER_S, quantile(this.renderTimes, 0.7));
      const shownS = Math.max(doneS, due.dueS);
      const capturedMs = this.clocks.localMs(1000 * due.frame.stampS);
      this.delayMs = capturedMs === null ? null : 1000 * shownS - capturedMs;
      if (pixels) setTimeout(() => this.shownNow(pixels), 1000 * (shownS - doneS));
      this.render();
    });
    this.render();
  }

  private receiver(): MotionReceiver {
    const { tables, keypoints } = this.model;
    return new MotionReceiver(tables, keypoints, (slot) => this.spaces.get(slot), this.frames);
  }

  private async decode({ packet, isSnapshot }: Unit): Promise<void> {
    const { assembler } = this;
    this.units += 1;
    const pixels = await this.renderer.source(packet, isSnapshot, (first) => {
      if (assembler === this.assembler) this.shownNow(first);
    });
    if (assembler !== this.assembler) return; // of a stream that has ended
    this.units -= 1;
    if (!pixels) {
      this.conduct.offended(now());
      this.abandonSequence();
      return;
    }
    this.ackDue = true;
    if (pixels.space) this.addSpace(packet.slot, pixels.space);
    if (isSnapshot) {
      if (this.status.faceLost) this.shownNow(pixels);
    } else if (packet.base === null) {
      if (!this.hasSource) this.motion.jitterBuffer.relearn(); // motion so far shared the link with this picture
      this.hasSource = true;
      this.render();
    }
    this.sourceDecoded();
  }

  private addSpace(slot: number, space: MotionSpace): void {
    this.spaces.delete(slot);
    this.spaces.set(slot, space);
    if (this.spaces.size > MAX_SPACES) this.spaces.delete(this.spaces.keys().next().value as number);
  }

  /** The present sequence cannot be continued: wait for the start of another one. */
  private abandonSequence(): void {
    this.assembler.forget();
    this.wantsFresh = true;
  }

  private shownNow(pixels: Pixels): void {
    this.shown += 1;
    this.shownSinceReport += 1;
    this.show(pixels);
  }
}

function now(): number {
  return performance.now() / 1000;
}

/** Return a quantile; 0 of nothing. */
function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length * share)] ?? 0;
}

/** Time of our own messages, ms. */
function stampMs(atS: number): number {
  return Math.floor(1000 * atS);
}
