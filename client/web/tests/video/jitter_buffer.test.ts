import { expect, test } from "vitest";
import { VideoJitterBuffer } from "../../src/video/jitter_buffer";
import { vectorsOf } from "../support/vectors";

test("frames are shown when Python shows them", () => {
  const buffer = new VideoJitterBuffer();
  buffer.renderS = 0.02;
  let frames = 0;
  for (const { at, push, shown, queuedS } of vectorsOf("receiving").jitter) {
    if (push) {
      buffer.push([{ ...push, keypoints: new Float32Array(60).fill(push.number / 100) }], at);
      continue;
    }
    const due = buffer.pop(at);
    expect(due?.frame.number).toBe(shown?.number);
    expect(buffer.queuedS(at, 0.5)).toBeCloseTo(queuedS, 9);
    if (!due) continue;
    frames += 1;
    expect(due.dueS).toBeCloseTo(shown.dueS, 9);
    expect(due.frame.keypoints[0]).toBeCloseTo(shown.value, 6);
    expect(due.frame.regions).toEqual(shown.regions);
  }
  expect(frames).toBeGreaterThan(100);
});
