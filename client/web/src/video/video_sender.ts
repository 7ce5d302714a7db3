/**
 * The camera's video, coded once for all peers of a call (client/video/video_sender.py). The networks and AV1 run in a
 * worker (sender/worker.ts); this end passes its frames and source units to the links.
 */

import type { Command, Coded } from "../sender/messages";
import type { Pixels } from "../link/incoming";
import { SourceSequence } from "./source_sequence";

const MAX_SHARED_UNITS = 4;
const MAX_BACKLOG = 2;
const UPDATE_MS = 200;

/** Keypoints of a camera frame; sources by the numbers that the worker counts. */
export interface CodedFrame {
  stampMs: number;
  /** (K, 3). */
  keypoints: Float32Array;
  /** Number of the reference source; null: the nearest in pose. */
  reference: number | null;
  /** (3 K, 3 K): cost of keypoint errors when that source is warped; null without a fit. */
  gram: Float64Array | null;
  /** For each region, the source that it shows; null: the reference source. */
  regions: (number | null)[];
}

/** A link, as the sender uses it. */
export interface Subscriber {
  readonly sequence: SourceSequence | null;
  readonly backlog: number;
  readonly hasPicture: boolean;
  readonly isReached: boolean;
  take(frame: CodedFrame): void;
  statusChanged(): void;
  /** Slot of a source in the peer's library; null if the peer does not have it. */
  slot(source: number): number | null;
}

export class VideoSender {
  /** Whether the camera is off. */
  paused = true;
  faceLost = false;
  /** Camera frames coded, and those that a newer one replaced. */
  counts = { coded: 0, dropped: 0 };
  private readonly links = new Set<Subscriber>();
  private readonly sequences = new Map<number, SourceSequence>();
  private newest: SourceSequence | null = null;
  private newestSmall: SourceSequence | null = null;
  private readonly begun = new Map<number, (sequence: SourceSequence | null) => void>();
  private lastJob = 0;
  private readonly timer = window.setInterval(() => this.update(), UPDATE_MS);

  /** `post`: to the worker. `showPreview`: show our own picture as the others see it. */
  constructor(
    private readonly post: (command: Command, transfer?: Transferable[]) => void,
    private readonly showPreview: (pixels: Pixels) => void,
  ) {}

  /** Pass all frames and sources to a link from now on. */
  join(link: Subscriber): void {
    this.links.add(link);
  }

  leave(link: Subscriber): void {
    this.links.delete(link);
  }

  /** Turn the camera off or on, and notify the peers. */
  pause(on: boolean): void {
    if (on === this.paused) return;
    this.paused = on;
    this.post({ type: "pause", on });
    this.notify();
  }

  close(): void {
    clearInterval(this.timer);
    this.pause(true);
  }

  /** Return the present sequence if it is still short, else a fresh one with the sources nearest to the present pose;
   * null while there is no source. `small`: for a narrow link; a fresh one then begins with one source. */
  async sequenceForNewcomer(small: boolean): Promise<SourceSequence | null> {
    if (!this.newest) return null;
    if (!small && this.newest.next <= MAX_SHARED_UNITS) return this.newest;
    const shared = this.newestSmall;
    if (small && shared && shared.next <= MAX_SHARED_UNITS && [...this.links].some(({ sequence }) => sequence === shared)) {
      return shared;
    }
    const job = (this.lastJob += 1);
    this.post({ type: "begin", job, small, count: small ? 1 : MAX_SHARED_UNITS });
    return new Promise((resolve) => this.begun.set(job, resolve));
  }

  /** Take what the worker has coded. */
  receive(coded: Coded): void {
    if (coded.type === "frame") {
      this.counts = coded.counts;
      // The worker's clock is that of the page, from another beginning.
      const stampMs = Math.max(0, Math.round(coded.capturedMs - performance.timeOrigin));
      if (!this.paused) for (const link of [...this.links]) link.take({ ...coded, stampMs });
    } else if (coded.type === "sequence") {
      const sequence = new SourceSequence(coded.number, coded.small);
      this.sequences.set(coded.number, sequence);
      if (coded.small) this.newestSmall = sequence;
      else this.newest = sequence;
    } else if (coded.type === "unit") {
      this.sequences.get(coded.sequence)?.add(coded.packet, coded.source);
    } else if (coded.type === "space") {
      this.sequences.get(coded.sequence)?.addSpace(coded.source, coded.space);
    } else if (coded.type === "begun") {
      this.begun.get(coded.job)?.((coded.sequence !== null && this.sequences.get(coded.sequence)) || null);
      this.begun.delete(coded.job);
    } else if (coded.type === "face") {
      this.faceLost = coded.lost;
      this.notify();
    } else this.showPreview({ side: coded.side, data: coded.pixels });
  }

  private notify(): void {
    for (const link of this.links) link.statusChanged();
  }

  /** Tell the worker what the links have, and what they use. */
  private update(): void {
    const links = [...this.links];
    const used = new Set([this.newest, ...links.map(({ sequence }) => sequence)]);
    for (const [number, sequence] of this.sequences) if (!used.has(sequence)) this.sequences.delete(number);
    const behind = links.length > 0 && links.every(({ backlog }) => backlog > MAX_BACKLOG);
    const idle = links.every(({ backlog }) => backlog === 0);
    const [sequences, known, arrived] = [[...this.sequences.keys()], this.knownToAll(links), this.knownToAny(links)];
    this.post({ type: "links", sequences, known, arrived, behind, idle });
  }

  /** Return the numbers of the sources that any peer has, variants included; null: no peer has. A peer that lacks a variant
   * gets it once frames show it. */
  private knownToAny(links: Subscriber[]): number[] | null {
    const pictured = links.filter(({ hasPicture, isReached }) => hasPicture && isReached);
    const numbers = pictured.flatMap((link) => [...(link.sequence?.numbers.keys() ?? [])].filter((n) => link.slot(n) !== null));
    return pictured.length ? [...new Set(numbers)] : null;
  }

  /** Return the numbers of the sources that all peers have, of those that can be reached and have any; null: no peer
   * has. Peers with a small sequence, which lacks some sources, count only if there are no others. */
  private knownToAll(links: Subscriber[]): number[] | null {
    const pictured = links.filter(({ hasPicture, isReached }) => hasPicture && isReached);
    const large = pictured.filter(({ sequence }) => !sequence?.small);
    const counted = large.length ? large : pictured;
    const [first] = counted;
    if (!first?.sequence) return null;
    const numbers = [...first.sequence.numbers.keys()];
    return numbers.filter((number) => counted.every((link) => link.slot(number) !== null));
  }
}
