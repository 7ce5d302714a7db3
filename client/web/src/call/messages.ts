/** What the page of a call and its worker say to each other. */

import type { SourcePacket } from "../bitstream/packets";
import type { MotionSpace } from "../motion/space";
import type { TablesFile } from "../motion/tables";
import type { TimedFrame } from "../video/jitter_buffer";

/** To the worker. `peer`: names a peer's stream; a new one begins with an empty library. `later`: a frame that will follow,
 * if one is known. */
export type Request =
  | { type: "load"; base: string; size: number }
  | { type: "source"; peer: string; job: number; packet: SourcePacket; isSnapshot: boolean }
  | { type: "frame"; peer: string; job: number; frame: TimedFrame; later: TimedFrame | null }
  | { type: "forget"; peer: string };

/** From the worker: what peers must have in common as soon as it is known, then that the networks are ready, which jobs
 * wait for. Jobs are answered in order, with RGBA pixels, or none if the job could not be done; the first source of a
 * stream is shown before the network has prepared it. `space`: of a source, the coordinates of motion from it. */
export type Answer =
  | { type: "loading"; bytes: number; total: number }
  | { type: "model"; digest: string; keypoints: number; tables: TablesFile }
  | { type: "loaded" }
  | { type: "failed"; message: string }
  | { type: "first"; job: number; pixels: ArrayBuffer; side: number }
  | { type: "done"; job: number; pixels: ArrayBuffer | null; side: number; space: MotionSpace | null };
