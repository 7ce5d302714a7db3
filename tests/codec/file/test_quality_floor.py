"""The shipped model and encoder keep their quality: the bundled clip coded anew, and a committed file decoded anew.

Encoding depends slightly on the machine (ONNX Runtime's kernels, SVT-AV1's threads), so that bounds have a margin.
`tests/golden/face.iwc` holds every sixth of the first 60 frames of the bundled clip (--sources 1, no sound), and
`tests/golden/face.png` is frame GOLDEN_FRAME of it as the shipped model decoded it.
"""

import itertools
from pathlib import Path

import cv2
import numpy as np

from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.media.video import probe, read_video, sample_clip
from iwcodec.codec.sources.av1 import SourceDecoder
from support.media.clips import write_clip

GOLDEN = Path(__file__).parents[2] / "golden"
GOLDEN_FRAME = 7
SECONDS, EVERY = 2, 2
MEASURED_DB, MEASURED_BYTES = 30.17, 2899
"""Mean PSNR, and bytes of the file, of the first SECONDS of the bundled clip, every EVERY-th frame, three sources."""
MARGIN_DB, MARGIN_BYTES = 0.5, 0.03


def test_the_bundled_clip_reaches_its_quality_at_its_size(tmp_path: Path) -> None:
    fps = probe(sample_clip()).fps / EVERY
    frames = itertools.islice(read_video(sample_clip()), 0, round(SECONDS * EVERY * fps), EVERY)
    clip = write_clip(tmp_path / "face.mp4", [frame.picture for frame in frames], fps=fps)
    report = encode(clip, tmp_path / "face.iwc", EncodeOptions(sources=3, tune="psnr", audio=False, verify=True))
    assert report.frames == round(SECONDS * fps)
    assert report.psnr_db > MEASURED_DB - MARGIN_DB
    assert report.bytes["total"] < MEASURED_BYTES * (1 + MARGIN_BYTES)


def test_the_shipped_model_decodes_the_golden_picture() -> None:
    """Rounding on another machine passes; the unmodified source, and so a wrong network, does not."""
    golden = cv2.imread(str(GOLDEN / "face.png"))[..., ::-1].astype(int)
    with IwcFile(GOLDEN / "face.iwc") as file:
        decoded = next(frame.picture for frame in file.frames() if frame.number == GOLDEN_FRAME)
        source = SourceDecoder(file.header.size).add(next(iter(file.reader.records())).payload)
    error = np.abs(decoded - golden)
    assert error.mean() < 0.5
    assert error.max() < 8
    assert np.abs(source - golden).mean() > 10
