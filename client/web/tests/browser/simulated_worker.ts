/**
 * The sending half of a call on a simulated clock: coder, AV1, network, links' pacing, as the page runs them. The peer
 * is simulated: it is 20 ms away, films, too, and acknowledges what it has with its messages.
 */

import { OutgoingVideo } from "../../src/link/outgoing";
import { MOTION_CHANNEL, parseMotionMessage, parseSourceChunk, SOURCE_CHANNEL } from "../../src/link/messages";
import { makeTables } from "../../src/motion/tables";
import { Loader } from "../../src/runtime/load";
import { VideoCoder } from "../../src/sender/coder";
import { encodingMode, SourceEncoder } from "../../src/sources/av1_encoder";
import { av1Maker } from "../../src/sources/webcodecs";
import { VideoSender } from "../../src/video/video_sender";
import type { Command } from "../../src/sender/messages";

const SIZE = 256;
const DELAY_MS = 20;
/** When the channels are open, and the interval of the peer's messages. */
const OPEN_MS = 200;
const PEER_MS = 160;
const REPORT_MS = 1000;

/** Messages with the time at which they left, as base64. */
export interface Result {
  messages: { atMs: number; channel: number; data: string }[];
  sources: number;
}

/** A clock that jumps from timer to timer. */
class Clock {
  nowMs = 0;
  private readonly real = setTimeout.bind(globalThis);
  private readonly timers = new Map<number, { atMs: number; work(): void }>();
  private last = 0;

  /** Take the place of the clock and the timers of this worker. */
  install(): void {
    performance.now = () => this.nowMs;
    const after = (work: () => void, ms = 0) => this.at(this.nowMs + ms, work);
    const every = (work: () => void, ms: number) => {
      const id = (this.last += 1);
      const again = () => {
        this.timers.set(id, { atMs: this.nowMs + ms, work: again });
        work();
      };
      this.timers.set(id, { atMs: this.nowMs + ms, work: again });
      return id;
    };
    const cancel = (id: number) => this.timers.delete(id);
    const own = { setTimeout: after, clearTimeout: cancel, setInterval: every, clearInterval: cancel };
    Object.assign(globalThis, own, { window: globalThis });
  }

  at(atMs: number, work: () => void): number {
    this.last += 1;
    this.timers.set(this.last, { atMs, work });
    return this.last;
  }

  /** Run all timers up to a time. */
  async advance(toMs: number): Promise<void> {
    for (;;) {
      const [id, next] = [...this.timers].reduce((a, b) => (b[1].atMs < a[1].atMs ? b : a), [0, { atMs: Infinity, work: () => {} }]);
      if (next.atMs > toMs) break;
      this.timers.delete(id);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.work();
      await this.settle();
    }
    this.nowMs = toMs;
  }

  /** Let promises go on that wait for nothing. */
  settle(): Promise<void> {
    return new Promise((resolve) => this.real(resolve));
  }
}

