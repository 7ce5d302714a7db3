/** The worker that rebuilds the pictures of all peers, as the links use it. */

import type { DecodedSource, Model, Pixels, Renderer } from "../link/incoming";
import { makeTables } from "../motion/tables";
import type { Answer, Request } from "./messages";

export class Renderers {
  private readonly worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  /** The networks are there. */
  readonly ready: Promise<void>;
  private isReady = () => {};
  private readonly jobs = new Map<number, { resolve: (done: DecodedSource | null) => void; first: (pixels: Pixels) => void }>();
  private lastJob = 0;

  /** `progress`: share of the model that has arrived. `failed`: in words. */
  constructor(
    private readonly progress: (share: number) => void,
    private readonly failed: (message: string) => void,
  ) {
    this.ready = new Promise((resolve) => (this.isReady = resolve));
    this.worker.onerror = () => this.failed("The page could not start its decoder; please reload it.");
  }

  /** Load the model for pictures of `size` pixels. It is known before it is ready. */
  load(size: number): Promise<Model> {
    return new Promise((resolve) => {
      this.worker.onmessage = ({ data }: MessageEvent<Answer>) => {
        if (data.type === "failed") this.failed(data.message);
        else if (data.type === "loading") this.progress(data.bytes / (data.total || data.bytes));
        else if (data.type === "loaded") this.isReady();
        else if (data.type === "first") this.jobs.get(data.job)?.first({ side: data.side, data: data.pixels });
        else if (data.type === "model") {
          const digest = Uint8Array.from(data.digest.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
          resolve({ digest, keypoints: data.keypoints, tables: makeTables(data.tables) });
        } else {
          this.jobs.get(data.job)?.resolve(data.pixels && { side: data.side, data: data.pixels, space: data.space });
          this.jobs.delete(data.job);
        }
      };
      this.request({ type: "load", base: document.baseURI, size });
    });
  }

  /** Return the renderer of a peer. */
  of(peer: string): Renderer {
    const job = (make: (number: number) => Request, first: (pixels: Pixels) => void = () => {}) =>
      new Promise<DecodedSource | null>((resolve) => {
        this.lastJob += 1;
        this.jobs.set(this.lastJob, { resolve, first });
        this.request(make(this.lastJob));
      });
    return {
      source: (packet, isSnapshot, first) => job((number) => ({ type: "source", peer, job: number, packet, isSnapshot }), first),
      frame: (frame, later) => job((number) => ({ type: "frame", peer, job: number, frame, later })),
      reset: () => this.forget(peer),
    };
  }

  /** Drop what is kept of a peer's stream. */
  forget(peer: string): void {
    this.request({ type: "forget", peer });
  }

  private request(message: Request): void {
    this.worker.postMessage(message);
  }
}
