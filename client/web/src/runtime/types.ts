/** What crosses the runtime's interface (models/runtime/types.py). */

import type { Picture } from "./pictures";

/** Most sources in the attention of a frame. */
export const MAX_SOURCES = 4;

/** A model as the server describes it. */
export interface Model {
  id: string;
  /** Hexadecimal. */
  digest: string;
  keypoints: number;
  /** Side in pixels of source and reconstructed pictures. */
  size: number;
  /** Side in pixels of the source pictures as the network reads them, and as the detector does. */
  net_size: number;
  detector_size: number;
  /** Blocks of cells that each block of a frame attends to. */
  top_k: number;
  /** Addresses of the weights: of the network, and of its decoder after attention. */
  network: string;
  decoder: string;
  /** Of both together, before they are compressed for their way. */
  bytes: number;
}

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

/** What attention makes of a frame. */
export interface Attention {
  /** (S, side, side, 3): for each source, shifts in pixels (x, y), and weights. */
  shifts: Float32Array;
  side: number;
  /** The decoder's features (side, side, channels), then its gate (side, side). */
  features: Float32Array;
}

/** Executes the network. */
export interface Runtime {
  /** Return the keypoints (K, 3) of a picture. */
  detect(picture: Picture): Promise<Float32Array>;
  /** Encode a source picture once, so that frames can be reconstructed from it. */
  prepare(picture: Picture): Promise<Source>;
  /** Attend to 1 to 4 sources with keypoints (K, 3). */
  attend(keypoints: Float32Array, sources: Source[]): Promise<Attention>;
  /** Return the picture; `attention` may not be used any more. */
  refine(sources: Source[], attention: Attention): Promise<Picture>;
  /** Do both. */
  reconstruct(keypoints: Float32Array, sources: Source[]): Promise<Picture>;
}
