/** Codes the camera of a call away from the page's thread, which has the data channels. */

import { messageOf } from "../errors";
import { Loader } from "../runtime/load";
import { encodingMode, SourceEncoder } from "../sources/av1_encoder";
import { av1Maker } from "../sources/webcodecs";
import { LiveCrop } from "./camera";
import { VideoCoder } from "./coder";
import type { Command, SenderAnswer } from "./messages";
import { Pace } from "./pace";

const scope = self as unknown as DedicatedWorkerGlobalScope;
let coder: VideoCoder;
let crop: LiveCrop;
let paused = true;
let camera: ReadableStreamDefaultReader<VideoFrame> | null = null;
/** The coder does one thing after the other. */
let turn: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }: MessageEvent<Command>) => {
  if (data.type === "load") enqueue(() => load(data.base, data.size));
  else if (data.type === "camera") void follow(data.frames);
  else if (data.type === "picture") void enqueue(() => take(data.picture, data.capturedMs));
  else if (data.type === "pause") paused = data.on;
  else if (data.type === "links") {
    enqueue(async () => coder.links(data, nowMs()));
  } else {
    enqueue(async () => answer({ type: "begun", job: data.job, sequence: await coder.begin(data.small, data.count, nowMs()) }));
  }
};

function enqueue(work: () => Promise<void>): Promise<void> {
  // One picture that cannot be coded must not end the call.
  turn = turn.then(work).catch((error) => console.warn(messageOf(error)));
  return turn;
}

async function load(base: string, size: number): Promise<void> {
  try {
    const loader = new Loader(base);
    const progress = (bytes: number, total: number) => answer({ type: "loading", bytes, total });
    const { runtime: loading, tables } = await loader.loadSize(size, progress);
    const runtime = await loading;
    const faces = await loader.loadFaceDetector();
    const make = await av1Maker();
    const mode = await encodingMode(size);
    if (!mode) throw new Error("this browser cannot encode AV1.");
    crop = new LiveCrop(size, faces);
    const directions = Float64Array.from(tables.transform.directions);
    coder = new VideoCoder(runtime, (small) => new SourceEncoder(size, small, mode, make), directions, answer);
    answer({ type: "loaded" });
  } catch (error) {
    answer({ type: "failed", message: messageOf(error) });
  }
}

/** Code the frames of a camera until it ends or another one takes its place. Of waiting frames the newest is coded. */
async function follow(frames: ReadableStream<VideoFrame>): Promise<void> {
  await camera?.cancel().catch(() => {});
  const reader = (camera = frames.getReader());
  const clock = new CaptureClock();
  const pace = new Pace();
  for (;;) {
    const { done, value: frame } = await reader.read();
    if (done) return;
    const capturedMs = clock.at(frame.timestamp / 1000);
    if (!paused && reader === camera && pace.takes(frame.timestamp / 1000)) {
      await enqueue(() => push(frame, frame.displayWidth, frame.displayHeight, capturedMs));
    }
    frame.close();
  }
}

/** Converts the time stamps of a camera, which are even, to our clock, on which frames arrive unevenly. */
class CaptureClock {
  private offsetMs = Infinity;
  private lastMs = 0;

  at(stampMs: number): number {
    const offsetMs = nowMs() - stampMs;
    if (Math.abs(offsetMs - this.offsetMs) > 1000) this.offsetMs = offsetMs;
    this.offsetMs = Math.min(offsetMs, this.offsetMs + 0.02); // clocks drift
    this.lastMs = Math.max(this.lastMs, stampMs + this.offsetMs);
    return this.lastMs;
  }
}

/** Code a single picture. The page sends the next one when this one is in hand, so that no others queue up here. */
async function take(picture: ImageBitmap, capturedMs: number): Promise<void> {
  answer({ type: "taken" });
  if (!paused) await push(picture, picture.width, picture.height, capturedMs);
  picture.close();
}

async function push(frame: CanvasImageSource, width: number, height: number, capturedMs: number): Promise<void> {
  const { picture, hasFace } = crop.crop(frame, width, height);
  await coder.push(picture, capturedMs, hasFace);
}

function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

function answer(message: SenderAnswer, transfer: Transferable[] = []): void {
  scope.postMessage(message, transfer);
}
