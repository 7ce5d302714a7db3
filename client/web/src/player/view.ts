/** What the page shows of a file: its frames, its rate, and the pictures that it is made of. */

import type { FileReport } from "../bitstream/info";
import type { Frame, Ingredient, Opened } from "./messages";

/** Pictures on the strip, at most; a long file at a high rate has hundreds. */
const MAX_PICTURES = 120;
const THUMB = 96;

/** Draws frames, and keypoints over them on request. */
export class Stage {
  keypoints = false;
  private last: Frame | null = null;
  private isDrawnOver = false;

  constructor(
    private readonly picture: HTMLCanvasElement,
    private readonly overlay: HTMLCanvasElement,
  ) {}

  /** Prepare for pictures of `size` pixels. */
  reset(size: number): void {
    this.picture.width = this.picture.height = size;
    this.last = null;
    this.draw();
  }

  /** Show a frame; one without a picture repeats the one before. */
  show(frame: Frame): void {
    if (frame.pixels) {
      const side = this.picture.width;
      context(this.picture).putImageData(new ImageData(new Uint8ClampedArray(frame.pixels), side, side), 0, 0);
    }
    this.last = frame;
    this.draw();
  }

  /** Draw the keypoints of the last frame, or remove them. */
  draw(): void {
    const draws = this.keypoints && this.last !== null;
    if (!draws && !this.isDrawnOver) return;
    this.isDrawnOver = draws;
    const side = Math.round(this.picture.clientWidth * devicePixelRatio) || 512;
    this.overlay.width = this.overlay.height = side; // clears it
    if (!this.keypoints || !this.last) return;
    const paint = context(this.overlay);
    const points = this.last.keypoints;
    for (let k = 0; k < points.length; k += 3) {
      const x = ((points[k] + 1) / 2) * side;
      const y = ((points[k + 1] + 1) / 2) * side;
      paint.beginPath();
      paint.arc(x, y, side * (0.004 + 0.01 * points[k + 2]), 0, 2 * Math.PI);
      paint.fillStyle = "#ffd54a";
      paint.strokeStyle = "#10242c";
      paint.lineWidth = side / 300;
      paint.fill();
      paint.stroke();
    }
  }
}

/** The strip of source pictures, in the order in which they arrived. */
export class Strip {
  private readonly items = new Map<number, HTMLElement>();
  private marked: HTMLElement[] = [];

  constructor(private readonly list: HTMLElement) {}

  clear(): void {
    this.items.clear();
    this.marked = [];
    this.list.replaceChildren();
  }

  add({ slot, base, side, pixels }: Ingredient): void {
    const known = this.items.get(slot);
    if (!known && this.items.size >= MAX_PICTURES) return;
    const item = document.createElement("li");
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = Math.min(side, 2 * THUMB);
    const whole = document.createElement("canvas");
    whole.width = whole.height = side;
    context(whole).putImageData(new ImageData(new Uint8ClampedArray(pixels), side, side), 0, 0);
    context(canvas).drawImage(whole, 0, 0, canvas.width, canvas.height);
    const caption = document.createElement("span");
    caption.textContent = base === null ? `source ${slot + 1}` : `${slot + 1}, as ${base + 1}`;
    item.className = base === null ? "source" : "variant";
    item.append(canvas, caption);
    if (known) known.replaceWith(item);
    else this.list.append(item);
    this.items.set(slot, item);
  }

  /** Mark the pictures that a frame is rebuilt from. */
  mark(frame: Frame): void {
    const slots = new Set([frame.slot, ...frame.regions]);
    const items = [...slots].flatMap((slot) => (slot === null ? [] : (this.items.get(slot) ?? [])));
    if (items.length === this.marked.length && items.every((item, n) => item === this.marked[n])) return;
    for (const item of this.marked) item.removeAttribute("aria-current");
    for (const item of items) item.setAttribute("aria-current", "true");
    this.marked = items;
  }
}

const KINDS: { kind: keyof FileReport["bytes"]; text: string }[] = [
  { kind: "sources", text: "Source pictures" },
  { kind: "variants", text: "Other eyes and mouths" },
  { kind: "motion", text: "Keypoint motion" },
  { kind: "audio", text: "Sound" },
  { kind: "container", text: "Container" },
];

/** Show the rate of a file and what its bytes are spent on. */
export function showFacts(root: HTMLElement, name: string, { header, report }: Opened): void {
  const total = Object.values(report.bytes).reduce((sum, bytes) => sum + bytes, 0);
  const find = (id: string) => root.querySelector(`#${id}`) as HTMLElement;
  find("name").textContent = name;
  find("rate").textContent = report.kbps.total.toFixed(report.kbps.total < 20 ? 1 : 0);
  const sound = header.audio ? `, ${report.kbps.video.toFixed(1)} of them for the picture` : ", no sound";
  find("size").textContent = `${kilobytes(total)} for ${report.durationS.toFixed(1)} seconds${sound}`;
  const shown = KINDS.filter(({ kind }) => report.bytes[kind] > 0);
  find("bar").replaceChildren(
    ...shown.map(({ kind }) => {
      const part = document.createElement("i");
      part.className = kind;
      part.style.flexGrow = String(report.bytes[kind]);
      return part;
    }),
  );
  find("bytes").replaceChildren(
    ...shown.flatMap(({ kind, text }) => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.className = kind;
      term.textContent = text;
      value.textContent = kilobytes(report.bytes[kind]);
      return [term, value];
    }),
  );
  const pictures = `${report.sources} source picture${report.sources === 1 ? "" : "s"}`;
  const variants = report.variants ? `, ${report.variants} more of eyes and mouths,` : "";
  find("made").textContent =
    `${report.frames} frames of ${header.size}×${header.size}, rebuilt from ${pictures}${variants} and ` +
    `${header.keypoints} keypoints a frame. Model ${header.modelId}.`;
}

function kilobytes(bytes: number): string {
  return bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} KB`;
}

function context(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  return canvas.getContext("2d") as CanvasRenderingContext2D;
}
