import { expect, test } from "vitest";
import { facesOf, innerSize } from "../../src/media/face_detector";
import { FaceNetwork } from "../../src/media/face_network";
import { bytes, largest, vectorsOf } from "../support/vectors";

test("faces are found where Python finds them", () => {
  const { width, height, maps, heat, size, offset, faces } = vectorsOf("pictures").faces;
  const [h, s, o] = [heat, size, offset].map((values) => Float32Array.from(values));
  const found = facesOf({ ...maps, heat: h, size: s, offset: o }, width, height);
  expect(found.length).toBe(faces.length);
  found.forEach((face, n) => expect(largest(Object.values(face), Object.values(faces[n] as typeof face))).toBeLessThan(0.01));
  expect(innerSize(width, height, 224)).toEqual({ width: 4 * maps.width, height: 4 * maps.height });
});

test("the network finds what its graph in Python finds, at any size", () => {
  const { network, runs } = vectorsOf("pictures").faces;
  const faces = new FaceNetwork(bytes(network));
  for (const { width, height, pixels, ...wanted } of [...runs, runs[0]]) {
    const maps = faces.run(Uint8ClampedArray.from(bytes(pixels)), width, height);
    expect([maps.width, maps.height]).toEqual([width / 4, height / 4]);
    for (const name of ["heat", "size", "offset"] as const) {
      expect(largest(maps[name], new Float32Array(bytes(wanted[name]).buffer))).toBeLessThan(2e-3);
    }
  }
});
