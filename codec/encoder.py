"""Streaming encoder of the public API: pictures in, packets out, without lookahead.

Calls compose the same parts (KeypointFit, MotionEncoder, SourcePolicy, VariantPolicy, SourceEncoder) for each peer
instead of using `Encoder`. Files share KeypointFit, SourceEncoder and the packets, but plan sources and motion over the
whole clip (codec/file).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.arguments import check_number, check_runtime, check_type
from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES, MAX_SLOT, MotionPacket, SourcePacket
from iwcodec.codec.errors import OptionError
from iwcodec.codec.fit.keypoint_fit import live_fit
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.predictive_tables import Tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.codec.sources.regions import Compositor
from iwcodec.codec.sources.source_policy import SourcePolicy
from iwcodec.codec.sources.variant_policy import Slots, VariantPolicy
from iwcodec.models.runtime.types import Runtime


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of `Encoder`."""

    quantiser: Quantiser = field(default_factory=Quantiser)
    """Of the keypoints; the decoder needs the same."""
    message_frames: int = 50
    """Frames per motion packet, 1 to MAX_PACKET_FRAMES: the delay, and what a lost packet loses."""
    source_crf: int = 50
    """AV1 quality of the sources, 1 (best) to 63."""
    live_sources: bool = True
    """Choose sources by SourcePolicy, and variants of them by VariantPolicy if frames are fitted. Otherwise only
    `add_source` and `add_variant` make sources."""
    capacity: int = CAPACITY
    """Sources in the library; the decoder needs the same."""
    frame_rate: float = 25.0
    """Frames per second, for SourcePolicy, which works in seconds."""
    fit: bool = True
    """Fit detected keypoints to the picture (KeypointFit)."""

    def __post_init__(self) -> None:
        for name, high in (("message_frames", MAX_PACKET_FRAMES), ("source_crf", 63), ("capacity", MAX_SLOT + 1)):
            check_type(name, getattr(self, name), int)
            check_number(name, getattr(self, name), 1, high)
        check_number("frame_rate", self.frame_rate, 0.1, 1000)
        check_type("quantiser", self.quantiser, Quantiser)


