"""The server as a child process."""

import pytest

from iwcodec.client.demo.server import local_server

pytestmark = pytest.mark.realtime


def test_a_local_server_starts() -> None:
    with local_server() as address:
        assert address.startswith("http://127.0.0.1:")
