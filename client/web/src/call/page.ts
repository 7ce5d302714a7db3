/** The page of a call: who opens its link is seen and heard, or watches where the browser cannot send. */

import "../player/style.css";
import "./call.css";
import type { Link, LinkState } from "../link/link";
import { Call, type Participant } from "../room/call";
import { cleanName } from "../room/protocol";
import { qualityWords } from "../quality";
import { encodingMode } from "../sources/av1_encoder";
import { Devices } from "./devices";
import { Renderers } from "./renderers";
import { Sending } from "./sending";
import { Rates, SIZE, Tile } from "./tiles";

const UPDATE_MS = 500;
/** Least limit of what is sent. */
const MIN_KBPS = 2;
const CERTIFICATE = { name: "ECDSA", namedCurve: "P-256" };
const ROOM = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const TOKEN = /^iw1\.[A-Za-z0-9_-]{1,300}\.[A-Za-z0-9_-]{43}$/;

const $ = <Kind extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as Kind;
const parameters = new URLSearchParams(location.hash.slice(1));
const room = parameters.get("room") ?? "";
const given = parameters.get("token");
const token = given && TOKEN.test(given) ? given : null;
const root = new URL("..", document.baseURI); // this page lies below the server's root

const renderers = new Renderers(
  (share) => say(share < 0.98 ? `Loading the model: ${Math.round(100 * share)} %` : "Preparing the model…"),
  fail,
);
/** Takes the place of the first of the others. */
const alone = $("alone");
const own = new Tile("You");
own.root.className = "own";
/** Whether our tile shows us. */
let isShown = false;
const sending = new Sending((pixels) => {
  own.draw(pixels);
  if (!isShown) {
    isShown = true;
    showOwnState();
  }
});
const devices = new Devices(devicesChanged);
/** `wire`: bytes on the wire, received and sent, headers included. */
const tiles = new Map<string, { tile: Tile; rates: Rates; wire: [number, number] }>();
const ownRates = new Rates();
let call: Call | null = null;
let canSend = false;
let isMuted = false;
let showsNumbers = false;
/** Is loaded from when the page is opened. To join it has to be known only: connecting takes a while, too. */
const model = ROOM.test(room) ? renderers.load(SIZE) : null;

/** Find out whether this browser can send, and show its camera. */
async function prepare(): Promise<void> {
  if (!Devices.areAllowed) return cannotSend("This page may not use a camera: its address has to begin with https:// (or be localhost).");
  if (!(await encodingMode(SIZE))) return cannotSend("This browser cannot encode AV1, which the others expect; Chrome, Edge and Firefox on a computer can.");
  canSend = true;
  const missing = await devices.open();
  $("cannot").textContent = missing.join(" ");
  if (!devices.camera && !devices.microphone) return cannotSend(missing.join(" "));
  await listDevices();
  navigator.mediaDevices.ondevicechange = () => void listDevices();
}

/** Say why we only receive. */
function cannotSend(why: string): void {
  canSend = false;
  document.body.classList.add("watching");
  for (const element of document.querySelectorAll<HTMLElement>(".sends, #mirror")) element.hidden = true;
  $("cannot").textContent = `${why} You can watch and listen; the others see your name.`;
  $("join").textContent = "Watch and listen";
}

async function listDevices(): Promise<void> {
  await devices.fill($<HTMLSelectElement>("camera"), "video");
  await devices.fill($<HTMLSelectElement>("microphone"), "audio");
}

function devicesChanged(camera: MediaStreamTrack | null, microphone: MediaStreamTrack | null): void {
  const view = $<HTMLVideoElement>("camera-view");
  view.srcObject = call || !camera ? null : new MediaStream([camera]);
  if (view.srcObject) void view.play().catch(() => {});
  if (microphone) microphone.enabled = !isMuted;
  camera?.addEventListener("ended", () => devices.camera === camera && turnCamera(false));
  if (!call) return;
  sending.use(camera);
  call.useMicrophone(microphone);
  showOwnState();
}