def check_picture(picture: object, size: int) -> None:
    """Raise OptionError unless `picture` is a uint8 array (size, size, 3)."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != (size, size, 3):
        raise OptionError(f"A picture must be RGB, uint8 and of shape ({size}, {size}, 3), not {_described(picture)}.")


def _described(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


class Encoder:
    """Encodes the stream of one speaker. Frames are numbered from 0 in the order in which they are pushed."""

    def __init__(self, runtime: Runtime, settings: EncoderSettings | None = None, tables: Tables | None = None) -> None:
        """`runtime`: the network (`load_runtime`). `tables`: of the predictive coder; the shipped ones by default.
        Raises OptionError for anything else."""
        check_type("settings", settings, EncoderSettings, None)
        check_type("tables", tables, Tables, None)
        self.settings = settings or EncoderSettings()
        self._runtime = check_runtime(runtime)
        self._motion = MotionEncoder(self.settings.quantiser, tables)
        self._sources = SourceEncoder(runtime.info.size, self.settings.source_crf)
        self._policy = SourcePolicy(runtime, self.settings.capacity)
        self.library = self._policy.library
        self._fit = live_fit()
        self._compositor = Compositor(runtime)
        self._variants = VariantPolicy(self._compositor, self.library)
        self._slot = 0
        self._frame = 0
        self._packed = 0

    def add_source(self, picture: Picture, frame: int | None = None) -> SourcePacket:
        """Encode a uint8 picture (size, size, 3) as a source for the frames pushed from now on. Call `flush` first: a
        full library drops a source, which frames not yet packed may need. `frame`: number of the frame that the source
        is; the decoder then shows the source itself. Raises OptionError for any other picture."""
        check_picture(picture, self._runtime.info.size)
        packet = SourcePacket(self._next_slot(), self._sources.add(picture), frame)
        prepared = self._policy.prepare(picture, self._sources.reconstructed)
        self._policy.add(packet.slot, prepared, self._time_s, len(packet.payload))
        return packet

    def add_variant(self, picture: Picture, base: int) -> SourcePacket:
        """Encode a picture that differs in eyes or mouth from the source in the slot `base`. Call `flush` first.
        Raises OptionError for a picture of another form or an empty slot."""
        check_picture(picture, self._runtime.info.size)
        check_type("base", base, int)
        source = self.library.at(base)
        if source is None:
            raise OptionError(f"There is no source in slot {base}.")
        packet = SourcePacket(self._next_slot(), self._sources.add(picture), base=base)
        variant = self._runtime.with_picture(source, self._sources.reconstructed)
        self.library.add(packet.slot, variant, variant=True)
        return packet

    def _next_slot(self) -> int:
        slot, self._slot = self._slot, (self._slot + 1) % (MAX_SLOT + 1)
        return slot

    def push(self, picture: Picture) -> list[SourcePacket | MotionPacket]:
        """Encode the next frame, a uint8 picture (size, size, 3). Return the packets that it completes, if any. Raises
        OptionError for any other picture."""
        check_picture(picture, self._runtime.info.size)
        keypoints, reference_source, gram = self._runtime.detect(picture), None, None
        packets: list[SourcePacket | MotionPacket] = []
        regions: Slots = ()
        if self.settings.fit:
            fitted = self._fit.frame(picture, keypoints, self.library.candidates(keypoints))
            keypoints = fitted.keypoints
            gram = None if fitted.gram is None else fitted.gram()
            reference_source = self.library.slot(fitted.source)
            if fitted.source is not None and gram is not None:
                regions = self._variants.choose(picture, keypoints, fitted.source)
        packets += self.push_keypoints(keypoints, reference_source, gram, picture, regions)
        if self.settings.live_sources:
            packets += self._variant()
        return packets

    def push_keypoints(
        self,
        keypoints: NDArray[np.float32],
        reference_source: int | None = None,
        gram: NDArray[np.float64] | None = None,
        picture: Picture | None = None,
        regions: Slots = (),
    ) -> list[SourcePacket | MotionPacket]:
        """Encode the next frame from known keypoints (K, 3), the slot of the reference source and the Gram matrix
        (3 K, 3 K) of the fit. Without a picture the frame cannot become a source. `regions`: slots of the
        sources that eyes and mouth show; None: the reference source. Raises OptionError for keypoints of another shape,
        or that are not finite."""
        shape = (self._runtime.info.keypoints, 3)
        if not isinstance(keypoints, np.ndarray) or keypoints.shape != shape or not np.isfinite(keypoints).all():
            raise OptionError(f"Keypoints must be finite and of shape {shape}, not {_described(keypoints)}.")
        if picture is not None:
            check_picture(picture, self._runtime.info.size)
        packets: list[SourcePacket | MotionPacket] = []
        wanted = None
        if self.settings.live_sources and picture is not None:
            wanted = self._wanted(picture, keypoints, reference_source, regions)
        if wanted is not None:
            packets += [*self.flush(), self.add_source(wanted)]
            if reference_source is not None and self.library.at(reference_source) is None:  # dropped for the new one
                reference_source = gram = None
        self._frame = self._motion.push(keypoints, reference_source, gram, regions) + 1
        if self._frame - self._packed >= min(self.settings.message_frames, MAX_PACKET_FRAMES):
            packets += self.flush()
        return packets

    def flush(self) -> list[SourcePacket | MotionPacket]:
        """Return the motion packet of the frames pushed since the last one; an empty list without any."""
        if self._packed == self._frame:
            return []
        packet = self._motion.pack(self._packed, self._frame - self._packed)
        for number in range(self._packed, self._frame):  # as the decoder does on receipt of the packet
            self.library.use(*self._motion.dequantised(number))
        self._packed = self._frame
        return [packet]

    def _variant(self) -> list[SourcePacket | MotionPacket]:
        wanted = self._variants.wanted(self._time_s)
        base = None if wanted is None else self.library.slot(self._variants.home)
        if wanted is None or base is None:
            return []
        return [*self.flush(), self.add_variant(wanted, base)]

    @property
    def _time_s(self) -> float:
        """Time of the frame being pushed, in seconds."""
        return self._frame / self.settings.frame_rate

    def _wanted(
        self, picture: Picture, keypoints: NDArray[np.float32], reference_source: int | None, regions: Slots
    ) -> Picture | None:
        """Return the picture if it is to become a source."""
        if not self._policy.due(self._time_s):
            return None
        if not len(self.library):
            return picture
        decoded = self.settings.quantiser.round_trip(keypoints)
        sources = self.library.nearest(decoded, reference_source=reference_source)
        shown = [None if slot is None else self.library.at(slot) for slot in regions]
        sources[0] = self._compositor.composite(sources[0], shown)
        judged = self._policy.rebuild(picture, decoded, sources)
        return picture if self._policy.wants(judged, self._time_s) else None
