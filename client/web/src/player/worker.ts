/** Decodes files away from the page's thread. */

import { type Container, readContainer } from "../bitstream/container";
import { inspect } from "../bitstream/info";
import { messageOf } from "../errors";
import { maxFrames } from "../decoder";
import { rgba } from "../runtime/pictures";
import { Loader } from "../runtime/load";
import { av1Maker } from "../sources/webcodecs";
import { type DecodedFrame, IwcFile } from "./iwc_file";
import type { Answer, Request } from "./messages";

const scope = self as unknown as DedicatedWorkerGlobalScope;
let current = 0;
let file: IwcFile | null = null;
let loader: Loader | null = null;
/** Requests are begun one after the other; a frame is refined while the next one is begun. */
let turn: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }: MessageEvent<Request>) => {
  if (data.type === "open") current += 1; // at once: what is queued for the file before is dropped
  const number = data.type === "open" ? current : data.file;
  turn = turn.then(async () => {
    if (number !== current) return;
    try {
      await (data.type === "open" ? open(data.data, data.base) : frame(data.number));
    } catch (error) {
      fail(number, error);
    }
  });
};

function fail(number: number, error: unknown): void {
  answer({ type: "failed", file: number, message: messageOf(error) });
}

async function open(data: ArrayBuffer, base: string): Promise<void> {
  file?.close();
  file = null;
  const number = current;
  const container = readContainer(new Uint8Array(data));
  dropForged(container);
  loader ??= new Loader(base, true);
  const progress = (bytes: number, total: number) => answer({ type: "loading", file: number, bytes, total });
  const { tables, runtime } = await loader.load(container.header, progress);
  file = new IwcFile(container, runtime, tables, await av1Maker(), (picture, slot, base) => {
    const pixels = rgba(picture);
    answer({ type: "ingredient", file: number, slot, base, side: picture.side, pixels }, [pixels]);
  });
  const { header, packets, truncated, damage } = container;
  const sound = header.audio ? packets.filter((packet) => packet.kind === "audio") : [];
  const report = inspect(container);
  answer({ type: "opened", file: number, header, report, sound, truncated, damage });
}

async function frame(number: number): Promise<void> {
  if (!file) return;
  const [asked, started] = [current, performance.now()];
  const decoded = await file.frame(number);
  void finish(asked, number, decoded, started).catch((error) => fail(asked, error));
}

async function finish(asked: number, number: number, decoded: DecodedFrame, started: number): Promise<void> {
  const { motion, slot } = decoded;
  const picture = await decoded.picture;
  const pixels = picture && rgba(picture);
  const ms = performance.now() - started;
  const keypoints = motion?.keypoints ?? new Float32Array();
  const regions = motion?.regions ?? [];
  answer({ type: "frame", file: asked, number, pixels, keypoints, slot, regions, ms }, pixels ? [pixels] : []);
}

/** Drop motion with frame numbers that a file of this size cannot reach. */
function dropForged(container: Container): void {
  const most = maxFrames(container.bytes);
  container.packets = container.packets.filter((packet) => packet.kind !== "motion" || packet.first < most);
}

function answer(message: Answer, transfer: Transferable[] = []): void {
  scope.postMessage(message, transfer);
}