/** Join the call; without `sends` nobody sees or hears us. */
async function join(sends: boolean): Promise<void> {
  if (!model) return;
  if (!sends) {
    if (canSend) cannotSend("");
    devices.close("video");
    devices.close("audio");
  }
  $("enter").hidden = true;
  $("call").hidden = false;
  $("devices").prepend(...[...document.querySelectorAll("#choices label.sends")]);
  if (sends) $("people").prepend(own.root);
  say("Joining…");
  const url = new URL(`r/${room}/ws`, root);
  url.protocol = root.protocol === "https:" ? "wss:" : "ws:";
  const name = cleanName($<HTMLInputElement>("who").value || "guest");
  const [loaded, certificate] = await Promise.all([model, RTCPeerConnection.generateCertificate(CERTIFICATE)]);
  call = new Call(url.href, name, token, loaded, sending.sender, certificate, devices.microphone, (id) => renderers.of(id), {
    joined: addTile,
    left: removeTile,
    show: ({ id }, pixels) => tiles.get(id)?.tile.draw(pixels),
    state: (text, final) => (final ? fail(text) : say(text)),
  });
  update();
  setInterval(update, UPDATE_MS);
  if (!sends) return;
  devicesChanged(devices.camera, devices.microphone);
  await renderers.ready; // so that what both workers need is fetched once
  await sending.load(SIZE).catch((error: Error) => {
    sending.sender.close();
    say(`Your picture cannot be sent: ${error.message}`);
  });
}

function addTile(participant: Participant): void {
  const tile = new Tile(participant.name, participant.sound);
  $("people").append(tile.root);
  tiles.set(participant.id, { tile, rates: new Rates(), wire: [0, 0] });
  say(`${participant.name} is here.`);
  update();
}

function removeTile(participant: Participant): void {
  tiles.get(participant.id)?.tile.root.remove();
  tiles.delete(participant.id);
  renderers.forget(participant.id);
  say(`${participant.name} has left.`);
  update();
}

/** What the states of a link are called here. */
const WORDS: Partial<Record<LinkState, string>> = {
  connecting: "connecting…",
  reconnecting: "reconnecting…",
  "waiting for first picture": "waiting for a moving picture…",
  "face lost": "no face to be seen",
  frozen: "nothing arrives: the picture stands still",
  "sends too much, not shown": "sends more than a call needs: not shown for a while",
  "another version or size": "uses another version: no picture",
};

/** Say how each participant's picture is, and keep sound in step with it. */
function update(): void {
  if (!call) return;
  call.maxKbps = mostKbps();
  call.shareRate(isMuted);
  const participants = [...call.participants.values()];
  if (participants.length) alone.remove();
  else $("people").append(alone);
  const nowMs = performance.now();
  for (const { id, link, peer } of participants) {
    const shown = tiles.get(id);
    if (!shown) continue;
    shown.tile.words = link.words ?? "";
    shown.tile.state = link.state === "live" ? "live" : (WORDS[link.state] ?? link.state);
    void peer.wireBytes().then((wire) => (shown.wire = wire ?? [link.channels.received, link.channels.sent]));
    const rates = shown.rates.of([...shown.wire, link.incoming.shown, link.incoming.arrived], nowMs);
    shown.tile.lines = rates ? linesOf(link, rates) : [];
    for (const receiver of peer.connection?.getReceivers() ?? []) {
      // In seconds in browsers that know only the older name.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = Math.min(4000, 1000 * link.incoming.playoutS);
    }
  }
  const [coded] = ownRates.of([sending.sender.counts.coded], nowMs) ?? [];
  own.lines = showsNumbers && coded !== undefined ? [`${Math.round(coded)} frames/s coded`] : [];
  showOwnState();
}

/** Say what spoils the picture, and numbers for those who want them. */
function linesOf(link: Link, rates: number[]): string[] {
  const [receivedKbps, sentKbps] = rates.slice(0, 2).map((rate) => (rate * 8) / 1000);
  const [framesPerS, receivedPerS] = rates.slice(2);
  const { delayMs, loss, renderMs } = link.incoming;
  const { congested } = link.outgoing.congestionControl;
  const stats = { framesPerS, receivedPerS, renderMs, sentKbps, congested, loss, delayMs: delayMs ?? 0 };
  const quality = link.state === "live" ? qualityWords(stats) : "";
  if (!showsNumbers) return [quality];
  return [
    quality,
    `${receivedKbps.toFixed(1)} kbit/s in, ${sentKbps.toFixed(1)} out`,
    `${Math.round(framesPerS)} frames/s`,
    delayMs === null ? "" : `${Math.round(delayMs)} ms from camera to here`,
    `${Math.round(100 * loss)} % lost`,
  ];
}

/** Return the limit that the user has set, in kbps; null if there is none. */
function mostKbps(): number | null {
  const value = $<HTMLInputElement>("most").valueAsNumber;
  return value >= MIN_KBPS ? value : null;
}

