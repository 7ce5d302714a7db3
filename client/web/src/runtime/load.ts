/** Models and tables from the server, and the runtime on them (models/runtime/load.py). */

import * as ort from "onnxruntime-web/wasm";
import moduleUrl from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import type { Header } from "../bitstream/header";
import { VersionError } from "../errors";
import { makeTables, type Tables, type TablesFile } from "../motion/tables";
import { fetched } from "./fetched";
import { type Graph, GRAPHS, type Model, OnnxRuntime } from "./onnx";
import { WasmRefiner } from "./refiner";
import { RemoteRefiner } from "./remote_refiner";
import type { Runtime } from "./types";

/** Most threads of ONNX Runtime in a worker; more do not help graphs this small. */
const MAX_THREADS = 4;
/** Cores for each thread: three workers run networks in a call (attention, refinement, the camera), and threads spin
 * while they wait, so that too many are worse than one. */
const CORES_PER_THREAD = 4;

/** models.json: what the server's installation of iwcodec holds. */
export interface Manifest {
  /** Address of the tables. */
  tables: string;
  /** Address of the face detector's graph. */
  face: string;
  models: Model[];
}

/** Called as graphs arrive, with the bytes so far and in all. */
export type Progress = (bytes: number, total: number) => void;

/** Number of threads in a worker: one, unless the page is isolated from others, without which browsers share no memory. */
export function threadCount(): number {
  const most = Math.floor((navigator.hardwareConcurrency || 1) / CORES_PER_THREAD);
  return globalThis.crossOriginIsolated ? Math.max(1, Math.min(MAX_THREADS, most)) : 1;
}

/** Fetches what files need from below `base`, each model once. */
export class Loader {
  private manifest: Promise<Manifest> | null = null;
  private tables: Promise<TablesFile> | null = null;
  private readonly runtimes = new Map<string, Promise<Runtime>>();

  /** `splits`: refine frames in a worker of their own, for whoever rebuilds frame after frame. */
  constructor(
    private readonly base: string,
    private readonly splits = false,
  ) {}

  /** Return the tables and the runtime for a file. Throws VersionError if the server has not the ones it needs. */
  async load(header: Header, progress: Progress): Promise<{ tables: Tables; runtime: Runtime }> {
    const manifest = await this.readManifest();
    const tables = makeTables(await this.readTables());
    if (header.tables !== tables.transform.id && header.tables !== tables.predictive.id) {
      throw new VersionError("This file was coded by another version of iwcodec: its motion tables are not known here.");
    }
    const model = manifest.models.find(({ id, digest }) => id === header.modelId && digest === header.modelDigest);
    if (!model) {
      const known = manifest.models.map(({ id, digest }) => `${id} (${digest})`).join(", ");
      throw new VersionError(`This file needs the model ${header.modelId} (${header.modelDigest}); here is ${known}.`);
    }
    if (header.keypoints !== model.keypoints || header.size !== model.size) {
      throw new VersionError(`This file's pictures are not those of its model ${model.id}.`);
    }
    return { tables, runtime: await this.runtimeOf(model, progress) };
  }

  /** Return the model for pictures of `size` pixels, as calls use it, and the tables; the runtime is still being loaded. */
  async loadSize(size: number, progress: Progress): Promise<{ model: Model; tables: TablesFile; runtime: Promise<Runtime> }> {
    const model = (await this.readManifest()).models.find((known) => known.size === size);
    if (!model) throw new VersionError(`The server has no model for pictures of ${size} pixels.`);
    const runtime = this.runtimeOf(model, progress);
    runtime.catch(() => {}); // whoever waits for it is told
    return { model, tables: await this.readTables(), runtime };
  }

  /** Return the face detector, for pictures as planes (1, 3, height, width) in 0..255. */
  async loadFaceDetector(): Promise<ort.InferenceSession> {
    setUp();
    return ort.InferenceSession.create(await bytesOf(await this.get((await this.readManifest()).face), () => {}));
  }

  private readManifest(): Promise<Manifest> {
    this.manifest ??= retried(() => this.json<Manifest>("models.json"), () => (this.manifest = null));
    return this.manifest;
  }

  private readTables(): Promise<TablesFile> {
    this.tables ??= retried(
      async () => this.json<TablesFile>((await this.readManifest()).tables),
      () => (this.tables = null),
    );
    return this.tables;
  }

  private runtimeOf(model: Model, progress: Progress): Promise<Runtime> {
    let runtime = this.runtimes.get(model.id);
    if (!runtime) {
      runtime = retried(() => this.makeRuntime(model, progress), () => this.runtimes.delete(model.id));
      this.runtimes.set(model.id, runtime);
    }
    return runtime;
  }

  private async json<Content>(path: string): Promise<Content> {
    return (await this.get(path)).json() as Promise<Content>;
  }

  private get(path: string): Promise<Response> {
    return fetched(new URL(path, this.base).href);
  }

  private async makeRuntime(model: Model, progress: Progress): Promise<Runtime> {
    setUp();
    const decoder = new URL(model.decoder, this.base).href;
    const refining = (this.splits && RemoteRefiner.isPossible ? RemoteRefiner : WasmRefiner).load(model, decoder);
    let received = 0;
    let turn: Promise<unknown> = Promise.resolve();
    const sessions = {} as Record<Graph, ort.InferenceSession>;
    // One after the other, in the order of arrival: the WebAssembly is fetched and compiled while large graphs arrive.
    const load = async (graph: Graph) => {
      const response = await this.get(model.graphs[graph]);
      const bytes = await bytesOf(response, (count) => progress((received += count), model.bytes));
      turn = turn.then(async () => (sessions[graph] = await ort.InferenceSession.create(bytes)));
      await turn;
    };
    const [refiner] = await Promise.all([refining, ...GRAPHS.map(load)]);
    return new OnnxRuntime(model, sessions, ort.Tensor, refiner);
  }
}

function setUp(): void {
  ort.env.wasm.wasmPaths = { mjs: new URL(moduleUrl, import.meta.url).href, wasm: new URL(wasmUrl, import.meta.url).href };
  ort.env.wasm.numThreads = threadCount();
  ort.env.wasm.proxy = false; // this is a worker already
  ort.env.logLevel = "error";
}

async function bytesOf(response: Response, received: (count: number) => void): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    received(value.length);
  }
  const all = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** Forget a failure, so that the next attempt starts afresh. */
async function retried<Value>(work: () => Promise<Value>, forget: () => void): Promise<Value> {
  try {
    return await work();
  } catch (error) {
    forget();
    throw error;
  }
}
