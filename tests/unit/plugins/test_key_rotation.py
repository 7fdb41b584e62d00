# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A rotation that dies after any of its steps: the owner is never locked out, and the next run finishes."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.hermes.workers.plugins.action import rotate_keys
from ansible_collections.hermes.workers.plugins.action.rotate_keys import ActionModule
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import Answer
from ansible_collections.hermes.workers.plugins.plugin_utils.actions import rotation as rotations
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.rotation import read_keys
from ansible_collections.hermes.workers.plugins.plugin_utils.state import token_store
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

OLD = "hw_the-old-token-of-this-test"


class Killed(BaseException):
    """The controller died."""


LOOKS = 2
"""How often an object that was just started is asked before it has found the Hermes that runs."""


class Worker:
    """A Worker in memory: what it holds, whom it lets in, and the key that its Hermes was started with."""

    def __init__(self) -> None:
        self.secrets = {"API_TOKEN": OLD, "OPENAI_API_KEY": "old-key"}
        self.undone: dict[str, str] | None = None
        self.good_keys = {"old-key", "new-key"}
        self.dead: set[str] = set()
        self.overlap_is_over = False
        self.in_hermes = "old-key"
        self.looks = LOOKS
        self.asked: list[str] = []
        self.refused: set[str] = set()
        """Paths that are not served as they should be."""
        self.version = ""
        self.state = "awake"

    def change(self, held: dict[str, str]) -> None:
        """Hold other secrets, and have a new object with them."""
        self.secrets, self.looks = held, 0

    def instance(self) -> dict[str, Any]:
        """Tell of the object."""
        self.looks += 1
        differs = ["openai_api_key"] if self.in_hermes != self.secrets["OPENAI_API_KEY"] else []
        told = {"differs": differs, "restart": "hermes" if differs else "nothing"}
        known = self.looks > LOOKS
        return {"state": self.state, "inStep": True, "configuration": told if known else None}

    def lets_in(self, token: str | None) -> str | None:
        if token is None or token in self.dead:
            return None
        if token == self.secrets["API_TOKEN"]:
            if self.overlap_is_over and "API_TOKEN_PREVIOUS" in self.secrets:
                self.dead.add(self.secrets["API_TOKEN_PREVIOUS"])
            return "current"
        return "previous" if token == self.secrets.get("API_TOKEN_PREVIOUS") else None


class Client:
    """Asks the Worker in memory."""

    def __init__(self, worker: Worker, token: str | None) -> None:
        self.worker = worker
        self.token = token

    def request(self, method: str, path: str, body: Any = None, **_more: Any) -> Answer:
        which = self.worker.lets_in(self.token)
        if which is None:
            return answer(401, {})
        if path == "/api/secrets/proof":
            made = {
                name: hmac.new(value.encode(), body["nonce"].encode(), hashlib.sha256).hexdigest()
                for name, value in self.worker.secrets.items()
            }
            return answer(200, {"proofs": made})
        self.worker.asked += [path] if method == "POST" else []
        if path in self.worker.refused:
            return answer(503, {"error": {"message": "It is busy."}})
        if path == "/api/instance/refresh":
            self.worker.in_hermes = self.worker.secrets["OPENAI_API_KEY"]
        instance = self.worker.instance()
        told = {"version": self.worker.version} if self.worker.version else {}
        return answer(200, {"token": {"which": which}, "instance": instance, "worker": told})

    def stream(self, _path: str, _body: Any, _timeout: float) -> Iterator[tuple[float, Any]]:
        if self.worker.lets_in(self.token) is None:
            yield 0.0, answer(401, {})
            return
        # The turn finds the Hermes that runs, and has it take today's key first.
        self.worker.looks = LOOKS
        self.worker.in_hermes = self.worker.secrets["OPENAI_API_KEY"]
        good = self.worker.in_hermes in self.worker.good_keys
        yield 0.0, Answer(200, {"content-type": "text/event-stream"}, b"")
        for text in ("one", "two"):
            yield 0.1, json.dumps({"choices": [{"delta": {"content": text}}]})
        yield 0.2, json.dumps({"choices": [{"finish_reason": "stop" if good else "error"}]})
        yield 0.3, "[DONE]"


