/**
 * The sending half of a link: when motion, sources, acknowledgements and reports leave (client/link/outgoing.py). Times
 * in seconds.
 */

import type { Tables } from "../motion/tables";
import { type SourceSequence, slotOf } from "../video/source_sequence";
import type { CodedFrame, Subscriber, VideoSender } from "../video/video_sender";
import type { Channels } from "./channels";
import { CongestionControl, parameters, type SendParameters } from "./congestion_control";
import type { IncomingVideo } from "./incoming";
import {
  type Control,
  CONTROL_CHANNEL,
  controlToBytes,
  type Hello,
  MOTION_CHANNEL,
  type Report,
  SOURCE_CHANNEL,
  type SourceAck,
  sourceChunkToBytes,
} from "./messages";
import { MotionSender, SourceSender } from "./send";

const SOURCE_DELAY_S = 0.005;
const MAX_SILENCE_S = 0.25;
const MIN_SEQUENCE_S = 20;
const MIN_RESTART_S = 1;
const UNREACHED_S = 3;
const MAX_FLIGHT = 900;
const FIRST_FLIGHT = 1750;
const FIRST_PACE_S = 0.02;
/** Used until the peer has acknowledged its first picture. */
const START = parameters(2, 2, 0, 26);

export class OutgoingVideo implements Subscriber {
  /** The peer's hello on the present connection. */
  peer: Hello | null = null;
  readonly congestionControl = new CongestionControl();
  private readonly motion: MotionSender;
  private readonly sources = new SourceSender();
  private sentS = now();
  private heardS = now();
  private begunS = -Infinity;
  private blocked = false;
  private sourcesScheduled = false;
  private wantsSequence = false;
  private starting = false;
  private peerIsBlank = true;
  private peerHas: { sequence: number; units: number } | null = null;
  hasPicture = false;

  constructor(
    tables: Tables,
    private readonly sender: VideoSender,
    private readonly channels: Pick<Channels, "areOpen" | "send" | "queued">,
    private readonly incoming: Pick<IncomingVideo, "acknowledged" | "takeAck" | "takeReport">,
  ) {
    this.motion = new MotionSender(tables, this.congestionControl.sending);
    sender.join(this);
  }

  close(): void {
    this.sender.leave(this);
  }

  /** The channels are those of another connection from now on. */
  attach(): void {
    this.peer = null;
    this.begunS = -Infinity;
  }

  // Called by the VideoSender

  get sequence(): SourceSequence | null {
    return this.sources.sequence;
  }

  get backlog(): number {
    return this.isReached ? this.sources.backlog : 0;
  }

  get isReached(): boolean {
    return this.channels.areOpen && now() - this.heardS < UNREACHED_S;
  }

  take(frame: CodedFrame): void {
    if (!this.channels.areOpen || !this.peer) return;
    this.motion.sending = this.parameters();
    const reference = frame.reference === null ? null : this.slot(frame.reference);
    const space = (reference !== null && this.sequence?.spaces.get(frame.reference as number)) || null;
    const gram = reference === null ? null : frame.gram;
    const regions = frame.regions.map((source) => (source === null ? null : this.slot(source)));
    const { stampMs, keypoints } = frame;
    const isFull = this.motion.take({ stampMs, keypoints, reference, gram, regions }, space);
    // The peer derives its playout delay from the first frames, so none of them may have waited here.
    if (this.isFirstPictureUnsent) this.motion.skip(1);
    else if (isFull) this.sendMotion();
  }

  statusChanged(): void {
    this.control({ kind: "status", cameraOff: this.sender.paused, faceLost: this.sender.faceLost });
  }

  slot(source: number): number | null {
    const { sequence } = this.sources;
    if (!sequence || this.peerHas?.sequence !== sequence.number) return null;
    const index = sequence.numbers.get(source);
    return index === undefined || index >= this.peerHas.units ? null : slotOf(index);
  }

  // Called by the link

  /** Begin a sequence on the first connection, before the hello. */
  channelsOpened(): void {
    this.wantsSequence = true;
    this.requestSequence();
  }

  /** `isNewStream`: the peer was restarted and has lost everything. */
  receiveHello(hello: Hello, isNewStream: boolean): void {
    if (isNewStream) {
      this.motion.forgetAcknowledged();
      this.peerIsBlank = true;
    }
    const isFirst = this.peer === null;
    this.peer = hello;
    this.heardS = now();
    // The sequence that was begun before the hello is on its way.
    if (isFirst && hello.sequence === null && this.sources.sequence && Number.isFinite(this.begunS)) return;
    if (this.sources.canResume(hello.sequence, hello.index)) {
      this.sources.start(this.sources.sequence, hello.index, !this.hasPicture);
      this.peerHas = hello.sequence === null ? null : { sequence: hello.sequence, units: hello.index };
      return;
    }
    this.sources.start(null);
    this.wantsSequence = true;
    this.peerHas = null;
    this.hasPicture = false;
    this.requestSequence();
  }

