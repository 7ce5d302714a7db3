"""Opus in files: every sample in its place, lost packets, and sound in step with the pictures."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.audio.opus_track import OpusReader, OpusWriter, read_audio_opus
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.media.video import at_constant_rate, read_video, sample_clip
from iwcodec.codec.media.writer import VideoWriter
from support.media.clips import all_samples, peak_time, plain, tone, write_clip
from support.media.sounds import voice


def decoded(packets: list[bytes], pre_skip: int) -> np.ndarray:
    reader = OpusReader(pre_skip)
    return np.concatenate([reader.decode(packet) for packet in packets])


@pytest.mark.parametrize("packet_ms", [20, 40, 60])
def test_opus_round_trip_keeps_every_sample_in_place(packet_ms: int) -> None:
    time = np.arange(AUDIO_RATE) / AUDIO_RATE
    # A chirp correlates with itself at one lag only.
    wave = (8000 * np.sin(2 * np.pi * (200 + 600 * time) * time)).astype(np.int16)
    writer = OpusWriter(bitrate=24_000, packet_ms=packet_ms)
    packets = [p for begin in range(0, len(wave), 777) for p in writer.encode(wave[begin : begin + 777])]
    packets += writer.flush()
    back = decoded(packets, writer.pre_skip)
    assert 0 < writer.pre_skip < 960
    assert len(wave) <= len(back) <= len(wave) + 2 * writer.packet_samples
    heard = [back[10_000 + lag : 40_000 + lag].astype(float) for lag in range(-96, 97, 4)]
    best = int(np.argmax([np.dot(wave[10_000:40_000], part) for part in heard]))
    assert abs(range(-96, 97, 4)[best]) <= 8


def test_the_bitrate_is_kept_and_no_samples_give_no_packets() -> None:
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(4 * AUDIO_RATE) * 3000).astype(np.int16)
    writer = OpusWriter(bitrate=12_000)
    packets = writer.encode(noise) + writer.flush()
    assert 8_000 < sum(map(len, packets)) * 8 / 4 < 16_000
    assert OpusWriter().flush() == []


def test_ffmpegs_encoder_gives_the_same_bytes() -> None:
    """PyAV's own libopus codec, with the same settings and samples."""
    theirs = av.AudioCodecContext.create("libopus", "w")
    theirs.sample_rate, theirs.layout, theirs.format, theirs.bit_rate = AUDIO_RATE, "mono", "s16", 12_000
    theirs.options = {"application": "voip", "frame_duration": "60"}
    theirs.open()
    ours = OpusWriter()
    assert ours.pre_skip == int.from_bytes(bytes(theirs.extradata or b"")[10:12], "little")
    for block in np.split(voice(3.0), 50):
        frame = av.AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
        frame.sample_rate = AUDIO_RATE
        assert ours.encode(block) == [bytes(packet) for packet in theirs.encode(frame)]


def test_a_lost_packet_is_silence_and_foreign_bytes_are_refused() -> None:
    writer = OpusWriter(packet_ms=20)
    packets = writer.encode((10_000 * tone(0.2, AUDIO_RATE)).astype(np.int16))
    reader = OpusReader(0)
    assert len(reader.decode(packets[0])) == 960
    lost = reader.decode(None)
    assert len(lost) == 960
    assert not lost.any()
    assert len(reader.decode(packets[2])) == 960
    for foreign in (b"", b"\x03", b"\xff\xff\xff"):
        with pytest.raises(FormatError):
            OpusReader(0).decode(foreign)


def test_a_file_without_sound_gives_no_track() -> None:
    assert read_audio_opus(sample_clip()) is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("late", [0.0, 0.48])
def test_flash_and_beep_stay_together(tmp_path: Path, suffix: str, late: float) -> None:
    """A file with a flash and a beep at 1.2 s, through Opus and back into a file."""
    pictures = [plain((240,) * 3 if 30 <= n < 33 else (16,) * 3) for n in range(50)]
    sound = np.zeros(round((2 - late) * 44_100), np.float32)
    begin = round((1.2 - late) * 44_100)
    sound[begin : begin + 4410] = tone(0.1)
    source = write_clip(tmp_path / "in.mp4", pictures, sound=sound, sound_start_s=late)

    track = read_audio_opus(source, bitrate=16_000)
    reader = OpusReader(track.pre_skip)
    target = tmp_path / f"out{suffix}"
    with VideoWriter(target, (64, 48), Fraction(25), audio=True) as writer:
        for picture in at_constant_rate(read_video(source), Fraction(25)):
            writer.write(picture)
        for packet in track:
            writer.write_audio(reader.decode(packet))

    flash = next(frame.time_s for frame in read_video(target) if frame.picture.mean() > 128)
    beep = peak_time(all_samples(target))
    assert flash == pytest.approx(1.2, abs=0.002)
    assert beep == pytest.approx(flash, abs=0.01)
