/**
 * The entropy coders' tables, as integers that the Python side writes (server/http/player.py): building them here from
 * floating-point counts could differ in the last bit, and one bit ends a message.
 */

import { PRECISION, type TableModel, tableModels } from "./range_decoder";

/** The JSON that the server offers. */
export interface TablesFile {
  transform: { id: number; cumulative: number[]; symbols: number; directions: number[] };
  predictive: { id: number; cumulative: number[]; symbols: number; means: number[]; inter: number[]; intra: number[] };
}

/** Tables of the transform coder (codec/motion/transform_tables.py). */
export interface TransformTables {
  id: number;
  models: TableModel[];
  /** Bits of each symbol, by model. */
  bits: Float64Array[];
  /** (3 K, 3 K), row by row: columns are directions of the unknowns. */
  directions: Float64Array;
}

/** Tables of the predictive coder (codec/motion/predictive_tables.py). */
export interface PredictiveTables {
  id: number;
  models: TableModel[];
  /** (K, 3): levels from which an intra frame is predicted. */
  means: Int32Array;
  /** (K, 3, 2 K): weights of this frame's deltas, then of the previous frame's, times 4096. */
  inter: Int32Array;
  intra: Int32Array;
}

export interface Tables {
  transform: TransformTables;
  predictive: PredictiveTables;
}

/** Build models from the server's JSON. */
export function makeTables({ transform, predictive }: TablesFile): Tables {
  const models = tableModels(Uint32Array.from(transform.cumulative), transform.symbols);
  return {
    transform: {
      id: transform.id,
      models,
      bits: models.map((model) => Float64Array.from({ length: model.count }, (_, n) => bitsOf(model, n))),
      directions: Float64Array.from(transform.directions),
    },
    predictive: makePredictiveTables(predictive),
  };
}

function bitsOf(model: TableModel, symbol: number): number {
  return PRECISION - Math.log2(model.left(symbol + 1) - model.left(symbol));
}

/** Build the models of the predictive coder. */
export function makePredictiveTables(file: TablesFile["predictive"]): PredictiveTables {
  return {
    id: file.id,
    models: tableModels(Uint32Array.from(file.cumulative), file.symbols),
    means: Int32Array.from(file.means),
    inter: Int32Array.from(file.inter),
    intra: Int32Array.from(file.intra),
  };
}
