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

/** Some pixels of a picture: their numbers (n,), places (n, 2), and how much of a region shows there (n,). */
export interface RegionPixels {
  pixels: Int32Array;
  places: Float32Array;
  mask: Float32Array;
}

/** Return the pixels whose places (side * side, 2) in a source picture of `size` pixels lie in a region. */
export function regionPixels(keypoints: Float32Array, region: number, size: number, places: Float32Array): RegionPixels {
  const box = regionBox(keypoints, region, size);
  const [right, down] = [Math.cos(box.angle), Math.sin(box.angle)];
  const [wide, high] = [box.width / 2, box.height / 2];
  const pixels = new Int32Array(places.length / 2);
  let count = 0;
  for (let n = 0; n < pixels.length; n++) {
    const x = places[2 * n] - box.x;
    const y = places[2 * n + 1] - box.y;
    if (Math.abs(x * right + y * down) < wide && Math.abs(y * right - x * down) < high) pixels[count++] = n;
  }
  const inside = pixels.slice(0, count);
  const some = placesAt(places, inside);
  return { pixels: inside, places: some, mask: remapValues(MASK, BOX_SIDE, 1, inBox(box, some), 0) };
}

/** Return the places (n, 2) of some pixels (n,). */
export function placesAt(places: Float32Array, pixels: Int32Array): Float32Array {
  const out = new Float32Array(2 * pixels.length);
  for (let n = 0; n < pixels.length; n++) {
    out[2 * n] = places[2 * pixels[n]];
    out[2 * n + 1] = places[2 * pixels[n] + 1];
  }
  return out;
}

/** Blend colours (n, 3) into some pixels (n,) of a picture by a mask (n,). They are shifted by the median difference around
 * it. */
export function blend(picture: Picture, other: Uint8Array, mask: Float32Array, pixels: Int32Array): Picture {
  const rim: number[] = [];
  for (let n = 0; n < mask.length; n++) if (mask[n] > RIM[0] && mask[n] < RIM[1]) rim.push(n);
  const shift = [0, 1, 2].map((channel) => {
    if (!rim.length) return 0;
    const middle = median(rim.map((n) => picture.data[3 * pixels[n] + channel] - other[3 * n + channel]));
    return Math.min(MAX_COLOUR_SHIFT, Math.max(-MAX_COLOUR_SHIFT, middle));
  });
  const data = Uint8Array.from(picture.data);
  for (let n = 0; n < mask.length; n++) {
    const weight = mask[n];
    if (!weight) continue;
    for (let channel = 0, i = 3 * pixels[n]; channel < 3; channel++, i++) {
      const value = roundEven(picture.data[i] * (1 - weight) + (other[3 * n + channel] + shift[channel]) * weight);
      data[i] = Math.min(255, Math.max(0, value));
    }
  }
  return { side: picture.side, data };
}

function median(values: number[]): number {
  const sorted = Float64Array.from(values).sort();
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
      const { pixels, places, mask } = regionPixels(other.keypoints, region, picture.side, this.places(source, other));
      const sampled = new Uint8Array(3 * pixels.length);
      remapPicture(other.picture, places, sampled);
      picture = blend(picture, sampled, mask, pixels);
    });
    return withPicture(source, picture);
  }

  /** Return where the pixels of a source lie in another one, (side, side, 2). */
  private places(source: Source, other: Source): Float32Array {
    const { side } = source.picture;
    const places = new Float32Array(side * side * 2);
    if (source.keypoints !== other.keypoints) {
      const cells = backward(reference(other), source.keypoints);
      places.set(resizeLinear(cells, GRID, side, 2));
    }
    const scale = side / GRID;
    for (let y = 0, n = 0; y < side; y++) {
      for (let x = 0; x < side; x++, n += 2) {
        places[n] = places[n] * scale + x;
        places[n + 1] = places[n + 1] * scale + y;
      }
    }
    return places;
  }
}
