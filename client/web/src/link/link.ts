/**
 * The video of one peer on the data channels of a peer connection, in both directions (client/link/link.py,
 * incoming.py); the sending half is outgoing.ts. Outlives its connection.
 */

import type { SourcePacket } from "../bitstream/packets";
import { FormatError } from "../errors";
import type { MotionSpace } from "../motion/space";
import type { Tables } from "../motion/tables";
import { TokenBucket } from "../token_bucket";
import type { TimedFrame } from "../video/jitter_buffer";
import type { VideoSender } from "../video/video_sender";
import { Clocks } from "./clocks";
import { Conduct } from "./conduct";
import {
  type Control,
  CONTROL_CHANNEL,
  controlToBytes,
  type Hello,
  isControl,
  MAX_MESSAGE,
  MOTION_CHANNEL,
  parseControl,
  PROTOCOL,
  type Report,
  SOURCE_CHANNEL,
  type SourceAck,
  type Status,
} from "./messages";
import { OutgoingVideo } from "./outgoing";
import { FrameBudget, MotionReceiver, OutOfSequence, SourceAssembler, type Unit, Untimely } from "./receive";
import { certificatesOf, type Exchange, Verification } from "./verification";

const TICK_MS = 100;
const FROZEN_S = 1.5;
const FRESH_S = 2;
const REPORT_S = 1;
const BAD_REPORT_S = 0.5;
const QUEUED_S = 0.05;
const MAX_EARLY = 64;
const MAX_QUEUED_UNITS = 64;
const UNITS_PER_S = 8;
const UNIT_BURST = 32;
const SOURCES_PER_S = 2;
const SOURCE_BURST = 16;
const RENDERED_PER_S = 36;
const RENDER_BURST = 8;
const STREAMS_PER_S = 0.2;
const STREAM_BURST = 5;
const MAX_RENDER_S = 0.3;
/** Frames that are rendered at a time: attention to one goes on while the one before is refined. */
const MAX_RENDERED_AT_ONCE = 2;
const RENDER_TIMES = 30;
/** Sources whose coordinates are kept, the newest; more than a peer uses. */
const MAX_SPACES = 128;
const NAMES = { [MOTION_CHANNEL]: "motion", [SOURCE_CHANNEL]: "sources", [CONTROL_CHANNEL]: "control" };
/** Received messages of a channel within a second; more are dropped. */
const MAX_RATES: Record<number, number> = { [MOTION_CHANNEL]: 200, [SOURCE_CHANNEL]: 400, [CONTROL_CHANNEL]: 60 };

export type LinkState =
  | "connecting"
  | "another version or size"
  | "waiting for first picture"
  | "live"
  | "face lost"
  | "frozen"
  | "camera off"
  | "reconnecting"
  | "sends too much, not shown";

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

export class Link {
  /** Frames shown so far. */
  shown = 0;
  /** Bytes received and sent on the data channels so far. */
  received = 0;
  sent = 0;
  readonly outgoing: OutgoingVideo;
  /** Estimated time from the peer's camera to here, of the last frame, in ms; null if unknown. */
  delayMs: number | null = null;
  /** Share of the peer's messages that were lost, in the last report, 0..1. */
  loss = 0;
  private channels = new Map<number, RTCDataChannel>();
  private connection: RTCPeerConnection | null = null;
  private readonly stream = Math.floor(Math.random() * 2 ** 32);
  private peerStream: number | null = null;
  private status: Status = { kind: "status", cameraOff: false, faceLost: false };
  private incompatible = false;
  private began = false;
  /** Whether the hello was sent on the present connection. */
  private greeted = false;
  private hasSource = false;
  private early: Uint8Array[] = [];
  private assembler = new SourceAssembler();
  private spaces = new Map<number, MotionSpace>();
  private motion: MotionReceiver;
  /** Frames that arrived in streams before the present one. */
  private arrivedBefore = 0;
  private readonly verification = new Verification();
  private isVerifying = false;
  /** Steps of the verification, one after the other. */
  private verified: Promise<void> = Promise.resolve();
  private clocks = new Clocks();
  private newestReportMs = -1;
  private units = 0;
  private readonly conduct = new Conduct();
  private readonly frames = new FrameBudget();
  private readonly preparableSources = new TokenBucket(SOURCES_PER_S, SOURCE_BURST);
  private readonly renderable = new TokenBucket(RENDERED_PER_S, RENDER_BURST);
  private readonly decodableUnits = new TokenBucket(UNITS_PER_S, UNIT_BURST);
  private readonly streams = new TokenBucket(STREAMS_PER_S, STREAM_BURST);
  private wantsFresh = false;
  private askedS = -Infinity;
  private reportedS = now();
  private shownSinceReport = 0;
  private ackDue = false;
  private rendering = 0;
  /** Seconds from the jitter buffer to the picture, of the newest frames, and the same from the picture before on, if that
   * is later: while two frames are rendered at once, either takes longer than it takes the rate. */
  private renderTimes: number[] = [];
  private frameTimes: number[] = [];
  private renderedS = 0;
  /** Number of the newest rendered frame. */
  private renderedNumber = -1;
  private alarm = 0;
  private rates = new Map<number, { second: number; count: number }>();
  private readonly ticker = window.setInterval(() => this.tick(), TICK_MS);

