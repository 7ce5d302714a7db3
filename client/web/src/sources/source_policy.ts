/** Which frame of a live stream becomes a source, and when (codec/sources/source_policy.py). Times in seconds. */

import { type Picture, resizeArea } from "../runtime/pictures";

const JUDGE_INTERVAL_S = 0.4;
const REMEMBERED_FRAMES = 25;
const CANDIDATES = 5;
const THUMBNAIL = 32;
const WARPED_ERROR = 0.2;
const ERROR_FLOOR = 4;
const SOURCE_ERROR = 0.9;
const BYTES_PER_S = 200;
const BURST_BYTES = 2500;
const [LOW_PRICE, HIGH_PRICE] = [8, 64];
const IN_FLIGHT_S = 0.3;
const IN_FLIGHT_BYTES_PER_S = 2500;
const INITIAL_SOURCE_DB = 33;
const SOURCE_DB_SMOOTHING = 0.7;
const SURPRISE_SMOOTHING = 0.8;
const [LEAST_SURPRISE, MOST_SURPRISE] = [0.5, 64];

/** The levels of a picture of THUMBNAIL pixels. */
type Thumbnail = Uint8Array;

/** The price of a source, in squared dB times seconds: it falls with the bytes saved up. */
class Price {
  private savedBytes = BURST_BYTES;
  private atS: number | null = null;

  at(atS: number): number {
    if (this.atS !== null) {
      this.savedBytes = Math.min(BURST_BYTES, this.savedBytes + Math.max(0, atS - this.atS) * BYTES_PER_S);
    }
    this.atS = atS;
    return HIGH_PRICE * (LOW_PRICE / HIGH_PRICE) ** (this.savedBytes / BURST_BYTES);
  }

  /** Note that a source of `size` bytes has been sent. */
  pay(size: number, atS: number): void {
    this.at(atS);
    this.savedBytes -= size;
  }
}

/** A judged frame. `left`: its mean squared error. */
interface Judged {
  picture: Picture;
  small: Thumbnail;
  left: number;
}

export class SourcePolicy {
  /** Exponential mean of the PSNR of coded sources against the original pictures. */
  private sourceDb: number | null = null;
  private readonly price = new Price();
  private memory: Judged[] = [];
  /** Mean ratio of the error that frames have to the one predicted. */
  private surprise = 1;
  /** New sources, with the time at which receivers will have them. */
  private inFlight: { untilS: number; small: Thumbnail }[] = [];
  private judgedS = -Infinity;

  /** Return whether the frame of time `atS` is to be judged. Call once per frame. */
  isDue(atS: number): boolean {
    if (atS - this.judgedS < JUDGE_INTERVAL_S) return false;
    this.judgedS = atS;
    return true;
  }

  /** Note the source of time `atS`: its picture as coded, at a PSNR of `qualityDb`, in a unit of `size` bytes. */
  add(coded: Picture, qualityDb: number, atS: number, size: number): void {
    const weight = this.sourceDb === null ? 0 : SOURCE_DB_SMOOTHING;
    this.sourceDb = weight * (this.sourceDb ?? 0) + (1 - weight) * qualityDb;
    this.price.pay(size, atS);
    const small = thumbnail(coded);
    this.inFlight.push({ untilS: atS + IN_FLIGHT_S + size / IN_FLIGHT_BYTES_PER_S, small });
    for (const frame of this.memory) frame.left = Math.min(frame.left, this.predicted(frame.small, small));
  }

  /** Remember a frame: `qualityDb` is the PSNR of the picture that peers see, `nearest` the first source in it. */
  judge(picture: Picture, qualityDb: number, nearest: Picture, atS: number): void {
    const small = thumbnail(picture);
    const error = ERROR_FLOOR + meanSquare(qualityDb);
    this.inFlight = this.inFlight.filter(({ untilS }) => untilS > atS);
    const expected = this.predicted(thumbnail(nearest), small);
    const left = Math.min(error, ...this.inFlight.map((source) => this.predicted(source.small, small)));
    const surprise = this.surprise * (error / expected) ** (1 - SURPRISE_SMOOTHING);
    this.surprise = Math.min(MOST_SURPRISE, Math.max(LEAST_SURPRISE, surprise));
    this.memory = [...this.memory.slice(1 - REMEMBERED_FRAMES), { picture, small, left }];
  }

  /** Return the picture that is to become a source at time `atS`, if any: one of the newest judged frames. */
  wanted(atS: number): Picture | null {
    let [best, most] = [null as Picture | null, -Infinity];
    for (const candidate of this.memory.slice(-CANDIDATES)) {
      const gain = this.gain(candidate.small);
      if (gain > most) [best, most] = [candidate.picture, gain];
    }
    return best && most >= this.price.at(atS) ? best : null;
  }

  /** Return by how much the remembered frames would be better with a source, in squared dB times seconds. */
  private gain(source: Thumbnail): number {
    let sum = 0;
    for (const { small, left } of this.memory) {
      sum += (10 * Math.log10(left / Math.min(left, this.predicted(small, source)))) ** 2;
    }
    return sum * JUDGE_INTERVAL_S;
  }

  /** Return the mean squared error of a frame that is warped from a source. */
  private predicted(frame: Thumbnail, source: Thumbnail): number {
    const shown = SOURCE_ERROR * meanSquare(this.sourceDb ?? INITIAL_SOURCE_DB);
    return this.surprise * (ERROR_FLOOR + shown + WARPED_ERROR * meanSquaredDifference(frame, source));
  }
}

function thumbnail(picture: Picture): Thumbnail {
  return resizeArea(picture, THUMBNAIL).data;
}

function meanSquaredDifference(a: Thumbnail, b: Thumbnail): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += (a[n] - b[n]) ** 2;
  return sum / a.length;
}

/** Squared grey levels of a PSNR. */
function meanSquare(qualityDb: number): number {
  return 255 ** 2 / 10 ** (qualityDb / 10);
}
