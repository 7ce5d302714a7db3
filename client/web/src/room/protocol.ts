/** Messages of the signalling protocol as a participant sees them (client/room/protocol.py). */

import { FormatError } from "../errors";
import { decompressSdp } from "../transport/sdp_compression";

export const PROTOCOL_VERSION = 2;
const MAX_MESSAGE = 128 * 1024;
const MAX_SDP = 32_000;
const MAX_NAME = 40;

/** WebSocket close codes after which reconnecting cannot succeed, in words. */
export const FATAL_CLOSE_CODES: Record<number, string> = {
  1002: "The server does not speak the protocol of this page.",
  1008: "The server refused the connection.",
  4001: "The room is by invitation: the invitation is missing, has expired or belongs to another room.",
  4002: "The room is full.",
  4003: "The server speaks another version of the protocol; reload the page.",
  4004: "The server closed the connection because too many messages were sent.",
  4008: "The host has locked the room.",
  4009: "The host has removed you from the call.",
  4006: "This call was taken over by another connection of the same participant.",
};
export const MEMBERSHIP_EXPIRED = 4007;

export interface IceServer {
  urls: string[];
  username?: string;
  credential?: string;
}

export interface Person {
  id: string;
  name: string;
}

export interface Welcome {
  type: "welcome";
  id: string;
  resume: string;
  peers: Person[];
  iceServers: IceServer[];
  pingS: number;
}

export type Event =
  | Welcome
  | { type: "peer-joined"; peer: Person }
  | { type: "peer-left"; id: string; lost: boolean }
  | { type: "description"; from: string; kind: "offer" | "answer"; sdp: string; call: string }
  | { type: "candidate"; from: string; candidate: RTCIceCandidateInit | null; call: string }
  | { type: "ice"; iceServers: IceServer[] }
  | { type: "error"; text: string }
  | { type: "pong" };

type Fields = Record<string, unknown>;

/** Parse a message of the server. Throws FormatError. */
export function parseMessage(text: unknown): Event {
  if (typeof text !== "string" || text.length > MAX_MESSAGE) throw new FormatError("A message is too long.");
  let message: Fields;
  try {
    message = object(JSON.parse(text));
  } catch {
    throw new FormatError("A message is not JSON.");
  }
  switch (message.type) {
    case "welcome":
      return {
        type: "welcome",
        id: idOf(message.id),
        resume: string(message.resume, 128),
        peers: list(message.peers, 64).map(person),
        iceServers: iceServers(message),
        pingS: Math.max(1, seconds(message.ping_s)),
      };
    case "peer-joined":
      return { type: "peer-joined", peer: person(message.peer) };
    case "peer-left":
      return { type: "peer-left", id: idOf(message.id), lost: message.reason !== "left" };
    case "signal":
      return signal(message);
    case "ice":
      return { type: "ice", iceServers: iceServers(message) };
    case "error":
      return { type: "error", text: cleaned(string(message.text, 400)) };
    case "pong":
      return { type: "pong" };
  }
  throw new FormatError("A message is of an unknown type.");
}

/** Return a name that can be displayed: printable, 1 to MAX_NAME characters. */
export function cleanName(name: string): string {
  return cleaned(name.normalize("NFC")).trim().slice(0, MAX_NAME).trim() || "somebody";
}

function cleaned(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, "");
}

function signal(message: Fields): Event {
  const from = idOf(message.from);
  const call = message.call === undefined || message.call === null ? "" : idOf(message.call);
  if (message.sdp !== undefined) {
    const description = object(message.sdp);
    const kind = description.type;
    if (kind !== "offer" && kind !== "answer") throw new FormatError("A session description is of no known type.");
    const sdp =
      description.deflated === undefined
        ? string(description.sdp, MAX_SDP)
        : decompressSdp(string(description.deflated, MAX_SDP));
    return { type: "description", from, kind, sdp, call };
  }
  if (message.candidate === null) return { type: "candidate", from, candidate: null, call };
  const fields = object(message.candidate);
  const candidate: RTCIceCandidateInit = { candidate: string(fields.candidate, 512) };
  if (typeof fields.sdpMid === "string") candidate.sdpMid = string(fields.sdpMid, 64);
  if (typeof fields.sdpMLineIndex === "number") candidate.sdpMLineIndex = fields.sdpMLineIndex;
  return { type: "candidate", from, candidate, call };
}

function iceServers(message: Fields): IceServer[] {
  return list(message.ice_servers, 16).map((value) => {
    const server = object(value);
    const urls = list(server.urls, 16).map((url) => {
      if (!/^(stun|turn)s?:[!-~]{1,250}$/.test(string(url, 260))) throw new FormatError("An ICE server has no address.");
      return url as string;
    });
    const entry: IceServer = { urls };
    if (server.username) entry.username = string(server.username, 512);
    if (server.credential) entry.credential = string(server.credential, 512);
    return entry;
  });
}

function person(value: unknown): Person {
  const fields = object(value);
  return { id: idOf(fields.id), name: cleanName(string(fields.name, 400)) };
}

function object(value: unknown): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new FormatError("A field is no object.");
  return value as Fields;
}

function list(value: unknown, most: number): unknown[] {
  if (!Array.isArray(value) || value.length > most) throw new FormatError("A field is no list.");
  return value;
}

function string(value: unknown, most: number): string {
  if (typeof value !== "string" || value.length > most) throw new FormatError("A field is no text.");
  return value;
}

function seconds(value: unknown): number {
  if (typeof value !== "number" || !(value >= 0 && value <= 1e7)) throw new FormatError("A field is no time.");
  return value;
}

function idOf(value: unknown): string {
  if (typeof value !== "string" || !/^[A-Za-z0-9_-]{1,32}$/.test(value)) throw new FormatError("A field is no id.");
  return value;
}