async function simulate(fps: number): Promise<Result> {
  const loader = new Loader(new URL("/", location.href).href);
  const { runtime: loading, tables } = await loader.loadSize(SIZE, () => {});
  const runtime = await loading;
  const [make, mode] = [await av1Maker(), await encodingMode(SIZE)];
  if (!mode) throw new Error("This browser cannot encode AV1.");
  const camera = new Uint8Array(await (await fetch("/camera.rgb")).arrayBuffer());
  const clock = new Clock();
  clock.install();
  const result: Result = { messages: [], sources: 0 };
  const directions = Float64Array.from(tables.transform.directions);
  const post = (command: Command) => {
    const origin = performance.timeOrigin + clock.nowMs;
    if (command.type === "links") coder.links(command, origin);
    else if (command.type === "begin") throw new Error("The peer has asked for another sequence.");
  };
  const sender = new VideoSender(post, () => {});
  const coder = new VideoCoder(runtime, (small) => new SourceEncoder(SIZE, small, mode, make), directions, (coded) => {
    result.sources += Number(coded.type === "unit" && coded.source !== null);
    sender.receive(coded);
  });
  sender.paused = false;
  const channels = { areOpen: false, queued: () => 0, send: (channel: number, data: Uint8Array) => sent(channel, data) };
  const outgoing: OutgoingVideo = new OutgoingVideo(makeTables(tables), sender, channels, {
    takeAck: () => null,
    takeReport: () => null,
    acknowledged: null,
  });
  const peer = new Peer(clock, outgoing);
  const sent = (channel: number, data: Uint8Array) => {
    if (channel !== MOTION_CHANNEL && channel !== SOURCE_CHANNEL) return;
    result.messages.push({ atMs: clock.nowMs, channel, data: btoa(String.fromCharCode(...data)) });
    clock.at(clock.nowMs + DELAY_MS, () => peer.receive(channel, data));
  };
  clock.at(OPEN_MS, () => {
    channels.areOpen = true;
    outgoing.channelsOpened();
    clock.at(clock.nowMs + DELAY_MS, () => peer.greet());
  });
  setInterval(() => outgoing.peer && outgoing.tick(clock.nowMs / 1000), 100);
  const bytes = 3 * SIZE ** 2;
  for (let n = 0; (n + 1) * bytes <= camera.length; n++) {
    await clock.advance((n * 1000) / fps);
    const picture = { side: SIZE, data: camera.slice(n * bytes, (n + 1) * bytes) };
    await coder.push(picture, performance.timeOrigin + clock.nowMs, null);
    await clock.settle();
  }
  return result;
}

/** The other end, as far as a sender notices it. */
class Peer {
  private newest: number | null = null;
  private units: { sequence: number; index: number } | null = null;
  private known = 0;
  private messages = 0;

  constructor(
    private readonly clock: Clock,
    private readonly outgoing: OutgoingVideo,
  ) {}

  greet(): void {
    const hello = { protocol: 0, model: new Uint8Array(8), tables: 0, stream: 1, sequence: null, index: 0 };
    this.outgoing.receiveHello({ kind: "hello", ...hello }, false);
    setInterval(() => this.tell(), PEER_MS);
    setInterval(() => this.report(), REPORT_MS);
  }

  receive(channel: number, data: Uint8Array): void {
    if (channel === MOTION_CHANNEL) {
      const { first, count } = parseMotionMessage(data).packet;
      this.newest = first + count - 1;
      this.messages += 1;
      return;
    }
    const { sequence, index, length, offset, part } = parseSourceChunk(data);
    if (offset + part.length < length) return;
    this.units = { sequence, index: index + 1 };
    if (!index) this.tell(); // a first source is acknowledged at once
  }

  /** A message of the peer leaves. */
  private tell(): void {
    const { newest, units } = this;
    this.clock.at(this.clock.nowMs + DELAY_MS, () => {
      if (newest !== null) this.outgoing.receiveAcknowledged(newest & 0xff);
      if (!units || units.index === this.known) return;
      this.known = units.index;
      this.outgoing.receiveSourceAck({ kind: "ack", ...units });
    });
  }

  private report(): void {
    const { messages } = this;
    this.messages = 0;
    const rest = { sentMs: this.clock.nowMs, echoMs: null, heldMs: 0, lost: 0, queuedMs: 0, acknowledged: null, shown: 25 };
    this.clock.at(this.clock.nowMs + DELAY_MS, () => this.outgoing.receiveReport({ kind: "report", messages, ...rest }, this.clock.nowMs / 1000));
  }
}

const scope = self as unknown as DedicatedWorkerGlobalScope;
scope.onmessage = ({ data }: MessageEvent<number>) => {
  simulate(data).then(
    (result) => scope.postMessage(result),
    (error: Error) => scope.postMessage(String(error.stack ?? error)),
  );
};
