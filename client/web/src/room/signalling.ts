/** WebSocket client of the signalling server (client/room/signalling.py): joins, and resumes after a loss. */

import { type Event, FATAL_CLOSE_CODES, MEMBERSHIP_EXPIRED, parseMessage, PROTOCOL_VERSION } from "./protocol";

const RECONNECT_DELAYS_S = [0, 0.5, 1, 2, 4, 8, 15];
const PING_INTERVAL_S = 5;
const PONG_TIMEOUT_S = 3;

export class Signalling {
  private socket: WebSocket | null = null;
  private resume: string | null = null;
  private failures = 0;
  private left = false;
  private reason = "";
  private pings: number[] = [];
  private heard = false;

  /** `happened`: an event of the room. `lost`: the connection is lost, in words; `final`: for good. */
  constructor(
    private readonly url: string,
    private readonly name: string,
    private readonly token: string | null,
    private readonly happened: (event: Event) => void,
    private readonly lost: (why: string, final: boolean) => void,
  ) {
    this.open();
  }

  /** Send an offer or an answer for the connection named `call` to a participant. */
  sendDescription(to: string, description: RTCSessionDescriptionInit, call: string): void {
    this.send({ type: "signal", to, sdp: { type: description.type, sdp: description.sdp }, call });
  }

  leave(): void {
    this.left = true;
    this.send({ type: "leave" });
    this.socket?.close();
  }

  private send(message: object): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  private open(): void {
    const socket = (this.socket = new WebSocket(this.url));
    socket.onopen = () => {
      const token = this.token ? { token: this.token } : {};
      const resume = this.resume ? { resume: this.resume } : {};
      this.send({ type: "join", protocol: PROTOCOL_VERSION, name: this.name, ...token, ...resume });
    };
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = ({ code }) => {
      if (socket === this.socket) this.closed(code);
    };
  }

  private receive(data: unknown): void {
    this.heard = true;
    let event: Event;
    try {
      event = parseMessage(data);
    } catch {
      return; // malformed: dropped, as if it had been lost
    }
    if (event.type === "error") this.reason = event.text;
    if (event.type === "welcome") {
      this.resume = event.resume;
      this.failures = 0;
      this.ping(Math.min(event.pingS, PING_INTERVAL_S));
    }
    this.happened(event);
  }

  private closed(code: number): void {
    for (const timer of this.pings) clearTimeout(timer);
    this.pings = [];
    if (this.left) return;
    const reason = this.reason;
    this.reason = "";
    if (code === MEMBERSHIP_EXPIRED) this.resume = null;
    if (FATAL_CLOSE_CODES[code]) {
      this.left = true;
      this.lost(reason && (code === 4001 || code === 4002) ? reason : FATAL_CLOSE_CODES[code], true);
      return;
    }
    this.lost(reason || "The connection to the server was lost; trying again.", false);
    const delay = RECONNECT_DELAYS_S[Math.min(this.failures, RECONNECT_DELAYS_S.length - 1)];
    this.failures += 1;
    setTimeout(() => !this.left && this.open(), 1000 * delay * (0.75 + Math.random() / 2));
  }

  /** Keep the membership, and notice a dead connection within seconds. */
  private ping(intervalS: number): void {
    const socket = this.socket;
    this.heard = false;
    this.send({ type: "ping" });
    this.pings = [
      window.setTimeout(() => {
        if (this.heard || socket !== this.socket) return;
        this.socket = null; // closing a dead one takes long
        socket?.close();
        this.closed(1006);
      }, 1000 * PONG_TIMEOUT_S),
      window.setTimeout(() => socket === this.socket && this.ping(intervalS), 1000 * Math.max(intervalS, PONG_TIMEOUT_S + 0.5)),
    ];
  }
}