def answer(status: int, content: Any) -> Answer:
    return Answer(status, {}, json.dumps(content).encode())


class Delivery:
    """Brings secrets to the Worker in memory."""

    url = "http://worker"

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def connect(self, token: str | None) -> Client:
        return Client(self.worker, token)

    def before(self) -> str:
        return ""

    def deliver(self, values: dict[str, str], _client: Client) -> None:
        self.worker.undone = self.worker.undone or dict(self.worker.secrets)
        self.worker.change(self.worker.secrets | values)

    def undo(self, _before: str, _values: dict[str, str], _client: Client) -> None:
        assert self.worker.undone is not None
        self.worker.change(self.worker.undone)
        self.worker.undone = None

    def settle(self) -> None:
        self.worker.undone = None


class Run(ActionModule):
    """The action on its own, without a play around it."""

    def __init__(
        self, worker: Worker, settings: Settings, given: dict[str, str], *keys: str
    ) -> None:
        self.options = {"keys": list(keys), "secrets": {}}
        self.settings = settings
        self.deployment = StateFolder(settings.state_dir, settings.name)
        self.delivery = Delivery(worker)
        self.given_secrets = given
        self.task_vars: dict[str, Any] = {}
        self._task = SimpleNamespace(check_mode=False, diff=False)
        self._loader = DataLoader()
        self.sources = SimpleNamespace(root=Path("/nowhere"))
        self.runtime = SimpleNamespace()

    def progress(self, text: str) -> None:
        """Say nothing."""

    def show(self, lines: Any) -> None:
        """Show nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(name="alice", state_dir=str(tmp_path / "state"))
    deployment = StateFolder(made.state_dir, made.name)
    deployment.create()
    deployment.keep_token(OLD)
    return made


def on_disk(settings: Settings) -> set[str]:
    """The tokens that an owner finds in the state folder."""
    deployment = StateFolder(settings.state_dir, settings.name)
    record = deployment.rotation() or {}
    return {token for token in (deployment.token(), record.get("token")) if token}


def killing(monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str], before: bool) -> None:
    """Have the controller die once, before or after a step."""
    owner, name = where
    step = getattr(owner, name)
    killed: list[bool] = []

    def run(*arguments: Any, **more: Any) -> Any:
        if killed:
            return step(*arguments, **more)
        killed.append(True)
        if not before:
            step(*arguments, **more)
        raise Killed

    monkeypatch.setattr(owner, name, run)


STEPS = [
    (StateFolder, "keep_rotation"),
    (Delivery, "deliver"),
    (Client, "stream"),
    (token_store, "write"),
    (StateFolder, "keep_token"),
    (Delivery, "settle"),
    (StateFolder, "end_rotation"),
]


@pytest.mark.parametrize("overlap_is_over", [False, True])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1])
@pytest.mark.parametrize("given", [False, True], ids=["generated", "given"])
def test_killed_at_any_step_the_owner_gets_in_and_the_next_run_finishes(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: bool,
    step: tuple[Any, str],
    before: bool,
    overlap_is_over: bool,
) -> None:
    worker = Worker()
    worker.overlap_is_over = overlap_is_over
    stored = tmp_path / "stored"
    stored.write_text(OLD)
    settings.token_command = ["sh", "-c", f"cat > {stored}"] if given else []

    def inventory() -> dict[str, str]:
        """What a play would read now."""
        kept = {"API_TOKEN": stored.read_text()} if given else {}
        return {"OPENAI_API_KEY": "new-key"} | kept

    killing(monkeypatch, step, before)
    keys = ("api_token", "provider_keys")
    try:
        Run(worker, settings, inventory(), *keys).deploy()
    except Killed:
        known = on_disk(settings)
        assert any(worker.lets_in(token) for token in known), "the owner is locked out"
        noted = (StateFolder(settings.state_dir, "alice").rotation() or {}).get("token")
        Run(worker, settings, inventory(), *keys).deploy()
        assert noted is None or worker.secrets["API_TOKEN"] == noted
    else:
        assert step == (token_store, "write") and not given, "nobody was killed"
    deployment = StateFolder(settings.state_dir, settings.name)
    assert deployment.rotation() is None
    assert worker.lets_in(deployment.token()) == "current"
    assert worker.secrets["OPENAI_API_KEY"] == worker.in_hermes == "new-key"
    assert worker.undone is None
    if given:
        assert stored.read_text() == deployment.token()


def test_a_key_that_fails_is_taken_back_by_the_next_run_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    given = {"OPENAI_API_KEY": "wrong-key"}
    killing(monkeypatch, (Delivery, "deliver"), before=False)
    with pytest.raises(Killed):
        Run(worker, settings, given, "api_token", "provider_keys").deploy()
    with pytest.raises(Card, match="the stream ended with error") as failed:
        Run(worker, settings, given, "api_token", "provider_keys").deploy()
    assert "Taken back: hermes_api_token, openai_api_key." in failed.value.render()
    assert worker.secrets == {"API_TOKEN": OLD, "OPENAI_API_KEY": "old-key"}
    assert worker.in_hermes == "old-key", "Hermes goes on with the key that was taken back"
    assert on_disk(settings) == {OLD}


def test_keys_stay_where_the_token_of_before_is_refused_by_now(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changed it meanwhile: nobody can ask the Worker to take them back."""
    worker = Worker()
    stream = Client.stream

    def refused(client: Client, *given: Any) -> Iterator[tuple[float, Any]]:
        yield from stream(client, *given)
        worker.dead.add(OLD)

    monkeypatch.setattr(Client, "stream", refused)
    with pytest.raises(Card) as failed:
        Run(worker, settings, {"OPENAI_API_KEY": "wrong"}, "provider_keys").deploy()
    card = failed.value.render()
    assert "Changed: openai_api_key. Not taken back: the API token of before is refused" in card
    assert worker.secrets["OPENAI_API_KEY"] == "wrong" and on_disk(settings) == {OLD}
    assert StateFolder(settings.state_dir, "alice").rotation() is not None, "the next run goes on"


