/**
 * Joins a room in Chromium and prints as JSON what the page showed and sent. Standard input is JSON:
 *
 *   url         of the page, with the room
 *   name        under which the page joins
 *   browser     path of Chromium
 *   camera      path of a Y4M or MJPEG file that is the camera's picture; without it the page has no devices and watches
 *   frames      how many of the first participant have to be shown
 *   coded       how many of our own have to be coded
 *   seconds     how long the call goes on then; default 0
 *   screenshots path prefix of screenshots; none by default
 *   portrait    a phone's window
 *   timeoutMs   longest wait for what has to be shown and coded
 *   init        script that runs before the page's, to take away what some browsers lack
 */

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { workers } from "./workers.mjs";

const { url, name = "Eve", browser, camera, frames = 0, coded = 0, seconds = 0, screenshots, portrait, init, timeoutMs = 60_000 } = JSON.parse(
  readFileSync(0, "utf8"),
);

const fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"];
const instance = await chromium.launch({
  executablePath: browser,
  args: [
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    ...(camera ? [...fake, `--use-file-for-fake-video-capture=${camera}`] : []),
  ],
});
try {
  const page = await instance.newPage({ viewport: portrait ? { width: 390, height: 844 } : { width: 1000, height: 900 } });
  const problems = [];
  let bytes = 0;
  page.on("console", (message) => {
    const own = message.text().includes("willReadFrequently"); // reading the canvas below
    if (!own && ["error", "warning"].includes(message.type())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("requestfinished", async (request) => {
    const sizes = await request.sizes().catch(() => null);
    bytes += sizes ? sizes.responseBodySize + sizes.responseHeadersSize : 0;
  });
  if (init) await page.addInitScript(init);
  await page.addInitScript(() => {
    window.shift = 0; // cumulative layout shift
    const add = (entries) => entries.forEach(({ hadRecentInput, value }) => (window.shift += hadRecentInput ? 0 : value));
    new PerformanceObserver((list) => add(list.getEntries())).observe({ type: "layout-shift", buffered: true });
  });
  const begunMs = Date.now();
  await page.goto(url);
  const times = {};
  if (await page.locator("#enter").isVisible()) {
    await page.locator("#who").fill(name);
    const ready = camera && !init
      ? page.waitForFunction(() => document.querySelector("#camera option"), null, { timeout: timeoutMs })
      : page.locator("#cannot:not(:empty)").waitFor({ timeout: timeoutMs });
    await ready.catch((error) => problems.push(String(error)));
    if (screenshots) await page.screenshot({ path: `${screenshots}-join.png` });
    await page.locator("#join").click();
  }
  const wait = (name, what, count) =>
    page
      .waitForFunction(([of, n]) => (of === "coded" ? window.iwcodec.coded() : window.iwcodec.shown()[0]) >= n, [what, count], {
        timeout: timeoutMs,
      })
      .then(() => (times[name] = (Date.now() - begunMs) / 1000));
  const done = Promise.all([wait("firstShown", "shown", frames && 1), wait("firstCoded", "coded", coded && 1)]).then(() =>
    Promise.all([wait("shown", "shown", frames), wait("coded", "coded", coded)]),
  );
  const failed = page.locator("#error:not(:empty)").waitFor({ timeout: timeoutMs });
  for (const waiting of [done, failed]) waiting.catch(() => {}); // whichever comes second
  await Promise.race([frames || coded ? done : failed, failed]).catch((error) => problems.push(String(error)));
  const counts = () => page.evaluate(() => ({ coded: window.iwcodec.coded(), shown: window.iwcodec.shown()[0], at: performance.now() }));
  const before = await counts();
  if (seconds) {
    await page.keyboard.press("i");
    await page.waitForTimeout(seconds * 1000);
  }
  const result = {
    problems,
    times,
    error: await page.locator("#error").textContent(),
    status: await page.locator("#status").textContent(),
    cannot: await page.locator("#cannot").textContent(),
    people: await page.locator("#people li:not(:has(.numbers:only-child)) > p:not(.numbers)").allTextContents(),
    words: await page.locator("#people small").allTextContents(),
    shift: await page.evaluate(() => window.shift),
    numbers: await page.locator("#people .numbers").allTextContents(),
    before,
    after: await counts(),
    workers: await page.evaluate(workers),
    version: `Chromium ${instance.version()}`,
    sent: await page.evaluate(() => window.iwcodec.sent()),
    picture: await page.evaluate(() => {
      const canvas = document.querySelector("#people li:not(:first-child) canvas, #people li:only-child canvas");
      if (!canvas) return null;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let text = "";
      for (let n = 0; n < data.length; n++) if (n % 4 < 3) text += String.fromCharCode(data[n]);
      return btoa(text);
    }),
    heard: await page.evaluate(() => window.iwcodec.heard()),
    said: await page.evaluate(() => window.iwcodec.said()),
  };
  if (screenshots) await page.screenshot({ path: `${screenshots}-call.png` });
  result.isTooWide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  result.focused = [];
  for (let name = ""; !result.error && result.focused.length < 20; result.focused.push(name)) {
    await page.keyboard.press("Tab");
    name = await page.evaluate(() => document.activeElement.id || document.activeElement.localName);
    if (name === "body" || result.focused.includes(name)) break; // beyond the last one
  }
  if (await page.locator("#mute").isVisible()) {
    await page.keyboard.press("m");
    await page.keyboard.press("v");
    await page.locator("#camera-off[aria-pressed=true]").waitFor();
    result.own = await page.locator(".own p:not(.numbers) span").textContent();
    result.mute = await page.locator("#mute").textContent();
  }
  if (!result.error && (await page.locator("#leave").isVisible())) await page.locator("#leave").click();
  console.log(JSON.stringify({ ...result, bytes: bytes + result.workers }));
} finally {
  await instance.close();
}
