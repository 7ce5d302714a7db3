/** What a file is made of (codec/bitstream/info.py). */

import type { Container } from "./container";

export interface FileReport {
  frames: number;
  durationS: number;
  sources: number;
  /** Further source pictures, with other eyes and mouths. */
  variants: number;
  /** Payload bytes by kind; all others are "container". */
  bytes: { sources: number; variants: number; motion: number; audio: number; container: number };
  /** Kilobits a second of the whole file, and of all but its sound. */
  kbps: { total: number; video: number };
}

/** Count what a file holds. */
export function inspect({ header, packets, bytes: total }: Container): FileReport {
  const bytes = { sources: 0, variants: 0, motion: 0, audio: 0, container: 0 };
  let [sources, variants, frames] = [0, 0, 0];
  for (const packet of packets) {
    if (packet.kind === "source") {
      if (packet.base === null) sources += 1;
      else variants += 1;
      bytes[packet.base === null ? "sources" : "variants"] += packet.payload.length;
    } else if (packet.kind === "motion") {
      frames = Math.max(frames, packet.first + packet.count);
      bytes.motion += packet.payload.length;
    } else {
      bytes.audio += lengthOf(packet.packets);
    }
  }
  bytes.container = total - bytes.sources - bytes.variants - bytes.motion - bytes.audio;
  const durationS = Math.max(frames, 1) / header.fps;
  const rate = (count: number) => (count * 8) / 1000 / durationS;
  return { frames, durationS, sources, variants, bytes, kbps: { total: rate(total), video: rate(total - bytes.audio) } };
}

function lengthOf(payloads: Uint8Array[]): number {
  return payloads.reduce((sum, payload) => sum + payload.length, 0);
}
