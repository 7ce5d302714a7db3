/**
 * Range decoder, bit-exact with `constriction.stream.queue.RangeDecoder`: 64 bits of state, 32-bit words, 24-bit
 * probabilities.
 *
 * JavaScript has no fast 64-bit integers, so the state is two 32-bit halves. Every product below is exact in a double.
 */

import { FormatError } from "../errors";

const WORD = 2 ** 32;
export const PRECISION = 24;
const TOTAL = 2 ** PRECISION;

/** Symbols 0 to `count` - 1; symbol s occupies [left(s), left(s + 1)) of 2 ** 24. */
export interface SymbolModel {
  count: number;
  left(symbol: number): number;
}

/** Row of a table of cumulative counts, `count` + 1 each. */
export class TableModel implements SymbolModel {
  constructor(
    private readonly cumulative: Uint32Array,
    private readonly offset: number,
    readonly count: number,
  ) {}

  left(symbol: number): number {
    return this.cumulative[this.offset + symbol];
  }
}

/** `count` equally likely symbols; the last one takes what the division leaves. */
export class UniformModel implements SymbolModel {
  private readonly width: number;

  constructor(readonly count: number) {
    this.width = Math.floor(TOTAL / count);
  }

  left(symbol: number): number {
    return symbol === this.count ? TOTAL : symbol * this.width;
  }
}

/** Split a table of cumulative counts, rows of `symbols` + 1, into models. */
export function tableModels(cumulative: Uint32Array, symbols: number): TableModel[] {
  const rows = cumulative.length / (symbols + 1);
  return Array.from({ length: rows }, (_, row) => new TableModel(cumulative, row * (symbols + 1), symbols));
}

export class RangeDecoder {
  private readonly words: Uint32Array;
  private next = 2;
  private rangeHigh = WORD - 1;
  private rangeLow = WORD - 1;
  /** The code word minus the lower end of the range. */
  private pointHigh: number;
  private pointLow: number;

  /** `payload`: little-endian words whose trailing zero bytes were removed. */
  constructor(payload: Uint8Array) {
    const padded = new Uint8Array((Math.ceil(payload.length / 4) + 2) * 4);
    padded.set(payload);
    const view = new DataView(padded.buffer);
    this.words = Uint32Array.from({ length: padded.length / 4 }, (_, n) => view.getUint32(4 * n, true));
    [this.pointHigh, this.pointLow] = this.words;
  }

  /** Decode a symbol. Throws FormatError if no symbol has this code. */
  decode(model: SymbolModel): number {
    const scale = this.rangeHigh * 2 ** (32 - PRECISION) + Math.floor(this.rangeLow / 2 ** PRECISION); // 40 bits
    const high = Math.floor(scale / 2 ** 24);
    const low = scale % 2 ** 24;
    if (!this.reaches(high, low, TOTAL)) throw new FormatError("A motion message cannot be decoded.");
    let symbol = 0;
    for (let end = model.count; end - symbol > 1; ) {
      const middle = (symbol + end) >> 1;
      if (this.reaches(high, low, model.left(middle))) end = middle;
      else symbol = middle;
    }
    const left = model.left(symbol);
    this.subtract(high, low, left);
    this.scaleRange(high, low, model.left(symbol + 1) - left);
    if (this.rangeHigh === 0) this.shift();
    return symbol;
  }

  /** Return whether scale * cumulative is above the point: the symbol lies before. */
  private reaches(high: number, low: number, cumulative: number): boolean {
    const rest = (high * cumulative % 256) * 2 ** 24 + low * cumulative;
    const top = Math.floor((high * cumulative) / 256) + Math.floor(rest / WORD);
    return top > this.pointHigh || (top === this.pointHigh && rest % WORD > this.pointLow);
  }

  private subtract(high: number, low: number, cumulative: number): void {
    const rest = (high * cumulative % 256) * 2 ** 24 + low * cumulative;
    const top = Math.floor((high * cumulative) / 256) + Math.floor(rest / WORD);
    this.pointLow -= rest % WORD;
    this.pointHigh -= top;
    if (this.pointLow < 0) {
      this.pointLow += WORD;
      this.pointHigh -= 1;
    }
  }

  private scaleRange(high: number, low: number, probability: number): void {
    const rest = (high * probability % 256) * 2 ** 24 + low * probability;
    this.rangeHigh = Math.floor((high * probability) / 256) + Math.floor(rest / WORD);
    this.rangeLow = rest % WORD;
  }

  private shift(): void {
    this.rangeHigh = this.rangeLow;
    this.rangeLow = 0;
    this.pointHigh = this.pointLow;
    this.pointLow = this.next < this.words.length ? this.words[this.next] : 0;
    this.next += 1;
  }
}
