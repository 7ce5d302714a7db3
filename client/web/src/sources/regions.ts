/**
 * Regions: eyes and mouth of a frame may each show another source than the rest of the picture
 * (codec/sources/regions.py).
 */

import { backward, reference } from "../fit/alignment";
import { GRID } from "../fit/views";
import { type Picture, remapPicture, remapValues, resizeLinear, roundEven } from "../runtime/pictures";
import { type Source, withPicture } from "../runtime/types";
import type { Library } from "./library";

/** Width and height of eyes and mouth, in distances of the irises. */
export const REGION_SIZES = [
  [2.1, 1.4],
  [1.7, 1.7],
];
export const BOX_SIDE = 64;
const MAX_COMPOSITES = 32;
const MAX_COLOUR_SHIFT = 25;
export const RIM = [0.02, 0.6];
/** Keypoints on the corners and lips of the mouth; 0 and 1 are on the irises. */
const MOUTH = [7, 8, 9, 10];

/** A rectangle in a picture, in pixels; `angle`: clockwise, in radians. */
interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
  angle: number;
}

/** (BOX_SIDE, BOX_SIDE): how much of a region shows; an ellipse that fades to 0 before the edge of the box. */
export const MASK = Float32Array.from({ length: BOX_SIDE ** 2 }, (_, n) => {
  const across = (((n % BOX_SIDE) + 0.5) / BOX_SIDE) * 2 - 1;
  const down = ((Math.floor(n / BOX_SIDE) + 0.5) / BOX_SIDE) * 2 - 1;
  return Math.min(1, Math.max(0, (0.97 - Math.hypot(across, down)) / 0.35));
});

/** Return the box of a region for the keypoints (K, 3) of a source picture of `size` pixels. */
export function regionBox(keypoints: Float32Array, region: number, size: number): Box {
  const at = (k: number, axis: number) => (keypoints[3 * k + axis] + 1) * (size / 2) - 0.5;
  const [across, along] = [at(1, 0) - at(0, 0), at(1, 1) - at(0, 1)];
  const unit = Math.max(Math.hypot(across, along), size / 32);
  const angle = Math.atan2(along, across);
  const mean = (points: number[], axis: number) => points.reduce((sum, k) => sum + at(k, axis), 0) / points.length;
  const [width, height] = REGION_SIZES[region].map((side) => side * unit);
  if (region === 0) return { x: mean([0, 1], 0), y: mean([0, 1], 1), width, height, angle };
  const x = mean(MOUTH, 0) - 0.05 * unit * Math.sin(angle);
  return { x, y: mean(MOUTH, 1) + 0.05 * unit * Math.cos(angle), width, height, angle };
}

/** Return a grid of places (BOX_SIDE, BOX_SIDE, 2) in a box, in pixels of the picture. */
export function boxPlaces({ x, y, width, height, angle }: Box): Float32Array {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const places = new Float32Array(2 * BOX_SIDE ** 2);
  for (let n = 0; n < BOX_SIDE ** 2; n++) {
    const across = (((n % BOX_SIDE) + 0.5) / BOX_SIDE - 0.5) * width;
    const down = ((Math.floor(n / BOX_SIDE) + 0.5) / BOX_SIDE - 0.5) * height;
    places[2 * n] = x + across * cos - down * sin;
    places[2 * n + 1] = y + across * sin + down * cos;
  }
  return places;
}

/** Return where places (n, 2) of a picture lie in the grid of a box. */
export function inBox(box: Box, places: Float32Array): Float32Array {
  const [cos, sin] = [Math.cos(box.angle), Math.sin(box.angle)];
  const found = new Float32Array(places.length);
  for (let n = 0; n < places.length; n += 2) {
    const [x, y] = [places[n] - box.x, places[n + 1] - box.y];
    found[n] = ((x * cos + y * sin) / box.width + 0.5) * BOX_SIDE - 0.5;
    found[n + 1] = ((y * cos - x * sin) / box.height + 0.5) * BOX_SIDE - 0.5;
  }
  return found;
}

