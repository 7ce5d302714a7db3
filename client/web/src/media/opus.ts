/** Opus packets (RFC 6716) and the browser's decoder for them. */

export const AUDIO_RATE = 48_000;

/** Return the number of samples at 48 kHz in a packet, from its first two bytes (RFC 6716, section 3.1). */
export function opusSamples(packet: Uint8Array): number {
  const config = packet[0] >> 3;
  let samples: number;
  if (config >= 16) samples = 120 << (config & 3); // CELT: 2.5 to 20 ms
  else if (config >= 12) samples = config & 1 ? 960 : 480; // hybrid: 10 or 20 ms
  else samples = [480, 960, 1920, 2880][config & 3]; // SILK: 10 to 60 ms
  const code = packet[0] & 3;
  return samples * (code === 0 ? 1 : code < 3 ? 2 : (packet[1] ?? 0) & 63);
}
