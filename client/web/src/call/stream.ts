/** What is kept of a peer's stream: its sources and their composites (client/link/incoming.py). */

import type { SourcePacket } from "../bitstream/packets";
import { reference } from "../fit/alignment";
import { type MotionSpace, motionSpace } from "../motion/space";
import type { Picture } from "../runtime/pictures";
import { type Runtime, withPicture } from "../runtime/types";
import { type Av1Maker, SourceDecoder } from "../sources/av1";
import { CAPACITY, Library } from "../sources/library";
import { Compositor } from "../sources/regions";
import type { TimedFrame } from "../video/jitter_buffer";
import { StreamAttention } from "../video/stream_attention";

export class Stream {
  private readonly decoder: SourceDecoder;
  private readonly library = new Library(CAPACITY);
  private readonly compositor = new Compositor();
  private readonly attention: StreamAttention;

  /** `size`: side of the pictures in pixels. `directions`: of the transform coder's tables. */
  constructor(
    size: number,
    make: Av1Maker,
    private readonly runtime: Promise<Runtime>,
    private readonly directions: Float64Array,
  ) {
    this.decoder = new SourceDecoder(size, make);
    this.attention = new StreamAttention(size);
  }

  /** Free the AV1 decoder. */
  close(): void {
    this.decoder.reset();
  }

  /** Decode a unit of the sequence and return its picture. A snapshot is not kept, nor is a variant without its base.
   * `first`: told the picture of the first source before it is prepared. Throws FormatError. */
  async addSource(
    { slot, base, payload }: SourcePacket,
    isSnapshot: boolean,
    first: (picture: Picture) => void,
  ): Promise<Picture> {
    const picture = await this.decoder.add(payload);
    if (isSnapshot) return picture;
    if (base === null) {
      if (!this.library.slots().length) first(picture);
      this.library.add(slot, await (await this.runtime).prepare(picture));
      return picture;
    }
    const source = this.library.at(base);
    if (source) this.library.add(slot, withPicture(source, picture), true);
    return picture;
  }

  /** Return the coordinates of motion from the source in a slot; null if it is empty, or for a variant. */
  space(slot: number): MotionSpace | null {
    const source = this.library.at(slot);
    if (!source || this.library.isVariant(slot)) return null;
    return motionSpace(reference(source), source.picture, this.directions);
  }

  /** Return a frame's picture; null without any source. `later`: a frame that will follow, if one is known. */
  async reconstruct(frame: TimedFrame, later: TimedFrame | null): Promise<Picture | null> {
    const { keypoints, reference, regions } = frame;
    const attended = this.library.attended(keypoints, reference, regions);
    const sources = this.compositor.sourcesOf(attended, regions, this.library);
    if (!sources.length) return null;
    const runtime = await this.runtime;
    return runtime.refine(sources, await this.attention.of(frame, later, sources, runtime));
  }
}
