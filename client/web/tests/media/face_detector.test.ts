import { expect, test } from "vitest";
import { facesOf, innerSize } from "../../src/media/face_detector";
import { largest, vectorsOf } from "../support/vectors";

test("faces are found where Python finds them", () => {
  const { width, height, maps, heat, size, offset, faces } = vectorsOf("pictures").faces;
  const [h, s, o] = [heat, size, offset].map((values) => Float32Array.from(values));
  const found = facesOf({ ...maps, heat: h, size: s, offset: o }, width, height);
  expect(found.length).toBe(faces.length);
  found.forEach((face, n) => expect(largest(Object.values(face), Object.values(faces[n] as typeof face))).toBeLessThan(0.01));
  expect(innerSize(width, height, 224)).toEqual({ width: 4 * maps.width, height: 4 * maps.height });
});
