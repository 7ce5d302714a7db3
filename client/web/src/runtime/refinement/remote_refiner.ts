/** Refines in another worker: while it works on one frame, attention goes on with the next. */

import type { Picture } from "../pictures";
import type { Attended, Refiner } from "./refiner";
import type { Model } from "../types";

/** To the worker: the model first, with the address of its decoder's weights, then frames. */
export type RefinerRequest = { model: Model; decoder: string } | Attended;
/** From it, in the order of the requests: that it is ready, then pictures; or what failed. */
export type RefinerAnswer = { picture: Picture | null } | { failed: string };

interface Job {
  resolve(picture: Picture | null): void;
  reject(error: Error): void;
}

export class RemoteRefiner implements Refiner {
  private readonly worker = new Worker(new URL("./refiner_worker.ts", import.meta.url), { type: "module" });
  private jobs: Job[] = [];

  /** Return whether workers can have workers: old browsers' cannot. */
  static get isPossible(): boolean {
    return typeof Worker === "function";
  }

  /** Return a worker that is ready. */
  static async load(model: Model, decoder: string): Promise<RemoteRefiner> {
    const refiner = new RemoteRefiner();
    await refiner.ask({ model, decoder }, []);
    return refiner;
  }

  private constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<RefinerAnswer>) => {
      const job = this.jobs.shift();
      if ("failed" in data) job?.reject(new Error(data.failed));
      else job?.resolve(data.picture);
    };
    this.worker.onerror = () => {
      for (const { reject } of this.jobs.splice(0)) reject(new Error("A worker could not be started."));
    };
  }

  async refine(attended: Attended): Promise<Picture> {
    return (await this.ask(attended, [attended.shifts.buffer, attended.features.buffer])) as Picture;
  }

  private ask(request: RefinerRequest, transfer: Transferable[]): Promise<Picture | null> {
    return new Promise((resolve, reject) => {
      this.jobs.push({ resolve, reject });
      this.worker.postMessage(request, transfer);
    });
  }
}
