/** Any frame of an .iwc file (codec/file/iwc_file.py). */

import type { Container } from "../bitstream/container";
import type { MotionPacket } from "../bitstream/packets";
import { Decoder, type Listener, type Motion, PreparedSources } from "../decoder";
import { FormatError } from "../errors";
import type { Tables } from "../motion/tables";
import type { Picture } from "../runtime/pictures";
import type { Runtime } from "../runtime/types";
import type { Av1Maker } from "../sources/av1";

/** Undecodable packets that are noted. */
const MAX_DAMAGE = 1000;

export interface DecodedFrame {
  /** Being made: the next frame may be asked for meanwhile. */
  picture: Promise<Picture | null>;
  motion: Motion | null;
  slot: number | null;
}

export class IwcFile {
  /** Packets that could not be decoded, and why. */
  readonly undecodable = new Set<string>();
  private decoder: Decoder;
  private next = 0;
  private motions = new Map<number, Motion>();
  private start = 0;
  private readonly prepared = new PreparedSources();

  constructor(
    private readonly container: Container,
    private readonly runtime: Runtime,
    private readonly tables: Tables,
    private readonly make: Av1Maker,
    private readonly listener: Listener,
  ) {
    this.decoder = this.newDecoder();
  }

  /** Decode frame `number`; cheapest in order. Frames of damaged packets have no picture. */
  async frame(number: number): Promise<DecodedFrame> {
    if (number < this.start) {
      this.decoder.close();
      this.decoder = this.newDecoder();
      [this.next, this.start, this.motions] = [0, 0, new Map()];
    }
    while (!this.motions.has(number) && this.hasMotionFor(number)) await this.push();
    const motion = this.motions.get(number) ?? null;
    if (!motion) return { picture: Promise.resolve(null), motion, slot: null };
    const slot = this.decoder.slotOf(motion);
    return { picture: this.decoder.picture(motion, this.motions.get(number + 1) ?? null), motion, slot };
  }

  /** Free the AV1 decoders. */
  close(): void {
    this.decoder.close();
  }

  /** Return whether a packet further on may hold the frame; what lies beyond it waits, as its sources replace others. */
  private hasMotionFor(number: number): boolean {
    const { packets } = this.container;
    for (let at = this.next; at < packets.length; at++) {
      const packet = packets[at];
      if (packet.kind === "motion" && packet.first <= number) return true;
      if (packet.kind === "motion" && packet.first > number) return false;
    }
    return false;
  }

  private async push(): Promise<void> {
    const packet = this.container.packets[this.next++];
    if (packet.kind === "audio") return;
    try {
      const motions = await this.decoder.push(packet);
      if (packet.kind === "motion") this.keep(packet, motions);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      if (this.undecodable.size < MAX_DAMAGE) this.undecodable.add(`${packet.kind}: ${error.message}`);
    }
  }

  private keep(packet: MotionPacket, motions: Motion[]): void {
    this.start = packet.first;
    this.motions = new Map(motions.map((motion) => [motion.number, motion]));
  }

  private newDecoder(): Decoder {
    const { header } = this.container;
    return new Decoder(header, this.runtime, this.tables, this.make, this.prepared, this.listener);
  }
}
