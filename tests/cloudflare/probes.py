# SPDX-License-Identifier: Apache-2.0
"""What is assumed of Cloudflare and not certain, one probe each: `make live` asks, and tells as assumed or otherwise.

Some are asked of the API, the rest by a throw-away Worker with a container of the product's image
(probing/worker.js). A probe that cannot be asked says why, and holds up no other.
"""

from __future__ import annotations

import contextlib
import json
import secrets as random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import (
    containers,
    email_routing,
    scripts,
    zones,
)
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.mailbox import MAIL_TAG
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.upload import Upload
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler_config import (
    REFERENCE,
)

CODE = Path(__file__).with_name("probing") / "worker.js"
AS_ASSUMED, OTHERWISE, NOT_ASKED = "as assumed", "otherwise", "could not be asked"
DEFERRED = 300.0
"""How long Cloudflare may let an object in use keep its old code."""
EUROPE = "AT BE BG CH CZ DE DK EE ES FI FR GB GR HR HU IE IT LT LU LV NL NO PL PT RO RS SE SI SK UA"
RESOLVED = ["11.9.0.1"]


class NotAsked(Exception):
    """A probe could not be asked; says why."""


@dataclass(frozen=True)
class Verdict:
    """What became of one probe."""

    probe: Probe
    outcome: str
    words: str = ""

    @property
    def told(self) -> str:
        """The verdict as a person reads it."""
        return f"{self.outcome}: {self.words}" if self.words else self.outcome


@dataclass(frozen=True)
class Probe:
    """One assumption. ask: returns whether it holds, and what was seen; may raise."""

    id: str
    about: str
    assumed: str
    ask: Callable[[Field], tuple[bool, str]]


@dataclass
class Field:
    """An account with the probing Worker on it, and what was found out already."""

    api: Cloudflare
    name: str
    """Of the probing Worker."""
    image: str
    """Of the product, by its digest."""
    hostname: str = ""
    megabyte: int = 1_000_000
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    code: str = field(default_factory=lambda: CODE.read_text(encoding="utf-8"))
    token: str = field(default_factory=lambda: random.token_hex(16))
    _facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextlib.contextmanager
    def deployed(self, folder: Path) -> Iterator[None]:
        """Have the probing Worker there meanwhile. folder: for files."""
        self.folder = folder
        try:
            self.upload("1")
            scripts.set_tags(self.api, self.name, scripts.our_tags(self.name))
            self.life()
            yield
        finally:
            self.remove()

    def upload(self, version: str, **more: Any) -> str:
        """Upload the probing Worker; returns the version's id. more: settings of the deployment."""
        (self.folder / "worker.js").write_text(self.code, encoding="utf-8")
        upload = Upload(self.api, Settings(name=self.name, **more), self.folder)
        exists = scripts.settings(self.api, self.name) is not None
        variables = {"HERMES_PLATFORM": "cloudflare", "VERSION": version, REFERENCE: self.image}
        secret = {"TOKEN": self.token} | ({} if exists else {"SECRET": "first"})
        return upload.deploy(variables, secret, self.image, exists)

    def change_secret(self, value: str) -> None:
        """Change a secret by the bare call: the product's own way mends what is asked here."""
        entry = {"name": "SECRET", "text": value, "type": "secret_text"}
        path = scripts.path(self.api, self.name, "secrets-bulk")
        self.api.patch(path, {"secrets": {"SECRET": entry}}, merge=True)

    def remove(self) -> None:
        """Take the probing Worker away."""
        if scripts.settings(self.api, self.name) is None:
            return
        containers.delete_application(self.api, self.namespace())
        scripts.delete(self.api, self.name)

    def namespace(self) -> str:
        """Return the id of the Worker's objects, and so of its container application."""
        found = scripts.settings(self.api, self.name) or {}
        bindings = found.get("bindings") or []
        return str(next(one["namespace_id"] for one in bindings if one["name"] == "INSTANCE"))

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """Send a request to the probing Worker."""
        host = f"{self.name}.{scripts.account_subdomain(self.api)}.workers.dev"
        headers = {"Authorization": f"Bearer {self.token}"}
        timeout = more.pop("timeout", 60)
        url = f"https://{host}/{path}"
        return requests.request(method, url, headers=headers, timeout=timeout, **more)

    def zone(self) -> dict[str, Any]:
        """Return the zone of the hostname that was given. Raises NotAsked."""
        if not self.hostname:
            raise NotAsked("HERMES_LIVE_HOSTNAME is not set")
        found = zones.find(self.api, self.hostname)
        if found is None:
            raise NotAsked(f"no zone of the account has {self.hostname}")
        return found

    def mailbox(self) -> tuple[str, str]:
        """Return the id of a zone that takes mails, and an address there that nobody has. Raises NotAsked."""
        zone = self.zone()
        if not email_routing.settings(self.api, zone["id"]).get("enabled"):
            raise NotAsked(f"Email Routing is not enabled for {zone['name']}")
        return zone["id"], f"{self.name}@{zones.ascii_name(zone['name'])}"

    def life(self) -> dict[str, Any]:
        """Return what the object says of itself, once it answers."""
        return self.until(self._life, 120) or {}

    def _life(self) -> dict[str, Any] | None:
        answer = self.request("GET", "life")
        return dict(answer.json()) if answer.status_code == 200 else None

    def until(self, found: Callable[[], Any], seconds: float) -> Any:
        """Return the first true value, or None after so long."""
        end = self.clock() + seconds
        while True:
            with contextlib.suppress(requests.exceptions.RequestException):
                if value := found():
                    return value
            if self.clock() > end:
                return None
            self.pause(2)

    def seconds(self, found: Callable[[], Any], most: float) -> float | None:
        """Return after how long something was so, or None."""
        began = self.clock()
        return self.clock() - began if self.until(found, most) else None

    def facts(self, question: str) -> dict[str, Any]:
        """Have the probing Worker find out, once; return what it saw. Raises NotAsked."""
        if question not in self._facts:
            self.request("POST", f"ask/{question}")
            told = self.until(lambda: self.request("GET", "told").json(), 400)
            self._facts[question] = told or {"error": "no answer within 400 s"}
        told = self._facts[question]
        if "facts" not in told:
            raise NotAsked(told["error"])
        return dict(told["facts"])

    def forget(self) -> None:
        """Forget what was found out."""
        self._facts.clear()