def test_where_the_overlap_is_over_the_new_token_is_kept(settings: Settings) -> None:
    worker = Worker()
    worker.overlap_is_over = True
    with pytest.raises(Card) as failed:
        Run(worker, settings, {"OPENAI_API_KEY": "wrong"}, "api_token", "provider_keys").deploy()
    assert "Not taken back" in failed.value.render()
    deployment = StateFolder(settings.state_dir, settings.name)
    assert worker.lets_in(deployment.token()) == "current"
    assert deployment.rotation() is None


def test_a_token_of_the_inventory_needs_a_home_before_anything_is_changed(
    settings: Settings,
) -> None:
    worker = Worker()
    with pytest.raises(Card, match="does not know where to write"):
        Run(worker, settings, {"API_TOKEN": OLD}, "api_token").deploy()
    assert worker.secrets["API_TOKEN"] == OLD
    fresh = "hw_a-new-one-of-the-owner"
    Run(worker, settings, {"API_TOKEN": fresh}, "api_token").deploy()
    assert worker.secrets["API_TOKEN"] == fresh
    assert worker.secrets["API_TOKEN_PREVIOUS"] == OLD


def test_a_token_that_was_replaced_elsewhere_is_not_replaced_again(settings: Settings) -> None:
    worker = Worker()
    worker.secrets |= {"API_TOKEN": "hw_of-somebody-else", "API_TOKEN_PREVIOUS": OLD}
    with pytest.raises(Card, match="replaced by a rotation from elsewhere"):
        Run(worker, settings, {}, "api_token").deploy()
    assert worker.secrets["API_TOKEN"] == "hw_of-somebody-else"


def test_sessions_end_without_a_chat_and_without_another_secret(settings: Settings) -> None:
    worker = Worker()
    made = Run(worker, settings, {}, "dashboard_sessions")
    made._task.diff = True
    result = made.deploy()
    assert result["rotated"] == ["dashboard_sessions"] and "seconds_to_first_token" not in result
    assert result["diff"] == {"prepared": "rotated dashboard_sessions\n"}
    assert worker.asked == ["/api/dashboard/sessions/revoke"]
    assert on_disk(settings) == {OLD} and worker.undone is None