  /** `show`: draw a picture of the peer, now. */
  constructor(
    private readonly model: Model,
    sender: VideoSender,
    private readonly renderer: Renderer,
    private readonly show: (pixels: Pixels) => void,
  ) {
    this.motion = this.receiver();
    this.outgoing = new OutgoingVideo(model.tables, sender, this, this);
  }

  /** Frames of the peer that arrived so far; repeated ones count once. */
  get arrived(): number {
    return this.arrivedBefore + this.motion.arrived;
  }

  /** Median time that a frame takes while others wait for nothing else, of the newest frames, in ms. */
  get renderMs(): number {
    return 1000 * quantile(this.frameTimes, 0.5);
  }

  /** Three words that the participant sees, too, unless somebody sits in between; null until they are known. */
  get words(): string | null {
    return this.verification.words;
  }

  get areOpen(): boolean {
    return this.channels.size > 0 && [...this.channels.values()].every(({ readyState }) => readyState === "open");
  }

  private get peer(): Hello | null {
    return this.outgoing.peer;
  }

  private receiver(): MotionReceiver {
    const { tables, keypoints } = this.model;
    return new MotionReceiver(tables, keypoints, (slot) => this.spaces.get(slot), this.frames);
  }

  private addSpace(slot: number, space: MotionSpace): void {
    this.spaces.delete(slot);
    this.spaces.set(slot, space);
    if (this.spaces.size > MAX_SPACES) this.spaces.delete(this.spaces.keys().next().value as number);
  }

  get state(): LinkState {
    if (this.incompatible) return "another version or size";
    const lost = ["disconnected", "failed", "closed"].includes(this.connection?.connectionState ?? "");
    if (!this.areOpen || !this.peer || lost) return this.began ? "reconnecting" : "connecting";
    if (this.conduct.isIgnored(now())) return "sends too much, not shown";
    if (this.status.cameraOff) return "camera off";
    if (this.status.faceLost) return "face lost";
    if (!this.hasSource) return "waiting for first picture";
    const { arrivedS } = this.motion;
    return arrivedS === null || now() - arrivedS > FROZEN_S ? "frozen" : "live";
  }

  /** Delay of the picture from its arrival on, in seconds: what sound needs to be in step with it. */
  get playoutS(): number {
    return this.motion.jitterBuffer.playoutS;
  }

  /** Create the channels on a connection, before its offer or answer. */
  attach(connection: RTCPeerConnection): void {
    this.assembler.restartUnit();
    this.motion.jitterBuffer.newPath();
    this.connection = connection;
    this.outgoing.attach();
    this.greeted = this.isVerifying = false;
    this.early = [];
    this.channels = new Map();
    for (const id of [MOTION_CHANNEL, SOURCE_CHANNEL, CONTROL_CHANNEL] as const) {
      const unreliable = id === MOTION_CHANNEL ? { ordered: false, maxRetransmits: 0 } : {};
      const channel = connection.createDataChannel(NAMES[id], { negotiated: true, id, ...unreliable });
      channel.binaryType = "arraybuffer";
      channel.onmessage = ({ data }) => {
        if (this.channels.get(id) === channel && data instanceof ArrayBuffer) this.receive(id, new Uint8Array(data));
      };
      channel.onopen = () => this.channels.get(id) === channel && this.areOpen && this.opened();
      this.channels.set(id, channel);
    }
  }

  close(): void {
    clearInterval(this.ticker);
    clearTimeout(this.alarm);
    this.outgoing.close();
    this.channels.clear();
  }

  /** Send a message, or discard it if the channel is not open. */
  send(channel: number, data: Uint8Array): void {
    const open = this.channels.get(channel);
    if (open?.readyState !== "open") return;
    this.sent += data.length;
    open.send(data as Uint8Array<ArrayBuffer>);
  }

  queued(channel: number): number {
    return this.channels.get(channel)?.bufferedAmount ?? 0;
  }

  private opened(): void {
    if (this.greeted) return; // another one would ask for a fresh sequence
    this.greeted = true;
    this.sendHello();
    this.verify();
    if (!this.began) this.outgoing.channelsOpened();
  }

  /** Begin the exchange that leads to `words`, once on each connection. */
  private verify(): void {
    const certificates = certificatesOf(this.connection);
    if (this.isVerifying || !certificates || !crypto.subtle) return; // which only secure pages have
    this.isVerifying = true;
    this.exchange(() => this.verification.connected(certificates));
  }

  private exchange(step: () => Promise<Exchange[]>): void {
    this.verified = this.verified.then(async () => {
      for (const message of await step()) this.send(CONTROL_CHANNEL, controlToBytes(message));
    });
  }

