/** The page that watches a call: nothing is sent but acknowledgements. */

import "../player/style.css";
import "./watch.css";
import type { DecodedSource, Model, Pixels, Renderer } from "../link/link";
import { makeTables } from "../motion/tables";
import { Call, type Participant } from "../room/call";
import { cleanName } from "../room/protocol";
import type { Answer, Request } from "./messages";

/** Pictures of calls, in pixels. */
const SIZE = 256;
const UPDATE_MS = 500;
const ROOM = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const TOKEN = /^iw1\.[A-Za-z0-9_-]{1,300}\.[A-Za-z0-9_-]{43}$/;

const $ = <Kind extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as Kind;
const parameters = new URLSearchParams(location.hash.slice(1));
const room = parameters.get("room") ?? "";
const token = parameters.get("token");
const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const jobs = new Map<number, (done: DecodedSource | null) => void>();
const tiles = new Map<string, { root: HTMLElement; canvas: HTMLCanvasElement; state: HTMLElement }>();
let lastJob = 0;
let call: Call | null = null;
let ready: ((model: Model) => void) | null = null;
/** Begins when the page is opened, so that the model is there when somebody has typed a name. */
const model = new Promise<Model>((resolve) => (ready = resolve));

const request = (message: Request) => worker.postMessage(message);

worker.onmessage = ({ data }: MessageEvent<Answer>) => {
  if (data.type === "failed") fail(data.message);
  else if (data.type === "loading") say(`Loading the model: ${Math.round((100 * data.bytes) / (data.total || data.bytes))} %`);
  else if (data.type === "loaded") {
    say("");
    const digest = Uint8Array.from(data.digest.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
    ready?.({ digest, keypoints: data.keypoints, tables: makeTables(data.tables) });
  } else {
    jobs.get(data.job)?.(data.pixels && { side: data.side, data: data.pixels, space: data.space });
    jobs.delete(data.job);
  }
};
worker.onerror = () => fail("The page could not start its decoder; please reload it.");

function rendererFor(peer: string): Renderer {
  const job = (make: (number: number) => Request) =>
    new Promise<DecodedSource | null>((resolve) => {
      lastJob += 1;
      jobs.set(lastJob, resolve);
      request(make(lastJob));
    });
  return {
    source: (packet, isSnapshot) => job((number) => ({ type: "source", peer, job: number, packet, isSnapshot })),
    frame: (frame) => job((number) => ({ type: "frame", peer, job: number, frame })),
    reset: () => request({ type: "forget", peer }),
  };
}

async function watch(): Promise<void> {
  $("enter").hidden = true;
  $("call").hidden = false;
  say("Joining…");
  const root = new URL("..", document.baseURI); // the player lies below the server's root
  const url = new URL(`r/${room}/ws`, root);
  url.protocol = root.protocol === "https:" ? "wss:" : "ws:";
  const name = cleanName($<HTMLInputElement>("who").value || "guest");
  call = new Call(url.href, name, token && TOKEN.test(token) ? token : null, await model, rendererFor, {
    joined: addTile,
    left: removeTile,
    show,
    state: (text, final) => {
      if (final) fail(text);
      else say(text);
    },
  });
  update();
  setInterval(update, UPDATE_MS);
}

function addTile(participant: Participant): void {
  const root = document.createElement("li");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIZE;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Picture of ${participant.name}`);
  const name = document.createElement("strong");
  name.textContent = participant.name;
  const state = document.createElement("span");
  const caption = document.createElement("p");
  caption.append(name, state);
  root.append(canvas, caption, participant.sound);
  $("people").append(root);
  tiles.set(participant.id, { root, canvas, state });
  update();
}

function removeTile(participant: Participant): void {
  tiles.get(participant.id)?.root.remove();
  tiles.delete(participant.id);
  request({ type: "forget", peer: participant.id });
  update();
}

function show({ id }: Participant, { side, data }: Pixels): void {
  const context = tiles.get(id)?.canvas.getContext("2d");
  if (side === SIZE) context?.putImageData(new ImageData(new Uint8ClampedArray(data), side, side), 0, 0);
}

const before = new Map<string, { atMs: number; bytes: number; shown: number }>();

/** Say how each participant's picture is, and keep sound in step with it. */
function update(): void {
  if (!call) return;
  const participants = [...call.participants.values()];
  $("alone").hidden = participants.length > 0;
  for (const { id, link, peer } of participants) {
    const tile = tiles.get(id);
    if (!tile) continue;
    const { state } = link;
    const last = before.get(id);
    const seconds = last ? (performance.now() - last.atMs) / 1000 : 0;
    if (!last || seconds >= 2) before.set(id, { atMs: performance.now(), bytes: link.received, shown: link.shown });
    if (state !== "live") tile.state.textContent = state;
    else if (last && seconds >= 2) {
      const rate = ((link.received - last.bytes) * 8) / 1000 / seconds;
      const delay = link.delayMs === null ? "" : `, ${Math.round(link.delayMs)} ms late`;
      const frames = Math.round((link.shown - last.shown) / seconds);
      tile.state.textContent = `${rate.toFixed(1)} kbit/s, ${frames} frames/s${delay}`;
    } else if (!last || tile.root.dataset.state !== "live") tile.state.textContent = "live";
    tile.root.dataset.state = state;
    for (const receiver of peer.connection?.getReceivers() ?? []) {
      // In seconds in browsers that know only the older name.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = Math.min(4000, 1000 * link.playoutS);
    }
  }
}

function say(text: string): void {
  $("status").textContent = text;
}

function fail(message: string): void {
  say("");
  $("error").textContent = message;
  call?.leave();
  call = null;
  $("call").hidden = true;
}

$("room").textContent = ROOM.test(room) ? room : "";
if (!ROOM.test(room)) {
  $("enter").hidden = true;
  fail("This address names no room: open a room's page, and choose to watch there.");
} else {
  request({ type: "load", base: document.baseURI, size: SIZE });
}
$<HTMLFormElement>("enter").onsubmit = (event) => {
  event.preventDefault();
  void watch();
};
$("leave").onclick = () => {
  call?.leave();
  location.reload();
};
window.onpagehide = () => call?.leave();

/** For tests. */
const participants = () => [...(call?.participants.values() ?? [])];
const probe = {
  shown: () => participants().map(({ link }) => link.shown),
  /** What was heard of the first participant (RTCInboundRtpStreamStats). */
  heard: async () => {
    const stats = await participants()[0]?.peer.connection?.getStats();
    return [...(stats?.values() ?? [])].find(({ type, kind }) => type === "inbound-rtp" && kind === "audio") ?? null;
  },
};
Object.assign(window, { iwcodec: probe });
