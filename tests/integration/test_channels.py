# SPDX-License-Identifier: Apache-2.0
"""People write to Hermes by a channel, awake and asleep; what is judged is what the platform was sent."""

from __future__ import annotations

import base64
import json
import re
import secrets
import struct
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from appointments import ask_hermes, newest_backup, run_now, soon, use
from clouds import Clouded, open_account
from plays import Deployment, wait_until
from test_survival import processes

from tests.cloudflare import ControlPlane
from tests.standins.discord import Discord
from tests.standins.multipart import File
from tests.standins.provider import Provider
from tests.standins.slack import Slack
from tests.standins.telegram import Telegram
from tests.standins.twilio import Twilio
from tests.standins.webhooks import Sender, send
from tests.standins.whatsapp import WhatsApp

ANN, BOB, STRANGER = 77, 88, 666
OUTSIDE = "https://hermes.example.com"
SENDERS = {
    kind: Sender(kind, f"whsec_{'QUJD' * 8}" if kind == "svix" else f"secret-of-{kind}")
    for kind in ("github", "gitlab", "stripe", "svix", "hmac")
}
HOOKS = {
    kind: {"kind": kind, "secret": sender.secret, "prompt": "{note.text}"}
    for kind, sender in SENDERS.items()
} | {
    "alerts": {"kind": "hmac", "secret": "secret-of-alerts", "prompt": "Look: {note.text}"}
    | {"chat": f"telegram:{ANN}"},
    "notices": {"kind": "hmac", "secret": "secret-of-notices", "prompt": "Notice: {note.text}"}
    | {"chat": f"telegram:{ANN}", "deliver_only": True},
}


@pytest.fixture(scope="module")
def chatty(
    make_deployment: Callable[..., Deployment], telegram: Telegram, provider: Provider
) -> Deployment:
    """A Hermes to which two people may write by Telegram."""
    made = make_deployment(
        "chatty",
        hermes_channels={
            "telegram": {"token": telegram.token, "allow": [ANN, BOB], "home": ANN},
            "hooks": HOOKS,
        },
        hermes_telegram_api_url=telegram.url,
        hermes_default_model="custom/stand-in",
        hermes_provider_base_url=provider.url + "/v1",
        custom_api_key=provider.key,
    )
    made.deploy()
    return made


def texts(telegram: Telegram, message: int) -> list[str]:
    return [one.text for one in telegram.answers(message)]


def test_a_message_is_answered_awake_and_asleep(chatty: Deployment, telegram: Telegram) -> None:
    assert "hello" in telegram.await_answer(telegram.write("hello", ANN)).text
    assert ANN in telegram.typing
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    answer = telegram.await_answer(telegram.write("good morning", BOB))
    assert answer.chat == BOB
    assert "good morning" in answer.text


def test_a_second_deploy_changes_nothing_and_writes_nothing_there(
    chatty: Deployment, telegram: Telegram
) -> None:
    before = len(telegram.calls)
    play = chatty.deploy()
    assert play.changed(chatty.name) == 0
    asked = {method for method, _ in telegram.calls[before:]}
    assert asked <= {"getMe", "getWebhookInfo", "getUpdates"}
    assert f"@{telegram.name}, messages are asked for" in play.output
    assert f"webhook      {chatty.url}/hooks/github" in play.output


def test_a_message_in_a_topic_is_answered_there_and_once(
    chatty: Deployment, telegram: Telegram
) -> None:
    topic = {"message_thread_id": 5, "is_topic_message": True}
    telegram.write(f"@{telegram.name} what is new", ANN, -900, **topic)
    wait_until(lambda: telegram.waiting == 0, "the message to be taken")
    wait_until(lambda: waiting(chatty) == 0, "its turn to be over")
    (answer,) = [one for one in telegram.sent if one.chat == -900]
    assert (answer.thread, "what is new" in answer.text) == (5, True)
    assert chatty.status()["channels"]["telegram"]["again"] == 0


def png() -> bytes:
    """Return a picture that nobody has seen before, one pixel of a colour of its own."""
    pixel = zlib.compress(b"\0" + secrets.token_bytes(3))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"IDAT", pixel),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def was_seen(picture: bytes, provider: Provider, since: int) -> bool:
    """Tell whether the model was shown a picture. since: which calls came before."""
    asked = json.dumps([one.body for one in provider.seen[since:]])
    return base64.b64encode(picture).decode() in asked


def test_what_people_send_besides_text_is_what_the_model_is_asked_about(
    chatty: Deployment, telegram: Telegram, provider: Provider
) -> None:
    picture, paper, since = png(), f"paper {secrets.token_hex(8)}", len(provider.seen)
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    sizes = [telegram.attached(b"small"), telegram.attached(picture)]
    seen = telegram.write(None, ANN, photo=sizes, caption="what do you see")
    assert "what do you see" in telegram.await_answer(seen, 120).text
    assert was_seen(picture, provider, since)

    read_this = telegram.attached(paper.encode(), file_name="report.txt", mime_type="text/plain")
    answer = telegram.await_answer(telegram.write(None, ANN, document=read_this), 120)
    assert "report.txt" in answer.text
    kept = [path for path in chatty.state.rglob("*report.txt") if path.is_file()]
    assert [path.read_text() for path in kept] == [paper]
    spoken = telegram.attached(b"OggS" + secrets.token_bytes(400), mime_type="audio/ogg")
    assert telegram.await_answer(telegram.write(None, ANN, voice=spoken), 120).text

    large = telegram.attached(b"x", file_name="large.bin") | {"file_size": 20 * 1024 * 1024 + 1}
    refused = telegram.await_answer(telegram.write(None, ANN, document=large))
    assert "too large" in refused.text
    wait_until(lambda: waiting(chatty) == 0, "an end")
    assert chatty.status()["unanswered"] == []
    token = telegram.token.encode()
    assert [
        path for path in chatty.state.rglob("*") if path.is_file() and token in read(path)
    ] == []


