/**
 * Regions of live streams: which source the eyes and the mouth of a frame show, and what variant is to be sent
 * (codec/sources/variant_policy.py).
 */

import { reference, shear, unknownsOf } from "../fit/alignment";
import { isHeldBack } from "../fit/keypoint_fit";
import { type Picture, remapCubic, remapPicture } from "../runtime/pictures";
import type { Source } from "../runtime/types";
import { TokenBucket } from "../token_bucket";
import type { Library } from "./library";
import { errorOf, type Signature, signature } from "./region_signature";
import { RegionView } from "./region_view";
import { blend, BOX_SIDE, inBox, placesAt, REGION_SIZES, regionBox, regionPixels } from "./regions";

const REMEMBERED_FRAMES = 256;
const CHOICE_INTERVAL = 5;
const MAX_SHEAR = 0.16;
const CODING_ERROR = 25;
const MIN_GAIN = 0.1;
const SWITCH_ERROR = 0.9;
const MIN_WORTH = 700;
const VARIANT_BYTES = 100;
const BYTES_PER_S = 70;
const BURST_BYTES = 1200;

/** For each region, the slot of the source that it shows; null: the reference source. */
export type Slots = (number | null)[];

/** Patches of the newest frames of one region, and the error that the sources leave in each. */
class Memory {
  private count = 0;
  private readonly patches: Picture[] = [];
  private readonly signatures: Signature[] = [];
  private readonly distances = new Float32Array(REMEMBERED_FRAMES ** 2);
  private readonly left = new Float32Array(REMEMBERED_FRAMES);

  add(patch: Picture, known: Signature, left: number): void {
    const at = this.count % REMEMBERED_FRAMES;
    this.count += 1;
    [this.patches[at], this.signatures[at], this.left[at]] = [patch, known, left];
    this.signatures.forEach((other, n) => {
      const distance = errorOf(known, other);
      this.distances[at * REMEMBERED_FRAMES + n] = this.distances[n * REMEMBERED_FRAMES + at] = distance;
    });
  }

  /** Note that a source shows this. */
  explain(known: Signature): void {
    this.signatures.forEach((other, n) => (this.left[n] = Math.min(this.left[n], errorOf(known, other))));
  }

  /** Return the patch that would take most of the summed error, if it is worth a variant. */
  best(): Picture | null {
    const count = this.patches.length;
    let [best, most] = [-1, MIN_WORTH];
    for (let candidate = 0; candidate < count; candidate++) {
      let gain = 0;
      for (let n = 0; n < count; n++) {
        gain += Math.max(0, this.left[n] - this.distances[candidate * REMEMBERED_FRAMES + n] - CODING_ERROR);
      }
      if (gain > most || (gain === most && best < 0)) [best, most] = [candidate, gain];
    }
    return best < 0 ? null : this.patches[best];
  }
}

/** Chooses what the regions of one speaker's frames show. Patches are compared in the coordinates of the home: the reference
 * source of the first frame, and another one when that has left the library. */
export class VariantPolicy {
  private readonly bucket = new TokenBucket(BYTES_PER_S, BURST_BYTES);
  private frames = 0;
  private view: RegionView | null = null;
  private memories: Memory[] = [];
  private known = new Map<number, { source: Source; signatures: Signature[] }>();
  private shown: Slots = REGION_SIZES.map(() => null);

  /** `library`: the sources that receivers have; only read here. */
  constructor(private readonly library: Library) {}

  /** Null before the first frame. */
  get home(): Source | null {
    return this.view?.home ?? null;
  }

