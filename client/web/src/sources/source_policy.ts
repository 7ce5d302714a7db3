/** When a frame of a live stream becomes a source (codec/sources/source_policy.py). Times in seconds. */

import type { Picture } from "../runtime/pictures";

const JUDGE_INTERVAL_S = 0.5;
const WANTED_DEFICIT_DB = 7;
const ENOUGH_DEFICIT_DB = 5;
const MIN_GAIN_DB = 1;
/** Largest mean squared keypoint distance from a source at which a frame tells whether the source helps. */
export const SAME_POSE = 0.01;
const MIN_INTERVAL_S = 1;
const MAX_INTERVAL_S = 16;
const INITIAL_SOURCE_DB = 33;
const SOURCE_DB_SMOOTHING = 0.7;
const PERFECT_DB = 60;

export class SourcePolicy {
  private sourceDb = INITIAL_SOURCE_DB;
  private wanted = false;
  private judgedS = -Infinity;
  private addedS: number | null = null;
  private intervalS = MIN_INTERVAL_S;
  private latestDb = 0;
  private expectedDb: number | null = null;

  /** Return whether the frame of time `atS` is to be judged. Call once per frame. */
  isDue(atS: number): boolean {
    if (atS - this.judgedS < JUDGE_INTERVAL_S) return false;
    this.judgedS = atS;
    return true;
  }

  /** Return whether a judged frame is to become a source: `qualityDb` is the PSNR of the picture that peers see.
   * `byNewest`: whether it is in the pose of the newest source; only such a frame tells whether that source helped. */
  wants(qualityDb: number, byNewest: boolean, atS: number): boolean {
    const deficitDb = this.sourceDb - qualityDb;
    this.latestDb = deficitDb;
    if (byNewest && this.expectedDb !== null) {
      const helped = deficitDb <= this.expectedDb;
      this.intervalS = helped ? MIN_INTERVAL_S : Math.min(2 * this.intervalS, MAX_INTERVAL_S);
      this.expectedDb = null;
    }
    this.wanted = deficitDb > (this.wanted ? ENOUGH_DEFICIT_DB : WANTED_DEFICIT_DB);
    return this.wanted && (this.addedS === null || atS - this.addedS >= this.intervalS);
  }

  /** Note that the frame of time `atS` has become a source, coded at a PSNR of `qualityDb`. */
  added(qualityDb: number, atS: number): void {
    const weight = this.addedS === null ? 0 : SOURCE_DB_SMOOTHING;
    this.sourceDb = weight * this.sourceDb + (1 - weight) * qualityDb;
    this.addedS = atS;
    this.expectedDb = this.latestDb - MIN_GAIN_DB;
  }
}

/** Return the PSNR over all RGB values in dB, at most PERFECT_DB. */
export function psnr(a: Picture, b: Picture): number {
  let sum = 0;
  for (let n = 0; n < a.data.length; n++) sum += (a.data[n] - b.data[n]) ** 2;
  return sum ? Math.min(PERFECT_DB, 10 * Math.log10((255 ** 2 * a.data.length) / sum)) : PERFECT_DB;
}
