/** Whether a peer keeps within what it may cost us (client/link/conduct.py). */

import { TokenBucket } from "../token_bucket";

const TOLERATED_PER_S = 1;
const TOLERATED = 40;
const IGNORED_S = 10;
const CALM_PER_S = 30;
const CALM_BURST = 60;

/** Judges one peer by its messages that were dropped. */
export class Conduct {
  private readonly tolerance = new TokenBucket(TOLERATED_PER_S, TOLERATED);
  private readonly calm = new TokenBucket(CALM_PER_S, CALM_BURST);
  private untilS = -Infinity;

  /** A message was dropped for a reason that no honest peer gives for long. */
  offended(nowS: number): void {
    if (!this.tolerance.take(nowS)) this.untilS = nowS + IGNORED_S;
  }

  /** Whether its pictures are neither decoded nor rendered. */
  isIgnored(nowS: number): boolean {
    return nowS < this.untilS;
  }

  /** Whether a message that arrives is to be dropped unread. A peer that does not calm down stays ignored. */
  ignores(nowS: number): boolean {
    if (!this.isIgnored(nowS)) return false;
    if (!this.calm.take(nowS)) this.untilS = nowS + IGNORED_S;
    return true;
  }
}
