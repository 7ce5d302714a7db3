/** Sources and a runtime without a network, and an AV1 decoder without a browser. */

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { Picture } from "../../src/runtime/pictures";
import type { Attention, Runtime, Source } from "../../src/runtime/types";
import { dav1dMaker } from "../../src/sources/dav1d";
import { bytes, vectorsOf } from "./vectors";

const { composites } = vectorsOf("regions");

const wasm = async () => {
  const file = createRequire(import.meta.url).resolve("dav1d.js/dav1d.wasm");
  return Uint8Array.from(await readFile(file)).buffer;
};

export const dav1d = dav1dMaker(wasm);

/** A source with the pose and the motion basis of one of the two faces in the vectors. */
export function face(picture: Picture, number = 0): Source {
  const { keypoints, basis } = composites.sources[number];
  const empty = new Float32Array();
  const floats = new Float32Array(bytes(basis).buffer);
  return { picture, keypoints: Float32Array.from(keypoints), basis: floats, features: empty, membership: empty };
}

/** Shows the picture of the first source, and counts what is prepared. */
export class StubRuntime implements Runtime {
  prepared = 0;

  async detect(picture: Picture): Promise<Float32Array> {
    return face(picture).keypoints;
  }

  async prepare(picture: Picture): Promise<Source> {
    this.prepared += 1;
    return face(picture);
  }

  async attend(): Promise<Attention> {
    return { shifts: new Float32Array(3), side: 1, features: new Float32Array(1) };
  }

  async refine([source]: Source[]): Promise<Picture> {
    return source.picture;
  }

  async reconstruct(_: Float32Array, [source]: Source[]): Promise<Picture> {
    return source.picture;
  }
}
