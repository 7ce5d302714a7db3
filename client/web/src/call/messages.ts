/** What the page of a call and its worker say to each other. */

import type { SourcePacket } from "../bitstream/packets";
import type { MotionSpace } from "../motion/space";
import type { TablesFile } from "../motion/tables";
import type { TimedFrame } from "../video/jitter_buffer";

/** To the worker. `peer`: names a peer's stream; a new one begins with an empty library. */
export type Request =
  | { type: "load"; base: string; size: number }
  | { type: "source"; peer: string; job: number; packet: SourcePacket; isSnapshot: boolean }
  | { type: "frame"; peer: string; job: number; frame: TimedFrame }
  | { type: "forget"; peer: string };

/** From the worker: jobs are answered in order, with RGBA pixels, or none if the job could not be done. `space`: of a
 * source, the coordinates of motion from it. */
export type Answer =
  | { type: "loading"; bytes: number; total: number }
  | { type: "loaded"; digest: string; keypoints: number; tables: TablesFile; threads: number }
  | { type: "failed"; message: string }
  | { type: "done"; job: number; pixels: ArrayBuffer | null; side: number; space: MotionSpace | null };
