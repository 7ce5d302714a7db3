"""Clips in the cache."""

import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from iwcodec.codec.media.video import sample_clip
from iwcodec.models.training.data import prepare as preparing
from iwcodec.models.training.data.clips import Clip
from iwcodec.models.training.data.frames import read_frames, square
from iwcodec.models.training.data.prepare import PreparedClip, prepare, save_frames, write_once
from iwcodec.models.training.evaluate import load_clip
from support.models.training_clips import write_clip


def test_short_clip_is_not_used(tmp_path: Path) -> None:
    assert prepare(Clip("c", write_clip(tmp_path / "c.mp4", 5), "c"), tmp_path / "cache", 64) is None


def test_flows_are_cached(tmp_path: Path) -> None:
    clip = prepare(Clip("c", write_clip(tmp_path / "c.mp4", 16), "c"), tmp_path / "cache", 64)
    first = clip.correspondence(5, 3)
    assert clip.has_flow[5, 3]
    again = clip.correspondence(5, 3)
    np.testing.assert_array_equal(first.shift, again.shift)
    np.testing.assert_array_equal(first.error, again.error)


def test_a_flow_that_the_disk_has_no_room_for_is_not_kept(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path = write_clip(tmp_path / "c.mp4", 16)
    clip, other = (prepare(Clip("c", path, "c"), tmp_path / name, 64) for name in ("full", "cache"))
    clip.flows.filename = Path("/dev/full")
    np.testing.assert_array_equal(clip.correspondence(5, 3).shift, other.correspondence(5, 3).shift)
    assert not clip.has_flow[5, 3]
    assert other.has_flow[5, 3]


FULL_DISK = """
import sys
from pathlib import Path
from iwcodec.models.training.data.clips import Clip
from iwcodec.models.training.data.prepare import prepare
try:
    prepare(Clip("c", Path(sys.argv[1]), "c"), Path(sys.argv[2]), 64)
except OSError as error:
    print(error)
"""


def test_a_full_disk_is_an_error_that_names_the_cache(tmp_path: Path) -> None:
    """In a process of its own, which a write through a memory map would kill."""
    clip, disk = write_clip(tmp_path / "c.mp4", 16), tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("needs permission to mount a file system")
    try:
        command = [sys.executable, "-c", FULL_DISK, str(clip), str(disk / "cache")]
        done = subprocess.run(command, capture_output=True, text=True)
        left = list((disk / "cache").iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 0, done.stderr
    assert str(disk / "cache") in done.stdout
    assert "No space left" in done.stdout
    assert not left


def test_frames_are_selected_without_keeping_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip("bundled", sample_clip(), "bundled")
    frames = [square(picture, 64) for picture in read_frames(clip.path)]

    def selected(limit: int) -> np.ndarray:
        """Evenly spaced frames of all frames in memory."""
        keep = np.unique(np.linspace(0, len(frames) - 1, min(limit, len(frames))).round().astype(int))
        return np.stack([frames[i] for i in keep])

    for limit in (9, len(frames) + 5):
        np.testing.assert_array_equal(load_clip(clip, 64, limit), selected(limit))
    monkeypatch.setattr(preparing, "FRAMES", 24)
    prepared = prepare(clip, tmp_path / "cache", 64)
    np.testing.assert_array_equal(prepared.frames, selected(24))


def test_first_complete_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "entry.npy"

    def second(partial: Path) -> None:
        """Another process finishes while this one writes."""
        write_once(file, lambda other: np.save(other, np.array([1])))
        np.save(partial, np.array([2]))

    def broken(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise OSError("no space left")

    write_once(file, second)
    assert np.load(file) == [1]
    with pytest.raises(OSError, match="no space"):
        write_once(tmp_path / "other.npy", broken)
    assert list(tmp_path.iterdir()) == [file]


def test_concurrent_preparation_of_a_clip(tmp_path: Path) -> None:
    clip = Clip("c", write_clip(tmp_path / "c.mp4", 16), "c")
    alone = prepare(clip, tmp_path / "alone", 64)
    together = threading.Barrier(4)

    def prepared(_: int) -> PreparedClip | None:
        together.wait(60)
        return prepare(clip, tmp_path / "shared", 64)

    with ThreadPoolExecutor(4) as executor:
        results = list(executor.map(prepared, range(4)))
    for each in results:
        np.testing.assert_array_equal(each.frames, alone.frames)
        np.testing.assert_array_equal(each.small, alone.small)
    assert results[0] is not None
    results[0].correspondence(5, 1)
    assert all(each.has_flow[5, 1] for each in results if each)
    assert {f.name for f in (tmp_path / "shared").iterdir()} == {f.name for f in (tmp_path / "alone").iterdir()}


def test_unused_frames_are_not_kept_in_memory(tmp_path: Path) -> None:
    clip = Clip("c", write_clip(tmp_path / "c.mp4", 200, 0, 128), "c")
    frame = 128 * 128 * 3
    tracemalloc.start()
    try:
        assert len(load_clip(clip, 128, 4)) == 4
        loaded = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        save_frames(tmp_path / "kept.npy", clip.path, [0, 99, 199], 128)
        saved = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loaded < 20 * frame
    assert saved < 20 * frame


def test_clips_of_the_same_name_in_two_folders_differ(tmp_path: Path) -> None:
    clips = []
    for n, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        path = write_clip(tmp_path / folder / "c.mp4", 16, n)
        clips.append(prepare(Clip("c", path, "c"), tmp_path / "cache", 64))
    assert clips[0] is not None
    assert clips[1] is not None
    assert not np.array_equal(clips[0].frames[0], clips[1].frames[0])
