/** Camera and microphone of a call: chosen, changed, muted, turned off. */

/** What a device is chosen for. */
type Kind = "video" | "audio";

const CONSTRAINTS = {
  video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25, max: 30 } },
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
} as const;

/** Why a device cannot be used, in words. */
export function reasonOf(error: unknown, what: string): string {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError") return `The browser was not allowed to use your ${what}; the lock beside the address changes that.`;
  if (name === "NotFoundError") return `No ${what} was found.`;
  if (name === "NotReadableError") return `Your ${what} cannot be used; is another program using it?`;
  return `Your ${what} cannot be used.`;
}

export class Devices {
  camera: MediaStreamTrack | null = null;
  microphone: MediaStreamTrack | null = null;

  /** `changed`: called with the new camera, and microphone, whenever one of them changes. */
  constructor(private readonly changed: (camera: MediaStreamTrack | null, microphone: MediaStreamTrack | null) => void) {}

  /** Return whether the browser gives pages cameras at all: only over HTTPS, or from this machine. */
  static get areAllowed(): boolean {
    return navigator.mediaDevices !== undefined;
  }

  /** Open both, or what there is of them. Return what is missing, in words. */
  async open(): Promise<string[]> {
    try {
      const stream = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
      [this.camera] = stream.getVideoTracks();
      [this.microphone] = stream.getAudioTracks();
      this.changed(this.camera, this.microphone);
      return [];
    } catch {
      return [await this.choose("video", null), await this.choose("audio", null)].filter(Boolean);
    }
  }

  /** Use a device; null: any. Return why it cannot be used, in words; empty if it can. */
  async choose(kind: Kind, id: string | null): Promise<string> {
    this.close(kind);
    try {
      const wanted = { ...CONSTRAINTS[kind], ...(id ? { deviceId: { exact: id } } : {}) };
      const stream = await navigator.mediaDevices.getUserMedia({ [kind]: wanted });
      const [track] = stream.getTracks();
      if (kind === "video") this.camera = track;
      else this.microphone = track;
      return "";
    } catch (error) {
      return reasonOf(error, kind === "video" ? "camera" : "microphone");
    } finally {
      this.changed(this.camera, this.microphone);
    }
  }

  /** Close a device: its light goes out. */
  close(kind: Kind): void {
    (kind === "video" ? this.camera : this.microphone)?.stop();
    if (kind === "video") this.camera = null;
    else this.microphone = null;
  }

  /** List the devices of a kind, with the one in use first selected. */
  async fill(select: HTMLSelectElement, kind: Kind): Promise<void> {
    const all = await navigator.mediaDevices.enumerateDevices();
    const used = (kind === "video" ? this.camera : this.microphone)?.getSettings().deviceId;
    const options = all
      .filter((device) => device.kind === `${kind}input` && device.deviceId)
      .map(({ label, deviceId }, n) => new Option(label || `${n + 1}`, deviceId, false, deviceId === used));
    select.replaceChildren(...options);
    select.disabled = !options.length;
  }
}
