import { expect, test } from "vitest";
import { FormatError } from "../../src/errors";
import { cleanName, parseMessage } from "../../src/room/protocol";

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