/** Return how much of a region shows at places (n, 2) of a source picture of `size` pixels. */
export function regionMask(keypoints: Float32Array, region: number, size: number, places: Float32Array): Float32Array {
  return remapValues(MASK, BOX_SIDE, 1, inBox(regionBox(keypoints, region, size), places), 0);
}

/** Blend pixels (side, side, 3) into a picture under a mask (side, side). Their colours are shifted by the median
 * difference around it. */
export function blend(picture: Picture, other: Uint8Array, mask: Float32Array): Picture {
  const rim: number[] = [];
  for (let n = 0; n < mask.length; n++) if (mask[n] > RIM[0] && mask[n] < RIM[1]) rim.push(n);
  const shift = [0, 1, 2].map((channel) => {
    if (!rim.length) return 0;
    const middle = median(rim.map((n) => picture.data[3 * n + channel] - other[3 * n + channel]));
    return Math.min(MAX_COLOUR_SHIFT, Math.max(-MAX_COLOUR_SHIFT, middle));
  });
  const data = Uint8Array.from(picture.data);
  for (let n = 0; n < mask.length; n++) {
    const weight = mask[n];
    if (!weight) continue;
    for (let i = 3 * n, channel = 0; channel < 3; i++, channel++) {
      const value = roundEven(picture.data[i] * (1 - weight) + (other[i] + shift[channel]) * weight);
      data[i] = Math.min(255, Math.max(0, value));
    }
  }
  return { side: picture.side, data };
}

function median(values: number[]): number {
  const sorted = values.sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Makes composite sources, and keeps them. */
export class Compositor {
  private composites: { key: unknown[]; source: Source }[] = [];

  /** Return a source whose regions show other sources; undefined leaves a region as it is. */
  composite(source: Source, shown: (Source | undefined)[]): Source {
    const others = shown.slice(0, REGION_SIZES.length).map((other) => (other === source ? undefined : other));
    if (!others.some(Boolean)) return source;
    const key = [source, others[0], others[1]];
    const at = this.composites.findIndex((known) => key.every((part, n) => part === known.key[n]));
    const known = at < 0 ? { key, source: this.pasted(source, others) } : this.composites.splice(at, 1)[0];
    this.composites = [...this.composites.slice(1 - MAX_COMPOSITES), known];
    return known.source;
  }

  /** Return the sources of a frame, with the regions of the first one from the slots that the frame names. Null and
   * empty slots leave a region as it is. */
  sourcesOf(sources: Source[], regions: (number | null)[], library: Library): Source[] {
    const [first, ...others] = sources;
    if (!first) return sources;
    const shown = regions.map((slot) => (slot === null ? undefined : library.at(slot)));
    return [this.composite(first, shown), ...others];
  }

  private pasted(source: Source, others: (Source | undefined)[]): Source {
    let { picture } = source;
    others.forEach((other, region) => {
      if (!other) return;
      const places = this.places(source, other);
      const sampled = new Uint8Array(picture.data.length);
      remapPicture(other.picture, places, sampled);
      picture = blend(picture, sampled, regionMask(other.keypoints, region, picture.side, places));
    });
    return withPicture(source, picture);
  }

  /** Return where the pixels of a source lie in another one, (side, side, 2). */
  private places(source: Source, other: Source): Float32Array {
    const { side } = source.picture;
    const places = new Float32Array(side * side * 2);
    if (source.keypoints !== other.keypoints) {
      const cells = backward(reference(other), source.keypoints);
      places.set(resizeLinear(cells, GRID, side, 2).map((value) => value * (side / GRID)));
    }
    for (let n = 0; n < side * side; n++) {
      places[2 * n] += n % side;
      places[2 * n + 1] += Math.floor(n / side);
    }
    return places;
  }
}
