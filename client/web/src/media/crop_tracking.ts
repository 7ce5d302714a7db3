/** A square crop that follows the speaker's face, without look-ahead (codec/media/crop/tracking.py). */

import { roundEven } from "../runtime/pictures";
import { centreSquare, type Crop } from "./crop";
import type { Face } from "./face_detector";

const MIN_SIDE = 32;
const FACE_HEIGHT = 0.5;
const FACE_LEVEL = 0.48;
const SHIFT_HYSTERESIS = 0.12;
const ZOOM_HYSTERESIS = 0.25;
const MAX_SHIFT = 0.6;
const MAX_MISSES = 6;
const LOST_MISSES = 3;
const SETTLED = 0.005;

/** Centre x, centre y and side of a crop in pixels. */
type Place = [number, number, number];

export class CropTracker {
  private readonly speaker = new SpeakerTracker();
  private readonly motion: CropMotion;
  private recent: Place[] = [];

  /** `width` and `height` of the picture; `fps` sets the speed. */
  constructor(
    private readonly width: number,
    private readonly height: number,
    fps: number,
  ) {
    this.motion = new CropMotion(fps);
  }

  /** Return the crop of the next frame. `faces`: those detected in it, or null if the detector did not run. */
  update(faces: Face[] | null): Crop {
    const { width, height } = this;
    if (faces) {
      const face = this.speaker.pick(faces);
      if (face) this.recent = [...this.recent.slice(-2), idealPlace(face, width, height)];
      else if (this.speaker.lost) this.recent = [];
    }
    const ideal = this.recent.length ? ([0, 1, 2].map((i) => median(this.recent.map((place) => place[i]))) as Place) : null;
    return rounded(this.motion.step(ideal), width, height);
  }
}

/** Picks the speaker among the detected faces: the one nearest to the last place; at first the largest. */
class SpeakerTracker {
  private last: Face | null = null;
  private misses = 0;

  get lost(): boolean {
    return this.misses >= LOST_MISSES;
  }

  pick(faces: Face[]): Face | null {
    let { last } = this;
    let near = faces.filter((face) => !last || isSamePlace(face, last));
    if (!near.length && this.misses >= MAX_MISSES) [near, last] = [faces, null];
    if (!near.length) {
      this.misses += 1;
      return null;
    }
    const cost = (face: Face) => (last ? distance(face, last) : -face.w * face.h);
    this.last = near.reduce((a, b) => (cost(b) < cost(a) ? b : a));
    this.misses = 0;
    return this.last;
  }
}

/** A place that stands still, or moves to a goal with limited speed and acceleration. */
class CropMotion {
  private readonly speed: Place;
  private place: Place | null = null;
  private velocity: Place = [0, 0, 0];
  private goal: Place | null = null;

  constructor(fps: number) {
    this.speed = [0.008, 0.008, 0.004].map((side) => side * Math.min(1, 30 / fps)) as Place;
  }

  /** Return the place of the next frame. `ideal`: null while the face is lost. */
  step(ideal: Place | null): Place | null {
    if (!ideal) this.settle();
    else if (!this.place || shift(ideal, this.place) > MAX_SHIFT) {
      this.place = [...ideal];
      this.settle();
    } else if (!isTolerable(ideal, this.goal ?? this.place)) this.goal = [...ideal];
    if (this.place && this.goal) this.move(this.place, this.goal);
    return this.place;
  }

  private move(place: Place, goal: Place): void {
    const side = place[2];
    const missing = goal.map((value, i) => (value - place[i]) / side);
    this.speed.forEach((speed, i) => {
      const pull = clamp(0.1 * missing[i], -speed, speed);
      this.velocity[i] += clamp(pull - this.velocity[i], -speed / 8, speed / 8);
    });
    this.place = place.map((value, i) => value + this.velocity[i] * side) as Place;
    if (Math.max(...missing.map(Math.abs)) < SETTLED) this.settle();
  }

  private settle(): void {
    this.goal = null;
    this.velocity = [0, 0, 0];
  }
}

function idealPlace(face: Face, width: number, height: number): Place {
  const side = Math.min(Math.max(face.h / FACE_HEIGHT, MIN_SIDE), Math.min(width, height));
  const x = face.x + face.w / 2;
  const y = face.y + face.h / 2 + (0.5 - FACE_LEVEL) * side;
  return [clamp(x, side / 2, width - side / 2), clamp(y, side / 2, height - side / 2), side];
}

function rounded(place: Place | null, width: number, height: number): Crop {
  if (!place) return centreSquare(width, height);
  const side = Math.min(roundEven(place[2]), width, height);
  const at = (centre: number, most: number) => clamp(roundEven(centre - side / 2), 0, most - side);
  return { x: at(place[0], width), y: at(place[1], height), side };
}

/** Return the larger distance along an axis, in sides of `place`. */
function shift(ideal: Place, place: Place): number {
  return Math.max(Math.abs(ideal[0] - place[0]), Math.abs(ideal[1] - place[1])) / place[2];
}

function isTolerable(ideal: Place, place: Place): boolean {
  return shift(ideal, place) <= SHIFT_HYSTERESIS && Math.abs(Math.log(ideal[2] / place[2])) <= ZOOM_HYSTERESIS;
}

function distance(a: Face, b: Face): number {
  return Math.hypot(a.x + a.w / 2 - b.x - b.w / 2, a.y + a.h / 2 - b.y - b.h / 2);
}

function isSamePlace(a: Face, b: Face): boolean {
  return distance(a, b) < 0.8 * Math.max(b.w, b.h) && a.h / b.h > 0.5 && a.h / b.h < 2;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function clamp(value: number, low: number, high: number): number {
  return Math.max(low, Math.min(value, high));
}
