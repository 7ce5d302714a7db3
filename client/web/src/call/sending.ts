/** The worker that codes our camera, fed with its frames. */

import type { Pixels } from "../link/incoming";
import type { Command, SenderAnswer } from "../sender/messages";
import { VideoSender } from "../video/video_sender";

/** Turns a track into a stream of frames; browsers without it hand out frames of a video element instead. */
declare class MediaStreamTrackProcessor {
  constructor(options: { track: MediaStreamTrack });
  readonly readable: ReadableStream<VideoFrame>;
}

export class Sending {
  readonly sender: VideoSender;
  private worker: Worker | null = null;
  private readonly waiting: { command: Command; transfer: Transferable[] }[] = [];
  private readonly video = document.createElement("video");
  private isLoaded = false;
  /** Whether the worker has taken the last single picture. */
  private isTaken = true;

  /** `preview`: show our own picture as the others see it. */
  constructor(preview: (pixels: Pixels) => void) {
    this.sender = new VideoSender((command, transfer = []) => this.post(command, transfer), preview);
    this.video.muted = this.video.playsInline = true;
  }

  /** Load the networks. Throws Error with a message for people. */
  load(size: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.worker = new Worker(new URL("../sender/worker.ts", import.meta.url), { type: "module" });
      this.worker.onerror = () => reject(new Error("The page could not start its encoder; please reload it."));
      this.worker.onmessage = ({ data }: MessageEvent<SenderAnswer>) => {
        if (data.type === "failed") reject(new Error(data.message));
        else if (data.type === "loaded") {
          this.isLoaded = true;
          for (const { command, transfer } of this.waiting.splice(0)) this.post(command, transfer);
          resolve();
        } else if (data.type === "taken") this.isTaken = true;
        else if (data.type !== "loading") this.sender.receive(data);
      };
      this.worker.postMessage({ type: "load", base: document.baseURI, size } satisfies Command);
    });
  }

  /** Code the frames of a camera from now on; null turns ours off for the others. */
  use(camera: MediaStreamTrack | null): void {
    this.sender.pause(!camera);
    this.video.srcObject = null;
    if (!camera) return;
    if (typeof MediaStreamTrackProcessor === "function") {
      const frames = new MediaStreamTrackProcessor({ track: camera }).readable;
      this.post({ type: "camera", frames }, [frames as unknown as Transferable]);
    } else void this.followVideo(camera);
  }

  /** Without MediaStreamTrackProcessor: frames are copied while the page is visible. */
  private async followVideo(camera: MediaStreamTrack): Promise<void> {
    const stream = new MediaStream([camera]);
    this.video.srcObject = stream;
    await this.video.play();
    const next = async () => {
      if (this.video.srcObject !== stream) return;
      if (this.isLoaded && this.isTaken) {
        this.isTaken = false;
        const capturedMs = performance.timeOrigin + performance.now();
        const picture = await createImageBitmap(this.video).catch(() => null);
        if (picture) this.post({ type: "picture", picture, capturedMs }, [picture]);
        else this.isTaken = true;
      }
      this.video.requestVideoFrameCallback(() => void next());
    };
    this.video.requestVideoFrameCallback(() => void next());
  }

  private post(command: Command, transfer: Transferable[]): void {
    if (this.isLoaded) this.worker?.postMessage(command, transfer);
    else if (command.type !== "links") this.waiting.push({ command, transfer });
  }
}
