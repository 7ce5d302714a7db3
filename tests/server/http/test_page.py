"""The page's script, run by Node.js with a browser double: which command it shows for which address."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from iwcodec.server import tokens
from iwcodec.server.http import app

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")

TOKEN = tokens.sign(tokens.Token("talk", "guest", 2_000_000_000), b"a secret of the tests")

BROWSER = """
const { script, href, answer } = JSON.parse(require("fs").readFileSync(0));
const elements = {}, requests = [], copied = [], visited = [];
const element = () => ({ replaceChildren(...items) { this.items = items.map(item => item.textContent); } });
const document = {
  title: "", hidden: true, addEventListener() {}, createElement: element,
  getElementById: id => elements[id] ??= element(),
};
const location = new URL(href);
location.assign = address => visited.push(address);
const navigator = { clipboard: { async writeText(text) { copied.push(text); } } };
const fetch = async (address, options) => {
  requests.push([options.method, address, options.headers.Authorization ?? null]);
  return { ok: true, json: async () => answer };
};
const page = new Function("document", "location", "navigator", "fetch", script);
page(document, location, navigator, fetch);
(async () => {
  for (const id of ["copy", "invite", "closed", "join"]) if (elements[id]?.onclick) await elements[id].onclick();
  await new Promise(setImmediate);
  console.log(JSON.stringify({ elements, requests, copied, visited }));
})();
"""


def opened(href: str, **answer: Any) -> dict[str, Any]:
    """Run the page at that address, with one answer to all requests, and click its buttons."""
    page, _ = app._page()
    _, _, rest = page.partition("<script>")
    script, _, _ = rest.partition("</script>")
    content = {"people": [], "size": 6, "path": "/r/new#token=x", **answer}
    given = json.dumps({"script": script, "href": href, "answer": content})
    result = subprocess.run(
        ["node", "-e", BROWSER], input=given, capture_output=True, text=True, timeout=60, check=True
    )
    state: dict[str, Any] = json.loads(result.stdout)
    return state


def command(href: str) -> str | None:
    text: str | None = opened(href)["elements"].get("command", {}).get("textContent")
    return text


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("https://calls.example/r/talk", "https://calls.example/r/talk"),
        ("https://calls.example/r/talk/", "https://calls.example/r/talk"),
        (f"https://calls.example:8443/r/a-B_9#token={TOKEN}", f"https://calls.example:8443/r/a-B_9#token={TOKEN}"),
        (f"http://[::1]:8000/r/talk#token={TOKEN}", f"http://[::1]:8000/r/talk#token={TOKEN}"),
        (f"https://h/some/prefix/r/talk#a=b&token={TOKEN}&c=d", f"https://h/some/prefix/r/talk#token={TOKEN}"),
    ],
)
def test_the_command_joins_the_room_of_the_address(href: str, address: str) -> None:
    assert command(href) == f"iwcodec call '{address}'"


@pytest.mark.parametrize(
    "href",
    [
        "https://calls.example/r/talk#';touch${IFS}/tmp/x;'",
        "https://calls.example/r/talk?';touch${IFS}/tmp/x;'",
        "https://calls.example/r/talk#token=';touch${IFS}/tmp/x;'",
        f"https://calls.example/r/talk#token={TOKEN}';id;'",
        f"https://calls.example/r/talk#token={TOKEN}%0Aid",
        f"https://calls.example/r/talk#mytoken={TOKEN}",
        f"https://calls.example/r/talk#token={TOKEN[:-1]}",
        f"https://calls.example/r/talk#token={TOKEN}x",
        "https://calls.example/r/talk#token=$(id)",
        "https://user:';id;'@calls.example/r/talk",
    ],
)
def test_everything_but_origin_path_and_token_is_dropped(href: str) -> None:
    state = opened(href)
    assert state["elements"]["command"]["textContent"] == "iwcodec call 'https://calls.example/r/talk'"
    assert state["copied"] == ["iwcodec call 'https://calls.example/r/talk'"]
    assert state["requests"] == [["GET", "https://calls.example/api/rooms/talk", None]]
    assert "onclick" not in state["elements"].get("invite", {})


@pytest.mark.parametrize(
    "href",
    [
        "https://calls.example/';id;'/r/talk",
        "https://calls.example/$(id)/r/talk",
        "https://calls.example/r/ta'lk",
        "https://calls.example/r/talk;id",
        "https://calls.example/r/" + "x" * 65,
        "https://calls.example/r/-talk",
        "https://calls.example/r/%27;id;%27",
        "https://a';id;'.calls.example/r/talk",
        "https://calls.example//evil.example/r/talk",
        "ftp://calls.example/r/talk",
    ],
)
def test_an_address_with_other_characters_gives_no_command(href: str) -> None:
    state = opened(href)
    assert "command" not in state["elements"]
    assert not state["copied"]
    assert not any("evil.example" in address for _, address, _ in state["requests"])


def test_the_token_authorizes_requests_and_invitations() -> None:
    state = opened(f"https://calls.example/p/r/talk#token={TOKEN}", path=f"/r/talk#token={TOKEN}")
    bearer = f"Bearer {TOKEN}"
    assert state["requests"] == [
        ["GET", "https://calls.example/p/api/rooms/talk", bearer],
        ["POST", "https://calls.example/p/api/rooms/talk/invitations", bearer],
    ]
    assert state["copied"][1] == f"https://calls.example/p/r/talk#token={TOKEN}"


def test_names_are_shown_as_text() -> None:
    state = opened("https://calls.example/r/talk", people=[{"name": "<b>Ada</b>"}])
    assert state["elements"]["people"]["items"] == ["<b>Ada</b>"]


def test_the_front_page_makes_a_room_below_its_own_root() -> None:
    state = opened("https://calls.example/prefix/")
    assert state["requests"] == [["POST", "https://calls.example/prefix/api/rooms", None]]
    assert state["visited"] == ["https://calls.example/prefix/r/new#token=x"]


def test_a_room_is_joined_in_the_browser_where_its_client_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    state = opened(f"https://calls.example/p/r/talk#token={TOKEN}")
    assert state["visited"] == [f"https://calls.example/p/play/call.html#room=talk&token={TOKEN}"]
    for built in (True, False):
        monkeypatch.setattr(app, "is_built", lambda built=built: built)
        assert ('id="browser" hidden' in app._page()[0]) is not built
