import { expect, test } from "vitest";
import { readContainer } from "../../src/bitstream/container";
import { inspect } from "../../src/bitstream/info";
import { FormatError, VersionError } from "../../src/errors";
import { bytes, outcome, vectorsOf } from "../support/vectors";

const vectors = vectorsOf("bitstream");

test("files, intact and damaged, are read or refused as by Python", () => {
  for (const { data, packets, truncated, damaged, header } of vectors.files) {
    let file: ReturnType<typeof readContainer> | null = null;
    try {
      file = readContainer(bytes(data));
    } catch (error) {
      if (!(error instanceof FormatError || error instanceof VersionError)) throw error;
    }
    if (!packets || !file) {
      expect(file && packets).toBe(file || packets ? undefined : null);
      continue;
    }
    expect(outcome(() => file.packets)).toEqual(packets);
    expect(file.truncated).toBe(truncated);
    expect(file.damage.length).toBe(damaged);
    expect(file.header).toMatchObject(header);
  }
});

test("a file's bytes are all counted", () => {
  const [{ data: text, sources, variants }] = vectors.files;
  const data = bytes(text);
  const report = inspect(readContainer(data));
  expect(Object.values(report.bytes).reduce((sum, count) => sum + count)).toBe(data.length);
  expect(report).toMatchObject({ frames: 120, sources, variants });
});

test("what is no file, and another version, is said in a sentence", () => {
  expect(() => readContainer(new Uint8Array(100))).toThrow("This is not an .iwc file.");
  const data = bytes(vectors.files[0].data);
  data[4] = 5;
  expect(() => readContainer(data)).toThrow("This .iwc file has version 5; this player reads version 7.");
});
