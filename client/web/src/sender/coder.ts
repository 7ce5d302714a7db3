/**
 * Codes the camera's pictures for all peers: keypoints, sources, scene snapshots (client/video/video_sender.py). One call
 * runs at a time; its owner sees to that.
 */

import { sourceToBytes } from "../bitstream/packets";
import { reference } from "../fit/alignment";
import { KeypointFit } from "../fit/keypoint_fit";
import { psnr } from "../media/quality";
import { dequantise, quantise, quantiserOf } from "../motion/quantiser";
import { motionSpace } from "../motion/space";
import { type Picture, rgba } from "../runtime/pictures";
import { type Runtime, type Source, withPicture } from "../runtime/types";
import { Library } from "../sources/library";
import { Compositor } from "../sources/regions";
import { SourcePolicy } from "../sources/source_policy";
import { type Slots, VariantPolicy } from "../sources/variant_policy";
import { slotOf } from "../video/source_sequence";
import type { Coded, Links } from "./messages";

const KEPT_SOURCES = 32;
/** Share of a source's bytes that counts against the budget of sources, which is made for SVT-AV1: browsers' encoders take
 * more for the same error. */
const CHARGED = 0.5;
/** Share of the time in which frames are judged, at most: on slow machines less often than the policy would. */
const JUDGED_SHARE = 0.15;
const VARIANT_INTERVAL_MS = 200;
const CHECKS_LOST = 3;
const FACE_CHECK_MS = 500;
const SNAPSHOT_MS = 2000;
const SNAPSHOT_CHANGE = 3;
/** Milliseconds for which a sequence is kept that no link uses yet. */
const UNUSED_MS = 5000;

/** Encodes the pictures of one sequence. */
export interface Av1Encoder {
  add(picture: Picture): Promise<{ unit: Uint8Array; decoded: Picture }>;
  close(): void;
}

/** A picture as receivers decode it, and the bytes of its unit. */
interface CodedSource {
  decoded: Picture;
  size: number;
}

interface Sequence {
  number: number;
  small: boolean;
  encoder: Av1Encoder;
  /** Index of the next unit. */
  next: number;
  /** Number of each source -> index of its unit. */
  indices: Map<number, number>;
  /** Decoded pictures of sources whose coordinates are still to be computed, by number. */
  pending: Map<number, Picture>;
  begunMs: number;
}

export class VideoCoder {
  /** Camera frames coded, and those that a newer one replaced. */
  readonly counts = { coded: 0, dropped: 0 };
  private readonly library = new Library(KEPT_SOURCES);
  private readonly fit = new KeypointFit();
  private readonly policy = new SourcePolicy();
  private readonly compositor = new Compositor();
  private readonly variants = new VariantPolicy(this.library);
  /** Number of each variant -> that of its base. */
  private readonly bases = new Map<number, number>();
  private variantMs = -Infinity;
  private sequences: Sequence[] = [];
  private newest: Sequence | null = null;
  private added = 0;
  /** Number of the newest source that is no variant. Variants are of it: predicted from it they take 60 bytes, and from
   * another picture 500. */
  private newestSource = -1;
  private keypoints: Float32Array | null = null;
  private known: Set<number> | null = null;
  private arrived: Set<number> | null = null;
  private behind = false;
  private idle = true;
  private checkedMs = -Infinity;
  private checksWithoutFace = 0;
  private snapshot: Picture | null = null;
  private snapshotMs = -Infinity;
  private judgedFromMs = -Infinity;

  constructor(
    private readonly runtime: Runtime,
    private readonly makeEncoder: (small: boolean) => Av1Encoder,
    /** Of the transform coder's tables. */
    private readonly directions: Float64Array,
    private readonly emit: (coded: Coded, transfer?: Transferable[]) => void,
  ) {}

  private get faceLost(): boolean {
    return this.checksWithoutFace >= CHECKS_LOST;
  }

