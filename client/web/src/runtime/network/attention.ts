/** Attention of a frame's keypoints to its sources, as far as the decoder's trunk (models/network/network.py,
 * `attend_merged` and `decoder_inputs`). */

import { BLOCK, type Convolutions, VALUE } from "./convolutions";
import { cellCentres, pixelsOf } from "./geometry";
import { CELLS, cellAt, Queries } from "./queries";
import { PLACE_COLUMNS, SourceSet } from "../source_set";
import { Trunk } from "./trunk";
import { type Attention, MAX_SOURCES, type Model, type Source } from "../types";
import type { NetworkWeights } from "../weights";

/** Mean shifts, in pixels, up to which the decoder corrects nothing, and from which on all. */
const GATE_CLOSED = 0.5;
const GATE_OPEN = 3;
/** Attention that a source has where it has none. */
const SMALL = 1e-3;
/** Logit of an extra key that is none. */
const MASKED = -1e4;
/** Query blocks that are compared with all source blocks together. */
const TOGETHER = 4;

export class SourceAttention {
  private readonly side: number;
  /** Pixels of a cell's side. */
  private readonly cell: number;
  private readonly kept: number;
  private readonly queries: Queries;
  private readonly set: SourceSet;
  private readonly trunk: Trunk;
  private readonly extras: { count: number; keys: number; near: number };
  private readonly rooms: { attended: number; spare: number };
  private readonly focus: number;

  constructor(
    private readonly c: Convolutions,
    weights: NetworkWeights,
    model: Model,
  ) {
    const values = weights.of("extra_values").shape[1];
    const [, inputs] = weights.of("key_net.unet.stem.0.weight").shape;
    this.cell = Math.sqrt((inputs - model.keypoints) / 3);
    const side = (this.side = model.net_size / this.cell);
    this.kept = model.top_k;
    if (!this.kept) throw new RangeError("attention to all cells");
    this.queries = new Queries(c, weights, side, model.keypoints);
    this.set = new SourceSet(c, weights, values, this.queries.unitDims, side);
    this.trunk = new Trunk(c, weights, this.set, this.queries, values, side);
    this.extras = this.storedExtras(weights, values);
    const spare = TOGETHER * ((MAX_SOURCES * side ** 2) / CELLS + CELLS * this.kept + this.extras.count) + this.kept;
    this.rooms = { attended: c.room(side ** 2 * this.set.width), spare: c.room(spare) };
    this.focus = Math.exp(weights.value("log_focus"));
  }

  /** Attend to 1 to MAX_SOURCES sources with keypoints (K, 3). */
  run(keypoints: Float32Array, sources: Source[]): Attention {
    const { c, extras, kept, queries, rooms, set, side } = this;
    set.set(sources);
    set.predict(keypoints);
    queries.run(keypoints);
    const begin = rooms.spare + TOGETHER * (set.blocks + CELLS * kept + extras.count) * VALUE;
    new Uint32Array(c.bytes(begin, kept * VALUE).buffer, begin, kept).forEach((_, n, picked) => (picked[n] = n));
    const count = side ** 2 / CELLS;
    c.run.attend(queries.all, queries.means, count, set.pooled, set.keys, set.rows, set.blocks, queries.dims, set.width, extras.keys, extras.count, extras.near, kept, rooms.attended, rooms.spare);
    this.trunk.run(rooms.attended);
    return this.decoderInputs(sources.length);
  }

  /** Read the warp and its gate, and copy the features. */
  private decoderInputs(count: number): Attention {
    const { c, cell, focus, set, side, trunk } = this;
    const centres = cellCentres(side).map((centre) => (centre * side) / 2);
    const attended = c.floats(this.rooms.attended, side ** 2 * set.width);
    const nudges = pixelsOf(c, trunk.nudges);
    const { channels, row } = trunk.features;
    const trunkFeatures = pixelsOf(c, trunk.features);
    const shifts = new Float32Array(count * side ** 2 * 3);
    const features = new Float32Array((channels + 1) * side ** 2);
    for (let y = 0; y < side; y++) {
      const from = (y * row) / VALUE;
      features.set(trunkFeatures.subarray(from, from + side * channels), y * side * channels);
    }
    for (let n = 0; n < side ** 2; n++) {
      const { x, y } = cellAt(n, side);
      const raster = y * side + x;
      const nudge = raster * trunk.nudges.channels;
      const [right, down] = [tanh(nudges[nudge]), tanh(nudges[nudge + 1])];
      let [length, total] = [0, 0];
      for (let s = 0; s < count; s++) {
        const column = n * set.width + set.columns + PLACE_COLUMNS * s;
        const mass = attended[column];
        const out = 3 * (s * side ** 2 + raster);
        const dx = ((attended[column + 1] + SMALL * centres[x]) / (mass + SMALL) + right - centres[x]) * cell;
        const dy = ((attended[column + 2] + SMALL * centres[y]) / (mass + SMALL) + down - centres[y]) * cell;
        const weight = (mass + SMALL) ** focus;
        shifts[out] = dx;
        shifts[out + 1] = dy;
        shifts[out + 2] = weight;
        length += Math.sqrt(dx * dx + dy * dy) * weight;
        total += weight;
      }
      features[channels * side ** 2 + raster] = Math.min(1, Math.max(0, (length / total - GATE_CLOSED) / (GATE_OPEN - GATE_CLOSED)));
    }
    return { shifts, side, features };
  }

  /** Store the extra keys and their rows, which belong to no source. */
  private storedExtras(weights: NetworkWeights, values: number): { count: number; keys: number; near: number } {
    const { c, queries, set } = this;
    const [keys, logits, rows, colours] = ["keys", "logits", "values", "pixels"].map((name) => weights.of(`extra_${name}`).values);
    const dim = queries.unitDims;
    const count = Math.ceil(logits.length / BLOCK) * BLOCK;
    const cells = CELLS * this.kept + count;
    const room = { count, keys: c.room(count * queries.dims), near: c.room(cells * set.width) };
    const [keysOut, near] = [c.floats(room.keys, count * queries.dims), c.floats(room.near, cells * set.width)];
    for (let n = 0; n < count; n++) {
      const key = (i: number) => ((n >> 3) * queries.dims + i) * BLOCK + (n % BLOCK);
      keysOut[key(queries.dims - 1)] = logits[n] ?? MASKED;
      if (n >= logits.length) continue;
      const own = keys.subarray(n * dim, (n + 1) * dim);
      const length = Math.hypot(...own);
      const row = [...rows.subarray(n * values, (n + 1) * values), ...own.map((value) => value / length), ...colours.subarray(3 * n, 3 * n + 3)];
      own.forEach((value, i) => (keysOut[key(i)] = value / length));
      row.forEach((value, i) => (near[((i >> 3) * cells + CELLS * this.kept + n) * BLOCK + (i % BLOCK)] = value));
    }
    return room;
  }
}

/** Four times as quick as Math.tanh, and near enough for pixels. */
function tanh(x: number): number {
  return 1 - 2 / (Math.exp(2 * x) + 1);
}