def made_by_hermes(deployment: Deployment, name: str, data: bytes) -> str:
    """Make a file where Hermes' tools would, and return its path there: this machine offers it none that could."""
    (home,) = deployment.state.glob("engine/disks/*/disk/home/.hermes")
    (home / name).write_bytes(data)
    return f"{deployment.environment()['HERMES_HOME']}/{name}"


def test_what_hermes_makes_comes_into_the_chat_as_what_it_is_and_once(
    chatty: Deployment, telegram: Telegram
) -> None:
    assert chatty.call("POST", "/api/instance/wake").status == 200
    picture, paper = png(), secrets.token_bytes(1 << 20)
    path = made_by_hermes(chatty, "drawn.png", picture)
    asked = telegram.write(f"Show it, please. MEDIA:{path}", ANN)
    shown = telegram.await_file("drawn.png")
    assert (shown.chat, shown.kind) == (ANN, "photo")
    assert shown.file == File("drawn.png", "image/png", picture)
    said = telegram.await_answer(asked)
    assert path not in said.text
    assert said.id < shown.id

    path = made_by_hermes(chatty, "report.pdf", paper)
    telegram.busy[BOB] = 2
    telegram.write(f"MEDIA:{path}", BOB)
    given = telegram.await_file("report.pdf")
    assert (given.chat, given.kind) == (BOB, "document")
    assert given.file == File("report.pdf", "application/pdf", paper)

    # Hermes may read what its sandbox was started with, and give away none of it.
    run = chatty.environment()["SANDBOX_RUN"]
    telegram.await_answer(telegram.write(f"Show me MEDIA:{run}/env.json", ANN))
    wait_until(lambda: waiting(chatty) == 0, "an end")
    files = [one.file.name for one in telegram.sent if one.file is not None]
    assert [files.count(name) for name in ("drawn.png", "report.pdf", "env.json")] == [1, 1, 0]
    assert chatty.status()["unanswered"] == []


@pytest.mark.parametrize("victim", ["hermes", "engine", "workerd", "supervisor"])
def test_a_message_outlives_whatever_is_killed_during_its_turn(
    chatty: Deployment, telegram: Telegram, provider: Provider, victim: str
) -> None:
    provider.pause, asked = 0.5, len(provider.seen)
    before = twice(chatty)
    message = telegram.write(f"one two three, {victim} dies now", ANN)
    later = telegram.write(f"and after {victim}", ANN)
    wait_until(lambda: len(provider.seen) > asked, "a turn under way")
    killed = processes(chatty)[victim]
    killed.kill()
    provider.pause = 0.0
    assert f"{victim} dies now" in telegram.await_answer(message, 120).text
    assert f"and after {victim}" in telegram.await_answer(later, 120).text

    def is_back() -> bool:
        with suppress(OSError, LookupError, psutil.Error):
            found = processes(chatty)
            return found[victim].pid != killed.pid and "workerd" in found and chatty.status() != {}
        return False

    # Of a supervisor that is dead the processes may answer yet, before another one ends them.
    wait_until(is_back, f"another {victim}")
    order = [one.reply_to for one in telegram.sent if one.reply_to in (message, later)]
    assert list(dict.fromkeys(order)) == [message, later]
    # An answer that the platform had taken when the kill came may be sent again: nobody had noted it. That is told.
    assert len(order) - 2 <= twice(chatty) - before <= 1


def test_what_a_platform_will_not_take_now_is_sent_later_and_once(
    chatty: Deployment, telegram: Telegram
) -> None:
    telegram.busy[ANN] = 2
    message = telegram.write("busy?", ANN)
    telegram.await_answer(message)
    assert len(texts(telegram, message)) == 1
    telegram.blocked.add(BOB)
    telegram.write("blocked", BOB)
    wait_until(lambda: telegram.waiting == 0, "the message to be taken")
    wait_until(lambda: waiting(chatty) == 0, "an end to what cannot be sent")
    telegram.blocked.clear()


def waiting(deployment: Deployment) -> int:
    return int(deployment.status()["channels"]["telegram"]["waiting"])


def twice(deployment: Deployment) -> int:
    """How many answers people may have seen twice, as it is told."""
    return int(deployment.status()["channels"]["telegram"]["twice"])


def test_who_is_not_allowed_wakes_nobody_and_learns_nothing(
    chatty: Deployment, telegram: Telegram
) -> None:
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    calls = len(telegram.calls)
    for number in range(30):
        telegram.write(f"let me in {number}", STRANGER)
    wait_until(lambda: telegram.waiting == 0, "all updates to be taken")
    assert chatty.instance_state() == "asleep"
    assert {method for method, _ in telegram.calls[calls:]} == {"getUpdates"}
    assert waiting(chatty) == 0


