/** What the network is made of, in WebAssembly (AssemblyScript). */

export { attend, direct } from "./attention";
export { convolve, depthwise, multiply, patches, place, spread, ZEROS } from "./convolution";
export { blur, correlate, displace, invert, mirror, remap, tensors, warp, weigh } from "./alignment";
export { close, enlarge, finish, fold, sample, share } from "./picture";

/** Where the caller's memory begins. */
export const heap: usize = 8192;