  receiveReport({ acknowledged, messages, lost, queuedMs }: Report, nowS: number): void {
    this.heardS = nowS;
    if (acknowledged !== null) this.motion.acknowledge(acknowledged);
    const total = messages + lost;
    this.congestionControl.report(nowS, total ? lost / total : 0, queuedMs / 1000, this.blocked);
    this.blocked = false;
    if (!this.sources.isLost) return;
    this.sources.start(null);
    this.wantsSequence = true;
  }

  receiveSourceAck(ack: SourceAck): void {
    const { sequence } = this.sources;
    if (ack.sequence !== sequence?.number) return;
    const before = this.peerHas?.sequence === sequence.number ? this.peerHas.units : 0;
    this.peerHas = { sequence: sequence.number, units: Math.max(before, Math.min(ack.index, sequence.next)) };
    this.hasPicture ||= ack.index > 0;
    this.peerIsBlank &&= ack.index === 0;
  }

  /** Take the acknowledgement in a motion message: a frame's number modulo 256. */
  receiveAcknowledged(low: number): void {
    this.motion.acknowledgeLow(low);
  }

  /** Send what has waited too long. Call it several times a second while `peer` is known. */
  tick(nowS: number): void {
    this.congestionControl.silence(nowS);
    if (nowS - this.sentS >= MAX_SILENCE_S) {
      if (this.motion.waiting && !this.isFirstPictureUnsent) this.sendMotion();
      else this.sendPending();
    }
    this.chooseSize(nowS);
    this.requestSequence();
  }

  /** Send acknowledgements and reports that are due, and schedule sources. */
  sendPending(): void {
    this.sentS = now();
    this.scheduleSources(SOURCE_DELAY_S);
    const ack = this.incoming.takeAck();
    if (ack) this.control(ack);
    if (this.isFirstPictureUnsent) return;
    const report = this.incoming.takeReport(this.sentS);
    if (report) this.channels.send(MOTION_CHANNEL, controlToBytes(report));
  }

  private control(message: Control): void {
    if (this.channels.areOpen) this.channels.send(CONTROL_CHANNEL, controlToBytes(message));
  }

  private parameters(): SendParameters {
    const { isFree, sending } = this.congestionControl;
    return !this.hasPicture && isFree ? START : sending;
  }

  /** Motion is useless before the peer's first picture, and would delay it. */
  private get isFirstPictureUnsent(): boolean {
    return this.peerIsBlank && this.sources.sequence !== null && this.sources.index === 0;
  }

  private sendMotion(): void {
    if (this.channels.queued(MOTION_CHANNEL)) {
      this.blocked = true; // more would queue behind it and be outdated when it leaves
      this.motion.skip();
      return;
    }
    this.channels.send(MOTION_CHANNEL, this.motion.message(this.incoming.acknowledged));
    this.sendPending();
  }

  private scheduleSources(delayS: number): void {
    if (this.sourcesScheduled) return;
    this.sourcesScheduled = true;
    setTimeout(() => this.sendSources(), 1000 * delayS);
  }

  private sendSources(): void {
    this.sourcesScheduled = false;
    if (!this.channels.areOpen) return;
    const wasUnsent = this.isFirstPictureUnsent;
    this.sources.fill(now(), this.parameters().sourceKbps);
    let room = this.channels.queued(SOURCE_CHANNEL) ? 0 : this.hasPicture ? MAX_FLIGHT : FIRST_FLIGHT;
    while (room > 0) {
      const chunk = this.sources.chunk();
      if (!chunk) break;
      this.channels.send(SOURCE_CHANNEL, sourceChunkToBytes(chunk));
      room -= chunk.part.length;
    }
    if (this.isFirstPictureUnsent) this.scheduleSources(FIRST_PACE_S);
    else if (wasUnsent && this.motion.waiting) this.sendMotion();
  }

  /** Ask for a sequence with pictures of the other size if congestion control wants it and some wait. */
  private chooseSize(nowS: number): void {
    const { sequence } = this.sources;
    const { small } = this.congestionControl;
    if (!sequence || sequence.small === small || nowS - this.begunS < MIN_SEQUENCE_S) return;
    this.wantsSequence ||= this.sources.backlog > 0;
  }

  /** Get a sequence from the VideoSender if one is wanted; there is none before its first picture. */
  private requestSequence(): void {
    if (!this.wantsSequence || this.starting || now() - this.begunS < MIN_RESTART_S) return;
    this.starting = true;
    void this.startSequence().finally(() => (this.starting = false));
  }

  private async startSequence(): Promise<void> {
    const sequence = await this.sender.sequenceForNewcomer(this.congestionControl.small);
    if (!sequence || !this.wantsSequence || !this.channels.areOpen) return;
    [this.wantsSequence, this.begunS] = [false, now()];
    this.motion.forgetAcknowledged(); // the slots hold other sources now
    this.sources.start(sequence, 0, !this.hasPicture);
    if (this.peer) this.sendPending();
    else this.sendSources();
  }
}

function now(): number {
  return performance.now() / 1000;
}
