import { expect, test } from "vitest";
import { FormatError } from "../../src/errors";
import { decompressSdp } from "../../src/transport/sdp_compression";
import { vectorsOf } from "../support/vectors";

test("session descriptions are inflated, and nothing else", () => {
  const { sdp, deflated } = vectorsOf("messages").sdp;
  expect(decompressSdp(deflated)).toBe(sdp);
  expect(() => decompressSdp("AAAA")).toThrow(FormatError);
  expect(() => decompressSdp("x".repeat(9000))).toThrow("too long");
});
