"""The other end of a measured call, at next to no cost: it sends what was recorded of a participant, in real time and
over real WebRTC, and neither films nor rebuilds pictures. What it receives is parsed, acknowledged and counted.

    python -m iwcodec.benchmarks.call.replay URL RECORDING.iwc FILM

joins a room as Ada, and prints statistics as `iwcodec call --headless --json` does. FILM is the sound.
"""

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from iwcodec.benchmarks.call.participants import DeferredReconstruction
from iwcodec.client.audio.capture import ClipSound
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.audio.speaker import open_speaker
from iwcodec.client.link.link import Link
from iwcodec.client.room.call import Call
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.session import print_reports, run_with_interface
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.video.capture import Clip
from iwcodec.client.video.source_sequence import SourceSequence, SourceUnit, slot_of
from iwcodec.client.video.video_sender import OutgoingFrame, VideoSender
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.motion.decoder import Motion, MotionDecoder
from iwcodec.codec.motion.types import Quantiser
from iwcodec.models.runtime.load import load_runtime

POLL_S = 0.05
"""Interval between checks whether anybody is there."""


class ReplayingSender(VideoSender):
    """Sends the frames and sources of a recorded call, over and over; its sources once."""

    async def play(self, recording: Path) -> None:
        """Begin when somebody is there. Runs until cancelled."""
        sequence = self._sequence = SourceSequence(self._runtime.info.size)
        while not self._links:
            await asyncio.sleep(POLL_S)
        numbers: dict[int, int] = {}
        """Slot in the recording -> number of the source."""
        start_s, count = self._clock(), 0
        while True:
            for what, fps in records(recording):
                if isinstance(what, SourcePacket):
                    if what.slot not in numbers:
                        numbers[what.slot] = sequence.numbers[sequence.next] = sequence.next
                        packet = replace(
                            what,
                            slot=slot_of(sequence.next),
                            base=None if what.base is None else slot_of(numbers[what.base]),
                        )
                        sequence.units[sequence.next] = SourceUnit(packet.to_bytes(), is_snapshot=False)
                        sequence.next += 1
                    continue
                captured_s, count = start_s + count / fps, count + 1
                await asyncio.sleep(captured_s - self._clock())
                source = None if what.reference_source is None else numbers.get(what.reference_source)
                regions = tuple(None if slot is None else numbers.get(slot) for slot in what.regions)
                frame = OutgoingFrame(self.stamp_ms(captured_s), what.keypoints, source, regions=regions)
                for link in list(self._links):
                    link.take(frame)

    async def sequence_for_newcomer(self, small: bool = False) -> SourceSequence | None:
        """What has been sent so far, from its first unit on."""
        return self._sequence if self._sequence is not None and self._sequence.next else None


def records(recording: Path) -> Iterator[tuple[SourcePacket | Motion, float]]:
    """The sources and frames of a recorded call, in its order, with its frames per second. Raises CodecError."""
    with ContainerReader(recording) as reader:
        header = reader.header
        decoder, quantiser = MotionDecoder(header.keypoints), Quantiser(header.step_xy, header.step_strength)
        for packet in reader.records():
            if isinstance(packet, SourcePacket):
                yield packet, float(header.fps)
            elif isinstance(packet, MotionPacket):
                yield from ((motion, float(header.fps)) for motion in decoder.decode(packet, quantiser))


async def replay(url: str, recording: Path, film: Path) -> None:
    """Be in the call until a signal ends it."""
    with ExitStack() as stack:
        runtime = DeferredReconstruction(load_runtime(threads=1))
        executor, motion_executor = (stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
        sender, audio_sender = ReplayingSender(runtime, executor), AudioSender()
        speaker, _ = open_speaker(headless=True)
        stack.callback(speaker.stop)
        call = Call(
            Signalling(url, "Ada"),
            sender,
            lambda connection: Link(connection, sender, runtime, executor, motion_executor),
            make_connection,
            audio_sender,
            speaker,
        )
        stack.callback(ClipSound(Clip(film), audio_sender.push).close)
        playing = asyncio.create_task(sender.play(recording))
        try:
            await run_with_interface(call, print_reports(call, as_json=True), None)
        finally:
            playing.cancel()


if __name__ == "__main__":
    asyncio.run(replay(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