def of(question: str, judge: Callable[[dict[str, Any]], tuple[bool, str]]) -> Callable[..., Any]:
    """Return a probe's question that is judged by what the probing Worker saw."""
    return lambda there: judge(there.facts(question))


def _within(seconds: float | None, most: float) -> tuple[bool, str]:
    if seconds is None:
        return False, f"not within {most:.0f} s"
    return seconds <= most, f"after {seconds:.1f} s"


def _environment(seen: dict[str, Any]) -> tuple[bool, str]:
    further = sorted({*seen["names"]} - {"PATH", "OF_THE_COMMAND", "PWD", "SHLVL", "_", "HOME"})
    return not further, f"further: {', '.join(further)}" if further else ""


def _image_map(seen: dict[str, Any]) -> tuple[bool, str]:
    return "hermes" in seen["images"], f"names: {', '.join(seen['images']) or 'none'}"


def _snapshot(seen: dict[str, Any]) -> tuple[bool, str]:
    if seen["seconds"] is None:
        return False, f"not within a minute: {seen['refused'][-1]}"
    words = f"after {seen['seconds']:.1f} s, {len(seen['refused'])} times refused"
    return bool(seen["kept"]), words if seen["kept"] else f"{words}, without its files"


def _place(seen: dict[str, Any]) -> tuple[bool, str]:
    found = seen["object"]["country"]
    return found in EUROPE.split(), f"{found} ({seen['object']['colo']})"


def _container_place(seen: dict[str, Any]) -> tuple[bool, str]:
    found = seen["container"]["country"]
    if not found:
        raise NotAsked("the container does not tell where it is")
    return found in EUROPE.split(), f"{found} ({seen['container']['region']})"


