/** The quality of a call in words: what is wrong, how badly, and on which side (client/quality.py). */

const SLOW_SHARE = 0.7;
const MIN_RECEIVED = 5;
const MAX_RENDER_MS = 100;
const LOSSY = 0.08;
const LATE_MS = 600;

/** Averages over the last seconds of one participant. */
export interface LinkStats {
  /** Frames shown, and frames that arrived, per second. */
  framesPerS: number;
  receivedPerS: number;
  /** Median time that a frame takes. */
  renderMs: number;
  /** What we send, headers included. */
  sentKbps: number;
  /** Whether there is a queue on the path to the participant. */
  congested: boolean;
  /** Share of lost messages, 0..1. */
  loss: number;
  /** From camera to here. */
  delayMs: number;
}

/** Return what spoils the call with one participant; empty while nothing does. The cause that explains most comes first. */
export function qualityWords(stats: LinkStats): string {
  const { congested, delayMs, framesPerS, loss, receivedPerS, renderMs, sentKbps } = stats;
  const isBehind = receivedPerS >= MIN_RECEIVED && framesPerS < SLOW_SHARE * receivedPerS;
  if (isBehind) return `your machine is too slow: ${framesPerS.toFixed(0)} of ${receivedPerS.toFixed(0)} frames`;
  if (renderMs > MAX_RENDER_MS) return `your machine is too slow: ${renderMs.toFixed(0)} ms for a frame`;
  if (congested) return `the link is narrow: ${sentKbps.toFixed(0)} kbps`;
  if (loss >= LOSSY) return `the link loses ${(100 * loss).toFixed(0)} % of the packets`;
  if (framesPerS && delayMs >= LATE_MS) return `the link is slow: ${(delayMs / 1000).toFixed(1)} s behind`;
  return "";
}