function showOwnState(): void {
  const { faceLost, paused } = sending.sender;
  const words = [
    paused ? "camera off" : faceLost ? "your face is not to be seen" : isShown ? "as others see you" : "preparing your picture…",
    isMuted || !devices.microphone ? "muted" : "",
  ];
  own.state = words.filter(Boolean).join(", ");
  own.root.dataset.state = paused || faceLost || !isShown ? "off" : "live";
}

function mute(on: boolean): void {
  isMuted = on;
  if (devices.microphone) devices.microphone.enabled = !on;
  press("mute", on, "Unmute", "Mute");
  showOwnState();
}

async function turnCamera(on: boolean): Promise<void> {
  if (on) say(await devices.choose("video", $<HTMLSelectElement>("camera").value || null));
  else {
    devices.close("video");
    devicesChanged(null, devices.microphone);
  }
  press("camera-off", !devices.camera, "Camera on", "Camera off");
}

function press(id: string, on: boolean, off: string, label: string): void {
  $(id).setAttribute("aria-pressed", String(on));
  $(id).textContent = on ? off : label;
}

/** Copy an address that lets others join: a guest's, in rooms by invitation. */
async function copyLink(): Promise<void> {
  let path = `r/${room}`;
  if (token) {
    const url = new URL(`api/rooms/${room}/invitations`, root);
    const answer = await fetch(url, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    // Only hosts make invitations; guests pass on their own.
    path = answer.ok ? ((await answer.json()) as { path: string }).path.slice(1) : `${path}#token=${token}`;
  }
  const link = new URL(path, root).href;
  try {
    await navigator.clipboard.writeText(link);
    say("The link is copied: send it to whom you want to talk to.");
  } catch {
    say(link);
  }
}

function leave(): void {
  call?.leave();
  call = null;
  sending.sender.close();
  devices.close("video");
  devices.close("audio");
}

function say(text: string): void {
  $("status").textContent = text;
}

function fail(message: string): void {
  say("");
  $("error").textContent = message;
  leave();
  $("enter").hidden = $("call").hidden = true;
}

$<HTMLInputElement>("most").value = parameters.get("max") ?? "";
$("room").textContent = ROOM.test(room) ? room : "";
if (model) {
  void renderers.ready.then(() => say(""));
  void prepare();
} else fail("This address names no room: open a room's page, and join from there.");

$<HTMLFormElement>("enter").onsubmit = (event) => {
  event.preventDefault();
  void join(canSend);
};
$("watch").onclick = () => void join(false);
$("mute").onclick = () => mute(!isMuted);
$("camera-off").onclick = () => void turnCamera(!devices.camera);
$("numbers").onclick = () => {
  showsNumbers = !showsNumbers;
  $("numbers").setAttribute("aria-pressed", String(showsNumbers));
  update();
};
$("copy").onclick = () => void copyLink();
$("leave").onclick = () => {
  leave();
  say("");
  $("call").hidden = true;
  $("gone").hidden = false; // the form would open the camera again
  $("again").focus();
};
$("again").onclick = () => location.reload();
$("camera").onchange = async () => say(await devices.choose("video", $<HTMLSelectElement>("camera").value));
$("microphone").onchange = async () => say(await devices.choose("audio", $<HTMLSelectElement>("microphone").value));
document.onkeydown = ({ key, target, ctrlKey, metaKey, altKey }) => {
  const isTyping = target instanceof HTMLInputElement || target instanceof HTMLSelectElement;
  if (!call || isTyping || ctrlKey || metaKey || altKey) return;
  const button = { m: "mute", v: "camera-off", i: "numbers", q: "leave" }[key];
  if (button && !$(button).hidden) $(button).click();
};
window.onpagehide = () => leave();

/** For tests. */
const participants = () => [...(call?.participants.values() ?? [])];
async function statistics(kind: string): Promise<unknown> {
  const stats = await participants()[0]?.peer.connection?.getStats();
  return [...(stats?.values() ?? [])].find((one) => one.type === kind && one.kind === "audio") ?? null;
}
const probe = {
  shown: () => participants().map(({ link }) => link.incoming.shown),
  sent: () => participants().map(({ link }) => link.channels.sent),
  coded: () => sending.sender.counts.coded,
  /** What was heard of, and said to, the first participant (RTCInboundRtpStreamStats, RTCOutboundRtpStreamStats). */
  heard: () => statistics("inbound-rtp"),
  said: () => statistics("outbound-rtp"),
};
Object.assign(window, { iwcodec: probe });
