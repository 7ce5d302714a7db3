"""Structured logs: one JSON object per line, without secrets."""

import json
import logging
import sys

import pytest

from iwcodec.server import logs


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("iwcodec.server", logging.WARNING, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


def test_a_line_is_one_json_object() -> None:
    line = logs.JsonFormatter().format(record("joined", fields={"room": "ab12", "peers": 2, "text": "a\nb"}))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time") > 0
    assert fields == {"level": "warning", "event": "joined", "room": "ab12", "peers": 2, "text": "a\nb"}


def test_an_exception_is_logged_with_its_trace() -> None:
    try:
        raise RuntimeError("at iw1.abc.def of redis://user:word@host/0")
    except RuntimeError:
        line = logs.JsonFormatter().format(record("fault", exc_info=sys.exc_info()))
    assert "RuntimeError" in json.loads(line)["trace"]
    assert "iw1" not in line
    assert "word" not in line


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("token iw1.eyJ_-x.AbC is bad", "token [removed] is bad"),
        ("resume iwr.0a1b.c-d_e", "resume [removed]"),
        ("GET /r/blue#token=abc HTTP", "GET [removed]#token=[removed] HTTP"),
        ('"WebSocket /r/private-x/ws" [accepted]', '"WebSocket [removed]/ws" [accepted]'),
        ("redis://:pass@host:1/0", "redis://[removed]@host:1/0"),
        ("http://127.0.0.1:8000 is fine", "http://127.0.0.1:8000 is fine"),
    ],
)
def test_what_looks_like_a_secret_is_removed(text: str, clean: str) -> None:
    assert logs.scrub(text) == clean


def test_tags_depend_on_the_text_and_the_secret() -> None:
    assert logs.keyed_tag("blue", b"one") == logs.keyed_tag("blue", b"one")
    tags = {logs.keyed_tag("blue", b"one"), logs.keyed_tag("red", b"one"), logs.keyed_tag("blue", b"two")}
    assert len(tags) == 3
    assert all(len(tag) == 8 for tag in tags)
