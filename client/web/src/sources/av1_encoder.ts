/** Coding of source pictures as one AV1 inter sequence, by the browser's own encoder (codec/sources/av1.py). */

import type { Picture } from "../runtime/pictures";
import { type Av1Maker, SEQUENCE_HEADER, smallerSide, SourceDecoder, stripped } from "./av1";
import { rgbToYuv } from "./yuv";

const CODEC = "av01.0.04M.08";
/** Milliseconds after which a picture that was not coded counts as lost. */
const PATIENCE_MS = 10_000;
/** AV1's quantiser index, 0 to 255, of key pictures and of others, in usual and in small sequences. Key pictures are about
 * those of SVT-AV1 at a CRF of 55, others sharper, which makes up for a fit without optical flow (client/LAB.md). */
const QUANTIZERS = { usual: { key: 160, other: 190 }, small: { key: 190, other: 220 } };

/** Bits per picture where the browser's encoder takes no quantiser; the first pictures take several times as many. */
const BITS = { usual: 3500, small: 2000 };
/** Ways of asking for a quality, the best first. */
const MODES = ["quantizer", "variable"] as const;
export type Mode = (typeof MODES)[number];

function configuration(side: number, mode: Mode, bits: number): VideoEncoderConfig {
  return {
    codec: CODEC,
    width: side,
    height: side,
    framerate: 1,
    // Chromium's slower mode takes 5 % fewer bytes at 0.1 dB more, and a picture is coded twice as long: 20 ms.
    latencyMode: mode === "quantizer" ? "quality" : "realtime",
    bitrateMode: mode,
    hardwareAcceleration: "prefer-software", // hardware often codes no picture this small
    ...(mode === "variable" ? { bitrate: bits } : {}),
  };
}

/** Return how the browser can be asked for AV1 as sources need it; null if it cannot. */
export async function encodingMode(side: number): Promise<Mode | null> {
  if (typeof VideoEncoder === "undefined") return null;
  for (const mode of MODES) {
    try {
      if ((await VideoEncoder.isConfigSupported(configuration(side, mode, BITS.usual))).supported) return mode;
    } catch {
      // A mode that the browser does not know.
    }
  }
  return null;
}

/** Encodes pictures of one size to units, one for one. */
export class SourceEncoder {
  private readonly side: number;
  private readonly encoder: VideoEncoder;
  private readonly decoder: SourceDecoder;
  private waiting: { resolve(unit: Uint8Array): void; reject(error: Error): void } | null = null;
  private broken: Error | null = null;
  private count = 0;

  /** `small`: lower resolution and quality, for a narrow link. `make`: makes the decoder of what is coded. */
  constructor(
    size: number,
    private readonly small: boolean,
    mode: Mode,
    make: Av1Maker,
  ) {
    this.side = small ? smallerSide(size) : size;
    this.decoder = new SourceDecoder(size, make);
    this.encoder = new VideoEncoder({
      output: (chunk) => {
        const unit = new Uint8Array(chunk.byteLength);
        chunk.copyTo(unit);
        this.waiting?.resolve(unit);
        this.waiting = null;
      },
      error: (error) => {
        this.broken = error;
        this.waiting?.reject(error);
        this.waiting = null;
      },
    });
    this.encoder.configure(configuration(this.side, mode, BITS[small ? "small" : "usual"]));
  }

  /** Encode a picture; return its unit, and the picture as receivers decode it. */
  async add(picture: Picture): Promise<{ unit: Uint8Array; decoded: Picture }> {
    if (this.broken) throw this.broken;
    const { side } = this;
    const data = rgbToYuv(resized(picture, side));
    const frame = new VideoFrame(data, {
      format: "I420",
      codedWidth: side,
      codedHeight: side,
      timestamp: 1_000_000 * this.count,
      colorSpace: { fullRange: true, matrix: "smpte170m", primaries: "bt709", transfer: "bt709" },
    });
    const coded = new Promise<Uint8Array>((resolve, reject) => (this.waiting = { resolve, reject }));
    const { key, other } = QUANTIZERS[this.small ? "small" : "usual"];
    const quantizer = this.count ? other : key;
    const late = setTimeout(() => this.waiting?.reject(new Error("The browser coded no picture.")), PATIENCE_MS);
    try {
      this.encoder.encode(frame, { keyFrame: !this.count, av1: { quantizer } } as VideoEncoderEncodeOptions);
      void this.encoder.flush().catch(() => {}); // some browsers hold pictures back until a flush
      const unit = stripped(await coded);
      if (!this.count && unit[0] !== SEQUENCE_HEADER) throw new Error("The browser coded no key picture.");
      this.count += 1;
      return { unit, decoded: await this.decoder.add(unit) };
    } finally {
      clearTimeout(late);
      frame.close();
    }
  }

  /** Free encoder and decoder. */
  close(): void {
    this.decoder.reset();
    if (this.encoder.state !== "closed") this.encoder.close();
  }
}

/** Scale a picture down to three quarters, or not at all. */
function resized(picture: Picture, side: number): Picture {
  if (side === picture.side) return picture;
  const [from, step] = [picture.side, picture.side / side];
  const data = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const sums = [0, 0, 0];
      for (let row = Math.floor(y * step); row < (y + 1) * step; row++) {
        const high = Math.min(row + 1, (y + 1) * step) - Math.max(row, y * step);
        for (let column = Math.floor(x * step); column < (x + 1) * step; column++) {
          const share = high * (Math.min(column + 1, (x + 1) * step) - Math.max(column, x * step));
          for (let c = 0; c < 3; c++) sums[c] += share * picture.data[(row * from + column) * 3 + c];
        }
      }
      for (let c = 0; c < 3; c++) data[(y * side + x) * 3 + c] = Math.round(sums[c] / step ** 2);
    }
  }
  return { side, data };
}