def _names(kind: str) -> Callable[[dict[str, Any]], tuple[bool, str]]:
    return lambda seen: (seen[kind] == RESOLVED, str(seen[kind]))


def _no_records(seen: dict[str, Any]) -> tuple[bool, str]:
    mx = seen["mx"]
    return not (isinstance(mx, dict) and mx["answers"]), str(mx)


def _said(kind: str, wanted: str) -> Callable[[dict[str, Any]], tuple[bool, str]]:
    return lambda seen: (wanted in str(seen[kind]), str(seen[kind]))


def _tls(seen: dict[str, Any]) -> tuple[bool, str]:
    return seen["tls"] != "connected", str(seen["tls"])


def _address(seen: dict[str, Any]) -> tuple[bool, str]:
    return seen["status"] == 403 or "1003" in seen["text"], f"{seen['status']} {seen['text'][:60]}"


def _rights(seen: dict[str, Any]) -> tuple[bool, str]:
    words = f"rights {seen['rights']}, a file of root's: {seen['file']}"
    return int(seen["rights"], 16) == 0 and seen["file"] == "refused", words


def _accepted(_seen: dict[str, Any]) -> tuple[bool, str]:
    return True, ""


def refused(question: str) -> Callable[[Field], tuple[bool, str]]:
    """Return a question to which an error of the runtime is an answer."""

    def ask(there: Field) -> tuple[bool, str]:
        try:
            there.facts(question)
        except NotAsked as error:
            if "no ctx.container" in str(error):
                raise
            return False, str(error)
        return True, ""

    return ask


def _pipes(there: Field) -> tuple[bool, str]:
    there.facts("pipes")
    there.pause(12)
    found = there.request("GET", "later").json() or {}
    return not found.get("end"), json.dumps(found)


def _leaves(there: Field) -> tuple[bool, str]:
    with there.request("POST", "leave/20", stream=True) as answer:
        next(answer.iter_content(5))
    there.until(lambda: there.life().get("left") == 20, 60)
    left = there.life().get("left") or 0
    return left == 20, f"{left} of 20 steps were taken"


def _stays(there: Field) -> tuple[bool, str]:
    there.facts("environment")
    there.request("POST", "timeout")
    before = there.life()
    there.pause(200)
    after = there.life()
    evicted = before["life"] != after["life"]
    words = "the object was evicted" if evicted else "the object stayed in memory"
    words += f", the container {'runs' if after['running'] else 'ended'}"
    return evicted and bool(after["running"]), words


def _body(megabytes: int, wanted: int) -> Callable[[Field], tuple[bool, str]]:
    def ask(there: Field) -> tuple[bool, str]:
        content = b"x" * (megabytes * there.megabyte)
        answer = there.request("POST", "size", data=content, timeout=600)
        return answer.status_code == wanted, f"answered with {answer.status_code}"

    return ask


def _etag(there: Field) -> tuple[bool, str]:
    def etag() -> str | None:
        return {one["id"]: one.get("etag") for one in scripts.listing(there.api)}.get(there.name)

    before = etag()
    there.change_secret("second")
    return etag() == before, "" if etag() == before else "it is another one"


def _secret_arrives(there: Field) -> tuple[bool, str]:
    value = random.token_hex(4)
    there.change_secret(value)
    return _within(there.seconds(lambda: there.life().get("SECRET") == value, DEFERRED), DEFERRED)


def _update_arrives(there: Field) -> tuple[bool, str]:
    there.upload("2")
    return _within(there.seconds(lambda: there.life().get("VERSION") == "2", DEFERRED), 30)


def _back(there: Field) -> tuple[str, list[str]]:
    """Serve the version before the latest; return the latest and all others."""
    latest, *others = [one["id"] for one in scripts.versions(there.api, there.name)]
    if not others:
        there.upload("2")
        return _back(there)
    scripts.serve(there.api, there.name, others[-1], "probe", force=True)
    return latest, others


def _rollback_arrives(there: Field) -> tuple[bool, str]:
    there.upload("3")
    latest, _others = _back(there)
    try:
        arrived = there.seconds(lambda: there.life().get("VERSION") == "1", DEFERRED)
        return _within(arrived, DEFERRED)
    finally:
        scripts.serve(there.api, there.name, latest, "probe", force=True)