  /** Code a picture, captured at `capturedMs`. `hasFace`: null if that is not known. */
  async push(picture: Picture, capturedMs: number, hasFace: boolean | null): Promise<void> {
    this.checkFace(hasFace, capturedMs);
    if (this.faceLost) return this.takeSnapshot(picture, capturedMs);
    await this.addSpace();
    const detected = await this.runtime.detect(picture);
    const fitted = this.fit.frame(picture, detected, this.candidates(detected));
    const { keypoints, gram, source } = fitted;
    const reference = source && this.library.slotOf(source);
    const regions = source ? this.variants.choose(picture, keypoints, source, this.arrived) : [];
    this.keypoints = keypoints;
    this.counts.coded += 1;
    const counts = { ...this.counts };
    this.emit({ type: "frame", capturedMs, keypoints, reference, gram, regions, counts }, gram ? [gram.buffer] : []);
    const attended = this.library.attended(keypoints, reference, regions);
    const base = this.library.at(this.newestSource);
    const variant = source && base && !this.behind ? this.variants.wanted(capturedMs / 1000, base) : null;
    if (base && variant) await this.addVariant(variant, base);
    else await this.sendLackingVariant(regions, capturedMs);
    if (capturedMs < this.judgedFromMs || !this.policy.isDue(capturedMs / 1000)) return;
    const shown = this.compositor.sourcesOf(attended, regions, this.library);
    const begunMs = performance.now();
    await this.judge(picture, keypoints, shown, capturedMs);
    this.judgedFromMs = capturedMs + (performance.now() - begunMs) / JUDGED_SHARE;
  }

  /** Note what the links use and have. */
  links({ sequences, known, arrived, behind, idle }: Links, nowMs: number): void {
    [this.known, this.arrived] = [known && new Set(known), arrived && new Set(arrived)];
    [this.behind, this.idle] = [behind, idle];
    const isUsed = (one: Sequence) =>
      one === this.newest || sequences.includes(one.number) || nowMs - one.begunMs < UNUSED_MS;
    for (const sequence of this.sequences) if (!isUsed(sequence)) sequence.encoder.close();
    this.sequences = this.sequences.filter(isUsed);
  }

  /** Begin another sequence with up to `count` sources, the nearest to the present pose first. Return its number. */
  async begin(small: boolean, count: number, nowMs: number): Promise<number | null> {
    let nearest = this.keypoints ? this.library.nearest(this.keypoints, count, null) : [];
    if (!nearest.length && !this.snapshot) return null;
    const sequence = this.start(small, nowMs);
    const base = this.library.at(this.newestSource);
    // Without it a peer can have no new variants, which are predicted from the last picture.
    if (!small && base && nearest.length) nearest = [...nearest.filter((one) => one !== base).slice(0, count - 1), base];
    for (const source of nearest) await this.code(sequence, source.picture, this.library.slotOf(source));
    if (this.faceLost && this.snapshot) await this.code(sequence, this.snapshot, null);
    return sequence.number;
  }

  /** Return the sources that all peers have, nearest in pose first; all sources if there is no such peer, or none. */
  private candidates(keypoints: Float32Array): Source[] {
    const all = this.library.nearest(keypoints, KEPT_SOURCES, null);
    const { known } = this;
    const shared = known ? all.filter((source) => known.has(this.library.slotOf(source) ?? -1)) : [];
    return shared.length ? shared : all;
  }

  /** Reconstruct a frame as peers will. It becomes a source if it is the first one, or if the policy wants it. */
  private async judge(picture: Picture, keypoints: Float32Array, sources: Source[], atMs: number): Promise<void> {
    if (!sources.length) return this.addSource(picture, atMs);
    const { stepXy, stepStrength } = quantiserOf(0);
    const decoded = dequantise(quantise(keypoints, quantiserOf(0), null), stepXy, stepStrength);
    const rebuilt = await this.runtime.reconstruct(decoded, sources);
    this.preview(rebuilt);
    if (!this.behind && this.policy.wants(psnr(rebuilt, picture), atMs / 1000)) await this.addSource(picture, atMs);
  }

  private async addSource(picture: Picture, atMs: number): Promise<void> {
    const number = this.added;
    this.added += 1;
    const { decoded, size } = await this.codeForAll(picture, number, atMs);
    this.library.add(number, await this.runtime.prepare(decoded));
    this.newestSource = number;
    this.policy.add(psnr(decoded, picture), atMs / 1000, CHARGED * size);
    if (!number) this.preview(decoded);
  }

  /** Add a source, or a scene snapshot (number null), to every sequence. Return it as coded for the newest one. */
  private async codeForAll(picture: Picture, number: number | null, nowMs: number): Promise<CodedSource> {
    const newest = this.newest ?? this.start(false, nowMs);
    for (const sequence of this.sequences) {
      if (sequence === newest || (sequence.small && number !== null && this.behind)) continue;
      await this.code(sequence, picture, number);
    }
    return this.code(newest, picture, number);
  }

