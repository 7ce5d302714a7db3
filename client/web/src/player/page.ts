/** The player's page: takes files, and controls. */

import "./style.css";
import { messageOf } from "../errors";
import type { Answer, Frame, Opened, Request } from "./messages";
import { Player } from "./player";
import { canDecodeOpus, Sound } from "./sound";
import { showFacts, Stage, Strip } from "./view";

const SEEK_S = 5;
/** Bytes of a file that is read; hours at the rates of this codec. */
const MAX_FILE = 1 << 28;

const $ = <Kind extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as Kind;
const seekBar = $<HTMLInputElement>("seek");
const picker = $<HTMLInputElement>("file");
const stage = new Stage($<HTMLCanvasElement>("picture"), $<HTMLCanvasElement>("keypoints"));
const strip = new Strip($("strip"));
const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
let player: Player | null = null;
let sound: Sound | null = null;
let file = 0;
let name = "";
let muted = false;

worker.onmessage = ({ data }: MessageEvent<Answer>) => {
  if (data.file !== file) return;
  if (data.type === "failed") fail(data.message);
  else if (data.type === "loading") say(`Loading the model: ${percent(data.bytes, data.total)}`);
  else if (data.type === "opened") void opened(data);
  else if (data.type === "ingredient") strip.add(data);
  else player?.receive(data);
};
worker.onerror = () => fail("The player could not start; please reload the page.");

/** Open a file's bytes. */
function open(title: string, data: ArrayBuffer): void {
  player?.close();
  player = sound = null;
  file += 1;
  name = title;
  strip.clear();
  $("error").textContent = "";
  $("player").hidden = true;
  say("Opening…");
  const request: Request = { type: "open", data, base: document.baseURI };
  worker.postMessage(request, [data]);
}

async function opened(answer: Opened): Promise<void> {
  const audible = answer.sound.length > 0 && answer.header.audio !== null;
  if (audible && (await canDecodeOpus())) sound = new Sound(answer.sound, answer.header.audio!);
  if (answer.file !== file) return;
  if (!answer.report.frames) {
    fail("This file holds no frames.");
    return;
  }
  document.body.classList.add("open");
  $("player").hidden = false;
  $("mute").hidden = !sound;
  stage.reset(answer.header.size);
  showFacts($("facts"), name, answer);
  const notes = [
    audible && !sound ? "This browser cannot decode its sound." : "",
    answer.truncated ? "Its end is missing." : "",
    answer.damage.length ? `${answer.damage.length} damaged records were skipped.` : "",
  ];
  $("notes").textContent = notes.filter(Boolean).join(" ");
  if (sound) sound.muted = muted;
  const ask = (number: number) => worker.postMessage({ type: "frame", file, number } satisfies Request);
  player = new Player(answer, sound, ask, show, update);
  seekBar.max = String(player.durationS);
  player.play();
  $("play").focus({ preventScroll: true });
}

function show(frame: Frame): void {
  stage.show(frame);
  strip.mark(frame);
  document.body.dataset.frame = String(frame.number); // for tests
}

function update(): void {
  if (!player) return;
  const { position, durationS } = player;
  seekBar.value = String(position);
  seekBar.setAttribute("aria-valuetext", `${position.toFixed(0)} of ${durationS.toFixed(0)} seconds`);
  $("time").textContent = `${clock(position)} / ${clock(durationS)}`;
  $("play").textContent = player.playing ? "Pause" : "Play";
  say(player.waiting ? (sound && !sound.running ? "Press Play." : "Decoding…") : "");
}

function say(text: string): void {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function fail(message: string): void {
  player?.close();
  player = null;
  say("");
  $("player").hidden = true;
  document.body.classList.remove("open");
  $("error").textContent = `${name}: ${message}`;
}

function toggle(): void {
  if (player?.waiting && sound && !sound.running) void sound.resume();
  else if (player?.playing) player.pause();
  else player?.play();
}

function toggleMute(): void {
  muted = !muted;
  if (sound) sound.muted = muted;
  $("mute").textContent = muted ? "Unmute" : "Mute";
}

function toggleKeypoints(): void {
  stage.keypoints = !stage.keypoints;
  $("points").setAttribute("aria-pressed", String(stage.keypoints));
  stage.draw();
}

async function take(given: File | undefined): Promise<void> {
  if (!given) return;
  if (given.size > MAX_FILE) {
    name = given.name;
    fail("This file is too large to be an .iwc file.");
    return;
  }
  try {
    open(given.name, await given.arrayBuffer());
  } catch (error) {
    name = given.name;
    fail(`The file cannot be read: ${messageOf(error)}`);
  }
}

async function openSample(): Promise<void> {
  name = "sample.iwc";
  try {
    const response = await fetch(new URL("sample.iwc", document.baseURI));
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    open(name, await response.arrayBuffer());
  } catch (error) {
    fail(`The sample cannot be loaded: ${messageOf(error)}.`);
  }
}

$("choose").onclick = () => picker.click();
$("other").onclick = () => picker.click();
$("sample").onclick = () => void openSample();
picker.onchange = () => {
  void take(picker.files?.[0]);
  picker.value = "";
};
$("play").onclick = toggle;
$("stage").onclick = toggle;
$("mute").onclick = toggleMute;
$("points").onclick = toggleKeypoints;
seekBar.oninput = () => player?.seek(Number(seekBar.value));
window.onresize = () => stage.draw();

document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("over");
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
};
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  void take(event.dataTransfer?.files[0]);
};
document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !player) return;
  const onButton = event.target instanceof HTMLButtonElement;
  const actions: Record<string, () => void> = {
    ArrowLeft: () => player?.seek(player.position - SEEK_S),
    ArrowRight: () => player?.seek(player.position + SEEK_S),
    k: toggleKeypoints,
    m: toggleMute,
  };
  if (!onButton) actions[" "] = toggle; // a button takes the space bar itself
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
};

function clock(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

function percent(bytes: number, total: number): string {
  return total ? `${Math.min(100, Math.round((100 * bytes) / total))} %` : `${Math.round(bytes / 1e5) / 10} MB`;
}

/** For measurements and tests. */
const probe = {
  seek: (position: number) => player?.seek(position),
  counts: () => player?.counts,
  fps: () => player?.fps,
  heard: () => sound?.scheduled,
};
Object.assign(window, { iwcodec: probe });