def test_a_stranger_with_a_code_is_let_in_where_the_owner_wants_it(
    chatty: Deployment, telegram: Telegram
) -> None:
    chatty.variables["hermes_channels"]["telegram"]["pairing"] = True
    chatty.deploy()
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    asked = telegram.write("let me in", STRANGER)
    (code,) = re.findall(r"\b[A-HJ-NP-Z2-9]{8}\b", telegram.await_answer(asked).text)
    telegram.write("let me in now", STRANGER)
    wait_until(lambda: telegram.waiting == 0, "all updates to be taken")
    assert chatty.instance_state() == "asleep"
    assert len([one for one in telegram.sent if one.chat == STRANGER]) == 1
    status = chatty.play("status").output
    assert f"{STRANGER} (User{STRANGER}) asks to be let in" in status
    assert code not in status

    wrong = chatty.play("pair", "-e", "hermes_pair=AAAAAAAA")
    assert wrong.code != 0 and "nobody was given this code" in wrong.output
    predicted = chatty.play("pair", "-e", f"hermes_pair={code}", "--check")
    assert (predicted.code, predicted.changed(chatty.name)) == (0, 1)
    play = chatty.play("pair", "-e", f"hermes_pair={code.lower()}")
    assert (play.code, play.changed(chatty.name)) == (0, 1), play.output
    assert f"{STRANGER} (User{STRANGER}) may write by telegram" in play.output
    assert f"{STRANGER} (User{STRANGER}) may write by telegram" in chatty.play("pair").output
    assert "friend" in telegram.await_answer(telegram.write("friend", STRANGER), 120).text

    gone = chatty.play("pair", "-e", f"hermes_unpair=telegram:{STRANGER}")
    assert (gone.code, gone.changed(chatty.name)) == (0, 1), gone.output
    again = chatty.play("pair", "-e", f"hermes_unpair=telegram:{STRANGER}")
    assert (again.code, again.changed(chatty.name)) == (0, 0)
    assert chatty.play("pair", "-e", "hermes_unpair=eve").code != 0
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    telegram.await_answer(telegram.write("and now", STRANGER))
    assert chatty.instance_state() == "asleep"
    del chatty.variables["hermes_channels"]["telegram"]["pairing"]
    chatty.deploy()


def asked_of(provider: Provider, since: int) -> list[str]:
    """What Hermes asked its provider for with the words of a webhook; a title for its session it asks for in others."""
    found = [
        str(seen.body["messages"][-1]["content"]) for seen in provider.seen[since:] if seen.body
    ]
    return [text for text in found if text.startswith("[webhook")]


def to(deployment: Deployment, name: str) -> str:
    return f"{deployment.url}/hooks/{name}"


def nothing_waits(deployment: Deployment) -> bool:
    return not any(one["waiting"] for one in deployment.status()["channels"].values())


def test_a_webhook_that_is_forged_old_or_anothers_is_refused_and_wakes_nobody(
    chatty: Deployment,
) -> None:
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    refused = 401, "bad_signature"
    for kind, sender in SENDERS.items():
        body, headers = sender.delivery("forged")
        (signed,) = [name for name in headers if re.search("(?i)signature|token", name)]
        nearly = headers[signed]
        changed = f"{nearly[:-5]}{'1' if nearly[-5] == '0' else '0'}{nearly[-4:]}"
        assert send(to(chatty, kind), (body, headers | {signed: changed})) == refused
        del headers[signed]
        assert send(to(chatty, kind), (body, headers)) == refused
        if kind != "gitlab":
            body, headers = sender.delivery("forged")
            assert send(to(chatty, kind), (body.replace(b"for", b"fOr"), headers)) == refused
        if kind not in ("github", "gitlab"):
            for at in (time.time() - 400, time.time() + 400):
                assert send(to(chatty, kind), sender.delivery("old", at)) == refused
        another = Sender(kind, f"whsec_{'QUJE' * 8}" if kind == "svix" else "secret-of-nobody")
        assert send(to(chatty, kind), another.delivery("other")) == refused
    assert send(to(chatty, "nobody"), SENDERS["hmac"].delivery("lost")) == (404, "no_channel")
    assert chatty.instance_state() == "asleep"


def test_a_hundred_webhooks_to_a_sleeping_hermes_are_one_boot_and_a_hundred_turns(
    chatty: Deployment, provider: Provider
) -> None:
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    boots, since = chatty.status()["boots"], len(provider.seen)
    texts = [f"delivery {number} of {kind}." for kind in SENDERS for number in range(20)]
    sent = [(text, SENDERS[text.split()[-1][:-1]]) for text in texts]
    deliveries = [(to(chatty, sender.kind), sender.delivery(text)) for text, sender in sent]
    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(lambda one: send(*one), [*deliveries, *deliveries[::10]]))
    assert sorted(told) == [(200, "known")] * 10 + [(200, "new")] * 100
    wait_until(lambda: nothing_waits(chatty), "an end to all of them", 240)
    asked = asked_of(provider, since)
    assert {text: sum(text in one for one in asked) for text in texts} == dict.fromkeys(texts, 1)
    status = chatty.status()
    assert status["boots"] == boots + 1
    assert sum(one["again"] for name, one in status["channels"].items() if "hooks" in name) == 0


def test_a_webhook_speaks_in_a_chat_and_a_notice_wakes_nobody(
    chatty: Deployment, telegram: Telegram
) -> None:
    # A bot may write first to nobody who never wrote to it.
    telegram.await_answer(telegram.write("hello", ANN))
    alert = Sender("hmac", "secret-of-alerts").delivery("the house burns")
    assert send(to(chatty, "alerts"), alert) == (200, "new")
    wait_until(lambda: nothing_waits(chatty), "its turn")
    (answer,) = [one for one in telegram.sent if "the house burns" in one.text]
    assert (answer.chat, answer.reply_to) == (ANN, None)
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    notice = Sender("hmac", "secret-of-notices").delivery("rain")
    assert send(to(chatty, "notices"), notice) == (200, "new")
    wait_until(lambda: nothing_waits(chatty), "the notice")
    assert [one.text for one in telegram.sent[-1:]] == ["Notice: rain"]
    assert chatty.instance_state() == "asleep"


