import { expect, test } from "vitest";
import { controlToBytes, parseControl } from "../../src/link/messages";
import { type Exchange, fingerprint, Verification, wordsOf } from "../../src/link/verification";
import { bytes, text, vectorsOf } from "../support/vectors";

const { ends, events, numbers } = vectorsOf("messages").verification;

test("the words of two ends are Python's, in any order", async () => {
  for (const { parts, words } of ends) {
    const [a, m, b, n] = parts.map(bytes);
    expect(await wordsOf([a, m], [b, n])).toBe(words);
    expect(await wordsOf([b, n], [a, m])).toBe(words);
  }
});

test("an exchange goes as in Python, out of turn, repeated, and with other certificates", async () => {
  const rest = numbers.map(bytes);
  const end = new Verification(() => rest.shift());
  let verified = 0;
  for (const { atS, certificate, told, answers, words } of events) {
    const sent = certificate
      ? await end.connected([new Uint8Array(32), bytes(certificate)])
      : await end.receive(parseControl(bytes(told)) as Exchange, atS);
    expect(sent.map((message) => text(controlToBytes(message)))).toEqual(answers);
    expect(end.words).toBe(words);
    verified += Number(words !== null);
  }
  expect(verified).toBeGreaterThan(5);
});

test("a session description with several fingerprints verifies nothing", () => {
  const line = (start: string) => `a=fingerprint:sha-256 ${start}${":0A".repeat(31)}\r\n`;
  expect(fingerprint(`v=0\r\n${line("FF")}m=audio\r\n${line("ff")}`)).toEqual(Uint8Array.of(255, ...Array(31).fill(10)));
  expect(fingerprint(line("FF") + line("FE"))).toBeNull();
  expect(fingerprint(`${line("FF")}a=fingerprint:sha-512 00\r\n`)).toBeNull();
  expect(fingerprint("v=0\r\n")).toBeNull();
});
