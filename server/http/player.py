"""The page that plays .iwc files in a browser: its built files, and the models and tables of this installation.

`python -m iwcodec.server.http.player FOLDER` writes all of it to a folder that any web server can offer as it is.
"""

import gzip
import hashlib
import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from iwcodec.codec.media.crop.face_detector import FACE_DETECTOR
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import cumulative_counts
from iwcodec.models.runtime.weights import (
    PARTS,
    WEIGHTS,
    graph_file,
    list_models,
    read_info,
    read_tensors,
    read_weights_file,
)

BUILT = Path(__file__).parents[2] / "client" / "web" / "dist"
"""What `make web` builds. Wheels contain it if it was built before them."""
GRAPHS = tuple(part for part in PARTS if part != "refine")
"""Graphs that the page runs. It computes what follows attention itself (client/web/src/runtime/refiner.ts)."""
DECODER = tuple(f"decoder.{layer}." for layer in ("unfold", "fuse", "refine", "out", "up"))
"""Name prefixes of the weights that this takes."""
NOT_BUILT = (
    "The browser's player is not built: run `make web` in a clone of iwcodec (it needs Node.js 20), "
    "then start the server again."
)
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of the page: its own scripts and WebAssembly, and nothing from other hosts."""
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers without which browsers give WebAssembly no threads."""
FOREVER = "public, max-age=31536000, immutable"
HASHED = ("assets/", "models/", "tables/")
"""Folders whose file names contain a hash of the content."""
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}


def is_built() -> bool:
    """Return whether the page can be offered."""
    return (BUILT / "index.html").is_file()


@cache
def player_files(folder: Path = BUILT, weights: Path = WEIGHTS) -> Mapping[str, Path | bytes]:
    """Return everything that the page consists of: files, or their bytes, by path relative to the page."""
    files: dict[str, Path | bytes] = {
        file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()
    }
    tables = json.dumps(tables_json(), separators=(",", ":")).encode()
    tables_path = f"tables/{_digest(tables)}.json"
    files |= {tables_path: tables, f"{tables_path}.gz": gzip.compress(tables, 6, mtime=0)}
    models = []
    for model in list_models(weights):
        graphs = {part: graph_file(model, part, weights) for part in GRAPHS}
        paths = {part: f"models/{_digest(file.read_bytes())}/{file.name}" for part, file in graphs.items()}
        files |= {paths[part]: graphs[part] for part in GRAPHS}
        files |= {f"{paths[part]}.gz": _compressed(graphs[part]) for part in GRAPHS}
        decoder = read_tensors(model, DECODER, weights)
        decoder_path = f"models/{_digest(decoder)}/{model}.decoder.safetensors"
        files[decoder_path] = decoder
        size = sum(graph.stat().st_size for graph in graphs.values()) + len(decoder)
        models.append({**model_json(model, paths, weights), "decoder": decoder_path, "bytes": size})
    face_path = f"models/{_digest(FACE_DETECTOR.read_bytes())}/{FACE_DETECTOR.name}"
    files |= {face_path: FACE_DETECTOR, f"{face_path}.gz": _compressed(FACE_DETECTOR)}
    files["models.json"] = json.dumps({"tables": tables_path, "face": face_path, "models": models}).encode()
    return files


def model_json(model: str, graphs: Mapping[str, str], weights: Path = WEIGHTS) -> dict[str, Any]:
    """Describe a model for the page. `graphs`: path of each graph, relative to the page, by part."""
    info, config = read_info(model, weights), read_weights_file(model, weights).config
    return {
        "id": info.model_id,
        "digest": info.digest.hex(),
        "keypoints": info.keypoints,
        "size": info.size,
        "net_size": info.size >> config["up_blocks"],
        "detector_size": config["detector_size"],
        "graphs": dict(graphs),
    }


def tables_json() -> dict[str, Any]:
    """Return the tables of both motion coders: as integers, except the directions, which need not be exact."""
    transform, predictive = load_transform_tables(), load_tables()
    return {
        "transform": {
            "id": transform.id,
            "symbols": transform.probabilities.shape[1],
            "cumulative": cumulative_counts(transform.probabilities).ravel().tolist(),
            "directions": transform.directions.astype("float32").ravel().tolist(),
        },
        "predictive": {
            "id": predictive.id,
            "symbols": predictive.probabilities.shape[1],
            "cumulative": cumulative_counts(predictive.probabilities).ravel().tolist(),
            "means": predictive.means.ravel().tolist(),
            "inter": predictive.predictor.inter.ravel().tolist(),
            "intra": predictive.predictor.intra.ravel().tolist(),
        },
    }


def headers_of(path: str) -> dict[str, str]:
    """Return the headers of a file of the page."""
    caching = FOREVER if path.startswith(HASHED) else "no-cache"
    return {**ISOLATED, "Content-Security-Policy": POLICY, "Cache-Control": caching, "Vary": "Accept-Encoding"}


def media_type(path: str) -> str:
    """Return the media type of a file of the page."""
    return MEDIA_TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")


def write_site(target: Path, files: Mapping[str, Path | bytes]) -> None:
    """Write the page to a folder, for a server of static files."""
    for path, content in files.items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


@cache
def _compressed(graph: Path) -> bytes:
    """Return a graph for clients that take gzip: a tenth smaller. Models of two sizes share graphs."""
    return gzip.compress(graph.read_bytes(), 6, mtime=0)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    if len(sys.argv) != 2 or not is_built():
        sys.exit(NOT_BUILT if len(sys.argv) == 2 else "Usage: python -m iwcodec.server.http.player FOLDER")
    write_site(Path(sys.argv[1]), player_files())
    print(f"{sys.argv[1]} can be offered by any web server. Threads need these headers: {ISOLATED}")
