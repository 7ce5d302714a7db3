/** Runs simulated_worker.ts for simulated.mjs. */

import type { Result } from "./simulated_worker";

const run = (fps: number) =>
  new Promise<Result>((resolve, reject) => {
    const worker = new Worker(new URL("./simulated_worker.ts", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Result | string>) => (typeof data === "string" ? reject(new Error(data)) : resolve(data));
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage(fps);
  });
Object.assign(window, { run });
