/** AV1 by dav1d in wasm, for browsers whose WebCodecs lack it. */

import { create } from "dav1d.js";
import { FormatError } from "../errors";
import { type Av1, type Av1Maker, planesOf } from "./av1";

/** Return a maker of decoders from the bytes of dav1d.wasm. Each has 64 MB of memory of its own, which it cannot exceed. */
export function dav1dMaker(wasm: () => Promise<ArrayBuffer>): Av1Maker {
  let bytes: Promise<ArrayBuffer> | null = null;
  return async (): Promise<Av1> => {
    bytes ??= wasm();
    const codec = await create({ wasmData: await bytes });
    return {
      decode: async (temporalUnit) => {
        const { width, height, data } = codec.decodeFrameAsYUV(temporalUnit);
        if (width !== height) throw new FormatError(`A source picture is ${width}x${height}.`);
        return planesOf(width, data);
      },
      close: () => {},
    };
  };
}
