/** Which of the camera's frames are coded. Times in ms. */

/** Frames that a camera delivers faster than this are dropped. */
const MAX_FPS = 30;
/** On so few cores the camera leaves those who are shown as much time as it takes itself: their frames take longer, and
 * would wait for it. */
const FEW_CORES = 2;
/** Longest rest. A frame that took longer had to wait for other programs. */
const MAX_REST_MS = 100;

export class Pace {
  private stampMs = -Infinity;
  private begunMs = 0;
  private restedMs = -Infinity;

  constructor(private readonly cores: number) {}

  /** Return whether a frame with this time stamp of the camera is to be coded now. If so, call `done` afterwards. */
  begins(stampMs: number, nowMs: number): boolean {
    const isEarly = stampMs - this.stampMs < 900 / MAX_FPS && stampMs >= this.stampMs;
    if (isEarly || nowMs < this.restedMs) return false;
    [this.stampMs, this.begunMs] = [stampMs, nowMs];
    return true;
  }

  done(nowMs: number): void {
    if (this.cores <= FEW_CORES) this.restedMs = nowMs + Math.min(MAX_REST_MS, nowMs - this.begunMs);
  }
}
