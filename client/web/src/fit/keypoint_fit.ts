/**
 * Fitting the transmitted keypoints to the picture, which the sender has (codec/fit/keypoint_fit.py): the fit of calls,
 * but by alignment alone, because browsers have no optical flow that is quick enough.
 */

import type { Picture } from "../runtime/pictures";
import type { Source } from "../runtime/types";
import {
  alignmentEquations,
  BLURS,
  type Equations,
  keypointsOf,
  reference,
  type Reference,
  shear,
  smallGrey,
  squaredError,
  stepped,
  unknownsOf,
  type Warped,
  warped,
} from "./alignment";
import { blurred, FLOW_SIZE, sampled } from "./views";

const CORRECTION_DECAY = 0.8;
/** Blurs of the alignment steps. */
const STEPS = BLURS.slice(-2);
const FINEST = BLURS[BLURS.length - 1];
const CANDIDATES = 2;
const SWITCH_ERROR = 0.93;
const RETRY_INTERVAL = 5;
const RETRY_ERROR = 1.2;
/** Most that a fit shears a face. */
const LIVE_SHEAR = 0.13;
/** Share of LIVE_SHEAR above which a fit counts as limited by it. */
const HELD_BACK = 0.95;
const MIN_ERROR = 1.5 ** 2 * FLOW_SIZE ** 2;

/** Return whether the bound on shear limited a fit with these keypoints (K, 3): the face is then not where they say. */
export function isHeldBack(ref: Reference, keypoints: Float32Array): boolean {
  return shear(ref, unknownsOf(keypoints)) >= HELD_BACK * LIVE_SHEAR;
}

export interface Fitted {
  /** (K, 3). */
  keypoints: Float32Array;
  /** Reference source; null without any. */
  source: Source | null;
  /** (3 K, 3 K): error caused by a change of the unknowns, as a fraction of the remaining error; null without a fit. */
  gram: Float64Array | null;
}

/** Blurred grey levels by standard deviation. */
type Levels = Map<number, Float32Array>;

interface Estimate {
  values: Float64Array;
  error: number;
  view: Warped;
  /** Alignment step that led here. */
  step: Equations | null;
}

/** Fits the frames of a call, in order. */
export class KeypointFit {
  private readonly levels = new WeakMap<Source, Levels>();
  private correction: Float64Array | null = null;
  private present: Source | null = null;
  private framesSinceChoice = 0;
  private choiceError = 0;

  /** Fit the keypoints of a picture, given the detected ones (K, 3), to the best of `sources`, nearest in pose first. */
  frame(picture: Picture, detected: Float32Array, sources: Source[]): Fitted {
    if (!sources.length) {
      this.correction = this.present = null;
      return { keypoints: detected, source: null, gram: null };
    }
    const target = levelsOf(picture);
    const { source, estimate } = this.best(target, detected, sources);
    const start = unknownsOf(detected);
    this.present = source;
    this.correction = estimate.values.map((value, i) => value - start[i]);
    const sharp = target.get(FINEST) as Float32Array;
    const ref = reference(source);
    const step = estimate.step ?? alignmentEquations(ref, estimate.view, sharp, new Float64Array(start.length));
    const scale = 1 / Math.max(estimate.error, MIN_ERROR);
    return { keypoints: keypointsOf(estimate.values), source, gram: step.gram.map((value) => value * scale) };
  }

  /** Choose the source that leaves the least error. Others than the present one are fitted from time to time. */
  private best(target: Levels, detected: Float32Array, sources: Source[]): { source: Source; estimate: Estimate } {
    const { present } = this;
    let known: Estimate | null = null;
    if (present && sources.includes(present)) {
      known = this.fit(target, detected, present);
      if (this.framesSinceChoice < RETRY_INTERVAL && known.error <= RETRY_ERROR * this.choiceError) {
        this.framesSinceChoice += 1;
        return { source: present, estimate: known };
      }
    }
    const candidates = sources.slice(0, CANDIDATES);
    if (known && present && !candidates.includes(present)) candidates.push(present);
    const fits = candidates.map((source) => {
      const isPresent = known !== null && source === present;
      const estimate = isPresent ? (known as Estimate) : this.fit(target, detected, source);
      return { source, estimate, error: estimate.error * (isPresent ? SWITCH_ERROR : 1) };
    });
    const best = fits.reduce((a, b) => (b.error < a.error ? b : a));
    [this.framesSinceChoice, this.choiceError] = [0, best.estimate.error];
    return best;
  }

  /** Align a source with the target, and keep the step with the least error. */
  private fit(target: Levels, detected: Float32Array, source: Source): Estimate {
    const [ref, levels] = [reference(source), this.levelsOf(source)];
    const origin = unknownsOf(detected);
    const { correction } = this;
    if (correction && source === this.present) origin.forEach((_, i) => (origin[i] += CORRECTION_DECAY * correction[i]));
    const sharp = target.get(FINEST) as Float32Array;
    const estimateAt = (wanted: Float64Array, step: Equations | null): Estimate => {
      const values = unknownsOf(keypointsOf(wanted));
      const view = warped(ref, levels.get(FINEST) as Float32Array, values);
      return { values, error: squaredError(sharp, view.grey), view, step };
    };
    let estimate = estimateAt(origin, null);
    const start = estimate.values;
    let best = estimate;
    const rank = ({ values, error }: Estimate) => (shear(ref, values) > LIVE_SHEAR ? Infinity : error);
    for (const blur of STEPS) {
      const { back } = estimate.view;
      const view = blur === FINEST ? estimate.view : { back, grey: sampled(levels.get(blur) as Float32Array, back) };
      const offset = estimate.values.map((value, i) => value - start[i]);
      const step = alignmentEquations(ref, view, target.get(blur) as Float32Array, offset);
      estimate = estimateAt(stepped(ref, estimate.values, step, LIVE_SHEAR), step);
      if (rank(estimate) < rank(best)) best = estimate;
    }
    return best;
  }

  private levelsOf(source: Source): Levels {
    let known = this.levels.get(source);
    if (!known) this.levels.set(source, (known = levelsOf(source.picture)));
    return known;
  }
}

function levelsOf(picture: Picture): Levels {
  const grey = smallGrey(picture);
  return new Map([...new Set([...STEPS, FINEST])].map((blur) => [blur, blurred(grey, blur)]));
}
