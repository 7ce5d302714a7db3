/** What can be wrong with a file. Messages are for the person who opened it. */

/** Bytes that are not what the format says. */
export class FormatError extends Error {
  override name = "FormatError";
}

/** A file of another version of the format, or for another model. */
export class VersionError extends Error {
  override name = "VersionError";
}

/** Return the message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
