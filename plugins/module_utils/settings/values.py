# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a single value may be, and how it is read and shown."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..addresses import LOOPBACK, is_address, private_address
from ..cards import Problem

# Names that the Worker sets in Hermes' environment by itself.
RESERVED_ENV = re.compile(
    r"API_SERVER_.*|HERMES_(HOME|MANAGED_DIR|BOOT_ID|LAZY_.*)|SANDBOX_.*|PORT_\d+|HOME|PATH|LD_.*|PYTHON.*"
)
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
SHOWN_NAME = re.compile(r"[\w .-]{1,60}")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
MODEL = re.compile(r"[\w.:@/+-]{1,200}", re.ASCII)
# A name with an optional tag and digest; upper-case letters only in these.
IMAGE_NAME = r"[a-z0-9][a-z0-9._:/-]*(:[\w][\w.-]{0,127})?"
IMAGE = re.compile(IMAGE_NAME + r"(@sha256:[0-9a-f]{64})?", re.ASCII)
GATEWAY = re.compile(r"[0-9a-f]{32}/[a-z0-9_-]{1,64}", re.ASCII)
# A name; one that begins with a dot stands for everything below it.
EGRESS_HOST = re.compile(r"\.?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]*[a-z]", re.ASCII)
TEAM_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", re.ASCII)
AUDIENCE = re.compile(r"[\w-]{8,128}", re.ASCII)
BROWSER = re.compile(r"(?:https?|wss?)://[^\s/?#]+(?:[/?]\S*)?")
CREDENTIALS = re.compile(r"(?<=://)\S*@")
_FILE = re.compile(r"(?:https://[^\s/@]+/)?[^\s:?#]+\.(?:whl|tar\.gz|tgz|tar\.xz|zip)(?:[?#]\S*)?")
_GIT = re.compile(
    r"(?:https://[^\s/@]+/|ssh://|[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:|/|\./|\.\./|~/|file:///)[^\s]*"
)
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
SOURCES: tuple[dict[str, re.Pattern[str]], ...] = (
    {"file": _FILE, "sha256": re.compile(r"[0-9a-f]{64}")},
    {"git": _GIT, "commit": _COMMIT},
    {"git": _GIT, "commit": _COMMIT, "ref": _REF},
    {"image": re.compile(IMAGE_NAME + r"@sha256:[0-9a-f]{64}", re.ASCII)},
)
"""Where a Hermes may come from besides the registry of Python's: the words of each, and what they look like."""
# Of a Python package, without the epochs and spellings that nobody uses.
VERSION = re.compile(
    r"\d{1,9}(\.\d{1,9}){1,5}((a|b|rc|\.post|\.dev)\d{1,9})*(\+[a-z0-9]+(\.[a-z0-9]+)*)?", re.ASCII
)
PACKAGES = {
    "python": (
        re.compile(
            r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9]+(?:[,._-][A-Za-z0-9]+)*\])?==[0-9][\w.+!]*",
            re.ASCII,
        ),
        "pandas==2.2.3",
    ),
    "debian": (re.compile(r"[a-z0-9][a-z0-9+.-]+=[0-9][A-Za-z0-9.+~:-]*"), "jq=1.6-2.1+deb12u3"),
}
"""Where further packages may come from: what one pinned looks like there, and an example."""
ADVISORY = re.compile(r"[A-Za-z][\w-]{2,40}", re.ASCII)
ACCOUNT_ID = re.compile(r"[0-9a-f]{32}")
# Labels of letters, digits and inner dashes; at least two of them.
HOSTNAME = re.compile(
    r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]"
)
SIZE = re.compile(r"[1-9][0-9]{0,8}|(100|[1-9]?[0-9])%")
DURATION = re.compile(r"(\d{1,6})\s*(s|m|h)")
SECONDS = {"s": 1, "m": 60, "h": 3600}
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
NEAR = 0.8
"""How alike two names have to be, of 1, until one is taken for a misspelling of the other."""


def packages_flaw(origin: object, given: object) -> tuple[str, str] | None:
    """Return what is wrong with packages of one origin and what to do about it, in words; None when nothing is."""
    if origin not in PACKAGES:
        words = " and ".join(PACKAGES)
        return f"{show(origin)} is nowhere that packages come from.", f"there are {words}."
    pinned, example = PACKAGES[str(origin)]
    remedy = f"write {origin}: [{example}]."
    if not isinstance(given, list):
        return f"{origin} is not a list.", remedy
    for one in given:
        if not pinned.fullmatch(str(one)):
            return f"{origin}: {show(one)} is not pinned to one version.", remedy
    names = [re.sub(r"[-_.]+", "-", re.split(r"[=\[]", one)[0].lower()) for one in given]
    for name in names:
        if name == "hermes-agent":
            return f"{origin}: {name} is Hermes itself.", "name its version in hermes_version."
        if names.count(name) > 1:
            return f"{origin}: {name} is named twice.", "leave one of the two."
    return None