  /** Code a new variant of the newest source for the newest sequence. */
  private async addVariant(picture: Picture, base: Source): Promise<void> {
    const of = this.newestSource;
    if (!this.newest?.indices.has(of)) return;
    const number = this.added;
    this.added += 1;
    const { decoded } = await this.code(this.newest, picture, number, of);
    this.library.add(number, withPicture(base, decoded), true);
    this.bases.set(number, of);
    for (const variant of this.bases.keys()) if (!this.library.at(variant)) this.bases.delete(variant);
  }

  /** Code one of the variants that a frame shows for a sequence that lacks it, if there is any. */
  private async sendLackingVariant(regions: Slots, nowMs: number): Promise<void> {
    if (this.behind || nowMs - this.variantMs < VARIANT_INTERVAL_MS) return;
    for (const sequence of this.sequences) {
      for (const number of regions) {
        if (number === null || sequence.indices.has(number)) continue;
        const [base, variant] = [this.bases.get(number), this.library.at(number)];
        if (base === undefined || !variant || !sequence.indices.has(base)) continue;
        this.variantMs = nowMs;
        await this.code(sequence, variant.picture, number, base);
        return;
      }
    }
  }

  /** Compute the coordinates of motion of one source that lacks them, as a receiver of its sequence decodes it. */
  private async addSpace(): Promise<void> {
    const sequence = this.sequences.find(({ pending }) => pending.size > 0);
    if (!sequence) return;
    const [[number, picture]] = sequence.pending;
    sequence.pending.delete(number);
    const known = this.library.at(number);
    if (!known) return;
    const source = known.picture === picture ? known : await this.runtime.prepare(picture);
    const space = motionSpace(reference(source), source.picture, this.directions);
    this.emit({ type: "space", sequence: sequence.number, source: number, space });
  }

  /** `base`: of a variant, the number of its base, which must be in the sequence. */
  private async code(
    sequence: Sequence,
    picture: Picture,
    source: number | null,
    base: number | null = null,
  ): Promise<CodedSource> {
    const { unit, decoded } = await sequence.encoder.add(picture);
    const baseSlot = base === null ? null : slotOf(sequence.indices.get(base) as number);
    const packet = sourceToBytes({ slot: slotOf(sequence.next), base: baseSlot, payload: unit });
    if (source !== null) sequence.indices.set(source, sequence.next);
    if (source !== null && base === null) sequence.pending.set(source, decoded);
    sequence.next += 1;
    this.emit({ type: "unit", sequence: sequence.number, packet, source });
    return { decoded, size: packet.length };
  }

  private start(small: boolean, begunMs: number): Sequence {
    const number = crypto.getRandomValues(new Uint32Array(1))[0];
    const sequence = { number, small, encoder: this.makeEncoder(small), next: 0, indices: new Map(), pending: new Map(), begunMs };
    this.sequences.push(sequence);
    if (!small) this.newest = sequence;
    this.emit({ type: "sequence", number, small });
    return sequence;
  }

  private checkFace(hasFace: boolean | null, nowMs: number): void {
    if (hasFace === null || nowMs - this.checkedMs < FACE_CHECK_MS) return;
    this.checkedMs = nowMs;
    const before = this.faceLost;
    this.checksWithoutFace = hasFace ? 0 : this.checksWithoutFace + 1;
    if (this.faceLost === before) return;
    this.snapshot = null;
    this.emit({ type: "face", lost: this.faceLost });
  }

  private async takeSnapshot(picture: Picture, nowMs: number): Promise<void> {
    if (!this.idle || nowMs - this.snapshotMs < SNAPSHOT_MS) return;
    if (this.snapshot && difference(picture, this.snapshot) < SNAPSHOT_CHANGE) return;
    [this.snapshot, this.snapshotMs] = [picture, nowMs];
    this.preview((await this.codeForAll(picture, null, nowMs)).decoded);
  }

  private preview(picture: Picture): void {
    const pixels = rgba(picture);
    this.emit({ type: "preview", pixels, side: picture.side }, [pixels]);
  }
}

/** Mean absolute difference of every fourth pixel, in grey levels. */
function difference(a: Picture, b: Picture): number {
  let [sum, count] = [0, 0];
  for (let y = 0; y < a.side; y += 4) {
    for (let x = 0; x < a.side; x += 4) {
      for (let c = 0; c < 3; c++, count++) sum += Math.abs(a.data[(y * a.side + x) * 3 + c] - b.data[(y * a.side + x) * 3 + c]);
    }
  }
  return sum / count;
}
