# SPDX-License-Identifier: Apache-2.0
"""Hermes' dashboard in a real browser, through the gate: what a person does there works."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from plays import Deployment
from playwright.sync_api import Browser, Error, Page, Request, WebSocket, expect, sync_playwright

from tests.docker.engine import without

# Chromium would look for its maker's servers; a browser of root has no sandbox of its own.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
# Where nobody listens: the browser gets these pages from the test.
APP, STRANGER = "http://127.0.0.1:5173", "http://127.0.0.1:3000"


@pytest.fixture(scope="module")
def deployment(make_deployment: Callable[..., Deployment]) -> Deployment:
    made = make_deployment("dashboard", hermes_cors_origins=[APP])
    made.deploy()
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        without("no Chromium on the PATH")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, deployment: Deployment) -> Iterator[Page]:
    """A page of a person who was never here."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    failed_navigations.clear()
    page.on("requestfailed", note_navigation)
    yield page
    context.close()


failed_navigations: list[str] = []
"""Why the page of the test did not come where it was going, in the browser's words."""


def note_navigation(request: Request) -> None:
    if request.is_navigation_request() and request.failure:
        failed_navigations.append(request.failure)


def visit(page: Page, deployment: Deployment, path: str) -> None:
    go(page, f"http://127.0.0.1:{deployment.dashboard_port}{path}")


def go(page: Page, address: str) -> None:
    """Open a page, again where the networks of other tests' containers came or went at that moment.

    The open page may just then have gone somewhere by itself: what became of that, only its request tells.
    """
    for _ in range(10):
        try:
            page.goto(address)
        except Error as error:
            if not any(NETWORK_CHANGED in told for told in (str(error), *failed_navigations)):
                raise Error(f"{error} Before that: {failed_navigations}") from error
            failed_navigations.clear()
        else:
            return
    pytest.fail(f"{address}: {NETWORK_CHANGED} each time")


def sign_in(page: Page, deployment: Deployment, path: str) -> None:
    visit(page, deployment, path)
    page.get_by_label("API token").fill(deployment.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("via API token")).to_be_visible()


def say(page: Page, text: str) -> None:
    """Type into the terminal of the chat, once it takes input, and wait for the whole answer."""
    rows = page.locator(".xterm-rows")
    expect(rows).to_contain_text("Session:")
    expect(rows).to_contain_text("ready")
    page.locator(".xterm").click()
    page.keyboard.type(text, delay=20)
    # Enter that comes on the heels of the text would count as part of what was pasted.
    expect(rows).to_contain_text(text)
    page.keyboard.press("Enter")
    expect(rows).to_contain_text(f'You said: "{text}"')


def test_nobody_gets_in_without_the_token(page: Page, deployment: Deployment) -> None:
    visit(page, deployment, "/sessions")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("API token").fill("hw_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.request.get(page.url.split("/login")[0] + "/api/sessions").status == 401


CONTRAST = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const light = (rgb) => {
        const [r, g, b] = rgb.map((channel) => {
            const part = channel / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        const { backgroundColor } = getComputedStyle(element);
        return /, 0\\)$/.test(backgroundColor) ? behind(element.parentElement) : channels(backgroundColor);
    };
    return [...document.querySelectorAll("h1, p, label, input, button, small")]
        .filter((element) => element.checkVisibility())
        .map((element) => {
            const { color, opacity } = getComputedStyle(element);
            const back = behind(element);
            const ink = channels(color).map((channel, at) => channel * opacity + back[at] * (1 - opacity));
            const [low, high] = [light(back), light(ink)].sort((one, other) => one - other);
            return [element.tagName, (high + 0.05) / (low + 0.05)];
        });
}"""
"""The contrast of each text with what is behind it, by the formula of WCAG 2."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_signs_in_by_keyboard_alone_and_can_read_everything(
    page: Page, deployment: Deployment, scheme: Literal["light", "dark"]
) -> None:
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.emulate_media(color_scheme=scheme)
    visit(page, deployment, "/sessions")
    expect(page.get_by_label("API token")).to_be_focused()
    page.keyboard.type("hw_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    field = page.get_by_label("API token")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description(
        re.compile("not valid here.*The token was made", re.DOTALL)
    )
    for element, contrast in page.evaluate(CONTRAST):
        assert contrast >= 4.5, element
    assert not [text for text in complaints if "Content Security Policy" in text]
    page.keyboard.type(deployment.token)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Sign in")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_text("via API token")).to_be_visible()


def test_assets_are_fetched_once_and_compressed(page: Page, deployment: Deployment) -> None:
    sign_in(page, deployment, "/sessions")
    traffic = page.context.new_cdp_session(page)
    traffic.send("Network.enable")
    answers: dict[str, dict[str, Any]] = {}
    cached: set[str] = set()

    def arrived(got: dict[str, Any]) -> None:
        # A font of the page before may still be on its way.
        if got["type"] in ("Script", "Stylesheet") and "/assets/" in got["response"]["url"]:
            answers[got["requestId"]] = got["response"]

    traffic.on("Network.responseReceived", arrived)
    traffic.on("Network.requestServedFromCache", lambda got: cached.add(got["requestId"]))
    visit(page, deployment, "/models")
    expect(page.get_by_text("via API token")).to_be_visible()
    for key, answer in answers.items():
        assert key in cached or answer["fromDiskCache"], answer
    script = next(answer for answer in answers.values() if answer["url"].endswith(".js"))
    told = {name.lower(): value for name, value in script["headers"].items()}
    assert told["content-encoding"] in ("gzip", "br")


