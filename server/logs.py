"""Structured logs: one JSON object a line on stderr.

What is secret never gets there. Rooms appear as a short keyed digest (the name of an open room is all one needs to
enter it), participants by their id, no names, addresses, descriptions or candidates at all; and whatever looks like a
token or a credential is struck out, should a library's message carry one.
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


def room_tag(room: str, secret: bytes) -> str:
    """Eight hexadecimal digits that stand for the room in the logs of all processes with this secret."""
    return hmac.new(secret, b"log " + room.encode(), hashlib.sha256).hexdigest()[:8]


def scrub(text: str) -> str:
    return _SECRETS.sub("[removed]", text)


class JsonFormatter(logging.Formatter):
    """{"time", "level", "event", ...fields}, and "trace" where an exception is logged."""

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
    """Send the server's logs, and the warnings of uvicorn, to stderr. Raises ValueError for an unknown level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, least in (("iwcodec.server", level.upper()), ("uvicorn", "WARNING"), ("uvicorn.error", "WARNING")):
        target = logging.getLogger(name)
        target.setLevel(least)
        target.propagate = name == "uvicorn.error"
        target.handlers = [] if name == "uvicorn.error" else [handler]
