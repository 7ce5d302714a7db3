"""Stages of `bench speed`: messages as in a call, and attention against dense attention."""

from itertools import islice

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.performance.speed_stages import attentions, messages
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL


def test_motion_is_packed_in_messages_as_in_a_call() -> None:
    packets = list(messages([np.zeros((20, 3), np.float32)] * 10))
    assert [(packet.first, packet.count) for packet in packets] == [(0, 4), (4, 4), (8, 2)]


def test_dense_and_sparse_attention_are_measured() -> None:
    pytest.importorskip("onnx")
    size = load_runtime(kind="onnx", threads=1).info.size
    pictures = [cv2.resize(frame.picture, (size, size)) for frame in islice(read_video(sample_clip()), 3)]
    found = {stage.stage: stage for stage in attentions(DEFAULT_MODEL, 1, pictures, 2, counts=(1,))}
    assert found.keys() == {"dense attention alone", "sparse attention alone"}
    assert all(stage.repeats == 2 and stage.sources == 1 for stage in found.values())