def _secret_after_rollback(there: Field) -> tuple[bool, str]:
    latest, _others = _back(there)
    try:
        there.change_secret("third")
    except CloudflareError as error:
        return bool({10214, 10215} & {*error.codes}), f"refused with {error.codes}"
    finally:
        scripts.serve(there.api, there.name, latest, "probe", force=True)
    return False, "accepted"


def _refusal(call: Callable[[], Any]) -> tuple[bool, str]:
    try:
        call()
    except CloudflareError as error:
        return True, f"refused with {error.status} {error.codes}"
    return False, "accepted"


def _nine_tags(there: Field) -> tuple[bool, str]:
    kept = scripts.our_tags(there.name)
    told = _refusal(
        lambda: scripts.set_tags(there.api, there.name, [*kept, *(f"t{n}" for n in range(7))])
    )
    scripts.set_tags(there.api, there.name, kept)
    return told


def _many_secrets(there: Field) -> tuple[bool, str]:
    entries = {f"S{n}": None for n in range(101)}
    path = scripts.path(there.api, there.name, "secrets-bulk")
    return _refusal(lambda: there.api.patch(path, {"secrets": entries}, merge=True))


def _second_application(there: Field) -> tuple[bool, str]:
    body = {
        "name": f"{there.name}-again",
        "scheduling_policy": "durable_object",
        "durable_objects": {"namespace_id": there.namespace()},
    }
    try:
        there.api.post(there.api.account("containers/applications"), body)
    except CloudflareError as error:
        known = error.status == 400 and "ALREADY_HAS_APPLICATION" in error.message
        return known, f"{error.status}: {error.message}"
    return False, "accepted"


def _version_images(there: Field) -> tuple[bool, str]:
    version = scripts.version(there.api, there.name, scripts.serving(there.api, there.name))
    found = sorted(filter(None, containers.images_of(version)))
    return there.image in found, ", ".join(found) or "none are named"


def _zones(there: Field) -> tuple[bool, str]:
    if not there.hostname:
        raise NotAsked("HERMES_LIVE_HOSTNAME is not set")
    try:
        found = there.api.get("/zones") or []
    except CloudflareError as error:
        return False, f"refused with {error.status} {error.codes}"
    return zones.covering(there.hostname, found) is not None, f"{len(found)} zones"


def _mail_zone(there: Field) -> tuple[bool, str]:
    found = email_routing.settings(there.api, there.zone()["id"])
    words = f"enabled: {found.get('enabled')}, status: {found.get('status')}"
    return isinstance(found.get("enabled"), bool) and isinstance(found.get("status"), str), words


def _mail_rule(there: Field) -> tuple[bool, str]:
    zone_id, address = there.mailbox()
    kept = scripts.our_tags(there.name)
    # Written down before it is there: who takes away what a killed run left finds it.
    scripts.set_tags(there.api, there.name, [*kept, f"{MAIL_TAG}{address}"])
    try:
        made = email_routing.create(there.api, zone_id, address, there.name, "probe")
        try:
            rules = email_routing.listing(there.api, zone_id)
            told = next(one for one in rules if one["id"] == made["id"])
        finally:
            email_routing.delete(there.api, zone_id, made["id"])
    except CloudflareError as error:
        if error.denied:
            raise
        return False, f"refused with {error.status} {error.codes}"
    finally:
        scripts.set_tags(there.api, there.name, kept)
    found = (email_routing.address_of(told), email_routing.worker_of(told), told.get("enabled"))
    return found == (address, there.name, True), f"told as {found}"


def _mail_addresses(there: Field) -> tuple[bool, str]:
    found = list(there.api.pages(there.api.account("email/routing/addresses")))
    if not found:
        raise NotAsked("the account has no destination address")
    agreed = sum(bool(one.get("verified")) for one in found)
    fields = all({"email", "verified"} <= one.keys() for one in found)
    return fields, f"{len(found)} addresses, {agreed} of them verified"


