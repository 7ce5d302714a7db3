"""Inputs and outputs that are no files."""

import io
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media import spool
from iwcodec.codec.media.spool import local_input, local_output

CONTENT = bytes(range(256)) * 20


def content_of(source: str | Path) -> bytes:
    """What `local_input` gives, and that nothing of it is left."""
    with local_input(source) as path:
        data = path.read_bytes()
    if str(path) != str(source):
        assert not path.exists() or path.read_bytes() == CONTENT
    return data


def test_a_file_is_read_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "ä b.mp4"
    file.write_bytes(CONTENT)
    with local_input(file) as path:
        assert path == file
    with local_input(str(tmp_path / "missing.mp4")) as path:
        assert path == tmp_path / "missing.mp4"
    assert content_of(file.as_uri()) == CONTENT


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_copied(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ts"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(CONTENT,))
    writer.start()
    assert content_of(pipe) == CONTENT
    writer.join()


def test_standard_input_is_copied_and_named_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(CONTENT)))
    assert content_of("-") == CONTENT
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(CONTENT)))
    with pytest.raises(MediaError, match=r"^standard input is not a video$"), local_input("-") as path:
        raise MediaError(f"{path} is not a video")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO()))
    with pytest.raises(MediaError, match="standard input is empty"), local_input("-"):
        pass


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages = {"/talk%20it.mp4?x=1": CONTENT, "/list.m3u8": b"#EXTM3U\n", "/page": b"<!DOCTYPE html>"}
            body = pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_urls_are_downloaded_or_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert content_of(f"{server}/talk%20it.mp4?x=1") == CONTENT
    for path, reason in (("/missing.mp4", "Not Found"), ("/list.m3u8", "playlist"), ("/page", "playlist")):
        with pytest.raises(MediaError, match=reason), local_input(server + path):
            pass
    monkeypatch.setattr(spool, "MAX_DOWNLOAD", 1000)
    with pytest.raises(MediaError, match="larger than"), local_input(f"{server}/talk%20it.mp4?x=1"):
        pass
    for url in ("rtmp://127.0.0.1/live", "ftp://127.0.0.1/a.mp4"):
        with pytest.raises(MediaError, match="only http, https and file"), local_input(url):
            pass
    for url in ("http://127.0.0.1:1/a.mp4", "http://[::1/a.mp4", "http:///a.mp4"):
        with pytest.raises(MediaError, match="cannot be read"), local_input(url):
            pass


def test_standard_output_gets_the_complete_file(monkeypatch: pytest.MonkeyPatch) -> None:
    out = SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: False)
    monkeypatch.setattr("sys.stdout", out)
    with local_output("-", ".iwc") as path:
        path.write_bytes(CONTENT)
        assert out.buffer.getvalue() == b""
    assert out.buffer.getvalue() == CONTENT
    assert not path.exists()
    with pytest.raises(MediaError), local_output("-", ".iwc"):
        raise MediaError("broken")
    assert out.buffer.getvalue() == CONTENT
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(MediaError, match="terminal"), local_output("-", ".iwc"):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_gets_the_complete_file_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, read = tmp_path / "out.iwc", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with local_output(str(pipe), ".iwc") as path:
        path.write_bytes(CONTENT)
    reader.join()
    assert read == [CONTENT]
    assert pipe.is_fifo()
    with local_output(str(tmp_path / "new.iwc"), ".iwc") as path:
        assert path == tmp_path / "new.iwc"
