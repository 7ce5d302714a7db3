/** Which frame of a live stream becomes a source, and when (codec/sources/source_policy.py). Times in seconds. */

const JUDGE_INTERVAL_S = 0.4;
const BYTES_PER_S = 170;
const BURST_BYTES = 2500;
const [LOW_THRESHOLD, HIGH_THRESHOLD] = [0.3, 4];
const REMEMBERED_FRAMES = 25;
const MAX_LOSS_DB = 2;
const MIN_INTERVAL_S = 1.1;
const INITIAL_SOURCE_DB = 33;
const SOURCE_DB_SMOOTHING = 0.7;

/** The threshold in dB: it falls with the bytes saved up. */
class Threshold {
  private savedBytes = BURST_BYTES;
  private atS: number | null = null;

  at(atS: number): number {
    if (this.atS !== null) {
      this.savedBytes = Math.min(BURST_BYTES, this.savedBytes + Math.max(0, atS - this.atS) * BYTES_PER_S);
    }
    this.atS = atS;
    return HIGH_THRESHOLD * (LOW_THRESHOLD / HIGH_THRESHOLD) ** (this.savedBytes / BURST_BYTES);
  }

  /** Note that a source of `size` bytes has been sent. */
  pay(size: number, atS: number): void {
    this.at(atS);
    this.savedBytes -= size;
  }
}

export class SourcePolicy {
  /** Exponential mean of the PSNR of coded sources against the original pictures. */
  private sourceDb: number | null = null;
  private readonly threshold = new Threshold();
  /** By how much the newest judged frames were below the sources, in dB. */
  private belowDb: number[] = [];
  /** When the newest source was added. */
  private addedS = -Infinity;
  private judgedS = -Infinity;

  /** Return whether the frame of time `atS` is to be judged. Call once per frame. */
  isDue(atS: number): boolean {
    if (atS - this.judgedS < JUDGE_INTERVAL_S) return false;
    this.judgedS = atS;
    return true;
  }

  /** Note the source of time `atS`: its picture was coded at a PSNR of `qualityDb`, in a unit of `size` bytes. */
  add(qualityDb: number, atS: number, size: number): void {
    const weight = this.sourceDb === null ? 0 : SOURCE_DB_SMOOTHING;
    this.sourceDb = weight * (this.sourceDb ?? 0) + (1 - weight) * qualityDb;
    this.threshold.pay(size, atS);
    this.addedS = atS;
  }

  /** Return whether the frame of time `atS`, which peers see at a PSNR of `qualityDb`, is to become a source. */
  wants(qualityDb: number, atS: number): boolean {
    const belowDb = (this.sourceDb ?? INITIAL_SOURCE_DB) - qualityDb;
    this.belowDb = [...this.belowDb.slice(1 - REMEMBERED_FRAMES), belowDb];
    const lossDb = Math.min(Math.max(Math.min(...this.belowDb), 0), MAX_LOSS_DB); // what the network loses
    return atS - this.addedS >= MIN_INTERVAL_S && belowDb - lossDb >= this.threshold.at(atS);
  }
}
