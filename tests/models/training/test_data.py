"""Finding clips, preparing them, and drawing samples whose correspondences fit their pictures."""

import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import cv2

from iwcodec.codec.media.video import sample_clip
from iwcodec.models.flow import UNSURE
from iwcodec.models.training import data
from iwcodec.models.training.data import Clip, PreparedClip, SamplePlan, Samples, find_clips, identity_of, prepare
from iwcodec.models.training.evaluate import load_clip
from training_clips import wandering_square, write_clip


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("cropped_clips/--Y9imYnfBw_0000_S0_E271_L504_T63_R792_B351.mp4", "--Y9imYnfBw"),
        ("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "id00012"),
        ("train/id10280#NXjT3732Ekg#001093#001192.mp4", "id10280"),
        ("train/0LLt3Pz0wBg#00001#00201.mp4", "0LLt3Pz0wBg"),
        ("train/00001#00201#0LLt3Pz0wBg.mp4", "0LLt3Pz0wBg"),
        ("anything/holiday.mov", "holiday"),
    ],
)
def test_identity_by_layout(path: str, identity: str):
    assert identity_of(Path(path)) == identity


def test_clips_are_files_and_folders_of_pictures(tmp_path: Path):
    write_clip(tmp_path / "a" / "one.mp4", 3)
    folder = tmp_path / "TED#0#9.mp4"
    folder.mkdir()
    for n, picture in enumerate(wandering_square(3, 0)):
        cv2.imwrite(str(folder / f"{n:07d}.png"), picture)
    clips = find_clips(tmp_path, None)
    assert [c.identity for c in clips] == ["TED", "one"]
    assert len(list(data.read_frames(clips[0].path))) == 3


def test_manifest_gives_split_identity_and_cuts(tmp_path: Path):
    (tmp_path / "manifest.csv").write_text("id,split,identity\nx,train,p\ny,val,q\n")
    (tmp_path / "jumpcuts.csv").write_text("id,frame\nx,7\n")
    assert find_clips(tmp_path, "train") == [Clip("x", tmp_path / "clips" / "x.mp4", "p", 7)]
    assert [c.name for c in find_clips(tmp_path, "val")] == ["y"]


def test_clips_of_a_size_have_a_folder_of_their_own(tmp_path: Path):
    (tmp_path / "manifest.csv").write_text("id,split,identity\nx,train,p\ny,val,q\nz,train,r\n")
    for name in ("clips/x", "clips/y", "clips/z", "clips512/x", "clips512/y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.mp4").touch()
    assert [c.path for c in find_clips(tmp_path, "train", 512)] == [tmp_path / "clips512" / "x.mp4"]
    assert [c.path for c in find_clips(tmp_path, "val", 512)] == [tmp_path / "clips512" / "y.mp4"]
    assert [c.path for c in find_clips(tmp_path, "train", 256)] == [tmp_path / "clips" / f"{n}.mp4" for n in "xz"]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (("train/a_0000_S0_E1_L0.mp4", "val/b_0000_S0_E1_L0.mp4"), ["a"], ["b"]),
        (("dev/mp4/id00012/V/1.mp4", "test/mp4/id00017/V/1.mp4"), ["id00012"], ["id00017"]),
        (("train/a#1#2.mp4", "test/b#1#2.mp4"), ["a"], ["b"]),
        (("train/a.mp4", "val/b.mp4", "test/c.mp4"), ["a"], ["b"]),
        (("train/a#1#2.mp4", "train/b#1#2.mp4", "test/b#3#4.mp4"), ["a"], ["b", "b"]),
    ],
)
def test_folders_name_splits(tmp_path: Path, names: tuple[str, ...], train: list[str], val: list[str]):
    touch(tmp_path, *names)
    assert [c.identity for c in find_clips(tmp_path)] == train
    assert [c.identity for c in find_clips(tmp_path, "val")] == val


@pytest.mark.parametrize("folder", ["", "train/"])
@pytest.mark.parametrize(("count", "most"), [(2, 1), (300, 20)])
def test_some_identities_are_held_out_where_no_folder_does_it(tmp_path: Path, folder: str, count: int, most: int):
    touch(tmp_path, *(f"{folder}p{n}#{k}#9.mp4" for n in range(count) for k in range(2)))
    train, val = ({c.identity for c in find_clips(tmp_path, split)} for split in ("train", "val"))
    assert len(train | val) == count
    assert not train & val
    assert 1 <= len(val) <= most
    assert val == {c.identity for c in find_clips(tmp_path, "val")}


def test_one_identity_is_trained_on(tmp_path: Path):
    touch(tmp_path, "one.mp4")
    assert [c.name for c in find_clips(tmp_path)] == ["one.mp4"]
    with pytest.raises(ValueError, match="for val"):
        find_clips(tmp_path, "val")


