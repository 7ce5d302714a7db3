/** A call: a peer connection to every participant (client/room/call.py). */

import type { Model, Pixels, Renderer } from "../link/incoming";
import { Link } from "../link/link";
import type { VideoSender } from "../video/video_sender";
import { Peer } from "./peer";
import type { Event, IceServer, Person } from "./protocol";
import { Signalling } from "./signalling";

/** Seconds without a connection after which a participant whom the server has lost counts as gone. */
const ABSENCE_S = 12;
/** What continuous speech takes on the wire to one participant, in kbps. */
const SOUND_KBPS = 15;

/** Somebody in the room. */
export interface Participant {
  id: string;
  name: string;
  link: Link;
  peer: Peer;
  /** Sound of the participant, once there is any. */
  sound: HTMLAudioElement;
}

/** What the page shows of a call. */
export interface Listener {
  joined(participant: Participant): void;
  left(participant: Participant): void;
  show(participant: Participant, pixels: Pixels): void;
  /** State of our own connection, in words; empty while all is well. `final`: the call has ended. */
  state(text: string, final: boolean): void;
}

export class Call {
  /** Most that is sent to all together, in kbps; null: no limit. */
  maxKbps: number | null = null;
  readonly participants = new Map<string, Participant>();
  private readonly signalling: Signalling;
  private id = "";
  private iceServers: IceServer[] = [];

  constructor(
    url: string,
    name: string,
    token: string | null,
    private readonly model: Model,
    private readonly sender: VideoSender,
    /** Ours, on every connection: the words that verify it survive a reconnection. */
    private readonly certificate: RTCCertificate,
    private microphone: MediaStreamTrack | null,
    private readonly rendererFor: (id: string) => Renderer,
    private readonly listener: Listener,
  ) {
    this.signalling = new Signalling(
      url,
      name,
      token,
      (event) => this.happened(event),
      (why, final) => listener.state(why, final),
    );
  }

  /** Send another microphone to everybody, or none. */
  useMicrophone(track: MediaStreamTrack | null): void {
    this.microphone = track;
    for (const { peer } of this.participants.values()) void peer.changeMicrophone().catch(() => {});
  }

  /** Divide what may be sent between the participants. Sound, which cannot do with less, comes first. */
  shareRate(isMuted: boolean): void {
    const { maxKbps, participants } = this;
    const soundKbps = isMuted || !this.microphone ? 0 : SOUND_KBPS;
    const share = maxKbps === null ? null : Math.max(0, maxKbps / participants.size - soundKbps);
    for (const { link } of participants.values()) link.outgoing.congestionControl.maxKbps = share;
  }

  leave(): void {
    this.signalling.leave();
    for (const participant of [...this.participants.values()]) this.remove(participant);
  }

  private happened(event: Event): void {
    if (event.type === "welcome") this.welcomed(event.id, event.peers, event.iceServers);
    else if (event.type === "peer-joined") this.add(event.peer, false);
    else if (event.type === "peer-left") this.peerLeft(event.id, event.lost);
    else if (event.type === "ice") this.iceServers = event.iceServers;
    else if (event.type === "description") {
      void this.participants.get(event.from)?.peer.describe(event.kind, event.sdp, event.call);
    } else if (event.type === "candidate") {
      void this.participants.get(event.from)?.peer.candidate(event.candidate, event.call);
    }
  }

  private welcomed(id: string, peers: Person[], iceServers: IceServer[]): void {
    this.iceServers = iceServers;
    const resumed = id === this.id;
    // With a new id we are a new participant to the others, who drop their connections to the old one.
    if (!resumed) for (const participant of [...this.participants.values()]) this.remove(participant);
    this.id = id;
    for (const participant of [...this.participants.values()]) {
      if (!peers.some((peer) => peer.id === participant.id)) this.peerLeft(participant.id, true);
    }
    for (const person of peers) this.add(person, !resumed);
    this.listener.state("", false);
  }

  /** Connect to a participant; who joined later makes the offer. */
  private add({ id, name }: Person, offers: boolean): void {
    if (id === this.id || this.participants.has(id)) return;
    const sound = new Audio();
    sound.autoplay = true;
    const show = (pixels: Pixels) => this.listener.show(participant, pixels);
    const link = new Link(this.model, this.sender, this.rendererFor(id), show);
    const microphone = () => this.microphone;
    const media = {
      get microphone() {
        return microphone();
      },
      attach: (connection: RTCPeerConnection) => link.attach(connection),
      sound: (track: MediaStreamTrack) => {
        sound.srcObject = new MediaStream([track]);
        void sound.play().catch(() => {}); // the page says that it has to be clicked
      },
    };
    const configuration = (): RTCConfiguration => ({
      iceServers: this.iceServers,
      bundlePolicy: "max-bundle",
      certificates: [this.certificate],
    });
    const peer = new Peer(id, this.id < id, offers, this.signalling, configuration, media);
    const participant: Participant = { id, name, link, peer, sound };
    this.participants.set(id, participant);
    this.listener.joined(participant);
  }

  private peerLeft(id: string, lost: boolean): void {
    const participant = this.participants.get(id);
    if (!participant) return;
    if (!lost || !participant.peer.connected) {
      this.remove(participant);
      return;
    }
    const check = setInterval(() => {
      if (this.participants.get(id) !== participant) clearInterval(check);
      else if (!participant.peer.connected) {
        clearInterval(check);
        this.remove(participant);
      }
    }, 1000 * ABSENCE_S);
  }

  private remove(participant: Participant): void {
    this.participants.delete(participant.id);
    participant.peer.close();
    participant.link.close();
    participant.sound.srcObject = null;
    this.listener.left(participant);
  }
}
