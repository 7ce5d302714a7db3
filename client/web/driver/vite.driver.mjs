import { defaultClientConditions, defineConfig } from "vite";
export default defineConfig({
  root: "/work/wt-web4/client/web", base: "./",
  build: { target: "es2022", outDir: "/tmp/web4/site", emptyOutDir: false, minify: false, assetsInlineLimit: 0, modulePreload: { polyfill: false }, rollupOptions: { input: ["driver/driver.html"] } },
  worker: { format: "es" },
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
});
