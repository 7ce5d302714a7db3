/** The grid of a call's people: pictures, names, states in words, and numbers for those who want them. */

import type { Pixels } from "../link/incoming";

/** Pictures of calls, in pixels. */
export const SIZE = 256;

export class Tile {
  readonly root = document.createElement("li");
  private readonly canvas = document.createElement("canvas");
  private readonly stateWords = document.createElement("span");
  private readonly verification = document.createElement("small");
  private readonly overlay = document.createElement("p");

  constructor(name: string, ...more: HTMLElement[]) {
    const { canvas, overlay, root, stateWords, verification } = this;
    canvas.width = canvas.height = SIZE;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Picture of ${name}`);
    overlay.className = "numbers";
    const label = document.createElement("strong");
    label.textContent = name;
    const caption = document.createElement("p");
    verification.title = "Compare these words by voice: both sides must see the same.";
    caption.append(label, stateWords, verification);
    root.append(canvas, overlay, caption, ...more);
  }

  draw({ side, data }: Pixels): void {
    if (side !== SIZE) return;
    this.canvas.getContext("2d")?.putImageData(new ImageData(new Uint8ClampedArray(data), side, side), 0, 0);
  }

  /** Say how the picture is; nothing is said while it is live. */
  set state(state: string) {
    const words = state === "live" ? "" : state;
    if (this.stateWords.textContent !== words) this.stateWords.textContent = words;
    this.root.dataset.state = state;
  }

  /** Three words that the other side sees, too, unless somebody sits in between. */
  set words(words: string) {
    if (this.verification.textContent !== words) this.verification.textContent = words;
  }

  /** Lines over the picture: what spoils it, and numbers. */
  set lines(lines: string[]) {
    const text = lines.filter(Boolean).join("\n");
    if (this.overlay.textContent !== text) this.overlay.textContent = text;
  }
}

/** Rates of counters that only grow, over the last seconds. */
export class Rates {
  private before: { atMs: number; counts: number[] } | null = null;
  private latest: number[] | null = null;

  /** Return each counter's rate per second; null before there is one. */
  of(counts: number[], nowMs: number): number[] | null {
    const { before } = this;
    if (!before) this.before = { atMs: nowMs, counts };
    else if (nowMs - before.atMs >= 2000) {
      this.latest = counts.map((count, n) => (Math.max(0, count - before.counts[n]) * 1000) / (nowMs - before.atMs));
      this.before = { atMs: nowMs, counts };
    }
    return this.latest;
  }
}