def test_steps_to_the_clips_of_talking_head_are_no_clips(tmp_path: Path):
    clip = "v_0000_S0_E9_L0_T0_R9_B9.mp4"
    touch(tmp_path, *(f"{split}/{step}/{clip}" for split in ("train", "val") for step in ("raw_videos", "1min_clips")))
    assert len(find_clips(tmp_path, None)) == 4
    touch(tmp_path, f"train/cropped_clips/{clip}", f"val/cropped_clips/w{clip}")
    assert [c.name for c in find_clips(tmp_path)] == [f"train/cropped_clips/{clip}"]
    assert [c.name for c in find_clips(tmp_path, "val")] == [f"val/cropped_clips/w{clip}"]


def test_no_clips_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="no clips"):
        find_clips(tmp_path)


def test_prepare_keeps_frames_and_never_pairs_across_a_cut(tmp_path: Path):
    path = write_clip(tmp_path / "c.mp4", 30)
    clip = prepare(Clip("c", path, "c", cut=12), tmp_path / "cache", 64)
    assert clip is not None
    assert clip.frames.shape == (30, 64, 64, 3)
    assert clip.groups == [range(12), range(12, 30)]
    again = prepare(Clip("c", path, "c", cut=12), tmp_path / "cache", 64)
    assert again is not None
    np.testing.assert_array_equal(clip.frames, again.frames)
    samples = Samples([clip], SamplePlan(64, 1, 2, max_sources=2), 1)
    drawn = [samples.draw(clip, 2, np.random.default_rng(s)) for s in range(4)]
    assert all(d is None or d["sources"].shape == (2, 3, 64, 64) for d in drawn)


def test_too_short_a_clip_is_left_out(tmp_path: Path):
    assert prepare(Clip("c", write_clip(tmp_path / "c.mp4", 5), "c"), tmp_path / "cache", 64) is None


def test_flows_are_cached(tmp_path: Path):
    clip = prepare(Clip("c", write_clip(tmp_path / "c.mp4", 16), "c"), tmp_path / "cache", 64)
    assert clip is not None
    first = clip.correspondence(5, 3)
    assert clip.known[5, 3]
    again = clip.correspondence(5, 3)
    np.testing.assert_array_equal(first.shift, again.shift)
    np.testing.assert_array_equal(first.error, again.error)


def test_correspondence_points_at_what_the_driving_frame_shows(tmp_path: Path):
    """Warping each source by its correspondence must come nearer to the driving frame than the source itself,
    whatever crop, mirror and camera move the sample got."""
    clip = prepare(Clip("c", write_clip(tmp_path / "c.mp4", 24, 2, 128), "c"), tmp_path / "cache", 128)
    assert clip is not None
    samples = Samples([clip], SamplePlan(128, 1, 1, max_sources=1, coded=0.0, wander=0.15), 3)
    better = []
    for seed in range(12):
        drawn = samples.draw(clip, 1, np.random.default_rng(seed))
        assert drawn is not None
        grid = data.GRID
        axis = (np.arange(grid) + 0.5) * (2 / grid) - 1
        own = np.stack(np.meshgrid(axis, axis), -1)
        place = ((own + drawn["shift"][0, 0] + 1) * 64 - 0.5).astype(np.float32)
        at = ((own + 1) * 64 - 0.5).astype(np.float32)
        driving, source = (drawn[k][0].transpose(1, 2, 0) for k in ("driving", "sources"))
        there = cv2.remap(source, place[..., 0], place[..., 1], cv2.INTER_LINEAR)
        here, wanted = (cv2.remap(p, at[..., 0], at[..., 1], cv2.INTER_LINEAR) for p in (source, driving))
        sure = drawn["error"][0, 0] < UNSURE
        before, after = (np.abs(x - wanted).mean(-1)[sure].mean() for x in (here, there))
        better.append(after < 0.5 * before or after < 0.02)
    assert sum(better) >= 10


def test_batches_have_the_planned_shapes(tmp_path: Path):
    clips = [
        prepare(Clip(n, write_clip(tmp_path / f"{n}.mp4", 16, i), n), tmp_path / "cache", 64)
        for i, n in enumerate("ab")
    ]
    samples = Samples([c for c in clips if c], SamplePlan(32, 3, 2, max_sources=2), 5)
    batch = next(iter(samples))
    sources = batch["sources"].shape[1]
    assert batch["driving"].shape == (3, 2, 3, 32, 32)
    assert batch["shift"].shape == (3, 2, sources, data.GRID, data.GRID, 2)
    assert batch["driving"].dtype == torch.float32
    assert 0 <= batch["driving"].min() <= batch["driving"].max() <= 1


def test_near_frames_are_near_a_source(tmp_path: Path):
    clip = prepare(Clip("c", write_clip(tmp_path / "c.mp4", 60, 3), "c"), tmp_path / "cache", 64)
    assert clip is not None
    plans = [SamplePlan(64, 1, 3, max_sources=1, coded=0.0, near=near) for near in (0.0, 1.0)]
    shifts = []
    for plan in plans:
        samples = Samples([clip], plan, 1)
        drawn = [samples.draw(clip, 1, np.random.default_rng(seed)) for seed in range(8)]
        shifts.append(np.mean([np.abs(d["driving"] - d["sources"]).mean() for d in drawn if d]))
    assert shifts[1] < 0.7 * shifts[0]


