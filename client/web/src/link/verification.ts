/**
 * Short authentication string: three words that both ends of a link show if no one sits between them
 * (client/link/verification.py). Times in seconds.
 */

import { TokenBucket } from "../token_bucket";
import type { Commitment, Nonce } from "./messages";

const NONCE_BYTES = 16;
const EXCHANGES_PER_S = 1 / 60;
const EXCHANGE_BURST = 5;
const LABEL = "iwcodec short authentication string 1";

/** Fingerprints (SHA-256) of our certificate and of the peer's. */
export type Certificates = readonly [Uint8Array, Uint8Array];
export type Exchange = Commitment | Nonce;

/** The exchange with one peer. Methods return the messages to be sent; call each when the one before has returned. */
export class Verification {
  /** The three words; null until both numbers are known. */
  words: string | null = null;
  private certificates: Certificates | null = null;
  private nonce: Uint8Array | null = null;
  private commitment: Uint8Array | null = null;
  private readonly exchanges = new TokenBucket(EXCHANGES_PER_S, EXCHANGE_BURST);

  /** `random`: returns as many random bytes. */
  constructor(private readonly random = (count: number) => crypto.getRandomValues(new Uint8Array(count))) {}

  /** A connection with these certificates is up. */
  async connected(certificates: Certificates): Promise<Exchange[]> {
    const { certificates: before } = this;
    const areKnown = before?.every((known, n) => areEqual(known, certificates[n]));
    if (areKnown && this.words !== null) return [];
    this.certificates = certificates;
    return [await this.begin()];
  }

  /** Take a message of the peer. Messages out of turn have no effect. */
  async receive(message: Exchange, nowS: number): Promise<Exchange[]> {
    if (!this.certificates) return [];
    if (message.kind === "nonce") {
      await this.settle(message.nonce);
      return [];
    }
    const answer: Exchange[] = [];
    if (!this.nonce || this.commitment) {
      if (!this.exchanges.take(nowS)) return []; // each exchange is a guess for somebody in the middle
      answer.push(await this.begin());
    }
    this.commitment = message.digest;
    return [...answer, { kind: "nonce", nonce: this.nonce as Uint8Array }];
  }

  private async begin(): Promise<Commitment> {
    this.nonce = this.random(NONCE_BYTES);
    this.commitment = this.words = null;
    return { kind: "commitment", digest: await sha256(this.nonce) };
  }

  private async settle(nonce: Uint8Array): Promise<void> {
    const { certificates, commitment, nonce: own } = this;
    if (!certificates || !commitment || !own || this.words !== null) return;
    if (!areEqual(await sha256(nonce), commitment)) return;
    const [ours, theirs] = certificates;
    this.words = await wordsOf([ours, own], [theirs, nonce]);
  }
}

/** Return the certificates of a connection from its session descriptions; null unless each names exactly one, because
 * browsers choose among several. */
export function certificatesOf(connection: RTCPeerConnection | null): Certificates | null {
  const ours = fingerprint(connection?.localDescription?.sdp);
  const theirs = fingerprint(connection?.remoteDescription?.sdp);
  return ours && theirs && [ours, theirs];
}

/** Return the one fingerprint in a session description, 32 bytes; null if there are others, or none. */
export function fingerprint(sdp = ""): Uint8Array | null {
  const found = new Set(Array.from(sdp.matchAll(/^a=fingerprint:(.*?)\s*$/gim), ([, value]) => value.toUpperCase()));
  const [only] = found;
  const hex = found.size === 1 ? /^SHA-256 ([0-9A-F]{2}(?::[0-9A-F]{2}){31})$/.exec(only)?.[1] : undefined;
  return hex === undefined ? null : Uint8Array.from(hex.split(":"), (pair) => Number.parseInt(pair, 16));
}

/** Return the words for two ends (fingerprint of the certificate, random number), in any order. */
export async function wordsOf(...ends: (readonly [Uint8Array, Uint8Array])[]): Promise<string> {
  const sorted = [...ends].sort(([a, m], [b, n]) => compare(a, b) || compare(m, n));
  const parts = [new TextEncoder().encode(LABEL), ...sorted.flat()];
  const digest = await sha256(Uint8Array.from(parts.flatMap((part) => [part.length >> 8, part.length & 0xff, ...part])));
  return Array.from(digest.subarray(0, 3), (byte) => WORDS[byte]).join(" ");
}

async function sha256(data: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data as Uint8Array<ArrayBuffer>));
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return compare(a, b) === 0;
}

function compare(a: Uint8Array, b: Uint8Array): number {
  const n = a.findIndex((byte, i) => byte !== b[i]);
  return n < 0 ? a.length - b.length : a[n] - (b[n] ?? -1);
}

const WORDS = `
acorn actor album alley amber angel ankle apple apron arena arrow aspen atlas attic audio autumn bacon badge
bagel bamboo banana banjo barrel basil basket beach beaver bench berry bishop blanket bonus bottle boulder
bracket branch bread breeze brick bridge bronze bubble bucket buffalo butter button cabin cactus camel camera
canal candle canoe canvas carbon cargo carpet carrot castle cattle cedar cement cherry chess chimney cinema
circus citrus clover cobra coconut coffee comet copper coral cotton cousin coyote cradle crayon cricket
crystal cupboard curtain cymbal daisy dancer daylight denim desert diamond dinner doctor dolphin donkey dragon
drawer drummer eagle easel echo eclipse elbow elephant emerald engine fabric falcon feather fennel ferry
fiddle finger flamingo flannel flute forest fossil fountain galaxy garden garlic gazelle geyser ginger giraffe
glacier goblet gospel granite grape gravel guitar hammer hamster harbor harvest hazel helmet heron hockey
honey horizon hornet hotel iceberg igloo insect island ivory jacket jaguar jasmine jelly jigsaw jungle kayak
kettle kitchen kiwi ladder lagoon lantern laptop lavender lemon leopard lettuce library lilac lizard lobster
locket magnet mango maple marble market meadow melon mirror mitten monkey mosaic mountain muffin museum
mustard napkin nectar needle nickel noodle nutmeg oasis ocean octopus olive onion orbit orchid otter oven
oyster paddle palace panda papaya parrot pebble pelican pencil pepper piano pigeon pillow pirate planet pocket
pony poppy potato prairie puzzle pyramid quartz rabbit raccoon radar rainbow raven ribbon river rocket saddle
saffron salmon sandal saturn scarf shadow silver spider sponge spruce sunset table tango teapot tiger timber
tomato tulip turtle velvet violin
`
  .trim()
  .split(/\s+/);