  /** Return what the regions of a frame with these fitted keypoints (K, 3) and this reference source should show, and
   * remember them. `arrived`: slots of the sources that receivers have by now; null: all. */
  choose(picture: Picture, keypoints: Float32Array, source: Source, arrived: Set<number> | null): Slots {
    const view = this.viewOf(source);
    this.learn(view);
    const own = this.library.slotOf(source);
    this.frames += 1;
    if (isHeldBack(reference(source), keypoints) || shear(reference(view.home), unknownsOf(source.keypoints)) > MAX_SHEAR) {
      this.shown = REGION_SIZES.map(() => null); // others would be pasted beside the places of eyes and mouth
      return this.shown;
    }
    this.shown = view.inFrame(keypoints, source).map((places, region) => {
      const patch = sampled(picture, places);
      const wanted = signature(patch, region);
      const errors = new Map([...this.known].map(([slot, one]) => [slot, errorOf(wanted, one.signatures[region])]));
      this.memories[region].add(patch, wanted, Math.min(Infinity, ...errors.values()));
      // One on its way is no reason for another variant, but cannot be shown yet.
      if (arrived) for (const slot of errors.keys()) if (!arrived.has(slot)) errors.delete(slot);
      return chosen(errors, own, this.shown[region]);
    });
    return this.shown;
  }

  /** Return the picture that is to become a variant of `base` at time `atS`, if any. Call it after `choose`. Other than in
   * Python the base is not always the home: browsers' encoders predict from the newest picture alone. */
  wanted(atS: number, base: Source): Picture | null {
    const { view } = this;
    if (!view || this.frames % CHOICE_INTERVAL) return null;
    const best = this.memories.map((memory) => memory.best());
    if (!best.some(Boolean) || !this.bucket.take(atS, VARIANT_BYTES)) return null;
    let { picture } = base;
    const { side } = picture;
    const grid = Float32Array.from({ length: 2 * side * side }, (_, i) => (i % 2 ? Math.floor(i / 2 / side) : (i / 2) % side));
    const inHome = view.inHome(base, grid);
    best.forEach((patch, region) => {
      if (!patch) return;
      const { pixels, mask } = regionPixels(base.keypoints, region, side, grid);
      const other = new Uint8Array(3 * pixels.length);
      remapCubic(patch, inBox(regionBox(view.home.keypoints, region, side), placesAt(inHome, pixels)), mask, other);
      picture = blend(picture, other, mask, pixels);
    });
    return picture;
  }

  private viewOf(source: Source): RegionView {
    if (!this.view || this.library.slotOf(this.view.home) === null) {
      this.view = new RegionView(source);
      this.memories = REGION_SIZES.map(() => new Memory());
      this.known.clear();
    }
    return this.view;
  }

  /** Take note of sources that are new in the library or have left it. */
  private learn(view: RegionView): void {
    const slots = this.library.slots();
    for (const slot of this.known.keys()) if (!slots.includes(slot)) this.known.delete(slot);
    for (const slot of slots) {
      const source = this.library.at(slot) as Source;
      if (this.known.get(slot)?.source === source) continue;
      const signatures = view.inSource(source).map((places, region) => signature(sampled(source.picture, places), region));
      this.known.set(slot, { source, signatures });
      signatures.forEach((known, region) => this.memories[region].explain(known));
    }
  }
}

function sampled(picture: Picture, places: Float32Array): Picture {
  const data = new Uint8Array(3 * BOX_SIDE ** 2);
  remapPicture(picture, places, data);
  return { side: BOX_SIDE, data };
}

/** Return the slot of least error, or null for the reference source's own region in slot `own`; what the frame before
 * shows if that is nearly as good. */
function chosen(errors: Map<number, number>, own: number | null, before: number | null): number | null {
  const candidates = new Map<number | null, number>();
  const reference = own === null ? undefined : errors.get(own);
  if (reference !== undefined) candidates.set(null, reference * (1 - MIN_GAIN));
  for (const [slot, error] of errors) if (slot !== own) candidates.set(slot, error);
  let [best, least] = [null as number | null, Infinity];
  for (const [slot, error] of candidates) if (error < least) [best, least] = [slot, error];
  const last = candidates.get(before);
  return last !== undefined && least > SWITCH_ERROR * last ? before : best;
}
