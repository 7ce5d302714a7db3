/**
 * Peer connection to one participant, replaced when it fails (client/room/peer.py). Every offer creates a connection of
 * its own; of two offers that cross, that of the participant with the smaller id gives way.
 */

import { sendMicrophone, withOpusSettings } from "../audio/transceiver";
import type { Signalling } from "./signalling";

const CONNECT_TIMEOUT_S = 12;
const MIN_ATTEMPT_S = 4;
const SILENCE_S = 6;
const POLITE_DELAY_S = 2;
const RETRY_DELAYS_S = [0.5, 1, 2, 4, 8];
const GATHERING_S = 2;
/** Headers of a packet, in bytes (IPv4 and UDP). */
const IP_UDP = 28;

/** What a connection carries. */
export interface Media {
  /** Add data channels to a new connection, before its offer or answer. */
  attach(connection: RTCPeerConnection): void;
  /** Our sound; null: none. */
  readonly microphone: MediaStreamTrack | null;
  /** Take the sound of the participant. */
  sound(track: MediaStreamTrack): void;
}

export class Peer {
  connection: RTCPeerConnection | null = null;
  private call = "";
  private offering = false;
  private createdS = -Infinity;
  private failures = 0;
  private timer = 0;
  private closed = false;
  private readonly offers = new Set<string>();

  constructor(
    readonly id: string,
    private readonly polite: boolean,
    offers: boolean,
    private readonly signalling: Signalling,
    private readonly configuration: () => RTCConfiguration,
    private readonly media: Media,
  ) {
    if (offers) void this.offer();
    else this.schedule(CONNECT_TIMEOUT_S);
  }

  get connected(): boolean {
    return this.connection?.connectionState === "connected";
  }

  /** Take a session description. What cannot be used is as good as lost. */
  async describe(kind: "offer" | "answer", sdp: string, call: string): Promise<void> {
    try {
      if (kind === "answer") await this.answered(sdp, call);
      else if (this.offering && !this.polite && now() - this.createdS < MIN_ATTEMPT_S) await this.sendDescription();
      else await this.answer(sdp, call);
    } catch {
      this.failed();
    }
  }

  /** Take a trickled candidate. */
  async candidate(candidate: RTCIceCandidateInit | null, call: string): Promise<void> {
    if (call === this.call && this.connection?.remoteDescription && candidate?.candidate) {
      await this.connection.addIceCandidate(candidate).catch(() => {});
    }
  }

  /** Return the bytes that crossed the present connection, headers included: received, sent; null if that is not known. */
  async wireBytes(): Promise<[number, number] | null> {
    const stats: Iterable<[string, Partial<RTCTransportStats>]> = (await this.connection?.getStats()) ?? [];
    for (const [, { type, bytesReceived, bytesSent, packetsReceived, packetsSent }] of stats) {
      if (type !== "transport" || bytesSent === undefined || bytesReceived === undefined) continue;
      return [bytesReceived + IP_UDP * (packetsReceived ?? 0), bytesSent + IP_UDP * (packetsSent ?? 0)];
    }
    return null;
  }

  /** Send the present microphone. */
  async changeMicrophone(): Promise<void> {
    if (this.connection) await sendMicrophone(this.connection, this.media.microphone);
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.connection?.close();
  }

  private async offer(): Promise<void> {
    if (this.closed) return;
    this.failures += 1;
    const bytes = crypto.getRandomValues(new Uint8Array(9));
    const connection = this.replace(btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_"));
    this.offers.add(this.call);
    this.offering = true;
    connection.addTransceiver("audio", { direction: "sendrecv" });
    this.media.attach(connection);
    try {
      await this.changeMicrophone();
      await connection.setLocalDescription();
      await gathered(connection);
      if (connection === this.connection) await this.sendDescription();
    } catch {
      this.failed();
    }
  }

  private async answer(sdp: string, call: string): Promise<void> {
    if (!/^m=application /m.test(sdp) || this.offers.has(call)) return; // no data channels, or handled before
    this.offers.add(call);
    this.offering = false;
    const connection = this.replace(call);
    await connection.setRemoteDescription({ type: "offer", sdp: withOpusSettings(sdp) });
    this.media.attach(connection);
    await this.changeMicrophone();
    await connection.setLocalDescription();
    await gathered(connection);
    if (connection === this.connection) await this.sendDescription();
  }

  private async answered(sdp: string, call: string): Promise<void> {
    if (!this.offering || call !== this.call || !this.connection) return;
    this.offering = false;
    await this.connection.setRemoteDescription({ type: "answer", sdp: withOpusSettings(sdp) });
  }

  private async sendDescription(): Promise<void> {
    const description = this.connection?.localDescription;
    if (description) this.signalling.sendDescription(this.id, description.toJSON(), this.call);
  }

  private replace(call: string): RTCPeerConnection {
    this.connection?.close();
    this.createdS = now();
    this.call = call;
    const connection = (this.connection = new RTCPeerConnection(this.configuration()));
    connection.ontrack = ({ track }) => this.media.sound(track);
    connection.onconnectionstatechange = () => {
      if (connection !== this.connection) return;
      const state = connection.connectionState;
      if (state === "connected") {
        this.failures = 0;
        clearTimeout(this.timer);
      } else if (state === "disconnected") this.schedule(SILENCE_S);
      else if (state === "failed") this.failed();
    };
    this.schedule(CONNECT_TIMEOUT_S);
    return connection;
  }

  private failed(): void {
    this.schedule(RETRY_DELAYS_S[Math.min(this.failures, RETRY_DELAYS_S.length - 1)]);
  }

  /** Make another offer after a delay, unless a connection works by then. */
  private schedule(delayS: number): void {
    clearTimeout(this.timer);
    const polite = this.polite ? POLITE_DELAY_S : 0;
    this.timer = window.setTimeout(() => !this.connected && void this.offer(), 1000 * (delayS + polite));
  }
}

/** Wait until all candidates are in the description, for GATHERING_S at most. */
function gathered(connection: RTCPeerConnection): Promise<void> {
  return new Promise((resolve) => {
    if (connection.iceGatheringState === "complete") resolve();
    setTimeout(resolve, 1000 * GATHERING_S);
    connection.onicegatheringstatechange = () => connection.iceGatheringState === "complete" && resolve();
  });
}

function now(): number {
  return performance.now() / 1000;
}
