import { beforeEach, expect, test, vi } from "vitest";
import { parseSource } from "../../src/bitstream/packets";
import type { Picture } from "../../src/runtime/pictures";
import { VideoCoder } from "../../src/sender/coder";
import type { Coded } from "../../src/sender/messages";
import { VideoSender } from "../../src/video/video_sender";
import { face, StubRuntime } from "../support/stubs";
import { bytes, vectorsOf } from "../support/vectors";

const SIDE = 256;
const flat = (level: number): Picture => ({ side: SIDE, data: new Uint8Array(SIDE * SIDE * 3).fill(level) });

/** What judging takes, in ms. */
let judgedMs = 0;
beforeEach(() => {
  let calls = 0;
  judgedMs = 0;
  vi.spyOn(performance, "now").mockImplementation(() => (calls++ % 2 ? judgedMs : 0));
});

/** A coder whose AV1 units of `size` bytes are counted, and what it emits. */
function makeCoder(size = 1) {
  const emitted: Coded[] = [];
  let open = 0;
  const encoder = () => {
    open += 1;
    let count = 0;
    return {
      add: async (decoded: Picture) => ({ unit: new Uint8Array(size).fill(count++), decoded }),
      close: () => void (open -= 1),
    };
  };
  const coder = new VideoCoder(new StubRuntime(), encoder, new Float64Array(), (coded) => emitted.push(coded));
  const of = <Type extends Coded["type"]>(type: Type) =>
    emitted.filter((one): one is Extract<Coded, { type: Type }> => one.type === type);
  return { coder, of, open: () => open };
}

test("the first picture is a source, a changed one too, and frames are fitted to them", async () => {
  const { coder, of } = makeCoder(500);
  await coder.push(flat(100), 10_000, true);
  await coder.push(flat(100), 10_040, null);
  for (let ms = 10_600; ms < 11_500; ms += 100) await coder.push(flat(180), ms, null); // shown as it was: too dark
  expect(of("sequence").length).toBe(1);
  expect(of("unit").map(({ source }) => source)).toEqual([0, 1]);
  expect(of("unit").map(({ packet }) => parseSource(packet).slot)).toEqual([0, 1]);
  const [first, second] = of("frame");
  expect([first.reference, first.gram, second.reference]).toEqual([null, null, 0]);
  expect(second.gram?.length).toBe(3600);
  expect(of("preview").length).toBeGreaterThan(2);
});

test("frames are judged less often where that takes long", async () => {
  judgedMs = 300;
  const { coder, of } = makeCoder();
  for (let ms = 10_000; ms < 15_000; ms += 500) await coder.push(flat(100), ms, null);
  expect(of("preview").length).toBe(3);
});

/** What links have of which nothing is known. */
const none = { sequences: [], known: null, arrived: null, behind: false, idle: true };

test("a newcomer's sequence begins with known sources; unused ones are freed", async () => {
  const { coder, of, open } = makeCoder();
  expect(await coder.begin(false, 4, 0)).toBeNull();
  await coder.push(flat(100), 10_000, true);
  const number = await coder.begin(true, 1, 10_000);
  expect(of("sequence")[1]).toEqual({ type: "sequence", number, small: true });
  expect(of("unit")[1]).toMatchObject({ sequence: number, source: 0 });
  coder.links({ ...none, known: null }, 10_001);
  expect(open()).toBe(2);
  coder.links({ ...none, known: null }, 20_000);
  expect(open()).toBe(1);
});

