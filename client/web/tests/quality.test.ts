import { expect, test } from "vitest";
import { qualityWords } from "../src/quality";
import { vectorsOf } from "./support/vectors";

test("what spoils a call is said in Python's words", () => {
  const said = new Set<string>();
  for (const { words, ...stats } of vectorsOf("receiving").quality) {
    expect(qualityWords(stats)).toBe(words);
    said.add(words.replaceAll(/[\d.]+/g, "1"));
  }
  expect(said.size).toBe(6);
});
