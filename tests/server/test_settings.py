"""Settings of the operator."""

import pytest

from iwcodec.server.settings import Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"trusted_proxies": ("*",)},
        {"trusted_proxies": ("proxy.example",)},
        {"trusted_proxies": ("10.0.0.1/8",)},
        {"allowed_origins": ("calls.example",)},
        {"allowed_origins": ("https://calls.example/r",)},
        {"allowed_origins": ("*",)},
    ],
)
def test_malformed_proxies_and_origins_are_rejected(settings: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match=r"proxy|origin"):
        Settings(b"0123456789abcdef", **settings)
