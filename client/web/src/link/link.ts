/**
 * The video of one peer, in both directions, on the data channels of a peer connection (client/link/link.py). A link
 * outlives its connection: after a network change it goes on over another one. Times in seconds.
 */

import { FormatError } from "../errors";
import type { Tables } from "../motion/tables";
import { TokenBucket } from "../token_bucket";
import type { VideoSender } from "../video/video_sender";
import { Channels } from "./channels";
import { IncomingVideo, type Model, type Pixels, type Renderer } from "./incoming";
import {
  type Control,
  CONTROL_CHANNEL,
  controlToBytes,
  type Hello,
  isControl,
  MOTION_CHANNEL,
  parseControl,
  PROTOCOL,
  SOURCE_CHANNEL,
} from "./messages";
import { OutgoingVideo } from "./outgoing";
import { Untimely } from "./receive";
import { certificatesOf, type Exchange, Verification } from "./verification";

const TICK_MS = 100;
const FROZEN_S = 1.5;
const FRESH_S = 2;
const MAX_EARLY = 64;
const STREAMS_PER_S = 0.2;
const STREAM_BURST = 5;

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

export class Link {
  readonly channels = new Channels(this);
  readonly incoming: IncomingVideo;
  readonly outgoing: OutgoingVideo;
  private connection: RTCPeerConnection | null = null;
  private readonly stream = Math.floor(Math.random() * 2 ** 32);
  private peerStream: number | null = null;
  private isIncompatible = false;
  /** Whether there has been a compatible hello on any connection. */
  private began = false;
  /** Whether the hello was sent on the present connection. */
  private greeted = false;
  private early: Uint8Array[] = [];
  private readonly verification = new Verification();
  private isVerifying = false;
  /** Steps of the verification, one after the other. */
  private verified: Promise<void> = Promise.resolve();
  private readonly streams = new TokenBucket(STREAMS_PER_S, STREAM_BURST);
  /** When a fresh sequence was last asked for. */
  private askedS = -Infinity;
  private readonly ticker = window.setInterval(() => this.tick(), TICK_MS);

  /** `show`: draw a picture of the peer, now. */
  constructor(
    private readonly model: Model,
    sender: VideoSender,
    renderer: Renderer,
    show: (pixels: Pixels) => void,
  ) {
    this.incoming = new IncomingVideo(model, renderer, show, () => this.outgoing.sendPending());
    this.outgoing = new OutgoingVideo(model.tables, sender, this.channels, this.incoming);
  }

  /** Three words that the participant sees, too, unless somebody sits in between; null until they are known. */
  get words(): string | null {
    return this.verification.words;
  }

  get state(): LinkState {
    if (this.isIncompatible) return "another version or size";
    const lost = ["disconnected", "failed", "closed"].includes(this.connection?.connectionState ?? "");
    if (!this.channels.areOpen || !this.peer || lost) return this.began ? "reconnecting" : "connecting";
    const { arrivedS, conduct, hasSource, status } = this.incoming;
    if (conduct.isIgnored(now())) return "sends too much, not shown";
    if (status.cameraOff) return "camera off";
    if (status.faceLost) return "face lost";
    if (!hasSource) return "waiting for first picture";
    return arrivedS === null || now() - arrivedS > FROZEN_S ? "frozen" : "live";
  }

  /** Continue on a connection, before its offer or answer: both sides keep their libraries. */
  attach(connection: RTCPeerConnection): void {
    this.incoming.newConnection();
    this.connection = connection;
    this.outgoing.attach();
    this.greeted = this.isVerifying = false;
    this.early = [];
    this.channels.attach(connection);
  }

  close(): void {
    clearInterval(this.ticker);
    this.incoming.close();
    this.outgoing.close();
    this.channels.close();
  }

  // Called by the channels

  opened(): void {
    if (this.greeted) return; // another one would ask for a fresh sequence
    this.greeted = true;
    this.sendHello();
    this.verify();
    if (!this.began) this.outgoing.channelsOpened();
  }

  dropped(nowS: number): void {
    this.incoming.conduct.offended(nowS);
  }

  receive(channel: number, data: Uint8Array, nowS: number): void {
    try {
      if (channel === CONTROL_CHANNEL || (channel === MOTION_CHANNEL && isControl(data))) {
        this.receiveControl(parseControl(data), channel, nowS);
      } else if (!this.peer) {
        if (channel === SOURCE_CHANNEL && this.early.length < MAX_EARLY) this.early.push(data);
      } else if (this.incoming.conduct.ignores(nowS)) {
        return;
      } else if (channel === MOTION_CHANNEL) {
        const acknowledged = this.incoming.receiveMotion(data, nowS);
        if (acknowledged !== null) this.outgoing.receiveAcknowledged(acknowledged);
      } else this.incoming.receiveSource(data);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error; // dropped, as if it had been lost
      if (!(error instanceof Untimely)) this.dropped(nowS);
    }
  }

  private get peer(): Hello | null {
    return this.outgoing.peer;
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
      for (const message of await step()) this.channels.send(CONTROL_CHANNEL, controlToBytes(message));
    });
  }

  private sendHello(): void {
    const { digest, tables } = this.model;
    const hello: Hello = {
      kind: "hello",
      protocol: PROTOCOL,
      model: digest,
      tables: tablesId(tables),
      stream: this.stream,
      ...this.incoming.place,
    };
    this.channels.send(CONTROL_CHANNEL, controlToBytes(hello));
    this.outgoing.statusChanged();
  }

  private receiveControl(message: Control, channel: number, nowS: number): void {
    if ((message.kind === "report") !== (channel === MOTION_CHANNEL)) return;
    if (message.kind === "hello") this.receiveHello(message);
    else if (message.kind === "commitment" || message.kind === "nonce") {
      this.verify(); // the peer's channel may have opened first
      this.exchange(() => this.verification.receive(message, nowS));
    } else if (!this.peer) return;
    else if (message.kind === "status") this.incoming.status = message;
    else if (message.kind === "ack") this.outgoing.receiveSourceAck(message);
    else if (this.incoming.receiveReport(message, nowS)) this.outgoing.receiveReport(message, nowS);
  }

  private receiveHello(hello: Hello): void {
    const { digest, tables } = this.model;
    const sameModel = hello.model.every((byte, n) => byte === digest[n]);
    if (hello.protocol !== PROTOCOL || !sameModel || hello.tables !== tablesId(tables)) {
      this.isIncompatible = this.peer === null;
      return;
    }
    const isNewStream = this.peerStream !== null && this.peerStream !== hello.stream;
    if (isNewStream && !this.streams.take(now())) return;
    this.isIncompatible = false;
    if (isNewStream) this.incoming.reset();
    this.peerStream = hello.stream;
    this.began = true;
    this.outgoing.receiveHello(hello, isNewStream);
    const { early } = this;
    this.early = [];
    for (const data of early) this.incoming.receiveSource(data);
  }

  private tick(): void {
    if (!this.peer) return;
    const nowS = now();
    if (this.incoming.wantsFresh && nowS - this.askedS >= FRESH_S) {
      this.incoming.wantsFresh = false;
      this.askedS = nowS;
      this.sendHello();
    }
    this.outgoing.tick(nowS);
    this.incoming.render();
  }
}

function now(): number {
  return performance.now() / 1000;
}

/** What a hello says of the tables of both motion coders. */
function tablesId({ predictive, transform }: Tables): number {
  return (predictive.id ^ transform.id) >>> 0;
}
