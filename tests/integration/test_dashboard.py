# SPDX-License-Identifier: Apache-2.0
"""Hermes' dashboard in a real browser, through the gate: what a person does there works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from plays import Deployment
from playwright.sync_api import Browser, Page, WebSocket, expect, sync_playwright

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
    yield page
    context.close()


def visit(page: Page, deployment: Deployment, path: str) -> None:
    page.goto(f"http://127.0.0.1:{deployment.dashboard_port}{path}")


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