def test_a_job_of_a_sleeping_hermes_is_told_at_home_and_where_it_was_asked_for_once(
    chatty: Deployment, telegram: Telegram
) -> None:
    # A bot may write first to nobody who never wrote to it.
    telegram.await_answer(telegram.write("hello", ANN))
    picture = png()
    path = made_by_hermes(chatty, "lamp.png", picture)
    oil = f"Oil. MEDIA:{path}"
    lamp = {"action": "create", "name": "lamp", "prompt": oil, "deliver": "telegram"}
    use(chatty, "cronjob", schedule=soon(), **lamp)
    asked = {"action": "create", "name": "boat", "prompt": "Tar.", "schedule": soon()}
    telegram.await_answer(telegram.write(f"Please call cronjob {json.dumps(asked)}", BOB))
    before = twice(chatty)
    # It sleeps again before the platform takes what it says.
    telegram.busy[ANN] = 3
    assert chatty.call("POST", "/api/instance/sleep").status == 200
    assert chatty.status()["nextWake"] is not None
    for chat, job, errand in ((ANN, "lamp", "Oil."), (BOB, "boat", "Tar.")):
        telegram.await_text(f"Response: {job}", 180)
        (sent,) = [one for one in telegram.sent if f"Response: {job}" in one.text]
        assert (sent.chat, sent.reply_to, errand in sent.text) == (chat, None, True)
    shown = telegram.await_file("lamp.png")
    assert (shown.chat, shown.kind, shown.file and shown.file.data) == (ANN, "photo", picture)
    assert path not in "".join(one.text for one in telegram.sent[-3:])
    assert chatty.status()["whyAwake"] == "cron"
    wait_until(lambda: waiting(chatty) == 0, "what the platform took to be noted")
    assert twice(chatty) == before


def test_hermes_has_no_other_way_to_write_by_itself_than_a_job(
    chatty: Deployment, telegram: Telegram, provider: Provider
) -> None:
    telegram.await_answer(telegram.write("hello", ANN))
    bodies = [seen.body for seen in provider.seen if seen.body]
    tools = {tool["function"]["name"] for body in bodies for tool in body.get("tools", [])}
    assert "cronjob" in tools
    assert not [name for name in tools if "send" in name]


def test_what_hermes_sends_elsewhere_is_refused_to_it_in_words(
    chatty: Deployment, telegram: Telegram
) -> None:
    assert chatty.call("POST", "/api/instance/wake").status == 200
    sent = len(telegram.sent)
    spy = {"name": "spy", "schedule": "0 0 1 1 *", "prompt": "What is new?"}
    spy["deliver"] = f"telegram:{STRANGER}"
    made = ask_hermes(chatty, "POST", "/api/jobs", spy)["job"]["id"]
    noted = run_now(chatty, made)
    assert f"telegram:{STRANGER} is no chat to write to" in noted["last_delivery_error"]
    assert STRANGER not in {one.chat for one in telegram.sent[sent:]}
    ask_hermes(chatty, "DELETE", f"/api/jobs/{made}")


def test_no_token_is_where_hermes_is(chatty: Deployment, telegram: Telegram) -> None:
    telegram.await_answer(telegram.write("are you there", ANN))
    hooks = [hook["secret"] for hook in HOOKS.values()]
    files = [path for path in chatty.state.rglob("*") if path.is_file()]
    assert len(files) > 10
    for secret in [telegram.token.partition(":")[2], *hooks]:
        assert secret not in json.dumps(chatty.environment())
        assert [path for path in files if secret.encode() in read(path)] == []


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def slack() -> Iterator[Slack]:
    with Slack() as running:
        yield running


@pytest.fixture(scope="module")
def whatsapp() -> Iterator[WhatsApp]:
    with WhatsApp() as running:
        yield running


@pytest.fixture(scope="module")
def twilio() -> Iterator[Twilio]:
    with Twilio() as running:
        yield running


@pytest.fixture(scope="module")
def discord() -> Iterator[Discord]:
    with Discord() as running:
        yield running


