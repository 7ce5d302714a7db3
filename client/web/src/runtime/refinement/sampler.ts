/** Samples and blends sources by what attention makes of a frame (models/runtime/onnx.py). */

import { type Convolutions, VALUE } from "../network/convolutions";
import { MAX_SOURCES } from "../types";
import type { Picture } from "../pictures";

export class Sampler {
  /** The base picture (size, size, 3) in 0..255; an address. */
  readonly base: number;
  /** A picture; fields as they come and enlarged, of all sources; their shares, and what one of them is enlarged to. */
  private readonly rooms: Record<"picture" | "coarse" | "fine" | "shares" | "large" | "spare", number>;

  /** `side`: of fields; pictures of `size` pixels, read by the network with `netSize`. */
  constructor(
    private readonly c: Convolutions,
    private readonly side: number,
    private readonly netSize: number,
    private readonly size: number,
  ) {
    this.base = c.room(3 * size ** 2 + 1);
    this.rooms = {
      picture: c.room((3 * size ** 2) / VALUE + 1),
      coarse: c.room(3 * MAX_SOURCES * side ** 2),
      fine: c.room(3 * MAX_SOURCES * netSize ** 2),
      shares: c.room(MAX_SOURCES * netSize ** 2),
      large: c.room(size > netSize ? 4 * size ** 2 : 0),
      spare: c.room(3 * netSize * size),
    };
  }

  /** Make the base picture from fields (S, side, side, 3) of shifts and weights. */
  run(pictures: Picture[], fields: Float32Array): void {
    const { c, netSize, rooms, side, size } = this;
    const [scale, pixels, count] = [size / netSize, netSize ** 2, pictures.length];
    const fine = (n: number) => rooms.fine + 3 * VALUE * pixels * n;
    c.floats(rooms.coarse, fields.length).set(fields);
    for (let n = 0; n < count; n++) {
      c.run.enlarge(rooms.coarse + 3 * VALUE * side ** 2 * n, side, netSize, 3, rooms.spare, fine(n));
    }
    if (count > 1) {
      c.run.share(rooms.fine, count, pixels, rooms.shares);
      c.floats(this.base, 3 * size ** 2).fill(0);
    }
    pictures.forEach(({ data }, n) => {
      let [field, shares] = [fine(n), count > 1 ? rooms.shares + VALUE * pixels * n : 0];
      if (scale > 1) {
        c.run.enlarge(field, netSize, size, 3, rooms.spare, rooms.large);
        field = rooms.large;
        const wide = rooms.large + 3 * VALUE * size ** 2;
        if (shares) c.run.enlarge(shares, netSize, size, 1, rooms.spare, wide);
        if (shares) shares = wide;
      }
      c.bytes(rooms.picture, data.length).set(data);
      c.run.sample(rooms.picture, size, field, scale, shares, this.base);
    });
  }
}