@pytest.mark.parametrize("state", ["awake", "asleep"])
def test_a_running_hermes_starts_again_for_its_gateways_token(
    settings: Settings, state: str
) -> None:
    worker = Worker()
    worker.state = state
    result = Run(worker, settings, {}, "gateway_token", "dashboard_sessions").deploy()
    restarted = "/api/instance/restart-gateway" in worker.asked
    assert restarted is (state == "awake") is ("gateway_token" in result["rotated"])
    assert "seconds_to_first_token" in result, "what starts is proved"


@pytest.mark.parametrize(
    "path", ["/api/instance/restart-gateway", "/api/dashboard/sessions/revoke"]
)
def test_what_the_worker_refuses_ends_it_with_its_word(settings: Settings, path: str) -> None:
    worker = Worker()
    worker.refused = {path}
    with pytest.raises(Card, match="It is busy") as failed:
        Run(worker, settings, {}, "gateway_token", "dashboard_sessions").deploy()
    assert failed.value.changed is None and worker.undone is None
    with pytest.raises(Card, match="It is busy") as failed:
        keys = ("api_token", "gateway_token", "dashboard_sessions")
        Run(worker, settings, {}, *keys).deploy()
    first = path.endswith("gateway")
    told = "Taken back: hermes_api_token." if first else "Changed: hermes_api_token."
    assert str(failed.value.changed).startswith(told)
    assert (worker.secrets["API_TOKEN"] == OLD) is first


@pytest.mark.parametrize("arrived", [True, False])
def test_a_delivery_that_failed_is_only_gone_on_with_when_something_arrived(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    deliver = Delivery.deliver

    def fail(delivery: Delivery, values: dict[str, str], client: Client) -> None:
        if arrived:
            deliver(delivery, values, client)
        raise Card.of("alice", "the processes could not be managed.", "read the log.", "processes")

    worker = Worker()
    monkeypatch.setattr(Delivery, "deliver", fail)
    with pytest.raises(Card, match="could not be managed"):
        Run(worker, settings, {"OPENAI_API_KEY": "new-key"}, "api_token", "provider_keys").deploy()
    record = StateFolder(settings.state_dir, "alice").rotation()
    assert (record is not None) is arrived
    monkeypatch.undo()
    Run(worker, settings, {"OPENAI_API_KEY": "new-key"}, "api_token", "provider_keys").deploy()
    assert worker.secrets["OPENAI_API_KEY"] == worker.in_hermes == "new-key"
    assert on_disk(settings) == {worker.secrets["API_TOKEN"]}
    if record:
        assert record["token"] == worker.secrets["API_TOKEN"]


def test_a_bot_of_another_token_is_registered_and_again_when_it_is_taken_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []
    service = SimpleNamespace(reached="https://alice.example", version="1")
    monkeypatch.setattr(rotate_keys, "service_of", lambda *_: service)
    monkeypatch.setattr(
        rotate_keys.channels,
        "register",
        lambda _client, _settings, url, look: asked.append((url, look)),
    )
    worker = Worker()
    worker.secrets["HERMES_CHANNELS"] = "old-bot"
    Run(worker, settings, {"HERMES_CHANNELS": "new-bot"}, "channels").deploy()
    assert asked == [("https://alice.example", False)]
    assert worker.secrets["HERMES_CHANNELS"] == "new-bot"
    given = {"HERMES_CHANNELS": "newest-bot", "OPENAI_API_KEY": "wrong-key"}
    with pytest.raises(Card) as failed:
        Run(worker, settings, given, "channels", "provider_keys").deploy()
    assert "Taken back: hermes_channels, openai_api_key." in failed.value.render()
    assert len(asked) == 3 and worker.secrets["HERMES_CHANNELS"] == "new-bot"


@pytest.mark.parametrize(
    ("version", "left"),
    [("1", "nothing"), ("0", "more than keys differs from the inventory: run `")],
)
def test_what_a_rotation_leaves_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, version: str, left: str
) -> None:
    monkeypatch.setattr(rotate_keys, "service_of", lambda *_: SimpleNamespace(version="1"))
    worker = Worker()
    worker.version = version
    made = Run(worker, settings, {}, "dashboard_sessions")
    shown: list[str] = []
    made.show = shown.extend  # type: ignore[method-assign]
    made.task_vars["ansible_play_hosts_all"] = [f"host{n}" for n in range(30)]
    assert made.deploy()["left"].startswith(left)
    assert shown == [], "of many there is a table"
    made.task_vars = {}
    made.deploy()
    assert shown[1] == "alice: rotated dashboard_sessions"


