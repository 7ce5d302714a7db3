import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import asc from "assemblyscript/asc";
import { defineConfig, type Plugin } from "vite";

/** Write a compressed copy of everything large beside it: a server that is asked for `br` sends that. Measurements
 * (tests/browser/served.mjs) build without it, which is quicker. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: (_, { command, mode }) => command === "build" && mode === "production",
    generateBundle(_, bundle) {
      for (const [name, file] of Object.entries(bundle)) {
        const data = Buffer.from(file.type === "asset" ? file.source : file.code);
        if (name.endsWith(".html") || data.length < 4096) continue;
        const params = { [constants.BROTLI_PARAM_QUALITY]: 7, [constants.BROTLI_PARAM_SIZE_HINT]: data.length };
        this.emitFile({ type: "asset", fileName: `${name}.br`, source: brotliCompressSync(data, { params }) });
      }
    },
  };
}

/** Compile AssemblyScript where a module imports FILE?wasm: its default export is the WebAssembly, in base64, with fused
 * products and sums, a sixth quicker, for browsers that have relaxed SIMD, then without. */
function assembly(): Plugin {
  return {
    name: "assembly",
    enforce: "pre",
    async load(id) {
      if (!id.endsWith("?wasm")) return null;
      const file = id.slice(0, -"?wasm".length);
      for (const source of readdirSync(dirname(file))) this.addWatchFile(join(dirname(file), source));
      binaries ??= Promise.all([assembled(file, ["--enable", "relaxed-simd"]), assembled(file, [])]);
      return `export default ${JSON.stringify(await binaries)};`;
    },
    watchChange: () => void (binaries = null),
  };
}

/** Of the kernels, which several workers import. */
let binaries: Promise<string[]> | null = null;

async function assembled(file: string, more: string[]): Promise<string> {
  let binary = new Uint8Array();
  const writeFile = (_: string, content: string | Uint8Array) => void (binary = content as Uint8Array<ArrayBuffer>);
  // Non-trapping: what is no number becomes 0.
  const features = ["--enable", "simd", "--enable", "nontrapping-f2i", ...more];
  const options = ["-O3", "--converge", "--noAssert", "--runtime", "stub", "--importMemory", ...features];
  const { error, stderr } = await asc.main([file, ...options, "--baseDir", "/", "--outFile", "out.wasm"], { writeFile });
  if (error) throw new Error(`${file}: ${stderr.toString()}`);
  return Buffer.from(binary).toString("base64");
}

export default defineConfig({
  base: "./", // works below any path, and as static files
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, rollupOptions: { input: ["index.html", "call.html"] } },
  worker: { format: "es", plugins: () => [assembly()] },
  plugins: [assembly(), compressed()],
  test: { include: ["tests/**/*.test.ts"], testTimeout: 60_000, isolate: false },
} as Parameters<typeof defineConfig>[0]);
