/** The library of sources, which sender and receiver keep alike (codec/sources/library.py). */

import type { Source } from "../runtime/types";

/** Most sources in the attention of one frame. */
export const ACTIVE = 3;
/** Sources kept. */
export const CAPACITY = 64;
/** The same for recorded calls, whose use of sources a reader does not know. */
export const RECORDED_SOURCES = 128;
const STRENGTH_WEIGHT = 0.02;

/** Return the mean squared distance of two poses (K, 3). */
function poseDistance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2 * (i % 3 === 2 ? STRENGTH_WEIGHT : 1);
  return sum / (a.length / 3);
}

/** Sources by slot, with eviction of the least recently added or used. */
export class Library {
  private readonly sources = new Map<number, Source>();
  private readonly used = new Map<number, number>();
  private readonly variants = new Set<number>();
  private clock = 0;

  constructor(private readonly capacity = CAPACITY) {}

  /** Put a source into a slot. A full library first drops the source least recently added or used. A `variant` has the
   * keypoints of another source, and serves for regions of frames only. */
  add(slot: number, source: Source, variant = false): void {
    if (!this.sources.has(slot) && this.sources.size >= this.capacity) {
      const [oldest] = [...this.used].reduce((a, b) => (b[1] < a[1] || (b[1] === a[1] && b[0] < a[0]) ? b : a));
      this.sources.delete(oldest);
      this.used.delete(oldest);
      this.variants.delete(oldest);
    }
    if (variant) this.variants.add(slot);
    else this.variants.delete(slot);
    this.clock += 1;
    this.sources.set(slot, source);
    this.used.set(slot, this.clock);
  }

  /** Return the source in a slot, if any. */
  at(slot: number): Source | undefined {
    return this.sources.get(slot);
  }

  /** Return the slots in use. */
  slots(): number[] {
    return [...this.sources.keys()];
  }

  /** Return whether a slot holds a variant of another source. */
  isVariant(slot: number): boolean {
    return this.variants.has(slot);
  }

  /** Return up to `count` sources: the one in slot `reference`, if present, then those nearest in pose. */
  nearest(keypoints: Float32Array, count: number, reference: number | null): Source[] {
    return this.order(keypoints, reference)
      .slice(0, count)
      .map((slot) => this.sources.get(slot) as Source);
  }

  /** Mark the ACTIVE nearest sources and those in the slots `regions` as used, as senders of calls do. Return the slots
   * of the former, the reference source first. */
  use(keypoints: Float32Array, reference: number | null, regions: (number | null)[]): number[] {
    this.clock += 1;
    const nearest = this.order(keypoints, reference).slice(0, ACTIVE);
    for (const slot of [...nearest, ...regions]) {
      if (slot !== null && this.sources.has(slot)) this.used.set(slot, this.clock);
    }
    return nearest;
  }

  /** Return the sources in the attention of a call's frame, and mark what `use` marks. If the reference source is
   * present it is the only one. */
  attended(keypoints: Float32Array, reference: number | null, regions: (number | null)[]): Source[] {
    const slots = this.use(keypoints, reference, regions);
    const count = slots.length && slots[0] === reference ? 1 : ACTIVE;
    return slots.slice(0, count).map((slot) => this.sources.get(slot) as Source);
  }

  /** Return the slot of a source; null if it is not in the library. */
  slotOf(source: Source): number | null {
    for (const [slot, kept] of this.sources) if (kept === source) return slot;
    return null;
  }

  private order(keypoints: Float32Array, reference: number | null): number[] {
    const candidates = [...this.sources].filter(([slot]) => !this.variants.has(slot));
    const distances = candidates.map(([slot, source]) => ({
      slot,
      distance: slot === reference ? -1 : poseDistance(source.keypoints, keypoints),
    }));
    return distances.sort((a, b) => a.distance - b.distance).map(({ slot }) => slot);
  }
}
