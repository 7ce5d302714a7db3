import { expect, test } from "vitest";
import { Pace } from "../../src/sender/pace";

/** Frames taken of a second of a camera. */
function taken(fps: number): number {
  const pace = new Pace();
  return Array.from({ length: fps }, (_, n) => pace.takes((n * 1000) / fps)).filter(Boolean).length;
}

test("cameras are coded at 30 frames/s at most", () => {
  expect([60, 30, 25, 15].map(taken)).toEqual([30, 30, 25, 15]);
});

test("a camera whose clock is set back goes on", () => {
  const pace = new Pace();
  expect(pace.takes(5000)).toBe(true);
  expect(pace.takes(40)).toBe(true);
  expect(pace.takes(50)).toBe(false);
});