def test_who_lets_everybody_in_has_no_token_to_rotate(settings: Settings) -> None:
    settings.allow_unauthenticated = True
    deployment = StateFolder(settings.state_dir, "alice")
    found = rotations.Rotation(settings, deployment, {}, {"api_token"}, lambda token: token)
    assert found.keys == set() and found._tokens() == [None]


def test_a_worker_that_takes_none_of_our_tokens_is_not_rotated(settings: Settings) -> None:
    worker = Worker()
    worker.secrets["API_TOKEN"] = "hw_of-somebody-else"
    made = Run(worker, settings, {}, "api_token")
    with pytest.raises(Card, match="does not answer, or takes no API token") as failed:
        made.deploy()
    assert "a rotation changes the keys of what runs" in failed.value.render()
    with pytest.raises(Card, match="does not answer"):
        made.rotation.client  # noqa: B018 - it is asked for


def test_without_anything_to_do_nothing_is_asked_of_hermes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    monkeypatch.setattr(Client, "stream", None)
    done = Run(worker, settings, {"OPENAI_API_KEY": "old-key"}, "provider_keys").deploy()
    assert done["changed"] is False
    assert done["left"].startswith("not known"), "of a Worker that tells no version"


@pytest.mark.parametrize("words", ["all", ["all"], "api_token,all"])
def test_all_keys_are_meant_when_all_is_said(words: Any) -> None:
    assert read_keys(words) == (set(rotations.KEYS), [])


@pytest.mark.parametrize("words", ["", ",", " , ", None, [], [""]])
def test_a_list_without_a_key_is_not_taken_for_all(words: Any) -> None:
    keys, problems = read_keys(words)
    assert keys == set()
    assert str(problems[0]) == "hermes_keys: names no key."


def test_unknown_keys_are_named() -> None:
    keys, problems = read_keys("api_token, provider-keys")
    assert keys == set()
    assert "provider-keys" in str(problems[0])


@pytest.fixture
def loader() -> DataLoader:
    made = DataLoader()
    made.set_vault_secrets([("team", VaultSecret(b"the password"))])
    return made


def read_back(loader: DataLoader, path: Path) -> dict[str, str]:
    """The variables of a file as a play gets them."""

    def clear(value: Any) -> str:
        ciphertext = getattr(value, "_ciphertext", None)
        return loader._vault.decrypt(ciphertext).decode() if ciphertext else str(value)

    return {name: clear(value) for name, value in loader.load_from_file(str(path)).items()}


@pytest.mark.parametrize("whole", [True, False], ids=["whole file", "single values"])
def test_a_vault_file_gets_the_token_and_keeps_the_rest(
    settings: Settings, loader: DataLoader, tmp_path: Path, whole: bool
) -> None:
    path = tmp_path / "vault.yml"
    vault: VaultLib = loader._vault
    secret = loader._vault.secrets[0][1]
    old = "# A comment.\nfirst: 1\nhermes_api_token: hw_old\nlast: two\n"
    if whole:
        path.write_bytes(vault.encrypt(old, secret, "team"))
    else:
        inline = vault.encrypt("hw_old", secret, "team").decode().splitlines()
        path.write_text(old.replace("hw_old", "!vault |\n" + "\n".join(f"    {x}" for x in inline)))
    path.chmod(0o600)
    settings.token_vault_file = str(path)
    token_store.write(settings, "hw_new", loader)
    assert "hw_new" not in path.read_text()
    assert read_back(loader, path) == {"first": "1", "hermes_api_token": "hw_new", "last": "two"}
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert (
        ("team" in text.splitlines()[0]) if whole else text.startswith("# A comment.\nfirst: 1\n")
    )


