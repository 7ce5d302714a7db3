/** AV1 by the browser's own decoder, else by dav1d. */

import { FormatError } from "../errors";
import dav1dUrl from "dav1d.js/dav1d.wasm?url";
import { type Av1, type Av1Maker, planesOf, restore } from "./av1";
import { dav1dMaker } from "./dav1d";
import type { Planes } from "./yuv";

/** Main profile, level 3.0, 8 bits: every picture here is far below. */
const CODEC = "av01.0.04M.08";
/** Milliseconds after which a unit holds no picture. */
const PATIENCE_MS = 5000;

/** Unit of a picture of 64 pixels in one colour (codec/sources/av1.py), and its three levels. */
export const PROBE = { unit: "CgoAAAACr/+JXyEIMBAAvIAAAIABAAHFeI+ebX6qZoDI", side: 64, levels: [90, 111, 206] };

/** Return a maker of the browser's decoders, or of dav1d's where it has none that hands out an AV1 picture as it is. */
export async function av1Maker(): Promise<Av1Maker> {
  const wasm = async () => (await fetch(new URL(dav1dUrl, import.meta.url))).arrayBuffer();
  return (await hasWebCodecsAv1()) && (await isExact()) ? webCodecsMaker : dav1dMaker(wasm);
}

/** Return whether the browser decodes AV1. */
async function hasWebCodecsAv1(): Promise<boolean> {
  if (typeof VideoDecoder === "undefined") return false;
  try {
    return (await VideoDecoder.isConfigSupported({ codec: CODEC })).supported ?? false;
  } catch {
    return false;
  }
}

/** Return whether the browser's decoder hands out the levels of a picture: some convert it to RGB first. */
async function isExact(): Promise<boolean> {
  const { levels, side, unit } = PROBE;
  let decoder: Av1 | null = null;
  try {
    decoder = await webCodecsMaker(side);
    const data = Uint8Array.from(atob(unit), (char) => char.charCodeAt(0));
    const { luma, cb, cr } = await decoder.decode(restore(data, data.length), true);
    return [luma, cb, cr].every((plane, n) => plane.every((level) => level === levels[n]));
  } catch {
    return false;
  } finally {
    decoder?.close();
  }
}

interface Waiting {
  resolve(frame: VideoFrame): void;
  reject(error: Error): void;
}

/** Makes decoders. Their colour space is not used: browsers report BT.709 for what is BT.601. */
const webCodecsMaker: Av1Maker = async (size: number): Promise<Av1> => {
  let waiting: Waiting | null = null;
  let broken: Error | null = null;
  const decoder = new VideoDecoder({
    output: (frame) => {
      if (waiting) waiting.resolve(frame);
      else frame.close();
      waiting = null;
    },
    error: (error) => {
      broken = error;
      waiting?.reject(error);
      waiting = null;
    },
  });
  decoder.configure({
    codec: CODEC,
    optimizeForLatency: true,
    hardwareAcceleration: "prefer-software", // exact, and quicker to start for pictures this small
    codedWidth: size,
    codedHeight: size,
  });
  return {
    decode: async (temporalUnit, key) => {
      if (broken) throw broken;
      const picture = new Promise<VideoFrame>((resolve, reject) => {
        waiting = { resolve, reject };
      });
      decoder.decode(new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp: 0, data: temporalUnit }));
      const late = setTimeout(() => {
        if (waiting) waiting.reject(new FormatError("A source unit holds no picture."));
        waiting = null;
      }, PATIENCE_MS);
      try {
        return await planesOfFrame(await picture);
      } finally {
        clearTimeout(late);
      }
    },
    close: () => {
      if (decoder.state !== "closed") decoder.close();
    },
  };
};

/** Copy a frame's planes and close it. */
async function planesOfFrame(frame: VideoFrame): Promise<Planes> {
  try {
    const rect = frame.visibleRect;
    if (!rect || rect.width !== rect.height || rect.width % 2 || (frame.format !== "I420" && frame.format !== "NV12")) {
      throw new FormatError(`A source picture is ${rect?.width}x${rect?.height} ${frame.format}.`);
    }
    const side = rect.width;
    const luma = side * side;
    const data = new Uint8Array((luma * 3) / 2);
    const chroma = frame.format === "NV12" ? [side] : [side / 2, side / 2];
    const layout = [side, ...chroma].map((stride, n) => ({ offset: n ? luma + ((n - 1) * luma) / 4 : 0, stride }));
    await frame.copyTo(data, { rect, layout });
    return planesOf(side, frame.format === "NV12" ? separated(data, luma) : data);
  } finally {
    frame.close();
  }
}

/** Return yuv420p of NV12, whose chroma samples alternate. */
function separated(data: Uint8Array, luma: number): Uint8Array {
  const out = Uint8Array.from(data);
  for (let n = 0; n < luma / 4; n++) {
    out[luma + n] = data[luma + 2 * n];
    out[(luma * 5) / 4 + n] = data[luma + 2 * n + 1];
  }
  return out;
}