@pytest.fixture(scope="module")
def reached(
    chatty: Deployment,
    telegram: Telegram,
    slack: Slack,
    whatsapp: WhatsApp,
    twilio: Twilio,
    discord: Discord,
) -> Deployment:
    """The same one, with an address at which Telegram reaches it, and platforms that need one."""
    telegram.reaches[OUTSIDE] = chatty.url
    calls = len(telegram.calls)
    chatty.variables["hermes_public_url"] = OUTSIDE
    chatty.variables["hermes_channels"] |= {
        "slack": {
            "token": slack.token,
            "signing_secret": slack.secret,
            "allow": ["U0ANN00"],
            "api_url": slack.url,
        },
        "whatsapp_cloud": {
            "token": whatsapp.token,
            "app_secret": whatsapp.secret,
            "verify_token": whatsapp.verify_token,
            "phone_number_id": whatsapp.number_id,
            "allow": ["+491701234567"],
            "api_url": whatsapp.url,
        },
        "sms": {
            "account_sid": twilio.account,
            "auth_token": twilio.token,
            "number": twilio.number,
            "allow": ["+491701234567", "+12125550123"],
            "api_url": twilio.url,
        },
        "discord": {
            "token": discord.token,
            "application_id": discord.application,
            "public_key": discord.public_key,
            "allow": ["111111111111111111"],
            "api_url": discord.url,
        },
    }
    for platform in (twilio, discord):
        platform.reaches[OUTSIDE] = chatty.url
    play = chatty.deploy()
    assert telegram.webhook["url"] == f"{OUTSIDE}/channels/telegram"
    assert f"messages come to {OUTSIDE}" in play.output
    assert "deleteWebhook" not in [method for method, _ in telegram.calls[calls:]]
    told = f"slack        @hermes, messages come to {OUTSIDE}/channels/slack (to be said at api.slack.com/apps"
    assert told in play.output
    assert twilio.sms_url == f"{OUTSIDE}/channels/sms"
    assert discord.endpoint == f"{OUTSIDE}/channels/discord"
    assert list(discord.commands) == ["hermes"]
    # Of these two the play says what is to be typed at the platform.
    slack.set_request_url(f"{chatty.url}/channels/slack")
    whatsapp.set_callback(f"{chatty.url}/channels/whatsapp_cloud")
    return chatty


def test_a_webhook_is_set_once_and_put_right_again(
    reached: Deployment, telegram: Telegram, twilio: Twilio, discord: Discord
) -> None:
    def found() -> dict[str, str | None]:
        where = telegram.webhook["url"], twilio.sms_url, discord.endpoint
        return dict(zip(("telegram", "sms", "discord"), where, strict=True))

    ours: dict[str, str | None] = {name: f"{OUTSIDE}/channels/{name}" for name in found()}
    play = reached.deploy()
    assert play.changed(reached.name) == 0
    others = {name: f"https://somebody.else.example.com/{name}" for name in ours}
    telegram.webhook["url"], twilio.sms_url, discord.endpoint = others.values()
    play = reached.play("deploy", "--check")
    assert play.changed(reached.name) == 1
    planned = re.sub(r"\s+", " ", play.output)
    for name, address in others.items():
        assert f"{name}: {address} was found" in planned
    assert found() == others
    play = reached.deploy()
    assert play.changed(reached.name) == 1
    assert found() == ours
    for address in ours.values():
        assert f"messages come to {address}" in play.output
    assert reached.deploy().changed(reached.name) == 0


def test_slack_wakes_hermes_and_is_answered_where_it_asked_once(
    reached: Deployment, slack: Slack, provider: Provider
) -> None:
    assert reached.call("POST", "/api/instance/sleep").status == 200
    slack.write("let me in", "U0EVE00", "D0EVE00")
    forged = slack.event("forged", "U0ANN00", "D0ANN00")[1]
    assert slack.send(slack.request_url, forged + b" ", slack.signed(forged))[0] == 401
    old = slack.signed(forged, time.time() - 400)
    assert slack.send(slack.request_url, forged, old)[0] == 401
    assert reached.instance_state() == "asleep"
    slack.write("good morning", "U0ANN00", "D0ANN00")
    direct = slack.await_sent("good morning")
    assert (direct.chat, direct.thread) == ("D0ANN00", None)
    slack.busy["C0GENERAL"] = 1
    asked = slack.write("what is new", "U0ANN00", "C0GENERAL", twice=True)
    assert slack.await_sent("what is new").thread == asked
    assert slack.command("/hermes", "by a command", "U0ANN00", "C0ELSEWHERE") == (200, b"")
    assert slack.await_sent("by a command").way == "command"
    wait_until(lambda: nothing_waits(reached), "an end to all of them")
    said = [one.text for one in slack.sent]
    assert len(said) == 3, said
    picture, since = png(), len(provider.seen)
    shared = {"subtype": "file_share", "files": [slack.attached(picture, "a.png", "image/png")]}
    slack.write("look at this", "U0ANN00", "D0ANN00", **shared)
    slack.await_sent("look at this")
    assert was_seen(picture, provider, since)
    path = made_by_hermes(reached, "for-slack.png", picture)
    asked = slack.write(f"Show it. MEDIA:{path}", "U0ANN00", "C0GENERAL")
    shown = slack.await_file("for-slack.png")
    assert (shown.chat, shown.thread) == ("C0GENERAL", asked)
    assert shown.file == File("for-slack.png", "image/png", picture)


