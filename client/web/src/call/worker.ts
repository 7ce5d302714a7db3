/** Runs the networks of a call away from the page's thread, which has the data channels. */

import { FormatError, messageOf } from "../errors";
import type { MotionSpace } from "../motion/space";
import { Loader } from "../runtime/load";
import { type Picture, rgba } from "../runtime/pictures";
import type { Runtime } from "../runtime/types";
import type { Av1Maker } from "../sources/av1";
import { av1Maker } from "../sources/webcodecs";
import type { Answer, Request } from "./messages";
import { Stream } from "./stream";

const scope = self as unknown as DedicatedWorkerGlobalScope;
const streams = new Map<string, Stream>();
let runtime: Promise<Runtime>;
let make: Av1Maker;
let size = 0;
let directions: Float64Array;
/** Requests are begun one after the other; a frame is refined while the next one is begun. */
let turn: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }: MessageEvent<Request>) => {
  turn = turn.then(() => handle(data));
};

async function handle(request: Request): Promise<void> {
  if (request.type === "forget") {
    streams.get(request.peer)?.close();
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
  if (request.type === "frame") {
    void finish(request.job, streamOf(request.peer).reconstruct(request.frame, request.later), () => null);
    return;
  }
  const { job, packet, isSnapshot } = request;
  const stream = streamOf(request.peer);
  const first = (picture: Picture) => {
    const pixels = rgba(picture);
    answer({ type: "first", job, pixels, side: picture.side }, [pixels]);
  };
  await finish(job, stream.addSource(packet, isSnapshot, first), () => (isSnapshot ? null : stream.space(packet.slot)));
}

/** Answer with the picture of a job, and the coordinates of motion from it. */
async function finish(job: number, work: Promise<Picture | null>, spaceOf: () => MotionSpace | null): Promise<void> {
  let picture: Picture | null = null;
  let space: MotionSpace | null = null;
  try {
    picture = await work;
    space = spaceOf();
  } catch (error) {
    if (!(error instanceof FormatError)) console.warn(messageOf(error)); // one picture must not end the call
  }
  const pixels = picture && rgba(picture);
  answer({ type: "done", job, pixels, side: picture?.side ?? 0, space }, pixels ? [pixels] : []);
}

async function load(base: string, wanted: number): Promise<void> {
  const progress = (bytes: number, total: number) => answer({ type: "loading", bytes, total });
  const loaded = await new Loader(base, true).loadSize(wanted, progress);
  runtime = loaded.runtime;
  make = await av1Maker();
  size = wanted;
  directions = Float64Array.from(loaded.tables.transform.directions);
  const { digest, keypoints } = loaded.model;
  answer({ type: "model", digest, keypoints, tables: loaded.tables });
  runtime.then(
    () => answer({ type: "loaded" }),
    (error) => answer({ type: "failed", message: messageOf(error) }),
  );
}

function streamOf(peer: string): Stream {
  let stream = streams.get(peer);
  if (!stream) {
    stream = new Stream(size, make, runtime, directions);
    streams.set(peer, stream);
  }
  return stream;
}

function answer(message: Answer, transfer: Transferable[] = []): void {
  scope.postMessage(message, transfer);
}
