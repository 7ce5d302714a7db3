/** Packets in, pictures out (codec/decoder.py). */

import type { Header } from "./bitstream/header";
import { MAX_PACKET_FRAMES, type MotionPacket, type Packet, regionsOf, type SourcePacket } from "./bitstream/packets";
import { FormatError } from "./errors";
import { reference } from "./fit/alignment";
import { MotionDecoder } from "./motion/predictive_coder";
import { dequantise } from "./motion/quantiser";
import { keypointsIn, type MotionSpace, motionSpace } from "./motion/space";
import type { Tables } from "./motion/tables";
import { decodeTransform, inverseTransform } from "./motion/transform_coder";
import type { Picture } from "./runtime/pictures";
import { type Runtime, type Source, withPicture } from "./runtime/types";
import { type Av1Maker, SourceDecoder } from "./sources/av1";
import { CAPACITY, Library, RECORDED_SOURCES } from "./sources/library";
import { Compositor } from "./sources/regions";
import { StreamAttention } from "./video/stream_attention";

/** Most sources kept to be shown as frames. */
const MAX_SOURCE_FRAMES = 512;
/** Prepared sources kept for seeking back, about 2 MB each. */
const MAX_PREPARED = 72;

/** A decoded frame, before its picture is reconstructed. */
export interface Motion {
  number: number;
  /** (K, 3). */
  keypoints: Float32Array;
  reference: number | null;
  /** The frame is the unmodified reference source. */
  skip: boolean;
  /** Slot of the source that each region shows; null: the reference source. */
  regions: (number | null)[];
}

/** Prepared sources by packet, the least recently used dropped. */
export class PreparedSources {
  private readonly sources = new Map<SourcePacket, Source>();

  async get(packet: SourcePacket, picture: Picture, runtime: Runtime): Promise<Source> {
    const source = this.sources.get(packet) ?? (await runtime.prepare(picture));
    this.sources.delete(packet);
    this.sources.set(packet, source);
    if (this.sources.size > MAX_PREPARED) this.sources.delete(this.sources.keys().next().value as SourcePacket);
    return source;
  }
}

/** What the decoder tells about pictures that it has received. */
export type Listener = (picture: Picture, slot: number, base: number | null) => void;

export class Decoder {
  private readonly motionDecoder: MotionDecoder;
  private readonly sources: SourceDecoder;
  private readonly library: Library;
  private readonly compositor = new Compositor();
  private readonly attention: StreamAttention;
  private readonly capacity: number;
  private readonly spaces = new WeakMap<Source, MotionSpace>();
  private readonly unprepared = new Map<number, { packet: SourcePacket; picture: Picture }>();
  private readonly sourceFrames = new Map<number, { slot: number; picture: Picture }>();
  private nextSlot = 0;

  constructor(
    private readonly header: Header,
    private readonly runtime: Runtime,
    private readonly tables: Tables,
    make: Av1Maker,
    private readonly prepared: PreparedSources,
    private readonly listener: Listener,
  ) {
    this.motionDecoder = new MotionDecoder(tables.predictive, header.keypoints);
    this.sources = new SourceDecoder(header.size, make);
    this.capacity = header.tables === tables.predictive.id ? RECORDED_SOURCES : CAPACITY;
    this.library = new Library(this.capacity);
    this.attention = new StreamAttention(header.size);
  }

  /** Free the AV1 decoder. */
  close(): void {
    this.sources.reset();
  }

  /** Decode a packet; return the frames of a motion packet. Throws FormatError, after which decoding may continue. */
  async push(packet: Packet): Promise<Motion[]> {
    if (packet.kind === "source") await this.addSource(packet);
    else if (packet.kind === "motion") return this.motion(packet);
    return [];
  }

  /** Return a frame's picture: the source sent as this frame, else a reconstruction; null without any source. `later`: a frame
   * that will follow, if one is known. */
  async picture(motion: Motion, later: Motion | null): Promise<Picture | null> {
    const sourceFrame = this.sourceFrames.get(motion.number);
    if (sourceFrame) return sourceFrame.picture;
    const nearest = this.library.nearest(motion.keypoints, this.header.active, motion.reference);
    const sources = this.compositor.sourcesOf(nearest, motion.regions, this.library);
    if (!sources.length) return null;
    if (motion.skip) return sources[0].picture;
    const attention = await this.attention.of(motion, later?.skip ? null : later, sources, this.runtime);
    suppressSmallShifts(attention.shifts, this.header.suppression);
    return this.runtime.refine(sources, attention);
  }

  /** Return the slot of the source that a frame is rebuilt from first, or that it is. */
  slotOf(motion: Motion): number | null {
    const sourceFrame = this.sourceFrames.get(motion.number);
    if (sourceFrame) return sourceFrame.slot;
    const [first] = this.library.nearest(motion.keypoints, 1, motion.reference);
    return first ? this.library.slotOf(first) : null;
  }