def secret_flaw(value: Any) -> str:
    """Return what is wrong with a secret, without showing it; an empty string when nothing is."""
    if not isinstance(value, str):
        return "is not text"
    if not value.strip():
        return "is blank"
    if "\n" in value or "\r" in value:
        return "has a line break"
    if value != value.strip():
        return "begins or ends with a space"
    if not value.isascii():
        return "has a character that is not ASCII"
    if not value.isprintable():
        return "has a control character"
    return ""


def key_flaw(value: Any) -> str:
    """Return what is wrong with a key or token, which is sent as part of a header; an empty string when nothing is."""
    flaw = secret_flaw(value)
    if flaw:
        return flaw
    if "..." in value:
        return "is a placeholder: the dots stand for your own"
    return "has a blank inside" if " " in value else ""


def unencrypted(where: str) -> str:
    """Return the sentence on an endpoint without TLS that is not in a private network."""
    return f"would send keys and conversations {where} unencrypted: http is for this machine and private networks only."


def url_flaw(url: Any, *, by_name: bool = False) -> str:
    """Return what is wrong with a base URL; an empty string when nothing is.

    by_name: whether a name will do without TLS, because somebody sees to it that it leads to a private network only.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except (ValueError, TypeError, AttributeError):
        return "is not a URL."
    if (
        not isinstance(url, str)
        or parts.scheme not in ("http", "https")
        or not host
        or re.search(r"\s", url)
        or not url.isprintable()
    ):
        return "is not an http or https URL."
    if parts.username is not None or parts.password is not None:
        return "carries credentials (the value is not shown)."
    if parts.query or parts.fragment:
        return "has a query or a fragment."
    is_held = host in LOOPBACK or private_address(host) or (by_name and not is_address(host))
    if parts.scheme == "http" and not is_held:
        return unencrypted(f"to {host}")
    return ""


def duration(seconds: int) -> str:
    """Return seconds as text in the largest unit that fits."""
    for unit in ("h", "m"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s"


def serial_flaw(value: Any) -> str:
    """Return what is wrong with the sizes of batches; an empty string when nothing is."""
    sizes = value if isinstance(value, list) and value else [value]
    good = all(not isinstance(size, bool) and SIZE.fullmatch(str(size).strip()) for size in sizes)
    return "" if good else "is no number of hosts, no percentage and no list of such."


def percentage_flaw(value: Any) -> str:
    """Return what is wrong with a limit of failures; an empty string when nothing is."""
    try:
        good = not isinstance(value, bool) and 0 <= float(value) <= 100
    except (TypeError, ValueError):
        good = False
    return "" if good else "is no number from 0 to 100."


def canonical(value: Any) -> str:
    """Return JSON that is the same for equal data."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def show(value: Any) -> str:
    """Return a value for an error's text: quoted, one line, shortened; without the credentials of an address."""
    text = CREDENTIALS.sub("...@", repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


class Reader:
    """Reads raw inputs one by one, and notes every problem instead of stopping at the first."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """raw: values by inventory variable, of those that are set."""
        self.raw = raw
        self.problems: list[Problem] = []

    def problem(self, subject: str, sentence: str, remedy: str, code: str) -> None:
        """Note one problem, once."""
        found = Problem(subject, sentence, remedy, code)
        if found not in self.problems:
            self.problems.append(found)

    def given(self, variable: str) -> Any:
        """Return what was said; None for nothing and for an empty text. `false`, 0 and [] do say something."""
        value = self.raw.get(variable)
        return None if value == "" else value

    def text(self, variable: str, code: str) -> str:
        """Return a text that was said, or an empty one; note what is not text, which YAML may have made of it."""
        value = self.given(variable)
        if value is None or isinstance(value, str):
            return value or ""
        self.problem(
            variable,
            f"{show(value)} is no text to YAML.",
            f"write it in quotes: {variable}: '...'.",
            code,
        )
        return ""

    def choice(self, variable: str, choices: tuple[str, ...]) -> str:
        """Read one of some words; the first is what is without a word."""
        value = self.given(variable)
        if value is None:
            return choices[0]
        if value in choices:
            return str(value)
        close = difflib.get_close_matches(str(value), choices, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        listed = ", ".join(filter(None, choices))
        self.problem(
            variable,
            f"{show(value)} is not one of {listed}.{hint}",
            f"set {variable} to one of {listed}.",
            "inputs",
        )
        return choices[0]

    def some(self, variable: str, words: tuple[str, ...], usual: list[str]) -> list[str]:
        """Read a list of some words, each at most once, in their order; the usual ones are without a word."""
        if self.given(variable) is None:
            return usual
        values = self.entries(variable, f"some of {', '.join(words)}", "inputs")
        unknown = [value for value in values if value not in words]
        if unknown:
            close = difflib.get_close_matches(str(unknown[0]), words, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            self.problem(
                variable,
                f"{show(unknown[0])} is not one of {', '.join(words)}.{hint}",
                f"write some of these in {variable}, or [] for none.",
                "inputs",
            )
        return sorted(word for word in words if word in values)

    def known(self, where: str, names: Iterable[Any], known: tuple[str, ...], what: str) -> None:
        """Note each name that there is not; it is not shown, for it may be a secret in a wrong place."""
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, 1)
                hint = f" Did you mean {close[0]}?" if close else ""
                sentence = f"names {what} that there is not.{hint}"
                self.problem(where, sentence, f"use of {', '.join(known)} only.", "channels")

    def hostname(self, variable: str) -> str:
        """Read a hostname, or an empty text."""
        value = self.text(variable, "hostname").strip().lower().rstrip(".")
        if not value or HOSTNAME.fullmatch(value):
            return value
        self.problem(
            variable,
            f"{show(value)} is not a hostname.",
            f"set {variable} to a name in one of your zones, for example hermes.example.com.",
            "hostname",
        )
        return ""

    def texts(self, variable: str, is_good: Callable[[Any], Any], wanted: str) -> list[str]:
        """Read a list of texts that are all good."""
        values = self.entries(variable, f"{wanted} each", "inputs")
        bad = [value for value in values if not (isinstance(value, str) and is_good(value))]
        if bad:
            more = f", nor are {len(bad) - 1} more" if len(bad) > 1 else ""
            self.problem(
                variable,
                f"{show(bad[0])} is not {wanted}{more}.",
                f"mend it in {variable}.",
                "inputs",
            )
        return [value for value in values if value not in bad]

    def entries(self, variable: str, wanted: str, code: str) -> list[Any]:
        """Read a list; note what is none."""
        values = self.given(variable)
        if values is None or isinstance(values, list):
            return values or []
        self.problem(variable, "is not a list.", f"write {variable} as a list, of {wanted}.", code)
        return []

    def mapping(self, variable: str) -> Mapping[str, Any]:
        """Read a mapping of names; note what is none."""
        entries = self.given(variable)
        if entries is None or isinstance(entries, Mapping):
            return entries or {}
        self.problem(
            variable, "is not a mapping.", f"write {variable} as NAME: value pairs.", "inputs"
        )
        return {}

    def image(self, variable: str, default: str) -> str:
        """Read an image's name."""
        value = self.given(variable)
        if value is None:
            return default
        if isinstance(value, str) and IMAGE.fullmatch(value):
            return value
        self.problem(
            variable,
            f"{show(value)} does not name an image.",
            f"set {variable} to a name like registry.example/name:tag, or leave it out.",
            "inputs",
        )
        return default

    def port(self, variable: str, default: int) -> int:
        """Read a port that a user's program may take."""
        value = self.raw.get(variable)
        if value in (None, ""):
            return default
        text = str(value).strip()
        if (
            not isinstance(value, (bool, float))
            and re.fullmatch(r"\d{1,5}", text)
            and 1024 <= int(text) <= 65535
        ):
            return int(text)
        self.problem(
            variable,
            f"{show(value)} is not a port for a user's program: a whole number from 1024 to 65535.",
            f"set {variable}, for example to {default}.",
            "port",
        )
        return default

    def duration(self, variable: str, least: int, most: int, default: int) -> int:
        """Read a duration, in seconds."""
        value = self.raw.get(variable)
        if value in (None, ""):
            return default
        match = DURATION.fullmatch(str(value).strip())
        seconds = int(match[1]) * SECONDS[match[2]] if match else -1
        if least <= seconds <= most:
            return seconds
        self.problem(
            variable,
            f"{show(value)} is not a duration from {duration(least)} to {duration(most)}.",
            f"write a number with s, m or h, for example {variable}: {duration(default)}.",
            "duration",
        )
        return default

    def boolean(self, variable: str, *, default: bool) -> bool:
        """Read true or false, in any way that YAML has of saying so."""
        value = self.raw.get(variable, default)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text in TRUE or text in FALSE:
            return text in TRUE
        self.problem(
            variable,
            f"{show(value)} is neither true nor false.",
            f"set {variable}: true or false.",
            "inputs",
        )
        return False
