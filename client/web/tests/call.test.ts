import { expect, test, vi } from "vitest";
import { reference } from "../src/fit/alignment";
import { controlToBytes, parseControl, parseMotionMessage, parseSourceChunk, PROTOCOL } from "../src/link/messages";
import { MotionReceiver, SourceAssembler } from "../src/link/receive";
import { motionSpace } from "../src/motion/space";
import { makeTables } from "../src/motion/tables";
import { cleanName, parseMessage, PROTOCOL_VERSION } from "../src/room/protocol";
import { decompressSdp } from "../src/transport/sdp_compression";
import { VideoJitterBuffer } from "../src/video/jitter_buffer";
import { FormatError } from "../src/errors";
import { bytes, largest, outcome, text, vectors } from "./vectors";

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

test("motion is received as by Python, with losses, repetitions and damage", () => {
  const { picture, basis, keypoints } = vectors.space;
  const ref = reference(new Float32Array(bytes(basis).buffer), Float32Array.from(keypoints));
  const tables = makeTables(vectors.tables);
  const space = motionSpace(ref, { side: 256, data: bytes(picture) }, tables.transform.directions);
  const receiver = new MotionReceiver(tables, 20, (slot) => (slot < 2 ? space : undefined));
  const push = vi.spyOn(receiver.jitterBuffer, "push");
  for (const [n, { data, acknowledged, messages, lost, frames, places }] of vectors.received.entries()) {
    push.mockClear();
    outcome(() => receiver.take(bytes(data), 100 + 0.04 * n));
    const pushed = push.mock.calls.flatMap(([taken]) => taken);
    expect(pushed.map(({ number, reference, regions }) => ({ number, reference, regions }))).toEqual(frames);
    for (const [at, place] of places.entries()) expect(largest(pushed[at].keypoints, place)).toBeLessThan(5e-4);
    expect({ acknowledged: receiver.acknowledged, ...receiver.counts }).toEqual({ acknowledged, messages, lost });
  }
});

test("chunks are joined as by Python", () => {
  const assembler = new SourceAssembler();
  for (const { data, unit, sequence, index } of vectors.assembled) {
    expect(outcome(() => assembler.take(bytes(data)))).toEqual(unit);
    expect([assembler.sequence, assembler.index]).toEqual([sequence, index]);
  }
});

test("frames are shown when Python shows them", () => {
  const buffer = new VideoJitterBuffer();
  buffer.renderS = 0.02;
  let frames = 0;
  for (const { at, push, shown, queuedS } of vectors.jitter) {
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

test("session descriptions are inflated, and nothing else", () => {
  const { sdp, deflated } = vectors.sdp;
  expect(decompressSdp(deflated)).toBe(sdp);
  expect(() => decompressSdp("AAAA")).toThrow(FormatError);
  expect(() => decompressSdp("x".repeat(9000))).toThrow("too long");
});

test("the server's messages are checked", () => {
  const welcome = { type: "welcome", id: "a", resume: "r", peers: [{ id: "b", name: "Ada\u0007 " }], ping_s: 0.1 };
  const servers = [{ urls: ["turn:host:3478?transport=udp"], username: "u", credential: "c" }];
  expect(parseMessage(JSON.stringify({ ...welcome, ice_servers: servers }))).toEqual({
    type: "welcome",
    id: "a",
    resume: "r",
    peers: [{ id: "b", name: "Ada" }],
    iceServers: servers,
    pingS: 1,
  });
  const wrong = [
    "",
    "[]",
    '{"type":"signal"}',
    '{"type":"signal","from":"a b","candidate":null}',
    '{"type":"signal","from":"a","sdp":{"type":"rollback","sdp":""}}',
    JSON.stringify({ ...welcome, ice_servers: [{ urls: ["javascript:1"] }] }),
    JSON.stringify({ type: "error", text: "x".repeat(401) }),
    " ".repeat(200_000),
  ];
  for (const message of wrong) expect(() => parseMessage(message), message.slice(0, 80)).toThrow(FormatError);
  expect(cleanName(" \u202e\n ")).toBe("somebody");
});
