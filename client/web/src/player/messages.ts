/** What the page and its worker say to each other. */

import type { Header } from "../bitstream/header";
import type { FileReport } from "../bitstream/info";
import type { AudioPacket } from "../bitstream/packets";

/** To the worker. */
export type Request =
  | { type: "open"; data: ArrayBuffer; base: string }
  /** Decode a frame. Frames of an older file are answered, too; `file` tells them apart. */
  | { type: "frame"; file: number; number: number };

/** An opened file. */
export interface Opened {
  type: "opened";
  file: number;
  header: Header;
  report: FileReport;
  sound: AudioPacket[];
  truncated: boolean;
  damage: string[];
}

/** A decoded frame; `pixels`: RGBA, null if nothing can be shown. */
export interface Frame {
  type: "frame";
  file: number;
  number: number;
  pixels: ArrayBuffer | null;
  /** (K, 3); empty for a frame that is a source picture. */
  keypoints: Float32Array;
  /** Slot of the source it is rebuilt from first. */
  slot: number | null;
  /** Slots of the sources that its regions show; null: the same one. */
  regions: (number | null)[];
  /** Milliseconds that decoding took. */
  ms: number;
}

/** A source picture that has been decoded. */
export interface Ingredient {
  type: "ingredient";
  file: number;
  slot: number;
  /** Slot of the source of which it is a variant, if it is one. */
  base: number | null;
  side: number;
  pixels: ArrayBuffer;
}

/** From the worker. */
export type Answer =
  | Opened
  | Frame
  | Ingredient
  | { type: "loading"; file: number; bytes: number; total: number }
  | { type: "failed"; file: number; message: string };
