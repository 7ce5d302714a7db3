import { beforeEach, expect, test, vi } from "vitest";
import { Channels, type Listener } from "../../src/link/channels";
import { type DecodedSource, IncomingVideo, type Model, type Renderer } from "../../src/link/incoming";
import { Link } from "../../src/link/link";
import { CONTROL_CHANNEL, controlToBytes, type Hello, MOTION_CHANNEL, parseControl, SOURCE_CHANNEL } from "../../src/link/messages";
import { makeTables } from "../../src/motion/tables";
import type { VideoSender } from "../../src/video/video_sender";
import { bytes, vectorsOf } from "../support/vectors";

const { assembled, tables } = { ...vectorsOf("motion"), ...vectorsOf("receiving") };
const [firstHalf, secondHalf, repeated, gap] = assembled.map(({ data }: { data: string }) => bytes(data));
const model: Model = { digest: new Uint8Array(8), keypoints: 20, tables: makeTables(tables) };

/** A connection whose channels keep what is sent. */
class Connection {
  readonly connectionState = "connected";
  readonly channels: { id: number; readyState: string; onopen(): void; onmessage(event: { data: ArrayBuffer }): void }[] = [];
  readonly sent: [number, Uint8Array][] = [];

  createDataChannel(_: string, { id }: { id: number }): unknown {
    const send = (data: Uint8Array) => this.sent.push([id, data]);
    const channel = { id, readyState: "connecting", bufferedAmount: 0, onopen() {}, onmessage() {}, send };
    this.channels.push(channel);
    return channel;
  }

  open(): void {
    for (const channel of this.channels) channel.readyState = "open";
    for (const channel of this.channels) channel.onopen();
  }

  arrive(id: number, data: Uint8Array): void {
    this.channels.find((channel) => channel.id === id)?.onmessage({ data: Uint8Array.from(data).buffer });
  }

  get peer(): RTCPeerConnection {
    return this as unknown as RTCPeerConnection;
  }
}

const picture: DecodedSource = { side: 1, data: new ArrayBuffer(4), space: null };
const renderer = { source: vi.fn(async () => picture as DecodedSource | null), frame: vi.fn(), reset: vi.fn() };
const sender = { join() {}, leave() {}, paused: false, faceLost: false, sequenceForNewcomer: async () => null };

beforeEach(() => {
  vi.stubGlobal("window", globalThis);
  vi.clearAllMocks();
});

test("channels count bytes, bound rates and sizes, and forget the connection before", () => {
  const listener = { opened: vi.fn(), receive: vi.fn(), dropped: vi.fn() } satisfies Listener;
  const channels = new Channels(listener);
  const [before, present] = [new Connection(), new Connection()];
  for (const connection of [before, present]) channels.attach(connection.peer);
  channels.send(CONTROL_CHANNEL, new Uint8Array(9)); // not open yet: discarded
  for (const connection of [before, present]) connection.open();
  expect(listener.opened).toHaveBeenCalledTimes(3);
  channels.send(CONTROL_CHANNEL, new Uint8Array(5));
  before.arrive(CONTROL_CHANNEL, new Uint8Array(7));
  for (let n = 0; n < 100; n++) present.arrive(CONTROL_CHANNEL, new Uint8Array(1));
  present.arrive(SOURCE_CHANNEL, new Uint8Array(5000));
  expect([channels.sent, channels.received, listener.receive.mock.calls.length, listener.dropped.mock.calls.length]).toEqual([5, 60, 60, 41]);
});

test("sources are decoded, shown to be acknowledged, and asked for anew when they cannot be continued", async () => {
  const decoded = vi.fn();
  const incoming = new IncomingVideo(model, renderer as Renderer, () => {}, decoded);
  incoming.receiveSource(firstHalf);
  expect(incoming.takeAck()).toBeNull();
  incoming.receiveSource(secondHalf);
  await vi.waitFor(() => expect(decoded).toHaveBeenCalledOnce());
  expect([incoming.hasSource, incoming.place, incoming.takeAck()]).toEqual([true, { sequence: 5, index: 1 }, { kind: "ack", sequence: 5, index: 1 }]);
  expect(incoming.takeAck()).toBeNull();
  incoming.receiveSource(repeated); // its sender does not know that it arrived
  expect([incoming.takeAck()?.index, incoming.wantsFresh]).toEqual([1, false]);
  incoming.receiveSource(gap);
  expect([incoming.wantsFresh, incoming.place]).toEqual([true, { sequence: null, index: 0 }]);
  incoming.wantsFresh = false;
  renderer.source.mockResolvedValueOnce(null); // a picture that cannot be decoded
  for (const half of [firstHalf, secondHalf]) incoming.receiveSource(half);
  await vi.waitFor(() => expect(incoming.wantsFresh).toBe(true));
  expect(decoded).toHaveBeenCalledOnce();
});

test("reports are taken once and in order, and sent every second", () => {
  const incoming = new IncomingVideo(model, renderer as Renderer, () => {}, () => {});
  const report = incoming.takeReport(performance.now() / 1000 + 1.1)!;
  expect([report.kind, report.messages, report.lost, report.echoMs]).toEqual(["report", 0, 0, null]);
  expect(incoming.takeReport(performance.now() / 1000 + 1.2)).toBeNull();
  expect([9, 9, 8, 10].map((sentMs) => incoming.receiveReport({ ...report, sentMs }, 5))).toEqual([true, false, false, true]);
  expect(incoming.takeReport(performance.now() / 1000 + 2.2)?.echoMs).toBe(10);
});

test("a link goes from hello to pictures, keeps early sources, and begins anew with another stream", async () => {
  const connection = new Connection();
  const link = new Link(model, sender as unknown as VideoSender, renderer as Renderer, () => {});
  link.attach(connection.peer);
  expect(link.state).toBe("connecting");
  connection.open();
  const hello = parseControl(connection.sent.find(([id]) => id === CONTROL_CHANNEL)![1]) as Hello;
  const say = (changes: Partial<Hello>) => connection.arrive(CONTROL_CHANNEL, controlToBytes({ ...hello, ...changes }));
  for (const half of [firstHalf, secondHalf]) connection.arrive(SOURCE_CHANNEL, half);
  say({ model: new Uint8Array(8).fill(1) });
  expect(link.state).toBe("another version or size");
  expect(renderer.source).not.toHaveBeenCalled();
  say({});
  expect(link.state).toBe("waiting for first picture");
  await vi.waitFor(() => expect(link.state).toBe("frozen")); // a source, and no motion yet
  connection.arrive(CONTROL_CHANNEL, controlToBytes({ kind: "status", cameraOff: true, faceLost: false }));
  expect([link.state, renderer.reset.mock.calls.length]).toEqual(["camera off", 0]);
  for (let n = 1; n < 9; n++) say({ stream: (hello.stream + n) >>> 0 });
  expect(renderer.reset).toHaveBeenCalledTimes(5); // as many as a peer may begin at once
  for (let n = 0; n < 50; n++) connection.arrive(MOTION_CHANNEL, new Uint8Array([9, 9]));
  expect(link.state).toBe("sends too much, not shown");
  link.attach(new Connection().peer);
  expect(link.state).toBe("reconnecting");
  link.close();
});
