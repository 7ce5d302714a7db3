/** Faces in a picture, by CenterFace (codec/media/crop/face_detector.py). */

/** Run the detector on every Nth frame: a face moves little in between. */
export const DETECT_EVERY = 5;
/** Longer sides of the pictures that the network reads; the second one if no face is found at the first. */
export const LONG_SIDES = [224, 448];
const THRESHOLD = 0.5;
const OVERLAP = 0.3;

/** A face's box in pixels, which may reach outside the picture, and its score, 0..1. */
export interface Face {
  x: number;
  y: number;
  w: number;
  h: number;
  score: number;
}

/** What the network returns, in cells of 4 x 4 pixels: planes of `width` x `height`. */
export interface Maps {
  width: number;
  height: number;
  heat: Float32Array;
  /** Two planes each: height and width; down and across. */
  size: Float32Array;
  offset: Float32Array;
}

/** Return the size at which the network reads a picture: it halves its input five times. */
export function innerSize(width: number, height: number, longSide: number): { width: number; height: number } {
  const scale = longSide / Math.max(width, height);
  const inner = (side: number) => Math.max(32, Math.round((side * scale) / 32) * 32);
  return { width: inner(width), height: inner(height) };
}

/** Return the faces of a picture of `width` x `height` pixels, highest score first. */
export function facesOf(maps: Maps, width: number, height: number): Face[] {
  const { heat, size, offset } = maps;
  const count = maps.width * maps.height;
  const [across, down] = [width / maps.width, height / maps.height];
  const faces: Face[] = [];
  for (let n = 0; n < count; n++) {
    if (heat[n] < THRESHOLD || !isPeak(maps, n)) continue;
    const [h, w] = [Math.exp(size[n]), Math.exp(size[count + n])];
    const y = Math.floor(n / maps.width) + 0.5 + offset[n] - h / 2;
    const x = (n % maps.width) + 0.5 + offset[count + n] - w / 2;
    faces.push({ x: x * across, y: y * down, w: w * across, h: h * down, score: heat[n] });
  }
  const kept: Face[] = [];
  for (const face of faces.sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => overlap(face, other) < OVERLAP)) kept.push(face);
  }
  return kept;
}

function isPeak({ heat, width, height }: Maps, n: number): boolean {
  const [x, y] = [n % width, Math.floor(n / width)];
  for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
    for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
      if (heat[row * width + column] > heat[n]) return false;
    }
  }
  return true;
}

/** Intersection over union. */
function overlap(a: Face, b: Face): number {
  const across = Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x);
  const down = Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y);
  const shared = Math.max(across, 0) * Math.max(down, 0);
  return shared / (a.w * a.h + b.w * b.h - shared);
}