def test_whatsapp_sms_and_discord_wake_hermes_too(
    reached: Deployment,
    whatsapp: WhatsApp,
    twilio: Twilio,
    discord: Discord,
    provider: Provider,
) -> None:
    ann, eve, user = "491701234567", "491709999999", "111111111111111111"
    assert reached.call("POST", "/api/instance/sleep").status == 200
    whatsapp.set_callback(f"{reached.url}/channels/whatsapp_cloud")
    _, update = whatsapp.written("forged", ann)
    assert whatsapp.deliver(update, update + b" ") == 401
    assert whatsapp.deliver(whatsapp.written("let me in", eve)[1]) == 200
    assert whatsapp.deliver(whatsapp.update(statuses=[{"id": "wamid.0", "status": "read"}])) == 200
    forged = twilio.form("forged", f"+{ann}")
    right = twilio.signature(twilio.sms_url, forged)
    assert twilio.deliver(forged | {"Body": "for9ed"}, right)[0] == 401
    assert twilio.deliver(forged, twilio.signature(reached.url, forged))[0] == 401
    assert twilio.deliver(twilio.form("let me in", f"+{eve}"))[0] == 200
    stranger = discord.command("let me in", "222222222222222222", "333333333333333333")
    assert discord.deliver(stranger) == (200, None)
    asked = discord.command("on discord", user, "333333333333333333")
    assert discord.deliver(asked, forged=True)[0] == 401
    assert discord.deliver(asked, at=time.time() - 400)[0] == 401
    assert reached.instance_state() == "asleep"

    name, update = whatsapp.written("on whatsapp", ann)
    whatsapp.busy[ann] = 1
    assert [whatsapp.deliver(update), whatsapp.deliver(update)] == [200, 200]
    answer = whatsapp.await_sent("on whatsapp")
    assert (answer.chat, answer.reply_to) == (ann, name)
    message = twilio.form("by sms", f"+{ann}")
    twilio.busy[f"+{ann}"] = 1
    for _ in range(2):
        status, told = twilio.deliver(message)
        assert (status, b"<Response/>" in told) == (200, True)
    assert twilio.await_sent("by sms").chat == f"+{ann}"
    assert [discord.deliver(asked), discord.deliver(asked)] == [(200, {"type": 5})] * 2
    answer = discord.await_sent("on discord")
    assert (answer.chat, answer.way) == (asked["token"], "interaction")
    wait_until(lambda: nothing_waits(reached), "an end to all of them")
    assert [len(one.sent) for one in (whatsapp, twilio, discord)] == [1, 1, 1]
    status = reached.status()["channels"]
    assert {name for name, one in status.items() if one["trouble"]} == set()
    picture, since = png(), len(provider.seen)
    assert whatsapp.deliver(whatsapp.shown(picture, "see here", ann)[1]) == 200
    whatsapp.await_sent("see here")
    assert was_seen(picture, provider, since)
    picture, since = png(), len(provider.seen)
    assert twilio.deliver(twilio.pictured(picture, "and here", f"+{ann}"))[0] == 200
    twilio.await_sent("and here")
    assert was_seen(picture, provider, since)
    assert twilio.proofs == [""]

    # What each of them shows; Discord where it was asked.
    path = made_by_hermes(reached, "drawn-again.png", picture)
    _, update = whatsapp.written(f"Show it. MEDIA:{path}", ann)
    assert whatsapp.deliver(update) == 200
    shown = whatsapp.await_file("drawn-again.png")
    assert (shown.chat, shown.way, shown.file and shown.file.data) == (ann, "image", picture)
    assert twilio.deliver(twilio.form(f"Show it. MEDIA:{path}", f"+{ann}"))[0] == 200
    german = twilio.await_sent(
        "I could not send you the file drawn-again.png: Twilio: Message cannot"
    )
    assert german.chat == f"+{ann}"
    # Twilio fetches what it sends, in the countries where it does, and nobody does after it.
    assert twilio.deliver(twilio.form(f"Here it is. MEDIA:{path}", "+12125550123"))[0] == 200
    sent = twilio.await_file("drawn-again.png")
    assert (sent.chat, sent.file and sent.file.data) == ("+12125550123", picture)
    assert twilio.await_sent("Here it is.").chat == "+12125550123"
    wait_until(lambda: nothing_waits(reached), "Twilio to be done with it")
    assert reached.call("GET", twilio.fetched[0].removeprefix(OUTSIDE), token="").status == 401
    # Meta tells only after it took an answer that it is too late for it.
    _, update = whatsapp.written("too late", ann)
    whatsapp.open_for.discard(ann)
    assert whatsapp.deliver(update) == 200
    wait_until(
        lambda: reached.status()["channels"]["whatsapp_cloud"]["refused"] == 1,
        "WhatsApp's word that it did not send it",
    )
    asked = discord.command(f"Show it. MEDIA:{path}", user, "333333333333333333")
    assert discord.deliver(asked) == (200, {"type": 5})
    shown = discord.await_file("drawn-again.png")
    assert (shown.chat, shown.file and shown.file.data) == (asked["token"], picture)
    wait_until(lambda: nothing_waits(reached), "an end to all of them")


def asking(question: str) -> str:
    """Have Hermes' model ask something in the middle of a turn."""
    return f"Please call clarify {json.dumps({'question': question, 'choices': ['up', 'down']})}"


def test_slack_and_discord_have_buttons_and_others_words(
    reached: Deployment, slack: Slack, discord: Discord, whatsapp: WhatsApp, provider: Provider
) -> None:
    since = len(provider.seen)

    def was_told(words: str) -> bool:
        asked = [one.body["messages"] for one in provider.seen[since:] if one.body]
        said = [one["content"] for every in asked for one in every if one["role"] == "tool"]
        return any(f'"user_response": "{words}"' in one for one in said)

    thread = slack.write(asking("Which way?"), "U0ANN00", "C0GENERAL")
    question = slack.await_sent("❓ Which way?")
    assert [label for label, _ in question.buttons] == ["up", "down"]
    assert question.thread == thread
    assert slack.press(question, "down", "U0EVE00") == (200, b"")
    assert slack.press(question, "up", "U0ANN00") == (200, b"")
    slack.await_sent("The stand-in heard: Please call clarify")
    assert was_told("up")
    wait_until(lambda: "→ up" in question.text, "Slack to show what was chosen")
    assert question.buttons == ()

    since = len(provider.seen)
    asked = discord.command(asking("Which floor?"), "111111111111111111", "333333333333333333")
    assert discord.deliver(asked) == (200, {"type": 5})
    question = discord.await_sent("❓ Which floor?")
    for user in ("222222222222222222", "111111111111111111"):
        pressed = discord.pressed(question, "down", user, "333333333333333333")
        assert discord.deliver(pressed) == (200, {"type": 6})
    wait_until(lambda: "→ down" in question.text, "Discord to show what was chosen")
    assert question.buttons == ()
    wait_until(lambda: nothing_waits(reached), "an end")
    assert was_told("down")

    since = len(provider.seen)
    ann = "491701234567"
    assert whatsapp.deliver(whatsapp.written(asking("Which side?"), ann)[1]) == 200
    assert "Reply with the number" in whatsapp.await_sent("❓ Which side?").text
    assert whatsapp.deliver(whatsapp.written("2", ann)[1]) == 200
    wait_until(lambda: nothing_waits(reached), "an end")
    assert was_told("down")


