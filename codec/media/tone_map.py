"""Map high dynamic range and wide gamut pictures to BT.709, as a 3D lookup table of FFmpeg's lut3d filter.

Diffuse white (203 cd/m2, ITU-R BT.2408) becomes nearly the white of BT.709, and what is below keeps its brightness;
highlights are compressed into the little that is left.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
from av import VideoFrame
from av.filter import Graph
from numpy.typing import NDArray

PQ, HLG = 16, 18
"""Transfer characteristics of SMPTE ST 2084 and of hybrid log-gamma (ITU-T H.273, table 3)."""
BT2020, _BT709 = 9, 1
"""Colour primaries of ITU-R BT.2020 (ITU-T H.273, table 2); the matrix has the same code."""
WHITE = 203.0
"""cd/m2 of diffuse white."""
PEAK = 1000.0
"""cd/m2 of the display that pictures are assumed to be mastered for."""
KNEE = 0.7
"""Share of diffuse white, in light, from which highlights are compressed."""
NODES = 49
"""Nodes of the table along an axis; linear in between. Errors are below one level of 255."""
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Linear light of BT.2020 to BT.709 (ITU-R BT.2407, section 2)."""
_LUMA = np.array([0.2627, 0.6780, 0.0593])
"""Of BT.2020."""


def needs_mapping(frame: VideoFrame) -> bool:
    """Return whether a frame has high dynamic range or the gamut of BT.2020."""
    return frame.color_trc in (PQ, HLG) or frame.color_primaries == BT2020


class ToneMap:
    """Maps RGB frames of one transfer characteristic and one set of primaries."""

    def __init__(self, transfer: int, primaries: int) -> None:
        high_range = transfer in (PQ, HLG)
        wide = primaries == BT2020 or (high_range and primaries != _BT709)
        self._table = _cube(transfer if high_range else 0, wide)
        self._graph: Graph | None = None
        self._shape = (0, 0)

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Map a frame of format rgb48le."""
        if self._graph is None or self._shape != (frame.width, frame.height):
            self._shape = (frame.width, frame.height)
            self._graph = self._make_graph(frame)
        self._graph.push(frame)
        mapped = self._graph.pull()
        assert isinstance(mapped, VideoFrame)
        return mapped

    def _make_graph(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        with tempfile.TemporaryDirectory(prefix="iwcodec-") as folder:
            path = Path(folder) / "table.cube"
            path.write_text(self._table)
            escaped = str(path).replace("\\", "/").replace(":", "\\:").replace("'", "\\'")
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            table, sink = graph.add("lut3d", f"file={escaped}:interp=tetrahedral"), graph.add("buffersink")
            source.link_to(table)
            table.link_to(sink)
            graph.configure()  # reads the file
        return graph


@functools.cache
def _cube(transfer: int, wide: bool) -> str:
    """The table in Adobe's .cube format: red changes fastest."""
    axis = np.linspace(0.0, 1.0, NODES)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    mapped = map_colours(np.stack([red, green, blue], axis=-1).reshape(-1, 3), transfer, wide)
    rows = "\n".join(f"{r:.5f} {g:.5f} {b:.5f}" for r, g, b in mapped.tolist())
    return f"LUT_3D_SIZE {NODES}\n{rows}\n"


def map_colours(signal: NDArray[np.float64], transfer: int, wide: bool) -> NDArray[np.float64]:
    """Map signals (n, 3), 0..1, to those of BT.709. `transfer`: PQ, HLG, or another for standard dynamic range;
    `wide`: of BT.2020's primaries."""
    light = {PQ: _light_of_pq, HLG: _light_of_hlg}.get(transfer, _light_of_sdr)(signal)
    if wide:
        light = light @ _TO_BT709.T
    light = np.clip(light, 0.0, None)
    if transfer in (PQ, HLG):
        brightest = light.max(1, keepdims=True)
        light *= _compressed(brightest) / np.maximum(brightest, 1e-9)
    return np.asarray(np.clip(light, 0.0, 1.0) ** (1 / 2.4))


def _light_of_sdr(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.1886."""
    return np.asarray(signal**2.4)


def _light_of_pq(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light in units of diffuse white (SMPTE ST 2084, ITU-R BT.2100, table 4)."""
    root = signal ** (1 / 78.84375)
    light = np.clip(root - 0.8359375, 0, None) / (18.8515625 - 18.6875 * root)
    return np.asarray(10_000 / WHITE * light ** (1 / 0.1593017578125))


def _light_of_hlg(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light in units of diffuse white on a display of PEAK (ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luma = np.maximum(scene @ _LUMA, 1e-9)[:, None]
    return np.asarray(PEAK / WHITE * luma**0.2 * scene)


def _compressed(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """The identity up to KNEE, then with the same slope towards 1 at PEAK."""
    room, peak = 1 - KNEE, PEAK / WHITE
    over = np.clip(np.minimum(light, peak) - KNEE, 0, None)
    rolled = (1 - np.exp(-over / room)) / (1 - np.exp(-(peak - KNEE) / room))
    return np.asarray(np.where(light <= KNEE, light, KNEE + room * rolled))
