/** Jitter buffer of a peer's frames: decides when each is shown (client/video/jitter_buffer.py). Times in seconds. */

const WINDOW_S = 6;
const FASTEST_S = 12;
const EMPTY_S = 30;
const SHARE = 0.995;
const MARGIN_S = 0.005;
const MAX_WAIT_S = 0.8;
const SHRINK = 0.08;
const MAX_BRIDGE_S = 0.5;
const LATEST_BRIDGE_S = 0.02;
const MAX_WAITING = 256;

/** A decoded frame; `stampS`: capture time on the sender's clock. */
export interface TimedFrame {
  number: number;
  stampS: number;
  /** (K, 3). */
  keypoints: Float32Array;
  reference: number | null;
  /** Slot of the source that each region shows; null: the reference source. */
  regions: (number | null)[];
}

interface Arrival {
  atS: number;
  transit: number;
}

export class VideoJitterBuffer {
  /** Time that rendering takes: frames are handed out this long before they are due. */
  renderS = 0;
  private transits: Arrival[] = [];
  private minima: Arrival[] = [];
  private empty: Arrival[] = [];
  private needed: number | null = null;
  private delay: number | null = null;
  private adaptedS = 0;
  private readonly waiting = new Map<number, TimedFrame>();
  private readonly known = new Set<number>();
  private last: TimedFrame | null = null;

  /** From capture to display, as a difference of the two clocks; 0 before the first frame. */
  get delayS(): number {
    return this.delay ?? 0;
  }

  /** Delay from the arrival of the fastest frames to their display. */
  get playoutS(): number {
    return this.minima.length ? Math.max(0, this.delayS - fastest(this.minima)) : 0;
  }

  /** Queueing delay on the path over the last `windowS` seconds. */
  queuedS(nowS: number, windowS: number): number {
    const recent = this.minima.filter(({ atS }) => atS > nowS - windowS);
    return recent.length ? fastest(recent) - this.empty[0].transit : 0;
  }

  /** Take the frames of a message, in order; known and late ones are ignored. */
  push(frames: TimedFrame[], nowS: number): void {
    const fresh = frames.filter((frame) => !this.known.has(frame.number));
    for (const frame of fresh) {
      this.known.add(frame.number);
      const isLate = this.last && (frame.number <= this.last.number || frame.stampS < this.last.stampS);
      if (!isLate) this.waiting.set(frame.number, frame);
    }
    while (this.known.size > 4 * MAX_WAITING) this.known.delete(this.known.values().next().value as number);
    while (this.waiting.size > MAX_WAITING) this.waiting.delete(Math.min(...this.waiting.keys()));
    if (fresh.length) this.record(fresh, nowS);
  }

  /** Forget the transit times, after conditions have changed. */
  relearn(): void {
    this.transits = [];
    this.minima = [];
    this.needed = this.delay = null;
  }

  /** Forget the fastest transits: frames take another path from now on. */
  newPath(): void {
    this.minima = [];
    this.empty = [];
  }

  /** Return the frame with a number, if it waits. */
  waitingAs(number: number): TimedFrame | null {
    return this.waiting.get(number) ?? null;
  }

  /** When `pop` will return a frame; null if that needs another message. */
  nextS(nowS: number): number | null {
    const [first] = this.timeline(nowS);
    return first ? this.due(first) - this.renderS : null;
  }

  /** Return the newest frame that is due, with the time to show it; older ones are skipped. */
  pop(nowS: number): { frame: TimedFrame; dueS: number } | null {
    this.adapt(nowS);
    let ready: TimedFrame | null = null;
    for (const frame of this.timeline(nowS)) {
      if (this.due(frame) - this.renderS > nowS) break;
      ready = frame;
    }
    if (!ready) return null;
    this.last = ready;
    for (const number of [...this.waiting.keys()]) if (number <= ready.number) this.waiting.delete(number);
    return { frame: ready, dueS: this.due(ready) };
  }

  /** The frames to show as far as they are known now; lost ones are interpolated. */
  private *timeline(nowS: number): Generator<TimedFrame> {
    let previous = this.last;
    for (const number of [...this.waiting.keys()].sort((a, b) => a - b)) {
      const frame = this.waiting.get(number) as TimedFrame;
      if (previous && frame.stampS - previous.stampS <= MAX_BRIDGE_S) {
        for (let missing = previous.number + 1; missing < Math.min(number, previous.number + MAX_WAITING); missing++) {
          const bridge = interpolated(previous, frame, missing);
          if (this.due(bridge) - this.renderS >= nowS - LATEST_BRIDGE_S) yield bridge;
        }
      }
      yield frame;
      previous = frame;
    }
  }

  private due(frame: TimedFrame): number {
    return frame.stampS + this.delayS;
  }

  private record(fresh: TimedFrame[], atS: number): void {
    const transits = fresh.map((frame) => atS - frame.stampS);
    const least = Math.min(...transits);
    this.transits.push(...transits.map((transit) => ({ atS, transit })));
    this.minima.push({ atS, transit: least });
    while (this.empty.length && this.empty[this.empty.length - 1].transit >= least) this.empty.pop();
    this.empty.push({ atS, transit: least });
    this.empty = this.empty.filter((one) => one.atS >= atS - EMPTY_S);
    this.transits = this.transits.filter((one) => one.atS >= atS - WINDOW_S).slice(-2 * MAX_WAITING);
    this.minima = this.minima.filter((one) => one.atS >= atS - FASTEST_S).slice(-2 * MAX_WAITING);
    const most = fastest(this.minima) + MAX_WAIT_S;
    const bounded = this.transits.map(({ transit }) => transit).filter((transit) => transit <= most);
    if (bounded.length) this.needed = quantile(bounded, SHARE) + MARGIN_S;
    this.adapt(atS);
  }

  private adapt(nowS: number): void {
    if (this.needed !== null) {
      const shrunk = this.delayS - SHRINK * Math.max(0, nowS - this.adaptedS);
      const target = this.needed + this.renderS;
      this.delay = this.delay === null ? target : Math.max(target, shrunk);
    }
    this.adaptedS = nowS;
  }
}

function fastest(arrivals: Arrival[]): number {
  return Math.min(...arrivals.map(({ transit }) => transit));
}

function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

/** The nearer frame, with keypoints between both. Those of different reference sources cannot be mixed: then they are of
 * the nearer frame, too. */
function interpolated(a: TimedFrame, b: TimedFrame, number: number): TimedFrame {
  const share = (number - a.number) / (b.number - a.number);
  const stampS = a.stampS + share * (b.stampS - a.stampS);
  const nearer = { ...(share < 0.5 ? a : b), number, stampS };
  if (a.reference !== b.reference) return nearer;
  const keypoints = a.keypoints.map((value, i) => value + share * (b.keypoints[i] - value));
  return { ...nearer, keypoints };
}