def test_a_file_goes_up_and_comes_down_whole(
    page: Page, deployment: Deployment, tmp_path: Path
) -> None:
    sent = tmp_path / "sent.bin"
    sent.write_bytes(secrets.token_bytes(12_000_000))
    sign_in(page, deployment, "/files")
    page.locator("input[type=file]").first.set_input_files(sent)
    row = page.get_by_text("sent.bin").first
    expect(row).to_be_visible()
    with page.expect_download() as download:
        page.evaluate(
            """() => {
                const link = document.createElement("a");
                link.href = "/api/files/download?path=~/sent.bin";
                link.download = "";
                link.click();
            }"""
        )
    assert Path(download.value.path()).read_bytes() == sent.read_bytes()


def test_a_chat_is_held_and_found_again_after_sleep_and_wake(
    page: Page, deployment: Deployment
) -> None:
    sockets: dict[str, WebSocket] = {}
    # The newest of each: a page may connect anew.
    page.on("websocket", lambda socket: sockets.update({socket.url.split("?")[0]: socket}))
    sign_in(page, deployment, "/chat")
    say(page, "My cat is called Ada.")
    base = f"ws://127.0.0.1:{deployment.dashboard_port}"
    opened = {f"{base}/api/{name}" for name in ("pty", "ws", "events")}
    assert opened <= set(sockets)
    assert not any(sockets[url].is_closed() for url in opened)

    deployment.call("POST", "/api/instance/sleep")
    expect(page.get_by_text("is asleep")).to_be_visible()
    assert deployment.instance_state() == "asleep"
    page.get_by_text("Wake it").click()
    expect(page.get_by_text("via API token")).to_be_visible()

    visit(page, deployment, "/sessions")
    page.get_by_text("History", exact=True).click()
    expect(page.get_by_text("My cat").first).to_be_visible()
    visit(page, deployment, "/models")
    expect(page.get_by_text("custom:sealed-rehearsal", exact=False).first).to_be_visible()


def test_a_chat_of_the_api_is_in_the_list(page: Page, deployment: Deployment) -> None:
    deployment.chat("The dog is called Rex.", session="api-chat")
    sign_in(page, deployment, "/sessions")
    page.get_by_text("History", exact=True).click()
    expect(page.get_by_text("The dog is called Rex").first).to_be_visible()


def test_gateway_and_dashboard_write_with_a_sqlite_that_loses_nothing(
    page: Page, deployment: Deployment
) -> None:
    """What wrote a database is noted in it, and what a process has loaded the system knows."""
    assert deployment.chat("Write this down.", "note").status == 200
    sign_in(page, deployment, "/sessions")
    database = next(deployment.state.glob("engine/disks/*/disk/home/.hermes/state.db"))
    assert int.from_bytes(database.read_bytes()[96:100], "big") >= 3_051_003
    loaded = {}
    for one in deployment.running():
        words = " ".join(one.words)
        if "/run_program.py" in words and words.startswith("python"):
            name = "dashboard" if "/serve_dashboard.py" in words else "gateway"
            maps = Path(f"/proc/{one.process.pid}/maps").read_text()
            loaded[name] = "/sqlite/libsqlite3.so" in maps
    assert loaded == {"dashboard": True, "gateway": True}
    assert deployment.status()["sqlite"] >= "3.51.3"


def test_the_console_answers(page: Page, deployment: Deployment) -> None:
    """The one WebSocket that no page opens by itself."""
    sign_in(page, deployment, "/sessions")
    said = page.evaluate(
        """() => new Promise((resolve, reject) => {
            const socket = new WebSocket(`ws://${location.host}/api/console`);
            socket.onmessage = ({ data }) => { socket.close(); resolve(data); };
            socket.onclose = ({ code, reason }) => reject(new Error(`closed: ${code} ${reason}`));
        })"""
    )
    assert said


def test_signing_out_ends_the_session_everywhere(page: Page, deployment: Deployment) -> None:
    sign_in(page, deployment, "/sessions")
    (cookie,) = page.context.cookies()
    assert deployment.token not in cookie["value"]
    assert cookie["httpOnly"]
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.context.add_cookies([cookie])  # kept by somebody
    url = f"http://127.0.0.1:{deployment.dashboard_port}/api/sessions"
    assert page.request.get(url).status == 401


def test_the_token_of_the_boot_never_reaches_the_browser(
    page: Page, deployment: Deployment
) -> None:
    """Who got hold of it could go round the gate, where the sandbox is a process."""
    sign_in(page, deployment, "/sessions")
    assert page.evaluate("window.__HERMES_SESSION_TOKEN__ ?? null") is None
    assert "HERMES_SESSION_TOKEN" not in page.content()


STREAMED = """async ([url, token]) => {
    const answer = await fetch(`${url}/v1/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        body: JSON.stringify({ model: "hermes", stream: true, messages: [{ role: "user", content: "Hello" }] }),
    });
    const pieces = [];
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) pieces.push(piece);
    return { id: answer.headers.get("x-request-id"), pieces };
}"""


def test_an_app_of_a_listed_origin_may_chat_and_no_other(
    page: Page, deployment: Deployment
) -> None:
    page.route("**/app", lambda route: route.fulfill(content_type="text/html", body="an app"))
    where = [deployment.url, deployment.token]
    # The browser asks its user before a page may reach programs on the same machine.
    page.context.grant_permissions(["local-network-access"])
    go(page, f"{APP}/app")
    answer = page.evaluate(STREAMED, where)
    assert answer["id"]
    said = "".join(answer["pieces"])
    assert said.count("data: ") > 2
    assert "data: [DONE]" in said
    go(page, f"{STRANGER}/app")
    with pytest.raises(Error, match="Failed to fetch"):
        page.evaluate(STREAMED, where)
