import { type Hello, parseMotionMessage, parseSourceChunk, PROTOCOL } from "../src/link/messages";
import { OutgoingVideo } from "../src/link/outgoing";
import { SourceAssembler } from "../src/link/receive";
import { makeTables } from "../src/motion/tables";
import { Loader } from "../src/runtime/load";
import { VideoCoder } from "../src/sender/coder";
import type { Coded, Command } from "../src/sender/messages";
import { encodingMode, SourceEncoder } from "../src/sources/av1_encoder";
import { av1Maker } from "../src/sources/webcodecs";
import { VideoSender } from "../src/video/video_sender";

const SIZE = 256;
let simMs = 0;
type Timer = { at: number; id: number; work: () => void; every: number };
let timers: Timer[] = [];
let ids = 1;
const real = window.setTimeout.bind(window);

async function run(name: string, frames: number) {
  const loader = new Loader(document.baseURI);
  const { runtime, tables: file } = await loader.loadSize(SIZE, () => {});
  const tables = makeTables(file);
  const make = await av1Maker();
  const mode = await encodingMode(SIZE);
  const origin = 1000;
  simMs = origin;
  performance.now = () => simMs;
  Object.assign(window, {
    setTimeout: (work: () => void, ms = 0) => (timers.push({ at: simMs + ms, id: ++ids, work, every: 0 }), ids),
    setInterval: (work: () => void, ms = 0) => (timers.push({ at: simMs + ms, id: ++ids, work, every: ms }), ids),
    clearTimeout: (id: number) => (timers = timers.filter((t) => t.id !== id)),
    clearInterval: (id: number) => (timers = timers.filter((t) => t.id !== id)),
  });
  const later = (ms: number, work: () => void) => timers.push({ at: simMs + ms, id: ++ids, work, every: 0 });
  const drain = () => new Promise<void>((resolve) => { const c = new MessageChannel(); c.port1.onmessage = () => resolve(); c.port2.postMessage(0); });
  async function advance(toMs: number) {
    for (;;) {
      const due = timers.filter((t) => t.at <= toMs).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      simMs = Math.max(simMs, due.at);
      if (due.every) due.at += due.every;
      else timers = timers.filter((t) => t !== due);
      due.work();
      await drain();
      while (jobs.length) await (jobs.shift() as () => Promise<void>)();
    }
    simMs = toMs;
  }
  const jobs: (() => Promise<void>)[] = [];
  const log: { at: number; channel: number; data: string }[] = [];
  let coder: VideoCoder;
  const post = (command: Command) => {
    if (command.type === "links") coder.links(command.sequences, command.known, command.behind, command.idle, simMs);
    else if (command.type === "begin") jobs.push(async () => sender.receive({ type: "begun", job: command.job, sequence: await coder.begin(command.small, command.count, simMs) }));
  };
  const sender: VideoSender = new VideoSender(post, () => {});
  coder = new VideoCoder(runtime, (small) => new SourceEncoder(SIZE, small, mode as never, make), Float64Array.from(file.transform.directions), (coded: Coded) => sender.receive(coded));
  const assembler = new SourceAssembler();
  let newest: number | null = null;
  let messages = 0;
  const channels = {
    areOpen: true,
    queued: () => 0,
    send(channel: number, data: Uint8Array) {
      const copy = data.slice();
      log.push({ at: simMs - origin, channel, data: btoa(String.fromCharCode(...copy)) });
      later(20, () => {
        if (channel === 2) {
          const unit = assembler.take(copy);
          parseSourceChunk(copy);
          if (unit) later(250, () => outgoing.receiveSourceAck({ kind: "ack", sequence: assembler.sequence as number, index: assembler.index }));
        } else if (channel === 1 && copy[0] < 0x80) {
          const { packet } = parseMotionMessage(copy);
          newest = Math.max(newest ?? -1, packet.first + packet.count - 1);
          messages += 1;
        }
      });
    },
  };
  let filmed = 0;
  let reportedMs = 0;
  const pending = {
    takeAck: () => null,
    takeReport: () => {
      if (simMs - reportedMs < 1000) return null;
      reportedMs = simMs;
      return { kind: "report" as const, sentMs: Math.round(simMs), echoMs: Math.round(simMs) - 500, heldMs: 480, messages: 6, lost: 0, queuedMs: 0, acknowledged: filmed, shown: 25 };
    },
    get acknowledged() { return filmed; },
  };
  const outgoing: OutgoingVideo = new OutgoingVideo(tables, sender, channels, pending);
  outgoing.attach();
  sender.pause(false);
  outgoing.channelsOpened();
  const hello: Hello = { kind: "hello", protocol: PROTOCOL, model: new Uint8Array(8), tables: 0, stream: 1, sequence: null, index: 0 };
  later(40, () => outgoing.receiveHello(hello, false));
  setInterval(() => outgoing.tick(simMs / 1000), 100);
  setInterval(() => { filmed += 4; if (newest !== null) { const n = newest & 0xff; later(20, () => outgoing.receiveAcknowledged(n)); } }, 160);
  setInterval(() => { const n = newest; const m = messages; messages = 0; later(20, () => outgoing.receiveReport({ kind: "report", sentMs: Math.round(simMs), echoMs: null, heldMs: 0, messages: m, lost: 0, queuedMs: 0, acknowledged: n, shown: 25 }, simMs / 1000)); }, 1000);
  const started = Date.now();
  for (let n = 0; n < frames; n++) {
    await advance(origin + 40 * n);
    const data = new Uint8Array(await (await fetch(`frames/${name}/${n}.rgb`)).arrayBuffer());
    await coder.push({ side: SIZE, data }, performance.timeOrigin + simMs, null);
    await drain();
    while (jobs.length) await (jobs.shift() as () => Promise<void>)();
    if (n % 50 === 0) console.log(name, n, (Date.now() - started) / 1000);
  }
  return { log, sources: coder.counts };
}
Object.assign(window, { run, real });
document.body.dataset.ready = "1";
