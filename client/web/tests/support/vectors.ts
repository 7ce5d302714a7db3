/** What the Python side makes of the same input: written by tests/support/web/vectors. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { FormatError } from "../../src/errors";

const folder = process.env.IWCODEC_VECTORS;
if (!folder) throw new Error("IWCODEC_VECTORS names no folder: tests/support/web/vectors/write.py writes it.");

/** Return the vectors of a subject, a module of tests/support/web/vectors. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function vectorsOf(subject: string): any {
  return JSON.parse(readFileSync(join(folder!, `${subject}.json`), "utf8"));
}

export function bytes(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, "base64"));
}

/** Return the result with bytes in base64, as in the vectors; null if it is refused. Anything but a FormatError fails. */
export function outcome(work: () => unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(work() ?? null, (_, value) => (value instanceof Uint8Array ? text(value) : value)));
  } catch (error) {
    if (error instanceof FormatError) return null;
    throw error;
  }
}

export function text(data: Uint8Array): string {
  return Buffer.from(data).toString("base64");
}

/** Return the largest difference of two arrays. */
export function largest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} values instead of ${b.length}`);
  let most = 0;
  for (let n = 0; n < a.length; n++) most = Math.max(most, Math.abs(a[n] - b[n]));
  return most;
}
