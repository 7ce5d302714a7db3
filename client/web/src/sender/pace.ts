/** Which of the camera's frames are coded. Times in ms. */

/** Frames that a camera delivers faster than this are dropped. */
const MAX_FPS = 30;

export class Pace {
  private stampMs = -Infinity;

  /** Return whether a frame with this time stamp of the camera is to be coded. */
  takes(stampMs: number): boolean {
    const isEarly = stampMs - this.stampMs < 900 / MAX_FPS && stampMs >= this.stampMs;
    if (!isEarly) this.stampMs = stampMs;
    return !isEarly;
  }
}
