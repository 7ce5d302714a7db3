"""How the browser's tests read packets, bytes and sources."""

import base64
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, Packet, SourcePacket
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Source
from support.codec.textured_source import K, textured_source


def text(data: bytes | NDArray[Any]) -> str:
    """Bytes in base64."""
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode()


def plain(packet: Packet) -> dict[str, Any]:
    """A packet with the names and values of the browser's."""
    match packet:
        case SourcePacket():
            numbers = {"slot": packet.slot, "frame": packet.frame, "base": packet.base}
            return {"kind": "source", **numbers, "payload": text(packet.payload)}
        case MotionPacket():
            runs = [vars(run) for run in packet.runs]
            regions = [[vars(run) for run in of_region] for of_region in packet.regions]
            numbers = {"first": packet.first, "count": packet.count, "reference": packet.reference}
            coded = {"payload": text(packet.payload), "scale": packet.scale, "alike": packet.alike}
            return {"kind": "motion", **numbers, **coded, "runs": runs, "regions": regions}
        case AudioPacket():
            return {"kind": "audio", "first": packet.first, "packets": [text(data) for data in packet.packets]}


def moving_source(picture: Picture, keypoints: NDArray[np.float32]) -> Source:
    """A source whose cells move with strengths, too."""
    axis = (np.arange(32) + 0.5) * (np.pi / 32)
    waves = np.stack([np.outer(np.cos(axis * (n // 5)), np.cos(axis * (n % 5))).ravel() for n in range(K)], axis=1)
    source = textured_source(picture)
    basis = source.basis.copy()
    basis[:, K : 2 * K], basis[:, 2 * K :] = waves * 0.1, waves[:, ::-1] * 0.1
    return replace(source, basis=basis, keypoints=keypoints)


def face_keypoints() -> NDArray[np.float32]:
    """Keypoints on a grid, but those of irises and mouth where a face has them."""
    keypoints = textured_source().keypoints.copy()
    keypoints[0, :2], keypoints[1, :2] = (-0.2, -0.2), (0.2, -0.15)
    keypoints[7:11, :2] = (-0.15, 0.3), (0.15, 0.32), (0, 0.25), (0, 0.4)
    return keypoints


class Pasting:
    """The part of a runtime that composites need."""

    def with_picture(self, source: Source, picture: Picture) -> Source:
        return replace(source, picture=picture)
