"""Memory of this process, and a soak test that shows whether it grows."""

import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from iwcodec.benchmarks.performance.stages import MESSAGE_FRAMES
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.file.options import Progress
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.runtime.types import Runtime


@dataclass(frozen=True)
class Soak:
    """A soak test: resident memory in MiB after the first tenth of the frames and at the end."""

    frames: int
    early_mb: float
    late_mb: float
    frames_per_s: float


def soak_test(runtime: Runtime, pictures: Sequence[Picture], frames: int, progress: Progress) -> Soak:
    """Run a sender and a receiver for many frames, so that the source library fills up and evicts."""
    encoder = Encoder(runtime, EncoderSettings(message_frames=MESSAGE_FRAMES, capacity=CAPACITY))
    decoder = Decoder(runtime)
    early, shown, started = 0.0, 0, time.perf_counter()
    for n, picture in zip(range(frames), itertools.cycle(pictures), strict=False):
        for packet in encoder.push(picture):
            shown += sum(1 for _ in decoder.push(packet))
        if n == frames // 10:
            early = resident_mb()
        if n % 50 == 0:
            progress("soak test", n / frames)
    seconds = time.perf_counter() - started
    return Soak(frames, round(early, 1), round(resident_mb(), 1), round(shown / seconds, 2))


def resident_mb() -> float:
    """Resident memory in MiB. Raises CodecError without psutil."""
    try:
        import psutil
    except ImportError as error:
        raise CodecError(f"bench speed needs psutil: {install('bench')}.") from error
    return float(psutil.Process().memory_info().rss / 2**20)


def peak_mb() -> float:
    """Peak resident memory of this process in MiB."""
    import psutil

    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset / 2**20)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
