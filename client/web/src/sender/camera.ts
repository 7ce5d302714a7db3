/** Camera frames into the square pictures that are sent (client/video/capture.py). */

import { centreSquare } from "../media/crop";
import { CropTracker } from "../media/crop_tracking";
import { DETECT_EVERY, type Face, facesOf, innerSize, LONG_SIDES } from "../media/face_detector";
import type { FaceNetwork } from "../media/face_network";
import type { Picture } from "../runtime/pictures";

const FPS = 25;

/** A square picture, and whether it shows a face; null if the detector did not run. */
export interface Cropped {
  picture: Picture;
  hasFace: boolean | null;
}

/** Crops each frame to the square that is sent. The crop stays in place until the face has moved away. */
export class LiveCrop {
  private readonly canvas = new OffscreenCanvas(1, 1);
  private readonly context = this.canvas.getContext("2d", { willReadFrequently: true }) as OffscreenCanvasRenderingContext2D;
  private tracker: CropTracker | null = null;
  private shape = "";
  private count = 0;

  /** `size`: side of the result, pixels. */
  constructor(
    private readonly size: number,
    private readonly network: FaceNetwork,
  ) {}

  crop(frame: CanvasImageSource, width: number, height: number): Cropped {
    if (`${width}x${height}` !== this.shape) {
      this.shape = `${width}x${height}`;
      this.count = 0;
      this.tracker = width === height ? null : new CropTracker(width, height, FPS);
    }
    const isDue = this.count % DETECT_EVERY === 0;
    this.count += 1;
    const faces = isDue ? this.faces(frame, width, height) : null;
    const { x, y, side } = this.tracker?.update(faces) ?? centreSquare(width, height);
    const { size } = this;
    const pixels = this.draw(size, size, () => this.context.drawImage(frame, x, y, side, side, 0, 0, size, size));
    const data = new Uint8Array(3 * size * size);
    for (let n = 0; n < size * size; n++) for (let c = 0; c < 3; c++) data[3 * n + c] = pixels[4 * n + c];
    return { picture: { side: size, data }, hasFace: faces && faces.length > 0 };
  }

  private faces(frame: CanvasImageSource, width: number, height: number): Face[] {
    for (const longSide of LONG_SIDES) {
      const inner = innerSize(width, height, longSide);
      const draw = () => this.context.drawImage(frame, 0, 0, inner.width, inner.height);
      const maps = this.network.run(this.draw(inner.width, inner.height, draw), inner.width, inner.height);
      const faces = facesOf(maps, width, height);
      if (faces.length) return faces;
    }
    return [];
  }

  private draw(width: number, height: number, work: () => void): Uint8ClampedArray {
    if (this.canvas.width < width) this.canvas.width = width;
    if (this.canvas.height < height) this.canvas.height = height;
    this.context.imageSmoothingQuality = "high"; // reset with the canvas
    work();
    return this.context.getImageData(0, 0, width, height).data;
  }
}
