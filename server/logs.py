"""Structured logs: one JSON object per line on stderr.

Logs hold no secrets. Rooms and network addresses appear as short keyed digests (the name of an open room is enough to
enter it), participants by their id. Names, SDP and ICE candidates are never logged, and anything that looks like a
token or a credential is removed in case a library's message contains one.
"""

import hashlib
import hmac
import json
import logging
import re
import sys
from typing import Any, Final

logger = logging.getLogger("iwcodec.server")

_SECRETS: Final = re.compile(
    r"iw[1r]\.[A-Za-z0-9_.-]+"  # join and resume tokens
    r"|(?<=token=)[^\s&\"']+"
    r"|(?<=://)[^\s/@\"']*:[^\s/@\"']*(?=@)"  # redis://user:password@host
    r"|/r/[^\s\"'/?#]+"  # addresses of rooms
)


def emit(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log `event` with its fields (JSON values)."""
    logger.log(level, event, extra={"fields": fields})


def keyed_tag(text: str, secret: bytes) -> str:
    """Return eight hexadecimal digits that stand for `text` in the logs of all processes with this secret."""
    return hmac.new(secret, b"log " + text.encode(), hashlib.sha256).hexdigest()[:8]


def scrub(text: str) -> str:
    """Replace whatever looks like a token, a credential or a room's address."""
    return _SECRETS.sub("[removed]", text)


class JsonFormatter(logging.Formatter):
    """Formats a record as {"time", "level", "event", ...fields}, with "trace" if it holds an exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return scrub(json.dumps(line, default=str, ensure_ascii=False))


def configure(level: str) -> None:
    """Send the server's logs, and the warnings of uvicorn and asyncio, to stderr.

    Raises ValueError for an unknown level.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    levels = {"iwcodec.server": level.upper(), "asyncio": "WARNING", "uvicorn": "WARNING", "uvicorn.error": "WARNING"}
    for name, least in levels.items():
        target = logging.getLogger(name)
        target.setLevel(least)
        target.propagate = name == "uvicorn.error"
        target.handlers = [] if name == "uvicorn.error" else [handler]
