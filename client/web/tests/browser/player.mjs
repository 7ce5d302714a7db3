/**
 * Plays a file in Chromium and prints as JSON what the page showed. Standard input is JSON:
 *
 *   url         of the page
 *   browser     path of Chromium
 *   file        path of the file, or null for the sample
 *   frames      numbers whose pictures are returned, as base64 of RGB
 *   seconds     how long the file plays first
 *   from        position in seconds from which it plays to its end: `sound` is then the number of samples heard
 *   wrong       path of something that is no file of ours, opened last: `wrong` is the page's sentence
 *   screenshots path prefix of screenshots; none by default
 *   timeoutMs   longest wait for the first picture
 *   portrait, dark   a phone's window, the dark colours
 */

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { workers } from "./workers.mjs";

const { url, browser, file, frames = [], seconds = 0, from, wrong, screenshots, portrait, dark, timeoutMs = 120_000 } = JSON.parse(
  readFileSync(0, "utf8"),
);

const instance = await chromium.launch({
  executablePath: browser,
  args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
});
try {
  const page = await instance.newPage({
    viewport: portrait ? { width: 390, height: 844 } : { width: 1200, height: 950 },
    colorScheme: dark ? "dark" : "light",
  });
  const problems = [];
  let bytes = 0;
  page.on("console", (message) => {
    const own = message.text().includes("willReadFrequently"); // reading the canvas below
    if (!own && ["error", "warning"].includes(message.type())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("requestfailed", (request) => problems.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on("requestfinished", async (request) => {
    const sizes = await request.sizes().catch(() => null);
    bytes += sizes ? sizes.responseBodySize + sizes.responseHeadersSize : 0;
  });
  const opened = Date.now();
  await page.goto(url);
  if (screenshots) await page.screenshot({ path: `${screenshots}-start.png` });
  if (file) await page.locator("#file").setInputFiles(file);
  else await page.locator("#sample").click();
  const shown = page.waitForFunction(() => document.body.dataset.frame !== undefined, null, { timeout: timeoutMs });
  const failed = page.locator("#error:not(:empty)").waitFor({ timeout: timeoutMs });
  await Promise.race([shown, failed.catch(() => {})]);
  const firstMs = Date.now() - opened;
  const error = await page.locator("#error").textContent();
  const result = { version: `Chromium ${instance.version()}`, error, firstMs, bytes, problems, pictures: [] };
  if (!error) {
    const before = await page.evaluate(() => ({ ...window.iwcodec.counts(), at: performance.now() }));
    await page.waitForTimeout(seconds * 1000);
    if (from !== undefined) {
      await page.evaluate((s) => window.iwcodec.seek(s), from);
      await page.waitForFunction(() => document.getElementById("play").textContent === "Play", null, { timeout: 60_000 });
      result.sound = await page.evaluate(() => window.iwcodec.heard());
    }
    result.counts = await page.evaluate(() => ({ ...window.iwcodec.counts(), at: performance.now() }));
    result.playedMs = result.counts.at - before.at;
    result.shown = result.counts.shown - before.shown;
    result.time = await page.locator("#time").textContent();
    if (screenshots) {
      await page.screenshot({ path: `${screenshots}-playing.png`, fullPage: true });
      await page.keyboard.press("k");
      await page.screenshot({ path: `${screenshots}-keypoints.png` });
    }
    if (frames.length && (await page.locator("#play").textContent()) === "Pause") await page.locator("#play").click();
    result.facts = await page.locator("#facts").innerText();
    result.strip = await page.locator("#strip li").allTextContents();
    const fps = await page.evaluate(() => window.iwcodec.fps());
    for (const number of frames) {
      await page.evaluate((s) => window.iwcodec.seek(s), (number + 0.25) / fps);
      await page.waitForFunction((n) => document.body.dataset.frame === String(n), number, { timeout: 60_000 });
      result.pictures.push(
        await page.evaluate(() => {
          const canvas = document.getElementById("picture");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let text = "";
          for (let n = 0; n < data.length; n++) if (n % 4 < 3) text += String.fromCharCode(data[n]);
          return btoa(text);
        }),
      );
    }
  }
  if (wrong) {
    await page.locator("#file").setInputFiles(wrong);
    await page.locator("#error:not(:empty)").waitFor();
    result.wrong = await page.locator("#error").textContent();
    if (screenshots) await page.screenshot({ path: `${screenshots}-wrong.png` });
  }
  result.bytes = bytes + (await page.evaluate(workers));
  console.log(JSON.stringify(result));
} finally {
  await instance.close();
}
