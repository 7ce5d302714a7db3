/** The square of a camera's picture that is sent (codec/media/crop/square.py). */

/** A square in pixels: left, top, side. */
export interface Crop {
  x: number;
  y: number;
  side: number;
}

/** Return the largest square in the middle of a picture. */
export function centreSquare(width: number, height: number): Crop {
  const side = Math.min(width, height);
  return { x: (width - side) >> 1, y: (height - side) >> 1, side };
}
