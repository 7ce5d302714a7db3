"""Colours of the pages: text can be read in light and dark (WCAG 2.2, success criterion 1.4.3)."""

import re
from pathlib import Path

import pytest

STYLE = Path(__file__).parents[3] / "client" / "web" / "src" / "player" / "style.css"
MIN_CONTRAST = 4.5


def luminance(colour: str) -> float:
    """Relative luminance of #RRGGBB, 0..1."""
    levels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    found = re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE.read_text(encoding="utf-8"))
    colours = {name: both[scheme] for name, *both in found}
    pairs = [(text, behind) for text in ("ink", "soft", "wrong") for behind in ("paper", "card")]
    for text, behind in (*pairs, ("on-accent", "accent")):
        assert contrast(colours[text], colours[behind]) >= MIN_CONTRAST, f"{text} on {behind}"
