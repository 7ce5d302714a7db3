/** Builds a page of this folder with the browser's own modules, and serves it with files of other folders. */

import { createReadStream, existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

/** Serve `page` (of this folder) and the files of `folders`. Returns its address, and how to end it. */
export async function served(page, folders) {
  const folder = dirname(fileURLToPath(import.meta.url));
  const root = join(folder, "..", "..");
  const outDir = mkdtempSync(join(tmpdir(), "iwcodec-"));
  const rollupOptions = { input: join(folder, page) };
  await build({ root, mode: "measurement", logLevel: "error", publicDir: false, build: { outDir, rollupOptions, emptyOutDir: true } });
  const server = createServer(({ url }, response) => {
    const path = normalize(decodeURIComponent(new URL(url, "http://localhost").pathname));
    const file = [outDir, ...folders].map((folder) => join(folder, path)).find((name) => existsSync(name) && statSync(name).isFile());
    response.writeHead(file ? 200 : 404, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" });
    if (file) createReadStream(file).pipe(response);
    else response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.close();
    server.closeAllConnections();
    rmSync(outDir, { recursive: true });
  };
  return { url: `http://127.0.0.1:${server.address().port}/tests/browser/${page}`, close };
}