  private sendHello(): void {
    const { digest, tables } = this.model;
    const { sequence, index } = this.assembler;
    const hello: Hello = {
      kind: "hello",
      protocol: PROTOCOL,
      model: digest,
      tables: tablesId(tables),
      stream: this.stream,
      sequence,
      index,
    };
    this.send(CONTROL_CHANNEL, controlToBytes(hello));
    this.outgoing.statusChanged();
  }

  private receive(channel: number, data: Uint8Array): void {
    const nowS = now();
    if (data.length > MAX_MESSAGE || !this.withinRate(channel)) {
      this.conduct.offended(nowS);
      return;
    }
    this.received += data.length;
    try {
      if (channel === CONTROL_CHANNEL || (channel === MOTION_CHANNEL && isControl(data))) {
        this.receiveControl(parseControl(data), channel, nowS);
      } else if (!this.peer) {
        if (channel === SOURCE_CHANNEL && this.early.length < MAX_EARLY) this.early.push(data);
      } else if (this.conduct.ignores(nowS)) {
        return;
      } else if (channel === MOTION_CHANNEL) {
        const acknowledged = this.motion.take(data, nowS);
        if (acknowledged !== null) this.outgoing.receiveAcknowledged(acknowledged);
        this.render();
      } else this.receiveSource(data);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error; // dropped, as if it had been lost
      if (!(error instanceof Untimely)) this.conduct.offended(nowS);
    }
  }

  private withinRate(channel: number): boolean {
    const second = Math.floor(now());
    const rate = this.rates.get(channel);
    const count = rate?.second === second ? rate.count + 1 : 1;
    this.rates.set(channel, { second, count });
    return count <= MAX_RATES[channel];
  }

  private receiveControl(message: Control, channel: number, nowS: number): void {
    if ((message.kind === "report") !== (channel === MOTION_CHANNEL)) return;
    if (message.kind === "hello") this.receiveHello(message);
    else if (message.kind === "commitment" || message.kind === "nonce") {
      this.verify(); // the peer's channel may have opened first
      this.exchange(() => this.verification.receive(message, nowS));
    } else if (!this.peer) return;
    else if (message.kind === "status") this.status = message;
    else if (message.kind === "report" && message.sentMs > this.newestReportMs) {
      this.newestReportMs = message.sentMs;
      this.clocks.take(stampMs(nowS), message.sentMs, message.echoMs, message.heldMs, nowS);
      this.outgoing.receiveReport(message, nowS);
    } else if (message.kind === "ack") this.outgoing.receiveSourceAck(message);
  }

  private receiveHello(hello: Hello): void {
    const { digest, tables } = this.model;
    const sameModel = hello.model.every((byte, n) => byte === digest[n]);
    if (hello.protocol !== PROTOCOL || !sameModel || hello.tables !== tablesId(tables)) {
      this.incompatible = this.peer === null;
      return;
    }
    const isNewStream = this.peerStream !== null && this.peerStream !== hello.stream;
    if (isNewStream && !this.streams.take(now())) return;
    this.incompatible = false;
    if (isNewStream) this.reset();
    this.peerStream = hello.stream;
    this.began = true;
    this.outgoing.receiveHello(hello, isNewStream);
    const { early } = this;
    this.early = [];
    for (const data of early) this.receiveSource(data);
  }

  /** Forget everything about the peer's stream before. */
  private reset(): void {
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

  private receiveSource(data: Uint8Array): void {
    let unit: Unit | null;
    try {
      unit = this.assembler.take(data);
    } catch (error) {
      if (error instanceof OutOfSequence) this.abandonSequence();
      else if (error instanceof Untimely) this.ackDue = true; // a sender that restarted a unit does not know it arrived
      else this.conduct.offended(now());
      return;
    }
    if (!unit) return;
    const nowS = now();
    const isCostly = unit.packet.base === null && !unit.isSnapshot;
    const isWithin = this.decodableUnits.take(nowS) && (!isCostly || this.preparableSources.take(nowS));
    if (!isWithin) this.conduct.offended(nowS);
    if (isWithin && this.units < MAX_QUEUED_UNITS) void this.decode(unit);
    else this.abandonSequence();
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
    this.outgoing.sendPending();
  }

  /** The present sequence cannot be continued: wait for the start of another one. */
  private abandonSequence(): void {
    this.assembler.forget();
    this.wantsFresh = true;
  }

  get acknowledged(): number | null {
    return this.motion.acknowledged;
  }

  /** Return the acknowledgement of sources, if one is due. */
  takeAck(): SourceAck | null {
    const { sequence, index } = this.assembler;
    if (!this.ackDue || sequence === null) return null;
    this.ackDue = false;
    return { kind: "ack", sequence, index };
  }

  private tick(): void {
    if (!this.peer) return;
    const nowS = now();
    if (this.wantsFresh && nowS - this.askedS >= FRESH_S) {
      this.wantsFresh = false;
      this.askedS = nowS;
      this.sendHello();
    }
    this.outgoing.tick(nowS);
    this.render();
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
  private render(): void {
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

/** What a hello says of the tables of both motion coders. */
function tablesId({ predictive, transform }: Tables): number {
  return (predictive.id ^ transform.id) >>> 0;
}
