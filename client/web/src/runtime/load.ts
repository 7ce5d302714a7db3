/** Models and tables from the server, and the runtime on them (models/runtime/load.py). */

import type { Header } from "../bitstream/header";
import { VersionError } from "../errors";
import { FaceNetwork } from "../media/face_network";
import { makeTables, type Tables, type TablesFile } from "../motion/tables";
import { fetched } from "./fetched";
import { NetworkRuntime } from "./network/network";
import { WasmRefiner } from "./refinement/refiner";
import { RemoteRefiner } from "./refinement/remote_refiner";
import type { Model, Runtime } from "./types";
import { NetworkWeights } from "./weights";

/** models.json: what the server's installation of iwcodec holds. */
export interface Manifest {
  /** Address of the tables. */
  tables: string;
  /** Address of the face detector's graph. */
  face: string;
  models: Model[];
}

/** Called as weights arrive, with the bytes so far and in all. */
export type Progress = (bytes: number, total: number) => void;

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

  async loadFaceDetector(): Promise<FaceNetwork> {
    return new FaceNetwork(await bytesOf(await this.get((await this.readManifest()).face), () => {}));
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
    const decoder = new URL(model.decoder, this.base).href;
    const refining = (this.splits && RemoteRefiner.isPossible ? RemoteRefiner : WasmRefiner).load(model, decoder);
    refining.catch(() => {}); // told below
    const weights = await bytesOf(await this.get(model.network), (bytes) => progress(bytes, model.bytes));
    return new NetworkRuntime(model, NetworkWeights.read(weights.buffer), await refining);
  }
}

/** Return what arrives. `received`: told the bytes so far. */
async function bytesOf(response: Response, received: (bytes: number) => void): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    received((bytes += value.length));
  }
  const all = new Uint8Array(bytes);
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
