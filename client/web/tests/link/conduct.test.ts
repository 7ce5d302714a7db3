import { expect, test } from "vitest";
import { Conduct } from "../../src/link/conduct";

test("a peer that goes on is ignored for a while", () => {
  const conduct = new Conduct();
  const ignored: number[] = [];
  for (let tenth = 0; tenth < 300; tenth++) {
    for (let n = 0; tenth < 50 && n < 8; n++) conduct.offended(tenth / 10); // 80 messages a second for 5 s
    if (conduct.isIgnored(tenth / 10)) ignored.push(tenth / 10);
  }
  expect(ignored[0]).toBeLessThanOrEqual(0.7);
  expect(ignored[ignored.length - 1]).toBeCloseTo(14.8, 0);
});

test("what is rare has no consequence", () => {
  const conduct = new Conduct();
  for (let second = 0; second < 300; second++) {
    conduct.offended(second);
    expect(conduct.isIgnored(second)).toBe(false);
  }
});

test("a peer that does not calm down stays ignored", () => {
  const conduct = new Conduct();
  for (let n = 0; n < 100; n++) conduct.offended(0);
  for (let n = 0; n < 80 * 60; n++) expect(conduct.ignores(n / 80)).toBe(true);
  for (let n = 0; n < 190; n++) expect(conduct.ignores(60 + n / 20)).toBe(true);
  expect(conduct.ignores(70)).toBe(false);
});
