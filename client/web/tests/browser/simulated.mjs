/**
 * Codes a camera's pictures in Chromium on a simulated clock, and prints the messages as JSON (simulated_worker.ts).
 * Standard input is JSON:
 *
 *   browser     path of Chromium
 *   folder      of models.json and what it names, and of camera.rgb: RGB pictures of 256 pixels
 *   fps         of the camera
 */

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { served } from "./served.mjs";

const { browser, folder, fps } = JSON.parse(readFileSync(0, "utf8"));
const { url, close } = await served("simulated.html", [folder]);
const instance = await chromium.launch({ executablePath: browser, args: ["--no-sandbox"] });
try {
  const page = await instance.newPage();
  page.on("console", (message) => console.error(message.text()));
  await page.goto(url);
  await page.waitForFunction(() => window.run);
  const result = await page.evaluate((rate) => window.run(rate), fps).catch((error) => ({ error: String(error) }));
  console.log(JSON.stringify({ error: "", version: `Chromium ${instance.version()}`, ...result }));
} finally {
  await instance.close();
  close();
}
