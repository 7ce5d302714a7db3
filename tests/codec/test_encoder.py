"""The streaming encoder: its library stays equal to the decoder's, and it chooses sources by the policy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.errors import OptionError
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video
from iwcodec.codec.sources.source_policy import JUDGE_INTERVAL_S
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Keypoints, Source
from support.codec.expressions import FaceFit, FaceRuntime, expression, home_source
from support.codec.stub_runtime import StubRuntime, picture


class Copying(StubRuntime):
    """Returns the nearest source unmodified, so that frames of another brightness have a deficit."""

    def __init__(self) -> None:
        self.rebuilt = 0
        self.active = 0

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        self.rebuilt += 1
        self.active = max(self.active, len(sources))
        return sources[0].picture


@pytest.mark.parametrize("message", [1, 5, 50])
def test_encoder_and_decoder_keep_the_same_sources(message: int) -> None:
    """A full library drops the same sources on both sides, and none that a coming packet needs."""
    rng = np.random.default_rng(0)
    levels = 128 + 100 * np.sin(np.arange(400) / 40) * rng.uniform(0.5, 1.0, 400)
    encoder = Encoder(StubRuntime(), EncoderSettings(message_frames=message, capacity=6, fit=False))
    decoder, sources, frames = Decoder(StubRuntime(), capacity=6), 0, 0
    for level in levels:
        for packet in encoder.push(picture(level)):
            if isinstance(packet, MotionPacket):
                runs = {run.slot for run in packet.runs}
                frames += len(list(decoder.push(packet)))
                assert runs <= set(decoder.library.slots())
            else:
                sources += 1
                decoder.add_source(packet)
    assert sources > 12
    for packet in encoder.flush():
        frames += len(list(decoder.push(packet)))
    assert frames == len(levels)
    assert set(decoder.library.slots()) == set(encoder.library.slots())


def test_the_encoder_chooses_its_own_sources(face_clip: Path) -> None:
    runtime = load_runtime()
    encoder = Encoder(runtime, EncoderSettings(message_frames=4))
    decoder = Decoder(runtime)
    pictures = [np.ascontiguousarray(f.picture[:256, 180:436]) for f in read_video(face_clip)][:10]
    packets = [p for picture in pictures for p in encoder.push(picture)] + encoder.flush()
    assert isinstance(packets[0], SourcePacket)
    assert [p.count for p in packets if isinstance(p, MotionPacket)] == [4, 4, 2]
    frames = [frame for packet in packets for frame in decoder.push(packet)]
    assert [frame.number for frame in frames] == list(range(10))
    assert psnr(frames[0].picture, pictures[0]) > 20


def sources_of(levels: Sequence[float], runtime: Copying, **settings: int) -> tuple[list[int], list[Picture]]:
    """Numbers of the frames with which a source is sent, and the decoded pictures."""
    encoder = Encoder(runtime, EncoderSettings(message_frames=1, fit=False, **settings))
    decoder = Decoder(runtime, capacity=encoder.settings.capacity)
    sent, shown = [], []
    for number, level in enumerate(levels):
        for packet in encoder.push(picture(level)):
            if isinstance(packet, SourcePacket):
                sent.append(number)
            shown += [frame.picture for frame in decoder.push(packet)]
    return sent, shown


def test_a_constant_scene_needs_one_source() -> None:
    runtime = Copying()
    assert sources_of([100] * 100, runtime)[0] == [0]
    assert runtime.rebuilt == 100 + 9


def test_a_new_scene_becomes_a_source_and_a_recurring_one_does_not() -> None:
    sent, shown = sources_of([100] * 40 + [180] * 60 + [100] * 60 + [180] * 60, Copying())
    assert len(sent) == 2
    assert 40 <= sent[1] <= 40 + 25 * JUDGE_INTERVAL_S + 1
    assert psnr(shown[-1], picture(180)) > 30


def test_the_library_and_the_active_sources_are_bounded() -> None:
    runtime = Copying()
    encoder = Encoder(runtime, EncoderSettings(capacity=4, fit=False))
    for n in range(400):
        encoder.push(picture(30 + n // 2))
    assert len(encoder.library) == 4
    assert runtime.active <= 3


def test_eyes_and_mouths_travel_as_variants() -> None:
    """The decoder has the encoder's sources and shows the regions of those that frames name."""
    runtime, face = FaceRuntime(), home_source()
    encoder = Encoder(runtime, EncoderSettings(message_frames=4))
    decoder, shown, variants = Decoder(runtime), {}, []
    encoder._fit = FaceFit()
    packets: list[SourcePacket | MotionPacket] = []
    for n in range(24):
        packets += encoder.push(face.picture if n < 8 else expression(face, 1, 2))
    for packet in [*packets, *encoder.flush()]:
        if isinstance(packet, SourcePacket):
            variants += [] if packet.base is None else [packet]
        shown.update((frame.number, frame.picture) for frame in decoder.push(packet))
    assert [packet.base for packet in variants] == [0]
    assert set(shown) == set(range(24))
    assert np.array_equal(shown[0], encoder.library.sources()[0].picture)
    assert psnr(shown[23], expression(face, 1, 2)) > psnr(shown[0], expression(face, 1, 2)) + 3
    assert set(decoder.library.slots()) == set(encoder.library.slots()) == {0, 1}
    for slot in (0, 1):
        ours, theirs = encoder.library.at(slot), decoder.library.at(slot)
        assert np.array_equal(ours.picture, theirs.picture)
    with pytest.raises(OptionError, match="no source in slot 9"):
        encoder.add_variant(face.picture, 9)


@pytest.mark.parametrize(
    "wrong",
    [
        picture(90)[..., 0],
        picture(90)[:32],
        picture(90).astype(np.float32),
        np.zeros((0, 0, 3), np.uint8),
        None,
        "picture",
        b"abc",
    ],
)
def test_pictures_of_another_form_are_refused(wrong: object):
    encoder = Encoder(StubRuntime())
    for take in (encoder.push, encoder.add_source):
        with pytest.raises(OptionError, match=r"uint8 and of shape \(64, 64, 3\)"):
            take(wrong)
    assert encoder.push(picture(90))[0].slot == 0


def test_keypoints_of_another_form_are_refused():
    encoder = Encoder(StubRuntime())
    for wrong in (np.zeros((5, 3), np.float32), np.full((20, 3), np.nan, np.float32), None):
        with pytest.raises(OptionError, match=r"shape \(20, 3\)"):
            encoder.push_keypoints(wrong)


@pytest.mark.parametrize("wrong", [{"message_frames": 0}, {"source_crf": 99}, {"capacity": 0}, {"frame_rate": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, int]):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        EncoderSettings(**wrong)
