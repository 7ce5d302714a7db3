/** WebAssembly compiled from AssemblyScript (vite.config.ts), in base64. */
declare module "*?wasm" {
  const binary: string[];
  export default binary;
}
