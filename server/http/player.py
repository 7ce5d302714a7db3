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
from threading import Lock
from typing import Any

from iwcodec.codec.media.crop.face_detector import FACE_DETECTOR
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import cumulative_counts
from iwcodec.models.runtime.weights import WEIGHTS, list_models, read_info, read_tensors, read_weights_file

BUILT = Path(__file__).parents[2] / "client" / "web" / "dist"
"""What `make web` builds. Wheels contain it if it was built before them."""
REFINING = tuple(f"decoder.{layer}." for layer in ("unfold", "fuse", "refine", "out", "up"))
"""Beginnings of the names of the weights for what comes after attention, which the page does in a worker of its own."""
NOT_BUILT = (
    "The browser's player is not built: run `make web` in a clone of iwcodec (it needs Node.js 20), "
    "then start the server again."
)
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of the page: its own scripts and WebAssembly, and nothing from other hosts."""
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


_gathering = Lock()


def player_files() -> Mapping[str, Path | bytes]:
    """Return the installed page (see `files_of`), gathered once in half a second, however many ask meanwhile."""
    with _gathering:
        return files_of()


@cache
def files_of(folder: Path = BUILT, weights: Path = WEIGHTS) -> Mapping[str, Path | bytes]:
    """Return everything that the page consists of: files, or their bytes, by path relative to the page."""
    files: dict[str, Path | bytes] = {
        file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()
    }
    tables = json.dumps(tables_json(), separators=(",", ":")).encode()
    tables_path = f"tables/{_digest(tables)}.json"
    files |= {tables_path: tables, f"{tables_path}.gz": gzip.compress(tables, 6, mtime=0)}
    models = []
    for model in list_models(weights):
        weights_of = {
            "network": read_tensors(model, lambda name: not is_refining(name), weights),
            "decoder": read_tensors(model, is_refining, weights),
        }
        paths = {part: f"models/{_digest(data)}/{part}.safetensors" for part, data in weights_of.items()}
        for part, data in weights_of.items():
            files |= {paths[part]: data, f"{paths[part]}.gz": _compressed(data)}
        models.append(model_json(model, weights) | paths | {"bytes": sum(map(len, weights_of.values()))})
    face_path = f"models/{_digest(FACE_DETECTOR.read_bytes())}/{FACE_DETECTOR.name}"
    files |= {face_path: FACE_DETECTOR, f"{face_path}.gz": _compressed(FACE_DETECTOR.read_bytes())}
    files["models.json"] = json.dumps({"tables": tables_path, "face": face_path, "models": models}).encode()
    return files


def is_refining(name: str) -> bool:
    """Return whether weights of this name belong to what comes after attention."""
    return name.startswith(REFINING)


def model_json(model: str, weights: Path = WEIGHTS) -> dict[str, Any]:
    """Describe a model."""
    info, config = read_info(model, weights), read_weights_file(model, weights).config
    return {
        "id": info.model_id,
        "digest": info.digest.hex(),
        "keypoints": info.keypoints,
        "size": info.size,
        "net_size": info.size >> config["up_blocks"],
        "detector_size": config["detector_size"],
        "top_k": config["top_k"],
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
    return {"Content-Security-Policy": POLICY, "Cache-Control": caching, "Vary": "Accept-Encoding"}


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
def _compressed(weights: bytes) -> bytes:
    """Return weights for clients that take gzip: a tenth smaller. Models of two sizes share a network."""
    return gzip.compress(weights, 6, mtime=0)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    if len(sys.argv) != 2 or not is_built():
        sys.exit(NOT_BUILT if len(sys.argv) == 2 else "Usage: python -m iwcodec.server.http.player FOLDER")
    write_site(Path(sys.argv[1]), player_files())
    print(f"{sys.argv[1]} can be offered by any web server.")