def test_a_vault_file_stays_with_its_own_password_among_several(
    settings: Settings, tmp_path: Path
) -> None:
    secrets = [("home", VaultSecret(b"another")), ("team", VaultSecret(b"the password"))]
    loader = DataLoader()
    loader.set_vault_secrets(secrets)
    path = tmp_path / "vault.yml"
    path.write_bytes(VaultLib([]).encrypt("hermes_api_token: hw_old\n", secrets[1][1], "team"))
    settings.token_vault_file = str(path)
    token_store.write(settings, "hw_new", loader)
    assert b"hw_new" in VaultLib(secrets[1:]).decrypt(path.read_bytes())


def test_a_vault_file_without_a_name_is_as_secret_as_before(
    settings: Settings, loader: DataLoader, tmp_path: Path
) -> None:
    """As `ansible-vault create` makes one. A token that is not in it yet comes to its end."""
    path = tmp_path / "vault.yml"
    for old in ("first: canary-of-another-secret\n", ""):
        path.write_bytes(loader._vault.encrypt(old or "\n", loader._vault.secrets[0][1]))
        settings.token_vault_file = str(path)
        token_store.write(settings, "hw_new", loader)
        assert path.read_text().splitlines()[0] == "$ANSIBLE_VAULT;1.1;AES256"
        assert (
            loader._vault.decrypt(path.read_text()).decode() == f'{old}hermes_api_token: "hw_new"\n'
        )


def test_a_play_without_a_vault_password_is_found_out_before(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "vars.yml"
    path.write_text("first: 1\n")
    settings.token_vault_file = str(path)
    for step in (token_store.check, lambda *given: token_store.write(given[0], "hw_new", given[1])):
        with pytest.raises(Card, match="no vault password"):
            step(settings, DataLoader())
    assert path.read_text() == "first: 1\n"


def test_a_vault_that_this_play_cannot_open_is_found_out_before(
    settings: Settings, loader: DataLoader, tmp_path: Path
) -> None:
    path = tmp_path / "vault.yml"
    path.write_bytes(VaultLib([]).encrypt("a: 1\n", VaultSecret(b"another"), "other"))
    settings.token_vault_file = str(path)
    with pytest.raises(Card, match="cannot be decrypted"):
        token_store.check(settings, loader)


def test_without_a_store_nothing_is_written(settings: Settings, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    token_store.write(settings, "hw_new", DataLoader())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_written_is_found_out_before(
    settings: Settings, loader: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vars.yml"
    path.write_text("first: 1\n")
    settings.token_vault_file = str(path)
    monkeypatch.setattr(token_store.os, "access", lambda *_: False)
    with pytest.raises(Card, match="cannot be written by you"):
        token_store.check(settings, loader)


def test_a_command_that_fails_is_named_without_the_token(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    settings.token_command = ["sh", "-c", "tee /dev/stderr; exit 7"]
    with pytest.raises(Card) as failed:
        token_store.write(settings, "hw_secret", DataLoader())
    assert "exit code 7" in failed.value.render()
    assert "hw_secret" not in failed.value.render()
    assert capfd.readouterr() == ("", ""), "what it says may be the token"


def test_a_command_that_is_not_there_or_does_not_end_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.token_command = ["/nowhere/keep", "it"]
    with pytest.raises(Card, match="/nowhere/keep: No such file"):
        token_store.write(settings, "hw_secret", DataLoader())
    monkeypatch.setattr(token_store, "COMMAND_SECONDS", 0.2)
    settings.token_command = ["tail", "-f", "/dev/null"]
    with pytest.raises(Card, match="tail: did not end"):
        token_store.write(settings, "hw_secret", DataLoader())


def test_a_command_gets_the_token_on_its_standard_input_alone(
    settings: Settings, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    script = 'cat > "$0"; echo "$# $HERMES_NAME" >> "$0"; env | grep -c hw_secret >> "$0" || true'
    settings.token_command = ["sh", "-c", script, str(kept)]
    token_store.write(settings, "hw_secret", DataLoader())
    # The token, no argument, the deployment's name, and nothing in the environment.
    assert kept.read_text() == f"hw_secret0 {settings.name}\n0\n"
