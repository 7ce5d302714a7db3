/** The data channels of one peer: creation on each of its connections, rate limits, byte counts (client/link/channels.py). */

import { TokenBucket } from "../token_bucket";
import { CONTROL_CHANNEL, MAX_MESSAGE, MOTION_CHANNEL, SOURCE_CHANNEL } from "./messages";

const NAMES = { [MOTION_CHANNEL]: "motion", [SOURCE_CHANNEL]: "sources", [CONTROL_CHANNEL]: "control" };
/** Received messages of a channel per second, and at once; more are dropped. */
const RATE_LIMITS = { [MOTION_CHANNEL]: [100, 200], [SOURCE_CHANNEL]: [200, 400], [CONTROL_CHANNEL]: [20, 60] };

/** Takes what arrives. */
export interface Listener {
  /** All channels of the present connection are open. */
  opened(): void;
  receive(channel: number, data: Uint8Array, nowS: number): void;
  /** A message was dropped that is too large, or over the rate of its channel. */
  dropped(nowS: number): void;
}

export class Channels {
  /** Bytes received and sent so far, over all connections. */
  received = 0;
  sent = 0;
  private channels = new Map<number, RTCDataChannel>();

  constructor(private readonly listener: Listener) {}

  get areOpen(): boolean {
    return this.channels.size > 0 && [...this.channels.values()].every(({ readyState }) => readyState === "open");
  }

  /** Create the channels on a connection, before its offer or answer; those of the connection before are forgotten. */
  attach(connection: RTCPeerConnection): void {
    this.channels = new Map();
    for (const id of [MOTION_CHANNEL, SOURCE_CHANNEL, CONTROL_CHANNEL] as const) {
      const unreliable = id === MOTION_CHANNEL ? { ordered: false, maxRetransmits: 0 } : {};
      const channel = connection.createDataChannel(NAMES[id], { negotiated: true, id, ...unreliable });
      const [perS, burst] = RATE_LIMITS[id];
      const rate = new TokenBucket(perS, burst);
      const isPresent = () => this.channels.get(id) === channel;
      channel.binaryType = "arraybuffer";
      channel.onmessage = ({ data }) => {
        if (isPresent() && data instanceof ArrayBuffer) this.receive(id, new Uint8Array(data), rate);
      };
      channel.onopen = () => isPresent() && this.areOpen && this.listener.opened();
      this.channels.set(id, channel);
    }
  }

  close(): void {
    this.channels.clear();
  }

  /** Send a message, or discard it if the channel is not open. */
  send(channel: number, data: Uint8Array): void {
    const open = this.channels.get(channel);
    if (open?.readyState !== "open") return;
    this.sent += data.length;
    open.send(data as Uint8Array<ArrayBuffer>);
  }

  /** Bytes of a channel that have not been sent yet. */
  queued(channel: number): number {
    return this.channels.get(channel)?.bufferedAmount ?? 0;
  }

  private receive(channel: number, data: Uint8Array, rate: TokenBucket): void {
    const nowS = performance.now() / 1000;
    if (data.length > MAX_MESSAGE || !rate.take(nowS)) {
      this.listener.dropped(nowS);
      return;
    }
    this.received += data.length;
    this.listener.receive(channel, data, nowS);
  }
}