  private async addSource(packet: SourcePacket): Promise<void> {
    if (packet.slot !== this.nextSlot) this.sources.reset(); // one is missing, or a recorded call restarted
    this.nextSlot = (packet.slot + 1) % 65_536;
    const picture = await this.sources.add(packet.payload);
    this.listener(picture, packet.slot, packet.base);
    if (packet.base !== null) {
      await this.prepare();
      const base = this.library.at(packet.base);
      if (!base) throw new FormatError(`A source is a variant of source ${packet.base}, which is not available.`);
      this.library.add(packet.slot, withPicture(base, picture), true);
      return;
    }
    this.unprepared.delete(packet.slot);
    this.unprepared.set(packet.slot, { packet, picture });
    keepNewest(this.unprepared, this.capacity);
    if (packet.frame !== null) {
      this.sourceFrames.set(packet.frame, { slot: packet.slot, picture });
      keepNewest(this.sourceFrames, MAX_SOURCE_FRAMES);
    }
  }

  /** The network prepares a source only when a frame needs the library: at high rates most are never prepared. */
  private async prepare(): Promise<void> {
    for (const [slot, { packet, picture }] of this.unprepared) {
      this.library.add(slot, await this.prepared.get(packet, picture, this.runtime));
    }
    this.unprepared.clear();
  }

  private async motion(packet: MotionPacket): Promise<Motion[]> {
    return packet.scale === null ? this.predicted(packet) : this.transformed(packet, packet.scale);
  }

  private async predicted(packet: MotionPacket): Promise<Motion[]> {
    await this.prepare();
    const { stepXy, stepStrength } = this.header;
    const slots = packet.runs.flatMap(({ slot, frames }) => new Array<number>(frames).fill(slot));
    return this.motionDecoder.decode(packet).map((levels, n) => {
      const keypoints = dequantise(levels, stepXy, stepStrength);
      const slot = slots[n] ?? null;
      const regions = regionsOf(packet, n);
      this.library.use(keypoints, slot, regions);
      return { number: packet.first + n, keypoints, reference: slot, skip: false, regions };
    });
  }

  private async transformed(packet: MotionPacket, scale: number): Promise<Motion[]> {
    if (packet.reference !== null) {
      throw new FormatError("A transform-coded motion packet has a reference frame, as only calls may.");
    }
    const width = 3 * this.header.keypoints;
    const lengths = packet.runs.map((run) => run.frames);
    const levels = decodeTransform(this.tables.transform, packet.payload, lengths, width);
    const frames: Motion[] = [];
    let first = packet.first;
    for (const [n, { slot, frames: length }] of packet.runs.entries()) {
      const rows = await this.run(slot, first, levels[n], length, scale);
      const skip = levels[n].every((level) => level === 0);
      rows.forEach((keypoints, at) => {
        const number = first + at;
        frames.push({ number, keypoints, reference: slot, skip, regions: regionsOf(packet, number - packet.first) });
      });
      first += length;
    }
    return frames;
  }

  /** Return the keypoints of a run's frames; none if its reference source is missing. */
  private async run(
    slot: number,
    first: number,
    levels: Int32Array,
    length: number,
    scale: number,
  ): Promise<Float32Array[]> {
    if (Array.from({ length }, (_, n) => this.sourceFrames.has(first + n)).every(Boolean)) {
      return Array.from({ length }, () => new Float32Array(levels.length / length)); // needs no prepared source
    }
    await this.prepare();
    const source = this.library.at(slot);
    if (!source) return [];
    let space = this.spaces.get(source);
    if (!space) {
      space = motionSpace(reference(source), source.picture, this.tables.transform.directions);
      this.spaces.set(source, space);
    }
    return keypointsIn(space, inverseTransform(levels, length, scale));
  }
}

/** Drop the oldest entries until at most `most` are left. */
function keepNewest(pictures: Map<number, unknown>, most: number): void {
  for (const key of [...pictures.keys()].slice(0, Math.max(0, pictures.size - most))) pictures.delete(key);
}

/** Bound on the frames of a file of this many bytes, whatever its packets claim. */
export function maxFrames(bytes: number): number {
  return Math.floor(bytes / 8) * MAX_PACKET_FRAMES;
}

/** Scale shifts in pixels (x, y, weight) in place: 0 below half of `suppression`, rising to their length at it. */
export function suppressSmallShifts(fields: Float32Array, suppression: number): void {
  if (suppression <= 0) return;
  for (let n = 0; n < fields.length; n += 3) {
    const length = Math.hypot(fields[n], fields[n + 1]);
    const factor = Math.min(1, Math.max(0, (length * 2) / suppression - 1));
    fields[n] *= factor;
    fields[n + 1] *= factor;
  }
}
