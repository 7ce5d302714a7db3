import { brotliCompressSync, constants } from "node:zlib";
import asc from "assemblyscript/asc";
import { defaultClientConditions, defineConfig, type Plugin } from "vite";

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
        const quality = data.length > 1e7 ? 10 : 7; // 0.3 MB less of ONNX Runtime, for 25 s of a core
        const params = { [constants.BROTLI_PARAM_QUALITY]: quality, [constants.BROTLI_PARAM_SIZE_HINT]: data.length };
        this.emitFile({ type: "asset", fileName: `${name}.br`, source: brotliCompressSync(data, { params }) });
      }
    },
  };
}

/** Compile AssemblyScript where a module imports FILE?wasm: its default export is the WebAssembly, in base64. */
function assembly(): Plugin {
  return {
    name: "assembly",
    enforce: "pre",
    async load(id) {
      if (!id.endsWith("?wasm")) return null;
      const file = id.slice(0, -"?wasm".length);
      this.addWatchFile(file);
      let binary = new Uint8Array();
      const writeFile = (_: string, content: string | Uint8Array) => void (binary = content as Uint8Array<ArrayBuffer>);
      // Non-trapping: what is no number becomes 0.
      const features = ["--enable", "simd", "--enable", "nontrapping-f2i"];
      const options = ["-O3", "--converge", "--noAssert", "--runtime", "stub", "--importMemory", ...features];
      const { error, stderr } = await asc.main([file, ...options, "--baseDir", "/", "--outFile", "out.wasm"], { writeFile });
      if (error) throw new Error(`${file}: ${stderr.toString()}`);
      return `export default ${JSON.stringify(Buffer.from(binary).toString("base64"))};`;
    },
  };
}

export default defineConfig({
  base: "./", // works below any path, and as static files
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, rollupOptions: { input: ["index.html", "call.html"] } },
  worker: { format: "es", plugins: () => [assembly()] },
  // ONNX Runtime's threads load its module once more: it must be a file of its own.
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  plugins: [assembly(), compressed()],
  test: { include: ["tests/**/*.test.ts"], testTimeout: 60_000, isolate: false },
} as Parameters<typeof defineConfig>[0]);
