import { chromium } from "playwright-core";
const url = process.argv[2];
const b = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"] });
const page = await b.newPage();
let total = 0;
page.on("requestfinished", async (r) => { const s = await r.sizes().catch(() => null); const n = s ? s.responseBodySize + s.responseHeadersSize : 0; total += n; if (n > 3000 || process.argv[4]) console.log(r.url().replace(/.*\/play/, ""), n, r.resourceType(), r.isNavigationRequest?.()); });
await page.goto(url);
if (process.argv[3] === "sample") { await page.locator("#sample").click(); await page.waitForFunction(() => document.body.dataset.frame, null, { timeout: 120000 }); }
else if (process.argv[3] === "watch") { await page.locator("#watch").click(); await page.waitForTimeout(20000); }
else { await page.waitForFunction(() => document.querySelector("#camera option")); await page.locator("#join").click(); await page.waitForFunction(() => window.iwcodec.coded() > 1, null, { timeout: 120000 }); }
await page.waitForTimeout(1000);
console.log("TOTAL", total);
await b.close();