def _mail_binding(there: Field) -> tuple[bool, str]:
    _zone, address = there.mailbox()
    try:
        there.upload("mail", mail_address=address, mail_people=email_routing.verified(there.api))
        bound = (scripts.settings(there.api, there.name) or {}).get("bindings") or []
    except CloudflareError as error:
        if error.denied:
            raise
        return False, f"refused with {error.status} {error.codes}"
    finally:
        there.upload("2")
    found = [one for one in bound if one["type"] == "send_email"]
    senders = [one.get("allowed_sender_addresses") for one in found]
    return senders == [[address]], f"told as {found}"


def _deletion(there: Field) -> tuple[bool, str]:
    namespace = there.namespace()
    there.api.delete(there.api.account(f"containers/applications/{namespace}"))
    gone = there.seconds(lambda: containers.application(there.api, namespace) is None, 120)
    return _within(gone, 120)


PROBES: tuple[Probe, ...] = (
    Probe(
        "image-map",
        "containers",
        "after an upload the object knows its image by name",
        of("start", _image_map),
    ),
    Probe(
        "first-start",
        "containers",
        "the first start from an image takes at most five minutes",
        of("start", lambda seen: _within(seen["seconds"], 300)),
    ),
    Probe(
        "later-start",
        "containers",
        "a later start takes at most 20 seconds",
        of("start", lambda seen: _within(seen["again"], 20)),
    ),
    Probe(
        "command-waits",
        "containers",
        "a command waits for a container that is starting, and is not refused",
        of("start", lambda seen: (seen["threw"] is None, seen["threw"] or "")),
    ),
    Probe(
        "command-environment",
        "containers",
        "a command has PATH and what it is given; neither the image's environment nor the start's",
        of("environment", _environment),
    ),
    Probe(
        "image-by-digest",
        "containers",
        "a container starts from its image's digest, without the name",
        refused("digest"),
    ),
    Probe("size-basic", "containers", "the size basic can be started", refused("size")),
    Probe(
        "kill-after-exit",
        "containers",
        "a signal to a command that has ended does nothing",
        refused("kill"),
    ),
    Probe(
        "command-pipes",
        "containers",
        "a command's output ends with the request that began it",
        _pipes,
    ),
    Probe(
        "rights-of-a-user",
        "containers",
        "a process that becomes another user and gives up its rights reads no file of root's",
        of("rights", _rights),
    ),
    Probe(
        "snapshot-start",
        "containers",
        "a new snapshot can be started from within a minute, and has its files",
        of("snapshot", _snapshot),
    ),
    Probe(
        "end-is-seen",
        "containers",
        "a container that ended is seen as ended at the next look",
        of("stop", lambda seen: _within(seen["seconds"], 60)),
    ),
    Probe(
        "stays-without-requests",
        "containers",
        "an object without requests leaves memory within 200 seconds, and its container goes on",
        _stays,
    ),
    Probe(
        "client-leaves",
        "objects",
        "work that is held by waitUntil goes on when its client leaves",
        _leaves,
    ),
    Probe(
        "object-place",
        "objects",
        "an object that is asked for near Western Europe is made in Europe",
        of("place", _place),
    ),
    Probe(
        "container-place",
        "containers",
        "its container starts in Europe as well",
        of("place", _container_place),
    ),
    Probe(
        "names-resolve",
        "network",
        "without internet a name resolves to 11.9.0.1",
        of("network", _names("name")),
    ),
    Probe(
        "nonsense-resolves",
        "network",
        "so does a name that does not exist",
        of("network", _names("nonsense")),
    ),
    Probe("no-mx", "network", "only A and AAAA are resolved", of("network", _no_records)),
    Probe(
        "other-ports",
        "network",
        "a connection to another port ends in a timeout",
        of("network", _said("port", "timeout")),
    ),
    Probe("tls-to-an-address", "network", "HTTPS to an address fails", of("network", _tls)),
    Probe(
        "intercepted-address",
        "network",
        "HTTP to the reserved address arrives at the Worker",
        of("network", _said("http", "caught")),
    ),
    Probe(
        "intercepted-websocket",
        "network",
        "a WebSocket to the reserved address arrives there as well",
        of("network", _said("websocket", "101 Switching Protocols and a message")),
    ),
    Probe(
        "fetch-to-an-address",
        "network",
        "a Worker's fetch to a public address without a name is refused",
        of("address", _address),
    ),
    Probe("body-64", "edge", "a request body of 64 MB passes", _body(64, 200)),
    Probe("body-101", "edge", "a request body of 101 MB is answered with 413", _body(101, 413)),
    Probe(
        "update-arrives",
        "updates",
        "an object in use has the uploaded code within 30 seconds",
        _update_arrives,
    ),
    Probe(
        "secret-arrives",
        "updates",
        "an object in use has a changed secret within five minutes",
        _secret_arrives,
    ),
    Probe(
        "rollback-arrives",
        "updates",
        "an object in use has a rollback within five minutes",
        _rollback_arrives,
    ),
    Probe("etag", "API", "a change of secrets leaves the listing's etag as it is", _etag),
    Probe(
        "secrets-after-rollback",
        "API",
        "secrets are refused (10214, 10215) while the latest version does not serve",
        _secret_after_rollback,
    ),
    Probe("version-images", "API", "a version names the images of its containers", _version_images),
    Probe("nine-tags", "API", "a ninth tag is refused", _nine_tags),
    Probe("many-secrets", "API", "more than 100 secrets in one call are refused", _many_secrets),
    Probe(
        "second-application",
        "API",
        "a second container application is refused with 400 ALREADY_HAS_APPLICATION",
        _second_application,
    ),
    Probe("zones", "API", "a token may list zones without naming one", _zones),
    Probe(
        "mail-zone",
        "e-mail",
        "of a zone it is told whether Email Routing is enabled, and its status",
        _mail_zone,
    ),
    Probe(
        "mail-rule",
        "e-mail",
        "a rule that hands mails to a Worker is taken, and told with its address and its Worker",
        _mail_rule,
    ),
    Probe(
        "mail-addresses",
        "e-mail",
        "of each destination address it is told whether its owner agreed",
        _mail_addresses,
    ),
    Probe(
        "mail-binding",
        "e-mail",
        "a binding that sends mails from one address is taken, and told with it",
        _mail_binding,
    ),
    Probe(
        "application-deletion",
        "API",
        "a deleted container application is gone within two minutes",
        _deletion,
    ),
)
"""In the order in which they are asked: what takes the application away is last."""


