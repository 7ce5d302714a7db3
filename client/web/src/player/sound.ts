/** The sound of a file, from any position (RFC 7845). */

import type { AudioHeader } from "../bitstream/header";
import type { AudioPacket } from "../bitstream/packets";
import { AUDIO_RATE, opusSamples } from "../media/opus";

/** Samples decoded and dropped before a start, so that the decoder has converged (RFC 7845, section 4.6). */
const PREROLL = (AUDIO_RATE * 80) / 1000;
/** Seconds of sound that are decoded ahead. */
const AHEAD_S = 2;
const FEED_MS = 200;
/** Feeds after which the clock starts without sound. */
const MAX_WAITS = 10;
/** Seconds from the first decoded block to when it is played. */
const LATENCY_S = 0.05;

interface OpusPacket {
  /** Number of the first sample, without the pre-skip. */
  at: number;
  data: Uint8Array;
}

/** Return whether this browser can decode the sound of files. */
export async function canDecodeOpus(): Promise<boolean> {
  if (typeof AudioDecoder === "undefined") return false;
  try {
    return (await AudioDecoder.isConfigSupported(CONFIG)).supported ?? false;
  } catch {
    return false;
  }
}

const CONFIG = { codec: "opus", sampleRate: AUDIO_RATE, numberOfChannels: 1 };

/** Lay out the packets on the time line; what overlaps is dropped, and gaps are silence. */
export function layOut(packets: AudioPacket[], preSkip: number): OpusPacket[] {
  const out: OpusPacket[] = [];
  let end = 0;
  for (const packet of packets) {
    if (packet.first < end) continue;
    end = packet.first;
    for (const data of packet.packets) {
      out.push({ at: end - preSkip, data });
      end += opusSamples(data);
    }
  }
  return out;
}

export class Sound {
  /** Samples given to the sound device since the last start. */
  scheduled = 0;
  private readonly packets: OpusPacket[];
  private readonly context = new AudioContext({ sampleRate: AUDIO_RATE });
  private readonly volume = this.context.createGain();
  private decoder: AudioDecoder | null = null;
  private timer = 0;
  private next = 0;
  /** Time of the context at `startS`; null while the first sound is being decoded. */
  private startedAt: number | null = null;
  /** Packets given to the decoder that it has not returned. */
  private decoding = 0;
  private waited = 0;
  private startS = 0;
  private playing: AudioBufferSourceNode[] = [];

  constructor(packets: AudioPacket[], header: AudioHeader) {
    this.packets = layOut(packets, header.preSkip);
    this.volume.connect(this.context.destination);
  }

  set muted(muted: boolean) {
    this.volume.gain.value = muted ? 0 : 1;
  }

  /** Let the browser open the sound device; call it on a click or a key. */
  async resume(): Promise<void> {
    await this.context.resume();
  }

  /** Return whether the clock runs: browsers hold it until the page is clicked. */
  get running(): boolean {
    return this.context.state === "running";
  }

  /** Position in seconds. */
  get position(): number {
    return this.startS + (this.startedAt === null ? 0 : Math.max(0, this.context.currentTime - this.startedAt));
  }

  /** Play from `atS` seconds on; the clock starts when there is something to hear. */
  start(atS: number): void {
    this.stop();
    this.startS = atS;
    this.scheduled = 0;
    this.startedAt = null;
    this.waited = 0;
    const first = Math.round(atS * AUDIO_RATE) - PREROLL;
    const later = this.packets.findIndex((packet) => packet.at > first);
    this.next = Math.max(0, (later < 0 ? this.packets.length : later) - 1);
    this.feed();
    this.timer = window.setInterval(() => this.feed(), FEED_MS);
  }

  /** Stop at once. */
  stop(): void {
    clearInterval(this.timer);
    for (const node of this.playing) node.stop();
    this.playing = [];
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.decoder = null;
    this.decoding = 0;
  }

  /** Free the sound device. */
  close(): void {
    this.stop();
    void this.context.close();
  }

  private feed(): void {
    const until = (this.position + AHEAD_S) * AUDIO_RATE;
    while (this.next < this.packets.length && this.packets[this.next].at < until) {
      const { at, data } = this.packets[this.next++];
      this.decoder ??= this.newDecoder();
      this.decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: timestampOf(at), data }));
      this.decoding += 1;
    }
    if (this.decoding === 0 || this.waited++ > MAX_WAITS) {
      this.startedAt ??= this.context.currentTime; // silence, or sound that cannot be decoded
    }
  }

  /** A damaged packet ends its decoder; the next packet gets a new one. */
  private newDecoder(): AudioDecoder {
    const decoder = new AudioDecoder({
      output: (audio) => {
        if (decoder === this.decoder) {
          this.decoding -= 1;
          this.schedule(audio);
        }
        audio.close();
      },
      error: () => {
        if (decoder !== this.decoder) return;
        this.decoder = null;
        this.decoding = 0;
      },
    });
    decoder.configure(CONFIG);
    return decoder;
  }

  private schedule(audio: AudioData): void {
    const at = sampleOf(audio.timestamp);
    const skip = Math.max(0, Math.round(this.startS * AUDIO_RATE) - at); // the pre-roll
    const count = audio.numberOfFrames - skip;
    if (count <= 0) return;
    const buffer = this.context.createBuffer(1, count, AUDIO_RATE);
    audio.copyTo(buffer.getChannelData(0), { planeIndex: 0, frameOffset: skip, format: "f32-planar" });
    this.startedAt ??= this.context.currentTime + LATENCY_S;
    const when = this.startedAt + (at + skip) / AUDIO_RATE - this.startS;
    const late = this.context.currentTime - when;
    if (late > count / AUDIO_RATE) return;
    const node = this.context.createBufferSource();
    node.buffer = buffer;
    node.connect(this.volume);
    node.start(Math.max(0, when), Math.max(0, late));
    this.playing.push(node);
    this.scheduled += count;
    node.onended = () => {
      this.playing = this.playing.filter((other) => other !== node);
    };
  }
}

/** Time stamps are microseconds, and samples of the pre-skip have negative numbers. */
const ORIGIN = AUDIO_RATE;

function timestampOf(sample: number): number {
  return Math.round(((sample + ORIGIN) * 1e6) / AUDIO_RATE);
}

function sampleOf(timestamp: number): number {
  return Math.round((timestamp * AUDIO_RATE) / 1e6) - ORIGIN;
}
