/** Rate limit for messages from the network (codec/token_bucket.py). */

export class TokenBucket {
  private tokens: number;
  private filledS: number | null = null;

  /** Holds at most `burst` tokens, starts full, and refills by `rate` tokens a second. */
  constructor(
    private readonly rate: number,
    private readonly burst: number,
  ) {
    this.tokens = burst;
  }

  /** Take `amount` tokens, or none if there are fewer. Return whether they were taken. */
  take(nowS: number, amount = 1): boolean {
    const passedS = Math.max(0, nowS - (this.filledS ?? nowS));
    this.tokens = Math.min(this.burst, this.tokens + passedS * this.rate);
    this.filledS = nowS;
    if (amount > this.tokens) return false;
    this.tokens -= amount;
    return true;
  }
}
