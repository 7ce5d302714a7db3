"""Finding clips, their identities and their splits."""

from pathlib import Path

import cv2
import pytest

from iwcodec.models.training.data.clips import Clip, find_clips, identity_of
from iwcodec.models.training.data.frames import read_frames
from support.models.training_clips import moving_square, write_clip


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
def test_identity_by_layout(path: str, identity: str) -> None:
    assert identity_of(Path(path)) == identity


def test_clips_are_files_and_folders_of_pictures(tmp_path: Path) -> None:
    write_clip(tmp_path / "a" / "one.mp4", 3)
    folder = tmp_path / "TED#0#9.mp4"
    folder.mkdir()
    for n, picture in enumerate(moving_square(3, 0)):
        cv2.imwrite(str(folder / f"{n:07d}.png"), picture)
    clips = find_clips(tmp_path, None)
    assert [c.identity for c in clips] == ["TED", "one"]
    assert len(list(read_frames(clips[0].path))) == 3


def test_manifest_gives_split_identity_and_cuts(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("id,split,identity\nx,train,p\ny,val,q\n")
    (tmp_path / "jumpcuts.csv").write_text("id,frame\nx,7\n")
    assert find_clips(tmp_path, "train") == [Clip("x", tmp_path / "clips" / "x.mp4", "p", 7)]
    assert [c.name for c in find_clips(tmp_path, "val")] == ["y"]


def test_clips_of_a_size_are_preferred(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("id,split,identity\nx,train,p\ny,val,q\nz,train,r\n")
    for name in ("clips/x", "clips/y", "clips/z", "clips512/x", "clips512/y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.mp4").touch()
    assert [c.path for c in find_clips(tmp_path, "train", 512)] == [tmp_path / "clips512" / "x.mp4"]
    assert [c.path for c in find_clips(tmp_path, "val", 512)] == [tmp_path / "clips512" / "y.mp4"]
    assert [c.path for c in find_clips(tmp_path, "train", 256)] == [tmp_path / "clips" / f"{n}.mp4" for n in "xz"]


def touch(folder: Path, *names: str) -> None:
    """Create empty files, with their folders."""
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
def test_folders_name_splits(tmp_path: Path, names: tuple[str, ...], train: list[str], val: list[str]) -> None:
    touch(tmp_path, *names)
    assert [c.identity for c in find_clips(tmp_path)] == train
    assert [c.identity for c in find_clips(tmp_path, "val")] == val


@pytest.mark.parametrize("folder", ["", "train/"])
@pytest.mark.parametrize(("count", "limit"), [(2, 1), (300, 20)])
def test_identities_are_held_out_without_named_splits(tmp_path: Path, folder: str, count: int, limit: int) -> None:
    touch(tmp_path, *(f"{folder}p{n}#{k}#9.mp4" for n in range(count) for k in range(2)))
    train, val = ({c.identity for c in find_clips(tmp_path, split)} for split in ("train", "val"))
    assert len(train | val) == count
    assert not train & val
    assert 1 <= len(val) <= limit
    assert val == {c.identity for c in find_clips(tmp_path, "val")}


def test_single_identity_is_not_held_out(tmp_path: Path) -> None:
    touch(tmp_path, "one.mp4")
    assert [c.name for c in find_clips(tmp_path)] == ["one.mp4"]
    with pytest.raises(ValueError, match="for val"):
        find_clips(tmp_path, "val")


def test_intermediate_results_of_talking_head_are_excluded(tmp_path: Path) -> None:
    clip = "v_0000_S0_E9_L0_T0_R9_B9.mp4"
    touch(tmp_path, *(f"{split}/{step}/{clip}" for split in ("train", "val") for step in ("raw_videos", "1min_clips")))
    assert len(find_clips(tmp_path, None)) == 4
    touch(tmp_path, f"train/cropped_clips/{clip}", f"val/cropped_clips/w{clip}")
    assert [c.name for c in find_clips(tmp_path)] == [f"train/cropped_clips/{clip}"]
    assert [c.name for c in find_clips(tmp_path, "val")] == [f"val/cropped_clips/w{clip}"]


def test_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clips"):
        find_clips(tmp_path)
