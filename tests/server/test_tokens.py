"""Join tokens open their room until they expire, and no other string does; resume tokens name a member and a key."""

import json
import random

import pytest

from iwcodec.server.messages import PROTOCOL, BadMessage, parse
from iwcodec.server.tokens import Token, TokenError, needs_token, parse_resume, sign, verify

SECRET = b"0123456789abcdef"
TOKEN = Token("blue", "guest", 1000)


def test_a_token_opens_its_room_until_it_expires() -> None:
    text = sign(TOKEN, SECRET)
    assert verify(text, "blue", SECRET, 999.9) == TOKEN
    with pytest.raises(TokenError, match="expired"):
        verify(text, "blue", SECRET, 1000)
    with pytest.raises(TokenError, match="another room"):
        verify(text, "red", SECRET, 0)
    with pytest.raises(TokenError, match="not signed"):
        verify(text, "blue", b"fedcba9876543210", 0)


def test_the_longest_token_fits_the_join_message() -> None:
    text = sign(Token("x" * 64, "guest", 2**40), SECRET)
    assert len(text) < 256
    assert verify(text, "x" * 64, SECRET, 0).room == "x" * 64


def test_every_changed_character_breaks_the_token() -> None:
    text = sign(TOKEN, SECRET)
    for place in range(len(text)):
        other = "A" if text[place] != "A" else "B"
        with pytest.raises(TokenError):
            verify(text[:place] + other + text[place + 1 :], "blue", SECRET, 0)


@pytest.mark.parametrize("text", ["", "iw1", "iw1..", "iw1.e30." + "A" * 43, "x" * 10_000, "iw1.é.é", "none"])
def test_malformed_tokens_are_refused(text: str) -> None:
    with pytest.raises(TokenError):
        verify(text, "blue", SECRET, 0)


def test_random_text_is_refused() -> None:
    rng = random.Random(1)
    letters = "iw1.ABCdef_-=+/ \x00é"
    for _ in range(2000):
        with pytest.raises(TokenError):
            verify("iw1." + "".join(rng.choices(letters, k=rng.randrange(80))), "blue", SECRET, 0)


def test_random_text_is_not_a_resume_token() -> None:
    """parse_resume returns a member and a digest, or None, for everything that a join message may contain."""
    rng = random.Random(2)
    letters = "iwr.ABCdef_-=+/ \x00é\ud800"
    parsed = 0
    for number in range(5000):
        text = ("iwr." if number % 2 else "") + "".join(rng.choices(letters, k=rng.randrange(124)))
        try:
            message = parse(json.dumps({"type": "join", "protocol": PROTOCOL, "name": "Ada", "resume": text}))
        except BadMessage:
            continue
        resume = parse_resume(message.resume)
        assert resume is None or (resume[0] and len(resume[1]) == 64)
        parsed += resume is not None
    assert parsed > 100
    for text in (None, "", "iwr", "iwr.", "iwr..", "iwr.a.", "iwr..a", "iw1.a.b"):
        assert parse_resume(text) is None


def test_signing_needs_a_long_secret_and_a_valid_room_name() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        sign(TOKEN, b"short")
    with pytest.raises(ValueError, match="name"):
        sign(Token("a b", "guest", 1), SECRET)


def test_which_rooms_need_a_token() -> None:
    assert not needs_token("blue", all_rooms=False)
    assert needs_token("private-blue", all_rooms=False)
    assert needs_token("blue", all_rooms=True)
