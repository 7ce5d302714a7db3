import { expect, test } from "vitest";
import { CropTracker } from "../../src/media/crop_tracking";
import { vectorsOf } from "../support/vectors";

test("crops follow faces as in Python", () => {
  const tracker = new CropTracker(640, 480, 25);
  for (const { faces, crop } of vectorsOf("pictures").crops) expect(tracker.update(faces)).toEqual(crop);
});
