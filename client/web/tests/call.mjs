/**
 * Watches a room in Chromium and prints as JSON what the page showed. Standard input is JSON:
 *
 *   url         of the page, with the room
 *   browser     path of Chromium
 *   frames      how many have to be shown
 *   screenshot  path of a screenshot; none by default
 */

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const { url, browser, frames, screenshot, timeoutMs = 60_000 } = JSON.parse(readFileSync(0, "utf8"));
const instance = await chromium.launch({
  executablePath: browser,
  args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
});
try {
  const page = await instance.newPage({ viewport: { width: 1000, height: 900 } });
  const problems = [];
  page.on("console", (message) => {
    const own = message.text().includes("willReadFrequently"); // reading the canvas below
    if (!own && ["error", "warning"].includes(message.type())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(url);
  if (await page.locator("#enter").isVisible()) {
    await page.locator("#who").fill("Eve");
    await page.locator("#enter button").click();
  }
  const shown = page.waitForFunction((n) => window.iwcodec.shown()[0] >= n, frames, { timeout: timeoutMs });
  const failed = page.locator("#error:not(:empty)").waitFor({ timeout: timeoutMs });
  await Promise.race([shown, failed]).catch((error) => problems.push(String(error)));
  const result = {
    problems,
    error: await page.locator("#error").textContent(),
    status: await page.locator("#status").textContent(),
    people: await page.locator("#people p").allTextContents(),
    shown: await page.evaluate(() => window.iwcodec.shown()),
    picture: await page.evaluate(() => {
      const canvas = document.querySelector("#people canvas");
      if (!canvas) return null;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let text = "";
      for (let n = 0; n < data.length; n++) if (n % 4 < 3) text += String.fromCharCode(data[n]);
      return btoa(text);
    }),
    heard: await page.evaluate(() => window.iwcodec.heard()),
  };
  if (screenshot) await page.screenshot({ path: screenshot });
  if (!result.error) await page.locator("#leave").click();
  console.log(JSON.stringify(result));
} finally {
  await instance.close();
}
