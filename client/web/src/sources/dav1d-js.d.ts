declare module "dav1d.js" {
  interface Dav1d {
    decodeFrameAsYUV(obu: Uint8Array): { width: number; height: number; data: Uint8Array };
  }
  export function create(options: { wasmData: ArrayBuffer }): Promise<Dav1d>;
}
