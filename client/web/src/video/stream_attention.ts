/** Attention to a stream's frames. Where the face moves evenly, only every second frame is attended to, and the others get
 * the mean of their neighbours' attention. */

import type { Attention, Runtime, Source } from "../runtime/types";

/** Largest distance, in frames, of two attended frames whose mean is used. */
const MAX_SPAN = 4;
/** Largest mean deviation, in pixels, of a frame's keypoints from those interpolated between two attended frames. Up to it
 * their mean attention loses 0.4 dB at most and gains as often as not (client/LAB.md). */
const MAX_DEVIATION = 1;

/** A frame of a call or a file. */
export interface Frame {
  number: number;
  /** (K, 3). */
  keypoints: Float32Array;
  /** Slot of the reference source. */
  reference: number | null;
}

interface Attended {
  frame: Frame;
  sources: Source[];
  attention: Promise<Attention>;
}

export class StreamAttention {
  /** The newest two. */
  private attended: Attended[] = [];

  /** `size`: side of the pictures in pixels. */
  constructor(private readonly size: number) {}

  /** Return the attention to a frame, for the caller to keep. `later`: a frame that will follow, if one is known. */
  async of(frame: Frame, later: Frame | null, sources: Source[], runtime: Runtime): Promise<Attention> {
    const alike = this.attended.filter((one) => isSame(one.sources, sources)).sort((a, b) => b.frame.number - a.frame.number);
    const before = alike.find((one) => one.frame.number <= frame.number);
    const after = alike.find((one) => one.frame.number > frame.number)?.frame ?? later;
    if (before && after?.reference === frame.reference && this.isBetween(frame, before.frame, after)) {
      const share = (frame.number - before.frame.number) / (after.number - before.frame.number);
      const [a, b] = await Promise.all([before.attention, this.to(after, sources, runtime)]);
      return { ...a, shifts: mixed(a.shifts, b.shifts, share), features: mixed(a.features, b.features, share) };
    }
    const own = await this.to(frame, sources, runtime);
    return { ...own, shifts: own.shifts.slice(), features: own.features.slice() };
  }

  private to(frame: Frame, sources: Source[], runtime: Runtime): Promise<Attention> {
    const known = this.attended.find((one) => one.frame.number === frame.number && isSame(one.sources, sources));
    if (known) return known.attention;
    const attention = runtime.attend(frame.keypoints, sources);
    this.attended = [...this.attended.slice(-1), { frame, sources, attention }];
    return attention;
  }

  /** Whether a frame's keypoints are nearly between those of two others. */
  private isBetween(frame: Frame, before: Frame, after: Frame): boolean {
    const span = after.number - before.number;
    if (before.number === frame.number || span > MAX_SPAN || after.number <= frame.number) return false;
    const between = mixed(before.keypoints, after.keypoints, (frame.number - before.number) / span);
    const { keypoints } = frame;
    let sum = 0;
    for (let i = 0; i < keypoints.length; i += 3) sum += Math.hypot(keypoints[i] - between[i], keypoints[i + 1] - between[i + 1]);
    return ((sum / (keypoints.length / 3)) * this.size) / 2 < MAX_DEVIATION;
  }
}

/** Whether both lists give the same attention: the sources may differ in their pictures only. */
function isSame(some: Source[], others: Source[]): boolean {
  return some.length === others.length && some.every(({ features }, n) => features === others[n].features);
}

function mixed(a: Float32Array, b: Float32Array, share: number): Float32Array {
  const out = new Float32Array(a.length);
  for (let n = 0; n < a.length; n++) out[n] = a[n] + share * (b[n] - a[n]);
  return out;
}
