import { expect, test } from "vitest";
import { controlToBytes, parseControl, parseMotionMessage, parseSourceChunk, PROTOCOL } from "../../src/link/messages";
import { PROTOCOL_VERSION } from "../../src/room/protocol";
import { bytes, outcome, text, vectorsOf } from "../support/vectors";

const vectors = vectorsOf("messages");
const PARSERS = {
  motion: parseMotionMessage,
  chunk: parseSourceChunk,
  control: (data: Uint8Array) => {
    const { kind, ...fields } = parseControl(data);
    return { kind, fields: Object.values(fields) };
  },
};

test("both protocols have Python's versions", () => {
  expect([PROTOCOL, PROTOCOL_VERSION]).toEqual(vectors.protocols);
});

test("messages, intact and damaged, are read or refused as by Python", () => {
  let refused = 0;
  for (const { kind, data, message } of vectors.messages) {
    expect(outcome(() => PARSERS[kind as keyof typeof PARSERS](bytes(data)))).toEqual(message);
    refused += message === null ? 1 : 0;
  }
  expect(refused).toBeGreaterThan(50);
  expect(refused).toBeLessThan(vectors.messages.length - 20);
});

test("control messages have Python's bytes", () => {
  for (const { data } of vectors.messages.slice(4, 10)) {
    expect(text(controlToBytes(parseControl(bytes(data))))).toBe(data);
  }
});