def test_a_batch_follows_from_its_number_whoever_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = prepare(Clip("c", write_clip(tmp_path / "c.mp4", 16), "c"), tmp_path / "cache", 64)
    assert clip is not None
    plan = SamplePlan(32, 1, 1, max_sources=2)

    def batches(first: int, count: int) -> list[dict[str, torch.Tensor]]:
        return list(itertools.islice(Samples([clip], plan, 5, first), count))

    def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return all(a[key].shape == b[key].shape and torch.equal(a[key], b[key]) for key in ("driving", "sources"))

    alone = batches(0, 6)
    assert not equal(alone[0], alone[1])
    assert all(map(equal, batches(2, 4), alone[2:]))
    for number in (0, 1):
        monkeypatch.setattr(data, "get_worker_info", lambda number=number: SimpleNamespace(id=number, num_workers=2))
        assert all(map(equal, batches(0, 3), alone[number::2]))


def test_frames_are_chosen_by_counting_as_they_were_from_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = Clip("bundled", sample_clip(), "bundled")
    every = [data.square(picture, 64) for picture in data.read_frames(clip.path)]

    def chosen(most: int) -> np.ndarray:
        """All frames in memory, then the evenly spaced ones."""
        keep = np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int))
        return np.stack([every[i] for i in keep])

    for most in (9, len(every) + 5):
        np.testing.assert_array_equal(load_clip(clip, 64, most), chosen(most))
    monkeypatch.setattr(data, "FRAMES", 24)
    prepared = prepare(clip, tmp_path / "cache", 64)
    assert prepared is not None
    np.testing.assert_array_equal(prepared.frames, chosen(24))


def test_pictures_of_a_folder_are_chosen_by_number(tmp_path: Path):
    for n, picture in enumerate(wandering_square(5, 0)):
        cv2.imwrite(str(tmp_path / f"{n:07d}.png"), picture)
    every = list(data.read_frames(tmp_path))
    assert data.count_frames(tmp_path) == 5
    assert [np.array_equal(a, b) for a, b in zip(data.read_frames(tmp_path, {1, 4}), every[1::3], strict=True)] == [
        True
    ] * 2
    (tmp_path / "0000002.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"0000002\.png is not a picture"):
        list(data.read_frames(tmp_path))


def test_the_first_file_stays_and_none_is_half_written(tmp_path: Path):
    file = tmp_path / "entry.npy"

    def second(partial: Path) -> None:
        """While it writes, another process gets done."""
        data.publish(file, lambda other: np.save(other, np.array([1])))
        np.save(partial, np.array([2]))

    def broken(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise OSError("no space left")

    data.publish(file, second)
    assert np.load(file) == [1]
    with pytest.raises(OSError, match="no space"):
        data.publish(tmp_path / "other.npy", broken)
    assert list(tmp_path.iterdir()) == [file]


def test_several_may_prepare_a_clip_at_once(tmp_path: Path):
    clip = Clip("c", write_clip(tmp_path / "c.mp4", 16), "c")
    alone = prepare(clip, tmp_path / "alone", 64)
    together = threading.Barrier(4)

    def prepared(_: int) -> PreparedClip | None:
        together.wait(60)
        return prepare(clip, tmp_path / "shared", 64)

    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(prepared, range(4)))
    assert alone is not None
    for each in found:
        assert each is not None
        np.testing.assert_array_equal(each.frames, alone.frames)
        np.testing.assert_array_equal(each.small, alone.small)
    assert found[0] is not None
    found[0].correspondence(5, 1)
    assert all(each.known[5, 1] for each in found if each)
    assert {f.name for f in (tmp_path / "shared").iterdir()} == {f.name for f in (tmp_path / "alone").iterdir()}


def test_frames_that_are_not_used_are_not_kept(tmp_path: Path):
    clip = Clip("c", write_clip(tmp_path / "c.mp4", 200, 0, 128), "c")
    frame = 128 * 128 * 3
    tracemalloc.start()
    try:
        assert len(load_clip(clip, 128, 4)) == 4
        loaded = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        data.save_frames(tmp_path / "kept.npy", clip.path, [0, 99, 199], 128)
        saved = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loaded < 20 * frame
    assert saved < 20 * frame


def test_another_folders_clip_of_the_same_name_is_another_clip(tmp_path: Path):
    found = []
    for n, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        path = write_clip(tmp_path / folder / "c.mp4", 16, n)
        found.append(prepare(Clip("c", path, "c"), tmp_path / "cache", 64))
    assert found[0] is not None
    assert found[1] is not None
    assert not np.array_equal(found[0].frames[0], found[1].frames[0])
