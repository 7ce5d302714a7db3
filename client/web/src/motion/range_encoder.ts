/** Range encoder, bit-exact with `constriction.stream.queue.RangeEncoder`; see range_decoder.ts for the arithmetic. */

import { PRECISION, type SymbolModel } from "./range_decoder";

const WORD = 2 ** 32;

export class RangeEncoder {
  private readonly words: number[] = [];
  private lowerHigh = 0;
  private lowerLow = 0;
  private rangeHigh = WORD - 1;
  private rangeLow = WORD - 1;

  encode(symbol: number, model: SymbolModel): void {
    const scale = this.rangeHigh * 2 ** (32 - PRECISION) + Math.floor(this.rangeLow / 2 ** PRECISION); // 40 bits
    const high = Math.floor(scale / 2 ** 24);
    const low = scale % 2 ** 24;
    const left = model.left(symbol);
    this.add(...product(high, low, left));
    [this.rangeHigh, this.rangeLow] = product(high, low, model.left(symbol + 1) - left);
    if (this.rangeHigh > 0) return;
    this.words.push(this.lowerHigh);
    [this.lowerHigh, this.lowerLow] = [this.lowerLow, 0];
    [this.rangeHigh, this.rangeLow] = [this.rangeLow, 0];
  }

  /** Return the code as little-endian words without trailing zero bytes; one zero byte if nothing else is left. */
  bytes(): Uint8Array {
    // The decoder reads zeros after the end, so a point of the range is coded that one word gives.
    if (this.lowerLow > 0) this.add(1, 0);
    const words = [...this.words, this.lowerHigh];
    const out = new Uint8Array(4 * words.length);
    const view = new DataView(out.buffer);
    words.forEach((word, n) => view.setUint32(4 * n, word, true));
    let length = out.length;
    while (length > 1 && !out[length - 1]) length -= 1;
    return out.subarray(0, length);
  }

  /** Add to the lower end, with a carry into the words before. */
  private add(high: number, low: number): void {
    this.lowerLow += low;
    this.lowerHigh += high;
    if (this.lowerLow >= WORD) {
      this.lowerLow -= WORD;
      this.lowerHigh += 1;
    }
    if (this.lowerHigh < WORD) return;
    this.lowerHigh -= WORD;
    let n = this.words.length - 1;
    while (n >= 0 && this.words[n] === WORD - 1) this.words[n--] = 0;
    if (n >= 0) this.words[n] += 1;
  }
}

/** Return the two halves of (high, low) * factor; high has 16 bits, low and factor 24. */
function product(high: number, low: number, factor: number): [number, number] {
  const rest = ((high * factor) % 256) * 2 ** 24 + low * factor;
  return [Math.floor((high * factor) / 256) + Math.floor(rest / WORD), rest % WORD];
}
