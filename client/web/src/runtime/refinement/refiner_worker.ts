/** Samples the sources and refines frames, beside the worker that does the rest (remote_refiner.ts). */

import { messageOf } from "../../errors";
import { WasmRefiner } from "./refiner";
import type { RefinerAnswer, RefinerRequest } from "./remote_refiner";

const scope = self as unknown as DedicatedWorkerGlobalScope;
let refiner: WasmRefiner;
/** Frames are refined one after the other. */
let turn: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }: MessageEvent<RefinerRequest>) => {
  turn = turn.then(async () => {
    try {
      if ("decoder" in data) {
        refiner = await WasmRefiner.load(data.model, data.decoder);
        answer({ picture: null });
        return;
      }
      const picture = await refiner.refine(data);
      answer({ picture }, [picture.data.buffer]);
    } catch (error) {
      answer({ failed: messageOf(error) });
    }
  });
};

function answer(message: RefinerAnswer, transfer: Transferable[] = []): void {
  scope.postMessage(message, transfer);
}
