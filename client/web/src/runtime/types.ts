/** What crosses the runtime's interface (models/runtime/types.py). */

import type { Picture } from "./pictures";

/** A source picture with the features that a receiver caches for it. */
export interface Source {
  picture: Picture;
  /** (K, 3): x and y in [-1, 1], strength in 0..1. */
  keypoints: Float32Array;
  /** Private to the runtime: (M, R). */
  features: Float32Array;
  /** (M, K + 1). */
  membership: Float32Array;
  /** (b, 3 K). */
  basis: Float32Array;
}

/** Return a source with the keypoints and features of another one, and another picture. */
export function withPicture(source: Source, picture: Picture): Source {
  return { ...source, picture };
}

/** Executes the network. */
export interface Runtime {
  /** Return the keypoints (K, 3) of a picture. */
  detect(picture: Picture): Promise<Float32Array>;
  /** Encode a source picture once, so that frames can be reconstructed from it. */
  prepare(picture: Picture): Promise<Source>;
  /** Reconstruct a picture from keypoints (K, 3) and 1 to 4 sources; `suppression` of small shifts, in pixels. */
  reconstruct(keypoints: Float32Array, sources: Source[], suppression: number): Promise<Picture>;
}
