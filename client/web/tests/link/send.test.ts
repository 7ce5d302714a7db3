import { expect, test } from "vitest";
import { withOpusSettings } from "../../src/audio/transceiver";
import { CongestionControl, parameters } from "../../src/link/congestion_control";
import { sourceChunkToBytes } from "../../src/link/messages";
import { MotionSender, SourceSender } from "../../src/link/send";
import { makeTables } from "../../src/motion/tables";
import { Call } from "../../src/room/call";
import { TokenBucket } from "../../src/token_bucket";
import { SourceSequence } from "../../src/video/source_sequence";
import { bytes, text, vectorsOf } from "../support/vectors";

const vectors = { ...vectorsOf("motion"), ...vectorsOf("sending") };

// eslint-disable-next-line @typescript-eslint/no-explicit-any
const sendingOf = ({ message_frames, stride, coarseness, source_kbps, repeats }: any) => ({
  ...parameters(message_frames, stride, coarseness, source_kbps),
  repeats,
});

test("motion is sent as by Python: repeated, coarser, slower, to a receiver that begins anew", () => {
  const sender = new MotionSender(makeTables(vectors.tables), parameters(4, 1, 0, 8));
  const doubles = (data: string) => new Float64Array(bytes(data).buffer);
  const spaces = vectors.spaces.map((space: Record<string, string> | null) =>
    space && { own: doubles(space.own), rows: doubles(space.rows) },
  );
  let messages = 0;
  for (const event of vectors.sent) {
    if (event.sending) sender.sending = sendingOf(event.sending);
    else if (event.forget) sender.forgetAcknowledged();
    else {
      const { stamp, keypoints, gram, reference, regions, space } = event;
      const full = sender.take({
        stampMs: stamp,
        keypoints: Float32Array.from(keypoints),
        reference,
        gram: gram && Float64Array.from(new Float32Array(bytes(gram).buffer)),
        regions,
      }, spaces[space]);
      expect(full).toBe(event.full);
      if (full) expect(text(sender.message(event.acknowledged))).toBe(event.message);
      if (event.acknowledge !== undefined) sender.acknowledgeLow(event.acknowledge);
      messages += Number(full);
    }
  }
  expect(messages).toBeGreaterThan(20);
});

test("what may be sent is divided between all, less their sound", () => {
  const links = [0, 1].map(() => ({ link: { outgoing: { congestionControl: { maxKbps: null as number | null } } } }));
  const call = { maxKbps: 60 as number | null, microphone: {}, participants: new Map(links.map((one, n) => [n, one])) };
  const shared = (isMuted: boolean) => {
    Call.prototype.shareRate.call(call as unknown as Call, isMuted);
    return links.map(({ link }) => link.outgoing.congestionControl.maxKbps);
  };
  expect(shared(false)).toEqual([15, 15]);
  expect(shared(true)).toEqual([30, 30]);
  call.maxKbps = 20;
  expect(shared(false)).toEqual([0, 0]);
  call.maxKbps = null;
  expect(shared(false)).toEqual([null, null]);
});

test("rates follow reports as in Python", () => {
  const control = new CongestionControl();
  for (const { at, maxKbps, lost, queuedS, blocked, sending, small, congested } of vectors.congestion) {
    control.maxKbps = maxKbps;
    control.silence(at);
    if (lost !== undefined) control.report(at, lost, queuedS, blocked);
    expect(control.sending).toEqual(sendingOf(sending));
    expect([control.small, control.congested]).toEqual([small, congested]);
  }
});

test("sources are sent in Python's chunks", () => {
  const sequence = new SourceSequence(70_000, false);
  vectors.chunks.packets.forEach((packet: string, n: number) => sequence.add(bytes(packet), n === 2 ? null : n));
  const sender = new SourceSender();
  sender.start(sequence, 0, true);
  const chunks: unknown[] = [];
  for (let n = 0; n < 120; n++) {
    sender.fill(0.04 * n, n < 60 ? 8 : 4);
    for (let chunk = sender.chunk(); chunk; chunk = sender.chunk()) chunks.push({ n, data: text(sourceChunkToBytes(chunk)) });
  }
  expect(chunks).toEqual(vectors.chunks.chunks);
  expect([sender.backlog, sender.isLost, sender.canResume(70_000, 1), sender.canResume(7, 1)]).toEqual([0, false, true, false]);
});

test("what a peer may cost is bounded", () => {
  const bucket = new TokenBucket(10, 20);
  expect([bucket.take(0, 15), bucket.take(0, 6), bucket.take(1, 15), bucket.take(0, 1)]).toEqual([true, false, true, false]);
});

test("Opus is asked for at a low rate, whatever the other side said", () => {
  const lines = ["v=0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=rtpmap:111 opus/48000/2", "a=fmtp:111 stereo=1", "a=ptime:20", ""];
  const sdp = withOpusSettings(lines.join("\r\n"));
  expect(sdp.match(/a=fmtp:111 .*/g)).toEqual(["a=fmtp:111 maxaveragebitrate=12000;stereo=0;useinbandfec=0;usedtx=1"]);
  expect(sdp.match(/a=ptime:\d+/g)).toEqual(["a=ptime:60"]);
  expect(withOpusSettings("v=0\r\n")).toBe("v=0\r\n");
});
