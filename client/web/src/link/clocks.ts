/** Offset between the peer's clock and ours, from reports and their echoes (client/link/clocks.py). */

const WINDOW_S = 30;
const MAX_ROUND_TRIP_MS = 10_000;

export class Clocks {
  private last: { sentMs: number; atS: number } | null = null;
  private samples: { atS: number; roundTripMs: number; aheadMs: number }[] = [];

  /** For our next report: `sentMs` of the peer's last one, null if there was none, and its age in seconds. */
  echo(nowS: number): { echoMs: number | null; heldS: number } {
    return this.last ? { echoMs: this.last.sentMs, heldS: nowS - this.last.atS } : { echoMs: null, heldS: 0 };
  }

  /** Take a report of the peer, which arrives at `nowMs` on the clock of our own messages. */
  take(nowMs: number, sentMs: number, echoMs: number | null, heldMs: number, nowS: number): void {
    this.last = { sentMs, atS: nowS };
    if (echoMs === null) return;
    const roundTripMs = nowMs - echoMs - heldMs;
    if (roundTripMs >= 0 && roundTripMs <= MAX_ROUND_TRIP_MS) {
      this.samples.push({ atS: nowS, roundTripMs, aheadMs: sentMs + roundTripMs / 2 - nowMs });
    }
    this.samples = this.samples.filter(({ atS }) => atS >= nowS - WINDOW_S).slice(-128);
  }

  /** Convert a time on the peer's clock to ours, both in ms; null before the first sample. */
  localMs(stampMs: number): number | null {
    if (!this.samples.length) return null;
    return stampMs - this.samples.reduce((a, b) => (b.roundTripMs < a.roundTripMs ? b : a)).aheadMs;
  }
}