def test_a_message_that_is_changed_while_it_waits_is_read_as_it_is_by_then(
    reached: Deployment, telegram: Telegram, slack: Slack, provider: Provider
) -> None:
    provider.wakes.clear()
    provider.silent = "hold on, Ann"
    telegram.write("hold on, Ann", ANN)
    wait_until(lambda: provider.silent == "", "Hermes to be at it")
    late = telegram.write("the frist thing", ANN)
    telegram.edit(late, "the first thing", ANN)
    wait_until(lambda: telegram.waiting == 0, "both to be taken")
    provider.wakes.set()
    assert "the first thing" in telegram.await_answer(late).text

    provider.wakes.clear()
    provider.silent = "hold on, Slack"
    slack.write("hold on, Slack", "U0ANN00", "D0ANN00")
    wait_until(lambda: provider.silent == "", "Hermes to be at it")
    late_one = slack.write("the secnod thing", "U0ANN00", "D0ANN00")
    assert slack.edit(late_one, "Eve was here", "U0EVE00", "D0ANN00") == (200, b"")
    assert slack.edit(late_one, "the second thing", "U0ANN00", "D0ANN00") == (200, b"")
    provider.wakes.set()
    slack.await_sent("the second thing")
    wait_until(lambda: nothing_waits(reached), "an end")
    said = " ".join(one.text for one in [*telegram.sent, *slack.sent])
    assert [word in said for word in ("frist", "secnod", "Eve was here")] == [False, False, False]


def test_no_secret_of_a_channel_is_in_a_sandbox_a_backup_a_log_or_what_is_kept(
    reached: Deployment,
    telegram: Telegram,
    slack: Slack,
    whatsapp: WhatsApp,
    twilio: Twilio,
    discord: Discord,
) -> None:
    secrets = {
        "telegram": telegram.token.partition(":")[2],
        "telegram's proof": telegram.webhook["secret_token"],
        "slack": slack.token,
        "slack's signature": slack.secret,
        "whatsapp": whatsapp.token,
        "whatsapp's signature": whatsapp.secret,
        "whatsapp's word": whatsapp.verify_token,
        "twilio": twilio.token,
        "discord": discord.token,
    } | {name: str(hook["secret"]) for name, hook in HOOKS.items()}
    telegram.await_answer(telegram.write("what do you know?", ANN))
    told = reached.deploy("-vv").output
    assert reached.call("POST", "/api/instance/backups").status == 200
    engine = processes(reached)["engine"]
    below = {one.pid for one in [engine, *engine.children(recursive=True)]}
    inside = [one for one in reached.running() if one.process.pid in below]
    assert any("gateway" in one.words for one in inside)
    places = {f"the {one.name}'s process": f"{one.words}{one.environment}" for one in inside}
    places |= {"a play": told, "a backup": "".join(newest_backup(reached).values())}
    texts = {name: text.encode(errors="replace") for name, text in places.items()}
    texts |= {str(path): read(path) for path in reached.state.rglob("*") if path.is_file()}
    assert any(name.endswith(".sqlite") for name in texts), "the Worker keeps nothing?"
    found = [
        (name, place)
        for name, secret in secrets.items()
        for place, text in texts.items()
        if secret.encode() in text
    ]
    assert found == []


def test_a_hundred_deliveries_of_ten_messages_are_ten_turns(
    reached: Deployment, telegram: Telegram, provider: Provider
) -> None:
    assert reached.call("POST", "/api/instance/sleep").status == 200
    boots, asked = reached.status()["boots"], len(provider.seen)
    messages = [telegram.write(f"message {number} of ten", ANN) for number in range(10)]
    for message in messages:
        telegram.await_answer(message, 120)
    known = [{"update_id": 5000, "message": an_update("twice", ANN, 9001)}] * 2
    assert [post(reached, telegram, update) for update in known] == [200, 200]
    wait_until(lambda: waiting(reached) == 0, "an end")
    assert [len(texts(telegram, message)) for message in messages] == [1] * 10
    assert reached.status()["boots"] == boots + 1
    turns = [body for seen in provider.seen[asked:] if (body := seen.body)]
    said = [text for body in turns for text in [str(body["messages"][-1]["content"])]]
    assert sum("twice" in text for text in said) == 1


def an_update(text: str, user: int, number: int) -> dict[str, Any]:
    return {
        "message_id": number,
        "from": {"id": user, "is_bot": False, "first_name": "A"},
        "chat": {"id": user, "type": "private"},
        "text": text,
    }


