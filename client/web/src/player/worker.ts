/** Decodes files away from the page's thread. */

import dav1dUrl from "dav1d.js/dav1d.wasm?url";
import { type Container, readContainer } from "../bitstream/container";
import { inspect } from "../bitstream/info";
import { messageOf } from "../errors";
import { maxFrames } from "../decoder";
import type { Picture } from "../runtime/pictures";
import { Loader, threadCount } from "../runtime/load";
import type { Av1Maker } from "../sources/av1";
import { dav1dMaker } from "../sources/dav1d";
import { hasWebCodecsAv1, webCodecsMaker } from "../sources/webcodecs";
import { IwcFile } from "./iwc_file";
import type { Answer, Request } from "./messages";

const scope = self as unknown as DedicatedWorkerGlobalScope;
let current = 0;
let file: IwcFile | null = null;
let loader: Loader | null = null;
/** Requests are handled one after the other. */
let turn: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }: MessageEvent<Request>) => {
  if (data.type === "open") current += 1; // at once: what is queued for the file before is dropped
  const number = data.type === "open" ? current : data.file;
  turn = turn.then(async () => {
    if (number !== current) return;
    try {
      await (data.type === "open" ? open(data.data, data.base) : frame(data.number));
    } catch (error) {
      answer({ type: "failed", file: number, message: messageOf(error) });
    }
  });
};

async function open(data: ArrayBuffer, base: string): Promise<void> {
  file?.close();
  file = null;
  const number = current;
  const container = readContainer(new Uint8Array(data));
  dropForged(container);
  loader ??= new Loader(base);
  const progress = (bytes: number, total: number) => answer({ type: "loading", file: number, bytes, total });
  const { tables, runtime } = await loader.load(container.header, progress);
  file = new IwcFile(container, runtime, tables, await av1(), (picture, slot, base) => {
    const pixels = rgba(picture);
    answer({ type: "ingredient", file: number, slot, base, side: picture.side, pixels }, [pixels]);
  });
  const { header, packets, truncated, damage } = container;
  const sound = header.audio ? packets.filter((packet) => packet.kind === "audio") : [];
  const report = inspect(container);
  answer({ type: "opened", file: number, header, report, sound, truncated, damage, threads: threadCount() });
}

async function frame(number: number): Promise<void> {
  if (!file) return;
  const started = performance.now();
  const { picture, motion, slot } = await file.frame(number);
  const pixels = picture && rgba(picture);
  const ms = performance.now() - started;
  const keypoints = motion?.keypoints ?? new Float32Array();
  const regions = motion?.regions ?? [];
  answer({ type: "frame", file: current, number, pixels, keypoints, slot, regions, ms }, pixels ? [pixels] : []);
}

/** Drop motion with frame numbers that a file of this size cannot reach. */
function dropForged(container: Container): void {
  const most = maxFrames(container.bytes);
  container.packets = container.packets.filter((packet) => packet.kind !== "motion" || packet.first < most);
}

let maker: Av1Maker | null = null;

async function av1(): Promise<Av1Maker> {
  if (!maker) {
    const wasm = async () => (await fetch(new URL(dav1dUrl, import.meta.url))).arrayBuffer();
    maker = (await hasWebCodecsAv1()) ? webCodecsMaker : dav1dMaker(wasm);
  }
  return maker;
}

function rgba({ side, data }: Picture): ArrayBuffer {
  const out = new Uint8Array(side * side * 4);
  for (let n = 0; n < side * side; n++) {
    out[4 * n] = data[3 * n];
    out[4 * n + 1] = data[3 * n + 1];
    out[4 * n + 2] = data[3 * n + 2];
    out[4 * n + 3] = 255;
  }
  return out.buffer;
}

function answer(message: Answer, transfer: Transferable[] = []): void {
  scope.postMessage(message, transfer);
}
