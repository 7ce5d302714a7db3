/** Sound over a peer connection (client/audio/transceiver.py): the browser's own Opus, at a low rate. */

/** What we ask Opus for in our direction: bits per second, packets of 60 ms, nothing sent in pauses. */
const OPUS = "maxaveragebitrate=12000;stereo=0;useinbandfec=0;usedtx=1";
const PACKET_MS = 60;

/** Return a remote session description that asks for our settings: a sender takes them from the other side's. */
export function withOpusSettings(sdp: string): string {
  const payload = /^a=rtpmap:(\d+) opus\//im.exec(sdp)?.[1];
  if (!payload) return sdp;
  const others = new RegExp(`^a=(fmtp:${payload} |ptime:|maxptime:)`);
  return sdp
    .split("\r\n")
    .filter((line) => !others.test(line))
    .flatMap((line) =>
      line.startsWith(`a=rtpmap:${payload} `)
        ? [line, `a=fmtp:${payload} ${OPUS}`, `a=ptime:${PACKET_MS}`, `a=maxptime:${PACKET_MS}`]
        : [line],
    )
    .join("\r\n");
}

/** Send a microphone over a connection, or nothing; its transceiver exists. */
export async function sendMicrophone(connection: RTCPeerConnection, track: MediaStreamTrack | null): Promise<void> {
  const transceiver = connection.getTransceivers().find(({ receiver }) => receiver.track.kind === "audio");
  if (!transceiver) return;
  if (transceiver.direction !== "sendrecv") transceiver.direction = "sendrecv";
  await transceiver.sender.replaceTrack(track);
}