def post(deployment: Deployment, telegram: Telegram, update: Any, proof: str | None = None) -> int:
    """Send an update as Telegram does; returns the status."""
    secret = telegram.webhook["secret_token"] if proof is None else proof
    headers = {"Content-Type": "application/json", "X-Telegram-Bot-Api-Secret-Token": secret}
    request = urllib.request.Request(
        f"{deployment.url}/channels/telegram", json.dumps(update).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_whoever_is_not_telegram_is_refused(reached: Deployment, telegram: Telegram) -> None:
    assert reached.call("POST", "/api/instance/sleep").status == 200
    right = telegram.webhook["secret_token"]
    update = {"update_id": 6000, "message": an_update("forged", ANN, 9100)}
    wrong = ["", "x", right[:-1], right[:-1] + ("0" if right[-1] != "0" else "1"), right + "0"]
    assert [post(reached, telegram, update, proof) for proof in wrong] == [401] * 5
    assert post(reached, telegram, "no update") == 400
    assert reached.instance_state() == "asleep"


def test_new_tokens_lose_no_message(
    reached: Deployment, telegram: Telegram, slack: Slack, whatsapp: WhatsApp, twilio: Twilio
) -> None:
    """Each platform knows the new one only while the Worker still has the old one."""
    proof, ann = telegram.webhook["secret_token"], "491701234567"
    slack.write("signed by the old secret", "U0ANN00", "D0ANN00")
    assert whatsapp.deliver(whatsapp.written("before whatsapp's new token", ann)[1]) == 200
    assert twilio.deliver(twilio.form("signed by the old token", f"+{ann}"))[0] == 200
    telegram.token = telegram.token.partition(":")[0] + ":" + "n" * 35
    slack.token, slack.secret, secrets_of_slack = "xoxb-" + "9" * 30, "9" * 32, [slack.secret]
    twilio.token, tokens_of_twilio = "8" * 32, [twilio.token]
    whatsapp.token = "EAA" + "7" * 40
    channels = reached.variables["hermes_channels"]
    channels["telegram"]["token"] = telegram.token
    channels["slack"] |= {
        "token": slack.token,
        "signing_secret": [slack.secret, *secrets_of_slack],
    }
    channels["sms"]["auth_token"] = [twilio.token, *tokens_of_twilio]
    channels["whatsapp_cloud"]["token"] = whatsapp.token
    message = telegram.write("sent by the old one's proof or the new one's", ANN)
    play = reached.play("rotate_keys", "-e", "hermes_keys=channels")
    assert play.code == 0, play.output
    assert telegram.webhook["secret_token"] != proof
    telegram.await_answer(message, 120)
    slack.await_sent("signed by the old secret")
    whatsapp.await_sent("before whatsapp's new token")
    twilio.await_sent("signed by the old token")
    slack.write("signed by the new secret", "U0ANN00", "D0ANN00")
    slack.await_sent("signed by the new secret")
    assert twilio.deliver(twilio.form("signed by the new token", f"+{ann}"))[0] == 200
    twilio.await_sent("signed by the new token")
    for one in (telegram, slack, twilio, whatsapp):
        assert one.token not in play.output
    assert reached.deploy().changed(reached.name) == 0


def test_a_channel_that_is_taken_away_is_taken_away_there_too(
    reached: Deployment, telegram: Telegram, twilio: Twilio, discord: Discord
) -> None:
    proof = telegram.webhook["secret_token"]
    kept = reached.variables.pop("hermes_channels")
    reached.deploy()
    assert telegram.webhook == {}
    assert (twilio.sms_url, discord.endpoint, discord.commands) == ("", None, {})
    assert post(reached, telegram, {"update_id": 1}, proof) == 404
    assert reached.deploy().changed(reached.name) == 0
    reached.variables["hermes_channels"] = kept


WRONG = {
    "telegram": ("token", "4242:" + "x" * 35),
    "slack": ("token", "xoxb-" + "1" * 30),
    "whatsapp_cloud": ("token", "EAA" + "w" * 40),
    "sms": ("auth_token", "f" * 32),
    "discord": ("token", "x" * 60),
}


def test_tokens_that_their_platforms_do_not_know_are_told_together(reached: Deployment) -> None:
    for name, (part, wrong) in WRONG.items():
        reached.variables["hermes_channels"][name][part] = wrong
    play = reached.play("deploy")
    assert play.code != 0
    for name, (_, wrong) in WRONG.items():
        assert f"hermes_channels.{name}: " in play.output
        assert wrong not in play.output
    assert "Telegram: Unauthorized" in play.output


def test_at_cloudflare_a_message_wakes_hermes_too(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        Telegram() as telegram,
        ControlPlane(tmp_path_factory.mktemp("channels") / "plane") as plane,
    ):
        open_account(plane)
        plane.edge.internet = telegram.url.removeprefix("http://")
        declared = {"telegram": {"token": telegram.token, "allow": [ANN]}}
        it = Clouded(
            "chatty-there",
            home,
            plane=plane,
            variables={"hermes_provider": "rehearsal", "hermes_channels": declared},
        )
        telegram.opener = it.opener()
        play = it.deploy()
        assert telegram.webhook["url"] == f"{it.url}/channels/telegram"
        assert f"messages come to {it.url}/channels/telegram" in play.output
        assert it.deploy().changed(it.name) == 0
        assert it.call("POST", "/api/instance/sleep").status == 200
        message = telegram.write("good morning", ANN)
        assert "good morning" in telegram.await_answer(message, 240).text
