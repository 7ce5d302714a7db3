/** Runs the networks of a call away from the page's thread, which has the data channels. */

import { FormatError, messageOf } from "../errors";
import { Loader, threadCount } from "../runtime/load";
import { type Picture, rgba } from "../runtime/pictures";
import type { Runtime } from "../runtime/types";
import { type Av1Maker, SourceDecoder } from "../sources/av1";
import { Library, RECORDED_SOURCES } from "../sources/library";
import { av1Maker } from "../sources/webcodecs";
import type { Answer, Request } from "./messages";

/** What is kept of a peer's stream. */
interface Stream {
  decoder: SourceDecoder;
  library: Library;
}

const scope = self as unknown as DedicatedWorkerGlobalScope;
const streams = new Map<string, Stream>();
let runtime: Runtime;
let make: Av1Maker;
let size = 0;
/** Requests are handled one after the other. */
let turn: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }: MessageEvent<Request>) => {
  turn = turn.then(() => handle(data));
};

async function handle(request: Request): Promise<void> {
  if (request.type === "forget") {
    streams.get(request.peer)?.decoder.reset();
    streams.delete(request.peer);
    return;
  }
  if (request.type === "load") {
    try {
      await load(request.base, request.size);
    } catch (error) {
      answer({ type: "failed", message: messageOf(error) });
    }
    return;
  }
  let picture: Picture | null = null;
  try {
    picture = await (request.type === "source" ? addSource(request) : reconstruct(request));
  } catch (error) {
    if (!(error instanceof FormatError)) console.warn(messageOf(error)); // one picture must not end the call
  }
  const pixels = picture && rgba(picture);
  answer({ type: "done", job: request.job, pixels, side: picture?.side ?? 0 }, pixels ? [pixels] : []);
}

async function load(base: string, wanted: number): Promise<void> {
  const progress = (bytes: number, total: number) => answer({ type: "loading", bytes, total });
  const loaded = await new Loader(base).loadSize(wanted, progress);
  runtime = loaded.runtime;
  make = await av1Maker();
  size = wanted;
  const { digest, keypoints } = loaded.model;
  answer({ type: "loaded", digest, keypoints, tables: loaded.tables.predictive, threads: threadCount() });
}

async function addSource(request: Request & { type: "source" }): Promise<Picture> {
  const { decoder, library } = streamOf(request.peer);
  const picture = await decoder.add(request.packet.payload);
  if (!request.isSnapshot) library.add(request.packet.slot, await runtime.prepare(picture));
  return picture;
}

async function reconstruct(request: Request & { type: "frame" }): Promise<Picture | null> {
  const sources = streamOf(request.peer).library.attended(request.keypoints, request.reference);
  return sources.length ? runtime.reconstruct(request.keypoints, sources, 0) : null;
}

function streamOf(peer: string): Stream {
  let stream = streams.get(peer);
  if (!stream) {
    stream = { decoder: new SourceDecoder(size, make), library: new Library(RECORDED_SOURCES) };
    streams.set(peer, stream);
  }
  return stream;
}

function answer(message: Answer, transfer: Transferable[] = []): void {
  scope.postMessage(message, transfer);
}