def ask(probe: Probe, there: Field) -> Verdict:
    """Ask one probe."""
    try:
        holds, words = probe.ask(there)
    except NotAsked as error:
        return Verdict(probe, NOT_ASKED, str(error))
    except (CloudflareError, Card, requests.exceptions.RequestException) as error:
        return Verdict(probe, NOT_ASKED, " ".join(str(error).split()))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        # An answer of another shape than any that is known.
        return Verdict(probe, NOT_ASKED, f"an answer that is not understood ({error!r})")
    return Verdict(probe, AS_ASSUMED if holds else OTHERWISE, words)


def ask_all(there: Field, show: Callable[[str], None] = print) -> list[Verdict]:
    """Ask every probe."""
    found = []
    for probe in PROBES:
        found.append(ask(probe, there))
        show(f"  {probe.id}: {found[-1].told}")
    return found


def report(found: list[Verdict]) -> list[str]:
    """Return what was found as lines of Markdown; what is otherwise comes first."""
    order = (OTHERWISE, NOT_ASKED, AS_ASSUMED)
    found = sorted(found, key=lambda one: order.index(one.outcome))
    rows = [f"| `{one.probe.id}` | {one.probe.assumed} | {_cell(one.told)} |" for one in found]
    return ["| probe | assumed | found |", "|---|---|---|", *rows]


def table() -> list[str]:
    """Return the probes as the documentation lists them."""
    rows = [f"| `{one.id}` | {one.about} | {one.assumed} |" for one in PROBES]
    return ["| probe | about | assumed |", "|---|---|---|", *rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
