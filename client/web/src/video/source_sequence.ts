/** A sequence of sources as one AV1 stream, with the units that links may still have to send
 * (client/video/source_sequence.py). The worker codes them. */

import type { MotionSpace } from "../motion/space";

const MAX_SLOT = 65_535;
const KEPT_UNITS = 64;
/** Sources whose coordinates are kept, the newest; no sender keeps more. */
const KEPT_SPACES = 32;

export interface SourceUnit {
  /** A serialised SourcePacket. */
  packet: Uint8Array;
  isSnapshot: boolean;
}

export class SourceSequence {
  /** By index in the sequence. */
  readonly units = new Map<number, SourceUnit>();
  /** Number of each source (as the sender counts them) -> index of its unit. */
  readonly numbers = new Map<number, number>();
  /** Coordinates of motion of the sources as this sequence shows them, by number, as far as they are known. */
  readonly spaces = new Map<number, MotionSpace>();
  /** Index of the next unit. */
  next = 0;

  constructor(
    readonly number: number,
    readonly small: boolean,
  ) {}

  /** Append a coded unit. `source`: number of the source; null for a scene snapshot. */
  add(packet: Uint8Array, source: number | null): void {
    this.units.set(this.next, { packet, isSnapshot: source === null });
    if (source !== null) this.numbers.set(source, this.next);
    this.units.delete(this.next - KEPT_UNITS);
    this.next += 1;
  }

  /** Note the coordinates of a source. */
  addSpace(source: number, space: MotionSpace): void {
    this.spaces.set(source, space);
    if (this.spaces.size > KEPT_SPACES) this.spaces.delete(this.spaces.keys().next().value as number);
  }
}

/** Return the slot in the receiver's library of the unit with this index. */
export function slotOf(index: number): number {
  return index % (MAX_SLOT + 1);
}
