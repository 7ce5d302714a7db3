"""The player's files: what is offered, with which headers, and what is said where it is not built."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from iwcodec.codec.media.crop.face_detector import FACE_DETECTOR
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.models.runtime.weights import read_info, read_tensors
from iwcodec.server.http import app, player
from iwcodec.server.store.memory import MemoryStore
from support.server.signalling import browser, make_hub


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small build, which the server offers."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "assets" / "page-1a2b.js").write_text("start();" * 100)
    (tmp_path / "assets" / "page-1a2b.js.br").write_bytes(b"compressed")
    monkeypatch.setattr(app, "is_built", lambda: True)
    monkeypatch.setattr(app, "player_files", lambda: player.files_of(tmp_path))
    return tmp_path


async def test_the_page_runs_only_its_own_scripts(built: Path) -> None:
    async with browser(make_hub(MemoryStore())) as client:
        moved = await client.get("/play", follow_redirects=False)
        page = await client.get("/play/")
    assert moved.headers["location"] == "/play/"
    assert page.text == "<!doctype html>"
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-cache"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy
    assert "unsafe-inline" not in policy
    assert "http" not in policy


async def test_hashed_files_are_kept_forever_and_compressed_where_the_client_can(built: Path) -> None:
    async with browser(make_hub(MemoryStore())) as client:
        plain = await client.get("/play/assets/page-1a2b.js", headers={"Accept-Encoding": "gzip"})
        path = "/play/assets/page-1a2b.js"
        async with client.stream("GET", path, headers={"Accept-Encoding": "gzip, br;q=0.5"}) as small:
            compressed = b"".join([piece async for piece in small.aiter_raw()])
    assert plain.text == "start();" * 100
    assert "immutable" in plain.headers["cache-control"]
    assert compressed == b"compressed"
    assert small.headers["content-encoding"] == "br"
    assert small.headers["content-type"].startswith("text/javascript")


async def test_models_and_tables_are_those_of_the_installation(built: Path) -> None:
    async with browser(make_hub(MemoryStore())) as client:
        manifest = (await client.get("/play/models.json")).json()
        tables = (await client.get(f"/play/{manifest['tables']}")).json()
        models = {model["id"]: model for model in manifest["models"]}
        network = await client.get(f"/play/{models['lite-256']['network']}")
        decoder = await client.get(f"/play/{models['lite-512']['decoder']}")
        face = await client.get(f"/play/{manifest['face']}", headers={"Accept-Encoding": "gzip"})
        plain = await client.get(f"/play/{manifest['face']}", headers={"Accept-Encoding": "identity"})
    info = read_info("lite-256")
    assert models["lite-256"]["digest"] == info.digest.hex()
    assert (models["lite-512"]["net_size"], models["lite-512"]["size"]) == (256, 512)
    assert models["lite-512"]["network"] == models["lite-256"]["network"]
    assert models["lite-512"]["bytes"] == len(network.content) + len(decoder.content)
    offered = tensor_names(network.content) | tensor_names(decoder.content)
    assert offered == tensor_names(read_tensors("lite-512", lambda name: True))
    assert not tensor_names(network.content) & tensor_names(decoder.content)
    assert face.headers["content-encoding"] == "gzip"
    assert int(face.headers["content-length"]) < len(face.content)
    assert face.content == plain.content == FACE_DETECTOR.read_bytes()
    assert tables["transform"]["id"] == load_transform_tables().id


def tensor_names(file: bytes) -> set[str]:
    """Names in a safetensors file."""
    return set(json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")]))


@pytest.mark.parametrize("path", ["nothing.js", "../../../../etc/passwd", "%2e%2e/%2e%2e/pyproject.toml", "assets/"])
async def test_nothing_else_is_offered(built: Path, path: str) -> None:
    async with browser(make_hub(MemoryStore())) as client:
        assert (await client.get(f"/play/{path}")).status_code == 404


async def test_without_a_build_the_page_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "is_built", lambda: False)
    async with browser(make_hub(MemoryStore())) as client:
        answer = await client.get("/play/")
    assert answer.status_code == 404
    assert "make web" in answer.text


async def test_a_static_site_holds_every_file(built: Path, tmp_path: Path) -> None:
    files = player.files_of(built)
    player.write_site(tmp_path / "site", files)
    manifest = json.loads((tmp_path / "site" / "models.json").read_text())
    assert (tmp_path / "site" / "index.html").read_text() == "<!doctype html>"
    for model in manifest["models"]:
        assert all((tmp_path / "site" / path).is_file() for path in (model["network"], model["decoder"]))


def test_the_page_is_gathered_once_whoever_asks_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[float] = []

    @cache
    def slow() -> dict[str, bytes]:
        gathered.append(time.monotonic())
        time.sleep(0.05)
        return {"index.html": b""}

    monkeypatch.setattr(player, "files_of", slow)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: player.player_files(), range(4))) == [{"index.html": b""}] * 4
    assert len(gathered) == 1
