/** Plays an opened file: asks the worker for frames ahead of the clock, and shows each when it is due. */

import type { Frame, Opened } from "./messages";
import type { Sound } from "./sound";

/** Decoded frames that wait to be shown, at most; playing starts with half of them. */
const FRAMES_AHEAD = 12;
/** Frames that the worker is asked for at a time: one in each half of its work, so that neither waits for the page. */
const IN_FLIGHT = 3;
/** Least milliseconds between two reports of the position while playing: each costs the page a layout. */
const TOLD_MS = 200;

/** Counts, for whoever measures. */
export interface Counts {
  shown: number;
  skipped: number;
  decoded: number;
  decodeMs: number;
  /** Of the newest frames. */
  times: number[];
}

export class Player {
  readonly durationS: number;
  readonly counts: Counts = { shown: 0, skipped: 0, decoded: 0, decodeMs: 0, times: [] };
  readonly fps: number;
  private readonly frames: number;
  private readonly ready = new Map<number, Frame>();
  private readonly asked = new Set<number>();
  private next = 0;
  private shown = -1;
  private wantsToPlay = false;
  /** Whether the clock runs; else it stands at `standingS`. */
  private running = false;
  private standingS = 0;
  private startedMs = 0;
  private closed = false;
  private toldMs = 0;

  /** `ask`: request a frame of the worker. `show`: draw one. `changed`: the state or the position changed; while playing, now
   * and then. */
  constructor(
    opened: Opened,
    private readonly sound: Sound | null,
    private readonly ask: (number: number) => void,
    private readonly show: (frame: Frame) => void,
    private readonly changed: () => void,
  ) {
    this.fps = opened.header.fps;
    this.frames = opened.report.frames;
    this.durationS = opened.report.durationS;
    this.request();
    requestAnimationFrame(() => this.tick());
  }

  get playing(): boolean {
    return this.wantsToPlay;
  }

  /** Whether playing waits for frames. */
  get waiting(): boolean {
    return this.wantsToPlay && !this.running;
  }

  get position(): number {
    if (!this.running) return this.standingS;
    const position = this.sound ? this.sound.position : this.standingS + (performance.now() - this.startedMs) / 1000;
    return Math.min(position, this.durationS);
  }

  play(): void {
    if (this.position >= this.durationS - 0.5 / this.fps) this.seek(0);
    this.wantsToPlay = true;
    void this.sound?.resume();
    this.changed();
  }

  pause(): void {
    this.standingS = this.position;
    this.wantsToPlay = this.running = false;
    this.sound?.stop();
    this.changed();
  }

  /** Go to a position in seconds; playing continues there. */
  seek(position: number): void {
    this.standingS = Math.min(Math.max(0, position), Math.max(0, (this.frames - 0.5) / this.fps));
    this.running = false;
    this.sound?.stop();
    this.ready.clear();
    this.asked.clear();
    this.next = this.due();
    this.shown = -1;
    this.request();
    this.changed();
  }

  /** Take a frame from the worker. */
  receive(frame: Frame): void {
    this.counts.decoded += 1;
    this.counts.decodeMs += frame.ms;
    this.counts.times = [...this.counts.times.slice(-499), frame.ms];
    if (this.asked.delete(frame.number)) this.ready.set(frame.number, frame);
    this.request();
  }

  close(): void {
    this.closed = true;
    this.sound?.close();
  }

  private due(): number {
    return Math.min(this.frames - 1, Math.floor(this.position * this.fps + 1e-6));
  }

  private request(): void {
    if (this.running && this.next < this.due()) {
      this.counts.skipped += this.due() - this.next;
      this.next = this.due(); // the machine is too slow: the picture keeps up with the sound
    }
    while (this.asked.size < IN_FLIGHT && this.ready.size + this.asked.size < FRAMES_AHEAD && this.next < this.frames) {
      this.asked.add(this.next);
      this.ask(this.next++);
    }
  }

  private tick(): void {
    if (this.closed) return;
    if (this.wantsToPlay && !this.running) this.startIfReady();
    const due = this.due();
    let newest: Frame | null = null;
    for (const [number, frame] of this.ready) {
      if (number > due) continue;
      this.ready.delete(number);
      if (number > this.shown && (!newest || number > newest.number)) newest = frame;
    }
    if (newest) {
      this.shown = newest.number;
      this.counts.shown += 1;
      this.show(newest);
    }
    this.request();
    if (this.running) {
      const nowMs = performance.now();
      if (this.position >= this.durationS) this.pause();
      else if (nowMs - this.toldMs >= TOLD_MS) {
        this.toldMs = nowMs;
        this.changed();
      }
    }
    requestAnimationFrame(() => this.tick());
  }

  private startIfReady(): void {
    const enough = this.ready.size >= FRAMES_AHEAD / 2 || this.next >= this.frames;
    if (!enough || (this.sound && !this.sound.running)) return;
    this.running = true;
    this.startedMs = performance.now();
    this.sound?.start(this.standingS);
  }
}
