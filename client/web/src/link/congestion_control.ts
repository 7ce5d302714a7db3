/** Adapts what a link sends to what the receiver reports (client/link/congestion_control.py). Times in seconds. */

const QUEUED_S = 0.15;
const FULL_S = 0.4;
const LOSSY = 0.02;
const CLEAN = 0.005;
const HEAVY_LOSS = 0.22;
const SETTLE_S = 1;
const SILENCE_S = 2.5;
const FIRST_PATIENCE_S = 4;
const MAX_PATIENCE_S = 60;
const FAILED_S = 6;

export interface SendParameters {
  /** New frames per motion message. */
  messageFrames: number;
  /** Send every Nth camera frame. */
  stride: number;
  /** The quantiser steps are 2 ** coarseness times the usual ones. */
  coarseness: number;
  /** Rate limit of sources. */
  sourceKbps: number;
  /** Each message repeats the frames of this many messages before it. */
  repeats: number;
}

export function parameters(
  messageFrames: number,
  stride: number,
  coarseness: number,
  sourceKbps: number,
): SendParameters {
  return { messageFrames, stride, coarseness, sourceKbps, repeats: 0 };
}

const LADDER = [
  parameters(4, 1, 0, 8),
  parameters(5, 1, 0, 5),
  parameters(5, 1, 1, 3),
  parameters(3, 2, 1, 2),
  parameters(2, 4, 1, 1.5),
  parameters(2, 6, 2, 1),
];
/** Motion on each rung, kbps, headers included. */
const RUNG_KBPS = [10, 8.5, 7, 4.5, 3, 2];
const LOSS_RUNG = 1;
const LOSSY_FRAMES = 2;
const SMALL_RUNG = 2;

export class CongestionControl {
  /** Limit of motion and sources together, set by the user, in kbps; the last rung may exceed it. */
  maxKbps: number | null = null;
  /** Whether sources must be small. */
  small = false;
  private rung = 0;
  private uncongestedS: number | null = null;
  private patienceS = FIRST_PATIENCE_S;
  private raisedS: number | null = null;
  private loweredS = -SETTLE_S;
  private badReports = 0;
  private queuedS = 0;
  private loss = 0;
  private repeats = 0;
  private reportedS: number | null = null;
  private beforeSilence: number | null = null;

  get sending(): SendParameters {
    const { chosen, maxKbps } = this;
    const rung = LADDER[chosen];
    const most = maxKbps === null ? Infinity : Math.max(0, Math.trunc(maxKbps / RUNG_KBPS[chosen]) - 1);
    const repeats = Math.min(this.repeats, most);
    const messageFrames = repeats > 0 && chosen <= LOSS_RUNG ? LOSSY_FRAMES + chosen : rung.messageFrames;
    return { ...rung, messageFrames, repeats };
  }

  /** The rung in use: the one that the path allows, or a lower one within `maxKbps`. */
  private get chosen(): number {
    return this.maxKbps === null ? this.rung : Math.max(this.rung, rungWithin(this.maxKbps));
  }

  /** Whether the first rung is in use, without repetition. */
  get isFree(): boolean {
    return this.chosen === 0 && this.sending.repeats === 0;
  }

  /** Whether there is a queue on the path, or a rung is in use that only a queue leads to. */
  get congested(): boolean {
    return this.queuedS > QUEUED_S || this.rung > LOSS_RUNG;
  }

  /** Take a report of the receiver. `lost`: share of messages lost since the one before; `blocked`: whether messages had
   * to wait at our own end. */
  report(nowS: number, lost: number, queuedS: number, blocked: boolean): void {
    this.reportedS = nowS;
    if (this.beforeSilence !== null) {
      [this.rung, this.beforeSilence] = [this.beforeSilence, null]; // the silence was an outage, not congestion
      this.badReports = 0;
      this.uncongestedS = nowS;
      return;
    }
    const congested = queuedS > QUEUED_S || blocked;
    if (!congested) this.loss += 0.2 * (lost - this.loss);
    const once = this.loss > (this.repeats ? CLEAN : LOSSY);
    const twice = this.loss > (this.repeats === 2 ? HEAVY_LOSS / 2 : HEAVY_LOSS);
    this.repeats = Number(once) + Number(twice);
    const heavy = this.loss > HEAVY_LOSS && this.rung < LOSS_RUNG;
    this.badReports = congested || heavy ? this.badReports + 1 : 0;
    const drains = queuedS < this.queuedS || nowS - this.loweredS < SETTLE_S;
    this.queuedS = queuedS;
    if (queuedS > FULL_S && !drains) this.stepDown(nowS, 2);
    else if (this.badReports >= 2 && !drains) this.stepDown(nowS, 1);
    else if (this.badReports) this.uncongestedS = null;
    else this.stepUp(nowS);
  }

  /** Go down to the last rung if reports have stopped. Call it several times a second. */
  silence(nowS: number): void {
    if (this.reportedS === null || nowS - this.reportedS <= SILENCE_S || this.beforeSilence !== null) return;
    this.beforeSilence = this.rung;
    this.rung = LADDER.length - 1;
  }

  private stepDown(nowS: number, rungs: number): void {
    if (this.raisedS !== null && nowS - this.raisedS < FAILED_S) {
      this.patienceS = Math.min(2 * this.patienceS, MAX_PATIENCE_S);
    }
    this.raisedS = this.uncongestedS = null;
    this.loweredS = nowS;
    this.rung = Math.min(this.rung + rungs, LADDER.length - 1);
    this.small ||= this.rung >= SMALL_RUNG;
    this.badReports = 0;
  }

  private stepUp(nowS: number): void {
    if (this.uncongestedS === null) this.uncongestedS = nowS;
    else if (this.rung > 0 && nowS - this.uncongestedS >= this.patienceS) {
      if (this.rung <= LOSS_RUNG && this.loss > HEAVY_LOSS) return;
      this.rung -= 1;
      this.small &&= this.rung > 0;
      this.raisedS = this.uncongestedS = nowS;
    } else if (this.raisedS !== null && nowS - this.raisedS >= FAILED_S) {
      [this.patienceS, this.raisedS] = [FIRST_PATIENCE_S, null];
    }
  }
}

/** Return the highest rung whose motion and sources fit; the last one if none does. */
function rungWithin(maxKbps: number): number {
  const number = LADDER.findIndex(({ sourceKbps }, n) => RUNG_KBPS[n] + sourceKbps <= maxKbps);
  return number < 0 ? LADDER.length - 1 : number;
}
