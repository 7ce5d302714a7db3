/** Samples the sources and refines frames, beside the worker that does the rest (remote_refiner.ts). */

import { Tensor } from "onnxruntime-web/wasm";
import { messageOf } from "../errors";
import { loadGraph } from "./load";
import { OnnxRefiner } from "./refiner";
import type { RefinerAnswer, RefinerRequest } from "./remote_refiner";

const scope = self as unknown as DedicatedWorkerGlobalScope;
let refiner: OnnxRefiner;
/** Frames are refined one after the other. */
let turn: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }: MessageEvent<RefinerRequest>) => {
  turn = turn.then(async () => {
    try {
      if ("graph" in data) {
        refiner = new OnnxRefiner(data.model, await loadGraph(data.graph), Tensor);
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
