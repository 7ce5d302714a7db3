/** Parts: small pictures of eyes and mouth, pasted into the picture of a reference source (codec/sources/parts.py). */

import type { Box, PartsPacket } from "../bitstream/packets";
import { FormatError } from "../errors";
import { backward, GRID, moved, reference, type Reference } from "../fit/alignment";
import { type Picture, remapPicture, remapValues, resizeLinear, roundEven } from "../runtime/pictures";
import type { Source } from "../runtime/types";
import { type Av1Maker, SourceDecoder } from "./av1";

const REGIONS = 2; // eyes, mouth
export const PART_SIDE = 64;
const CAPACITY = 64;
const MAX_COMPOSITES = 32;
const MAX_COLOUR_SHIFT = 25;
const RIM = [0.02, 0.6];
const EIGHTHS = 8;
const TURN = 4096;

/** A decoded part. */
interface Part {
  picture: Picture;
  home: Source;
  box: Box;
}

/** (PART_SIDE, PART_SIDE): how much of a part shows; an ellipse that fades to 0 before the edge of the box. */
const MASK = Float32Array.from({ length: PART_SIDE ** 2 }, (_, n) => {
  const across = (((n % PART_SIDE) + 0.5) / PART_SIDE) * 2 - 1;
  const down = ((Math.floor(n / PART_SIDE) + 0.5) / PART_SIDE) * 2 - 1;
  return Math.min(1, Math.max(0, (0.97 - Math.hypot(across, down)) / 0.35));
});

/** Convert places (n, 2) of the home's picture to places in a part, in its pixels, in place. */
export function inBox(box: Box, places: Float32Array): void {
  const angle = (box.angle * 2 * Math.PI) / TURN;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  for (let n = 0; n < places.length; n += 2) {
    const x = places[n] - box.x / EIGHTHS;
    const y = places[n + 1] - box.y / EIGHTHS;
    places[n] = ((x * cos + y * sin) / (box.width / EIGHTHS) + 0.5) * PART_SIDE - 0.5;
    places[n + 1] = ((y * cos - x * sin) / (box.height / EIGHTHS) + 0.5) * PART_SIDE - 0.5;
  }
}

/** Return a picture into which a part is pasted. `places` (side, side, 2): where its pixels lie in the part. The part's
 * colours are shifted by the median difference around it. */
export function paste(picture: Picture, part: Picture, places: Float32Array): Picture {
  const count = picture.side ** 2;
  const sampled = new Uint8Array(count * 3);
  remapPicture(part, places, sampled);
  const mask = remapValues(MASK, PART_SIDE, 1, places, 0);
  const rim: number[] = [];
  for (let n = 0; n < count; n++) if (mask[n] > RIM[0] && mask[n] < RIM[1]) rim.push(n);
  const shift = [0, 1, 2].map((channel) => {
    if (!rim.length) return 0;
    const middle = median(rim.map((n) => picture.data[3 * n + channel] - sampled[3 * n + channel]));
    return Math.min(MAX_COLOUR_SHIFT, Math.max(-MAX_COLOUR_SHIFT, middle));
  });
  const data = Uint8Array.from(picture.data);
  for (let n = 0; n < count; n++) {
    const weight = mask[n];
    if (!weight) continue;
    for (let i = 3 * n, channel = 0; channel < 3; i++, channel++) {
      const value = roundEven(picture.data[i] * (1 - weight) + (sampled[i] + shift[channel]) * weight);
      data[i] = Math.min(255, Math.max(0, value));
    }
  }
  return { side: picture.side, data };
}

function median(values: number[]): number {
  const sorted = values.sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The parts of each region, and the composite sources made with them. */
export class PartLibrary {
  private readonly decoders: SourceDecoder[];
  private readonly next = new Array<number>(REGIONS).fill(0);
  private readonly parts: Map<number, Part>[] = Array.from({ length: REGIONS }, () => new Map());
  private readonly references = new WeakMap<Source, Reference>();
  private composites: { key: unknown[]; source: Source }[] = [];

  constructor(make: Av1Maker) {
    this.decoders = this.parts.map(() => new SourceDecoder(PART_SIDE, make));
  }

  /** Close the decoders. */
  close(): void {
    for (const decoder of this.decoders) decoder.reset();
  }

  /** Decode parts and keep them; return their pictures. `home`: the source in the packet's slot. Throws FormatError. */
  async add(packet: PartsPacket, home: Source | undefined): Promise<Picture[]> {
    const { region } = packet;
    if (region >= REGIONS) throw new FormatError(`Parts are of region ${region}, which does not exist.`);
    if (!home) throw new FormatError(`Parts are registered to source ${packet.slot}, which is not available.`);
    const decoder = this.decoders[region];
    const parts = this.parts[region];
    if (packet.first !== this.next[region]) decoder.reset(); // parts are missing; later ones are predicted from them
    this.next[region] = packet.first + packet.payloads.length;
    const pictures: Picture[] = [];
    for (const [n, payload] of packet.payloads.entries()) {
      const number = packet.first + n;
      parts.delete(number);
      const picture = await decoder.add(payload);
      parts.set(number, { picture, home, box: packet.box });
      pictures.push(picture);
      if (parts.size > CAPACITY) parts.delete(parts.keys().next().value as number);
    }
    return pictures;
  }

  /** Return a source whose regions show the parts with these numbers; null, and a missing part, leave a region as it is. */
  composite(source: Source, numbers: (number | null)[]): Source {
    const chosen = numbers.slice(0, REGIONS).map((number, region) => {
      return number === null ? undefined : this.parts[region].get(number);
    });
    if (!chosen.some(Boolean)) return source;
    const key = [source, ...chosen];
    const at = this.composites.findIndex((known) => key.every((part, n) => part === known.key[n]));
    const known = at < 0 ? { key, source: this.pasted(source, chosen) } : this.composites.splice(at, 1)[0];
    this.composites = [...this.composites.slice(1 - MAX_COMPOSITES), known];
    return known.source;
  }

  private pasted(source: Source, chosen: (Part | undefined)[]): Source {
    let { picture } = source;
    for (const part of chosen) if (part) picture = paste(picture, part.picture, this.places(source, part));
    return { ...source, picture };
  }

  /** Return where the pixels of a source lie in a part, (side, side, 2). */
  private places(source: Source, part: Part): Float32Array {
    const { side } = source.picture;
    const places = new Float32Array(side * side * 2);
    if (source !== part.home) {
      const cells = backward(moved(this.reference(part.home), source.keypoints));
      places.set(resizeLinear(cells, GRID, side, 2).map((value) => value * (side / GRID)));
    }
    for (let n = 0; n < side * side; n++) {
      places[2 * n] += n % side;
      places[2 * n + 1] += Math.floor(n / side);
    }
    inBox(part.box, places);
    return places;
  }

  private reference(source: Source): Reference {
    let known = this.references.get(source);
    if (!known) this.references.set(source, (known = reference(source.basis, source.keypoints)));
    return known;
  }
}
