/** What the page of a call and the worker that codes its camera say to each other. */

import type { MotionSpace } from "../motion/space";

/** What the links use and have. */
export interface Links {
  /** Those still in use. */
  sequences: number[];
  /** Sources that all peers have, and those that any has, variants included; null if no peer has any. */
  known: number[] | null;
  arrived: number[] | null;
  /** All peers have units waiting. */
  behind: boolean;
  /** No peer has. */
  idle: boolean;
}

/** To the worker. Sources are counted by it; sequences have random numbers. */
export type Command =
  | { type: "load"; base: string; size: number }
  /** The camera's frames, as a stream or one by one; `capturedMs`: milliseconds since 1970. */
  | { type: "camera"; frames: ReadableStream<VideoFrame> }
  | { type: "picture"; picture: ImageBitmap; capturedMs: number }
  | { type: "pause"; on: boolean }
  | ({ type: "links" } & Links)
  /** Begin another sequence with up to `count` sources. */
  | { type: "begin"; job: number; small: boolean; count: number };

/** From the worker, for the VideoSender. */
export type Coded =
  | {
      type: "frame";
      capturedMs: number;
      keypoints: Float32Array;
      reference: number | null;
      gram: Float64Array | null;
      /** For each region, the source that it shows; null: the reference source. */
      regions: (number | null)[];
      counts: { coded: number; dropped: number };
    }
  | { type: "sequence"; number: number; small: boolean }
  /** `source`: its number; null for a scene snapshot. */
  | { type: "unit"; sequence: number; packet: Uint8Array; source: number | null }
  /** Coordinates of motion from a source as a sequence shows it. */
  | { type: "space"; sequence: number; source: number; space: MotionSpace }
  | { type: "begun"; job: number; sequence: number | null }
  | { type: "face"; lost: boolean }
  /** RGBA. */
  | { type: "preview"; pixels: ArrayBuffer; side: number };

export type SenderAnswer =
  | Coded
  | { type: "loading"; bytes: number; total: number }
  | { type: "loaded" }
  /** A single picture is in hand: the next one may be sent. */
  | { type: "taken" }
  | { type: "failed"; message: string };