test("an expression that lasts becomes a variant of the source, which frames then show", async () => {
  const { coder, of } = makeCoder(9000); // whole sources are too dear
  const { faces } = vectorsOf("regions").variants;
  const pictures = faces.map((data: string) => ({ side: SIDE, data: bytes(data) }));
  await coder.push(pictures[0], 10_000, true);
  const second = await coder.begin(true, 1, 10_000);
  for (let n = 1; n < 30; n++) await coder.push(pictures[n < 10 ? 0 : 1], 10_000 + 40 * n, null);
  const variants = of("unit").map(({ packet, sequence, source }) => ({ base: parseSource(packet).base, sequence, source }));
  expect(variants.filter(({ base }) => base === 0).map(({ source }) => source)).toEqual([1, 1]);
  expect(variants[variants.length - 1]).toMatchObject({ base: 0, sequence: second }); // which lacked it
  expect(of("frame").pop()?.regions).toEqual([1, null]);
  coder.links({ ...none, sequences: [second as number], known: [0], arrived: [0] }, 11_200); // the variant is on its way
  await coder.push(pictures[1], 11_240, null);
  expect(of("frame").pop()?.regions).toEqual([null, null]);
});

test("only sources that all peers have are referred to, and none is added while all are behind", async () => {
  const { coder, of } = makeCoder();
  await coder.push(flat(100), 10_000, true);
  coder.links({ ...none, known: [], behind: true, idle: false }, 10_000);
  await coder.push(flat(180), 11_000, null);
  coder.links({ ...none, known: [7], behind: true, idle: false }, 10_000);
  await coder.push(flat(180), 12_000, null);
  expect(of("unit").length).toBe(1);
});

test("without a face the scene is shown, until there is one again", async () => {
  const { coder, of } = makeCoder();
  await coder.push(flat(100), 10_000, true);
  for (let n = 1; n < 12; n++) await coder.push(flat(100), 10_000 + 500 * n, false);
  expect(of("face").map(({ lost }) => lost)).toEqual([true]);
  expect(of("unit").map(({ source }) => source)).toEqual([0, null]);
  const frames = of("frame").length;
  expect(frames).toBe(3);
  await coder.push(flat(100), 20_000, true);
  expect(of("face").map(({ lost }) => lost)).toEqual([true, false]);
  expect(of("frame").length).toBe(frames + 1);
});

test("links get frames with their slots, and newcomers the present sequence while it is short", async () => {
  const posted: unknown[] = [];
  Object.assign(globalThis, { window: globalThis });
  const sender = new VideoSender((command) => posted.push(command), () => {});
  const taken: unknown[] = [];
  const link = {
    sequence: null,
    backlog: 0,
    hasPicture: false,
    isReached: true,
    take: (frame: unknown) => taken.push(frame),
    statusChanged: () => taken.push("status"),
    slot: () => null,
  };
  sender.join(link);
  expect(await sender.sequenceForNewcomer(false)).toBeNull();
  sender.pause(false);
  sender.receive({ type: "sequence", number: 7, small: false });
  for (let n = 0; n < 4; n++) sender.receive({ type: "unit", sequence: 7, packet: new Uint8Array(9), source: n });
  expect((await sender.sequenceForNewcomer(false))?.next).toBe(4);
  sender.receive({ type: "unit", sequence: 7, packet: new Uint8Array(9), source: 4 });
  const fresh = sender.sequenceForNewcomer(false);
  expect(posted[posted.length - 1]).toMatchObject({ type: "begin", job: 1, count: 4 });
  sender.receive({ type: "sequence", number: 8, small: false });
  sender.receive({ type: "begun", job: 1, sequence: 8 });
  expect((await fresh)?.number).toBe(8);
  const { keypoints } = face(flat(0));
  const capturedMs = performance.timeOrigin + 1234;
  sender.receive({ type: "frame", capturedMs, keypoints, reference: 3, gram: null, regions: [], counts: { coded: 1, dropped: 0 } });
  expect(taken[0]).toBe("status");
  expect(taken[1]).toMatchObject({ stampMs: 1234, reference: 3 });
  sender.close();
  sender.receive({ type: "frame", capturedMs, keypoints, reference: 3, gram: null, regions: [], counts: { coded: 2, dropped: 0 } });
  expect(taken.length).toBe(3); // the status alone
});
