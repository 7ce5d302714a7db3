import { expect, test } from "vitest";
import { Pace } from "../../src/sender/pace";

/** Frames coded in a second of a camera of 60 frames/s, if each takes `ms`. */
function coded(cores: number, ms: number): number {
  const pace = new Pace(cores);
  let [count, freeMs] = [0, 0];
  for (let n = 0; n < 60; n++) {
    const nowMs = (n * 1000) / 60;
    if (nowMs < freeMs || !pace.begins(nowMs, nowMs)) continue;
    pace.done((freeMs = nowMs + ms));
    count += 1;
  }
  return count;
}

test("cameras are coded at 30 frames/s at most, and on few cores in half of the time", () => {
  expect(coded(8, 10)).toBe(30);
  expect(coded(8, 50)).toBe(20);
  expect(coded(2, 10)).toBe(30);
  expect(coded(2, 50)).toBe(10);
  expect(coded(2, 5000)).toBe(1);
});

test("a camera whose clock is set back goes on, and a long wait is no reason to rest as long", () => {
  const pace = new Pace(2);
  expect(pace.begins(5000, 0)).toBe(true);
  pace.done(3000);
  expect(pace.begins(40, 3050)).toBe(false);
  expect(pace.begins(80, 3110)).toBe(true);
});
