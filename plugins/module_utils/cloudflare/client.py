# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client for Cloudflare's API: patient with its limits, exact about its refusals, silent about secrets."""

from __future__ import annotations

import http.client
import random
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

try:
    import requests
except ImportError:
    requests = None  # type: ignore[assignment] # a card tells of it where it is needed

from ..cards import Card, Problem
from .budget import Budget

BASE_URL = "https://api.cloudflare.com/client/v4"
USER_AGENT = "hermes.workers"
TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and without a byte."""
ATTEMPTS = 5
"""How often a call is sent when Cloudflare is in trouble."""
PATIENCE = 330.0
"""Seconds to wait in all when Cloudflare says "later": its block for too many calls lasts 300."""
LONG = 5.0
"""Seconds of waiting that are worth a word to whoever watches."""
HIDDEN = "********"

REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
"""Methods that declare a state: sent twice, they leave what they leave when sent once."""

AUTHENTICATION_CODES = frozenset({9103, 9106, 9109, 10000, 10405})
NO_WORKER_CODES = frozenset({10007, 10090})
OUTDEPLOYED_CODES = frozenset({10214, 10215})

REMEDY_RIGHTS = (
    "make an API token at https://dash.cloudflare.com/profile/api-tokens, with the permissions for what"
    " it has to do, and set cloudflare_api_token (or CLOUDFLARE_API_TOKEN)."
)
REMEDY_CONTAINERS = (
    "give the token the permission Containers: Edit; where it has it, the account may not use what Cloudflare names"
    " above: subscribe to Workers Paid, or ask Cloudflare's support to enable it."
)
CONTAINERS = "/containers/"
REMEDIES = {
    10007: "deploy the Worker first, or mend its name or the account id.",
    10013: "try again in a minute; Cloudflare reports a fault of its own.",
    10015: "ask the account's owner to switch Workers on and to give the token its permission.",
    10021: "read Cloudflare's words above: the script or a binding does not pass its validation.",
    10027: "make the script smaller; the limit is 10 MB compressed on the Workers Paid plan.",
    10037: "delete Workers that nobody needs, or raise the account's limit of Workers.",
    10057: "deploy again with all secrets set: the version would lack one that the one before it had.",
    10063: "open Workers & Pages in the dashboard once: it makes the account's workers.dev subdomain.",
    10090: "deploy the Worker first, or mend its name or the account id.",
    10220: "roll back with today's secrets (a plain rollback would bring back revoked ones).",
    81044: "the record is gone; run it again.",
    81053: "remove or rename the record of that name, or allow it to be taken over.",
    81054: "remove or rename the record of that name, or allow it to be taken over.",
    81057: "nothing: a record with this content exists.",
    81058: "nothing: a record with this content exists.",
    100117: "remove the hostname's DNS record, choose another hostname, or allow it to be taken over.",
    100146: "try again: the version is not readable yet.",
}
"""What to do about a refusal, by Cloudflare's code. Without an entry, its own words have to serve."""


class CloudflareError(Exception):
    """Cloudflare refused a call, or no answer came. No part of it holds a secret.

    status: HTTP status; 0 when no answer came.
    codes: Cloudflare's codes, the first being the cause.
    message: what went wrong, in one line.
    remedy: what to do about it, or an empty string.
    method, path: the call.
    ray: Cloudflare's name for the request, for its support, or an empty string.
    """

    def __init__(
        self,
        status: int,
        codes: list[int],
        message: str,
        remedy: str,
        method: str,
        path: str,
        ray: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes
        self.message = message
        self.remedy = remedy
        self.method = method
        self.path = path
        self.ray = ray

    @property
    def missing(self) -> bool:
        """Whether what the path names is not there."""
        return self.status == 404 or not NO_WORKER_CODES.isdisjoint(self.codes)

    @property
    def denied(self) -> bool:
        """Whether the token is not valid or lacks a permission."""
        return self.status in (401, 403) or not AUTHENTICATION_CODES.isdisjoint(self.codes)

    @property
    def outdeployed(self) -> bool:
        """Whether secrets or settings cannot be changed because the newest version is not the one that serves."""
        return not OUTDEPLOYED_CODES.isdisjoint(self.codes)

    @property
    def uncertain(self) -> bool:
        """Whether the call may have been carried out although no good answer came."""
        return self.status == 0 or self.status >= 500

    def failure(self) -> dict[str, Any]:
        """Return the failure as data, for a module's result."""
        details = {"status": self.status, "codes": self.codes, "remedy": self.remedy}
        details |= {"method": self.method, "path": self.path, "ray": self.ray}
        return {
            "code": self.codes[0] if self.codes else self.status,
            "message": self.message,
            "details": details,
        }

    def problem(self, subject: str) -> Problem:
        """Return the failure as one of several, with the call. subject: what leads its line."""
        (problem,) = self.card(subject).problems
        call = f" ({self.method} {self.path})" if self.path else ""
        return replace(problem, sentence=problem.sentence + call)

    def card(self, subject: str, changed: str | None = None) -> Card:
        """Return the error card. subject: the variable or the cause that leads its first line."""
        call = f"{self.method} {self.path}" + (f" (ray {self.ray})" if self.ray else "")
        remedy = self.remedy or "mend what Cloudflare names above, then run it again."
        if self.status == 403 and CONTAINERS in self.path:
            return Card.of(subject, self.message, remedy, "account", changed, [call])
        if self.denied:
            return Card.of(subject, self.message, remedy, "cloudflare-token", changed, [call])
        return Card.of(subject, self.message, remedy, "cloudflare-api", changed, [call])


def segment(text: str) -> str:
    """Return a name as one segment of a path, whatever its letters."""
    return quote(text, safe="")


class Cloudflare:
    """One API token's view of Cloudflare. Methods return the answer's `result` and raise CloudflareError."""

    def __init__(
        self,
        token: str,
        account_id: str = "",
        base_url: str = BASE_URL,
        budget: Budget | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """token: API token; account_id: for account(); base_url: of the API, without a slash at its end.

        budget: shares Cloudflare's limit of calls with other processes.
        tell: takes a line to show while a wait is long.
        """
        self.account_id = account_id
        self.base_url = base_url.rstrip("/")
        self._hidden: set[str] = set()
        self.hide(token)
        self._check(token)
        self._budget = budget
        self._tell = tell or (lambda _line: None)
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT
        # As a callable, because requests would let a ~/.netrc win over a plain header.
        self._session.auth = _bearer(token)

    def get(self, path: str, **query: Any) -> Any:
        """Read one thing."""
        return self.call("GET", path, query=query).get("result")

    def pages(self, path: str, inside: str = "", **query: Any) -> Iterator[Any]:
        """Read a list to its end, page by page. inside: name of the list where `result` is a mapping."""
        query = {"per_page": 50, **query}
        seen = 0
        while True:
            answer = self.call("GET", path, query=query)
            result: Any = answer.get("result") or []
            items = result.get(inside) or [] if inside else result
            yield from items
            seen += len(items)
            following = _next_page(answer.get("result_info") or {}, query, seen)
            if not items or following is None:
                return
            query = {**query, **following}

    def post(self, path: str, body: Any = None, repeatable: bool = False) -> Any:
        """Make something. repeatable: whether sending it twice does no harm, for when an answer is lost."""
        return self.call("POST", path, body, repeatable=repeatable).get("result")

    def put(self, path: str, body: Any = None, **query: Any) -> Any:
        """Set the whole of something."""
        return self.call("PUT", path, body, query=query).get("result")

    def patch(self, path: str, body: Any = None, merge: bool = False) -> Any:
        """Set a part of something. merge: send it as a JSON merge patch, where null deletes."""
        content_type = "application/merge-patch+json" if merge else "application/json"
        return self.call("PATCH", path, body, content_type=content_type).get("result")

    def delete(self, path: str, **query: Any) -> bool:
        """Delete something; returns whether it was there."""
        try:
            self.call("DELETE", path, query=query)
        except CloudflareError as error:
            if error.missing:
                return False
            raise
        return True

    def upload(
        self, method: str, path: str, parts: Mapping[str, tuple[str | None, Any, str]], **query: Any
    ) -> Any:
        """Send a multipart form. parts: field name -> (file name or None, content, content type)."""
        return self.call(method, path, query=query, parts=parts).get("result")

    def account(self, path: str = "") -> str:
        """Return a path below the account's."""
        return f"/accounts/{segment(self.account_id)}/{path}".rstrip("/")

    def hide(self, *values: str) -> None:
        """Keep further secrets out of every message: an API may quote what it refuses."""
        self._hidden.update(value for value in values if value)

    def redact(self, text: str) -> str:
        """Return a text without the token and the hidden values, in one line."""
        for value in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        return " ".join(text.split())

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        parts: Mapping[str, tuple[str | None, Any, str]] | None = None,
        content_type: str = "application/json",
        repeatable: bool = False,
    ) -> dict[str, Any]:
        """Send one call until it is answered for good; returns the whole envelope."""
        sent: dict[str, Any] = {"params": _plain(query or {}), "headers": {}}
        if parts is not None:
            sent["files"] = parts
        elif body is not None:
            sent |= {"json": body, "headers": {"Content-Type": content_type}}
        repeatable = repeatable or method in REPEATABLE
        waited, attempt, failures = 0.0, 0, 0
        while True:
            attempt += 1
            outcome, wait = self._attempt(method, path, sent, repeatable, attempt)
            if not isinstance(outcome, CloudflareError):
                return outcome
            if method == "DELETE" and attempt > 1 and outcome.missing:
                return {}  # an earlier attempt did it; only its answer was lost
            failures += outcome.status != 429
            if wait is None or failures >= ATTEMPTS or waited + wait > PATIENCE:
                raise outcome
            self._pause(wait, outcome)
            waited += wait

    def _attempt(
        self, method: str, path: str, sent: dict[str, Any], repeatable: bool, attempt: int
    ) -> tuple[dict[str, Any] | CloudflareError, float | None]:
        """Send once; returns the envelope or the error, and after how many seconds another attempt makes sense."""
        if self._budget:
            self._budget.take(tell=self._tell)
        backoff = min(2.0 ** (attempt - 1), 30.0) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load only
        try:
            response = self._session.request(
                method, self.base_url + path, timeout=TIMEOUT, allow_redirects=False, **sent
            )
        except requests.exceptions.RequestException as error:
            again = _passing(error) and (repeatable or _unsent(error))
            return self._no_answer(error, method, path), backoff if again else None
        envelope = _envelope(response)
        if response.ok and envelope is not None and envelope.get("success", True):
            return envelope, None
        refusal = self._refusal(response, envelope or {}, method, path)
        return refusal, _wait(response, repeatable, backoff)

    def _pause(self, seconds: float, reason: CloudflareError) -> None:
        if reason.status == 429 and self._budget:
            self._budget.hold(
                seconds
            )  # the limit is the token's: no other process needs to run into it
        if seconds >= LONG:
            asks = "Cloudflare asks to wait" if reason.status == 429 else "trying again in"
            self._tell(f"{reason.message}: {asks} {seconds:.0f} s")
        time.sleep(seconds)

    def _refusal(
        self, response: requests.Response, envelope: dict[str, Any], method: str, path: str
    ) -> CloudflareError:
        entries = [entry for entry in envelope.get("errors") or [] if isinstance(entry, Mapping)]
        entries += [inner for entry in entries for inner in entry.get("error_chain") or []]
        codes = [entry["code"] for entry in entries if isinstance(entry.get("code"), int)]
        words = [str(entry["message"]) for entry in entries if entry.get("message")]
        if not words and envelope.get("error"):
            words = [str(envelope["error"])]
        text = "; ".join(dict.fromkeys(words)) or f"HTTP {response.status_code} {response.reason}"
        code = f" (code {codes[0]})" if codes else ""
        ray = response.headers.get("cf-ray", "")
        remedy = _remedy(response.status_code, codes, path)
        message = self.redact(f"Cloudflare answers: {text}{code}")
        return CloudflareError(response.status_code, codes, message, remedy, method, path, ray)

    def _no_answer(self, error: Exception, method: str, path: str) -> CloudflareError:
        host = urlsplit(self.base_url).hostname
        reason = self.redact(str(_root_cause(error)) or type(error).__name__)
        message = f"no answer from {host}: {reason}"
        remedy = (
            f"check that this machine reaches {host} (HTTPS_PROXY, REQUESTS_CA_BUNDLE) and has the right date,"
            " then run it again."
        )
        return CloudflareError(0, [], message, remedy, method, path)

    def _check(self, token: str) -> None:
        """Refuse what could not work, or would send the token in the open, before anything is sent."""
        parts = urlsplit(self.base_url)
        loopback = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if requests is None:
            message = f"the Python library requests is missing for {sys.executable}"
            remedy = "run make tools, or install requests for that Python."
        elif not parts.hostname or (parts.scheme != "https" and not loopback):
            message = "cloudflare_api_base_url is not an https:// address"
            remedy = f"leave cloudflare_api_base_url out, or set it like {BASE_URL}"
        elif not re.fullmatch(r"[\x21-\x7e]+", token):
            message = "the API token is empty or has a blank, a line break or a character that no header can carry"
            remedy = REMEDY_RIGHTS
        else:
            return
        raise CloudflareError(0, [], message, remedy, "", "")


def _bearer(token: str) -> Callable[[Any], Any]:
    def authorize(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorize


def _plain(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return a query as Cloudflare spells it: true and false in lower case, nothing for None."""
    spelled = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in query.items()
    }
    return {name: value for name, value in spelled.items() if value is not None}


def _envelope(response: requests.Response) -> dict[str, Any] | None:
    """Return the answer's JSON object; an empty one for an answer without a body; None for anything else."""
    if not response.content:
        return {}
    try:
        content = response.json()
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _next_page(
    info: Mapping[str, Any], query: Mapping[str, Any], seen: int
) -> dict[str, Any] | None:
    """Return what to change in the query for the next page, or None after the last."""
    cursor = info.get("cursor") or (info.get("cursors") or {}).get("after")
    if cursor:
        return {"cursor": cursor}
    if info.get("next_page_token"):
        return {"page_token": info["next_page_token"]}
    page = int(query.get("page", 1))
    if "total_pages" in info:
        return {"page": page + 1} if page < info["total_pages"] else None
    if "total_count" in info:
        return {"page": page + 1} if seen < info["total_count"] else None
    return None


def _wait(response: requests.Response, repeatable: bool, backoff: float) -> float | None:
    """Return the seconds after which the call may be sent again, or None if it may not."""
    if response.status_code == 429:  # refused unread, so that nothing is sent twice
        return _retry_after(response) or backoff
    if response.status_code >= 500 and repeatable:
        return _retry_after(response) or backoff
    return None


def _retry_after(response: requests.Response) -> float:
    """Return the header's seconds, or 0 where there are none."""
    text = response.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d+)?", text) else 0.0


def _passing(error: Exception) -> bool:
    """Whether another attempt could end better: not for a bad certificate or an address that makes no sense."""
    lasting = (requests.exceptions.SSLError, requests.exceptions.InvalidURL)
    transport = (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
    )
    return isinstance(error, transport) and not isinstance(error, lasting)


def _unsent(error: Exception) -> bool:
    """Whether no connection came about, so that any call may be sent again."""
    refused = isinstance(_root_cause(error), (ConnectionRefusedError, socket.gaierror))
    return refused or isinstance(error, requests.exceptions.ConnectTimeout)


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost reason: the outer ones are wrapping that nobody can read."""
    inner = error.__cause__ or error.__context__
    wrapped = isinstance(inner, (OSError, http.client.HTTPException)) or (
        type(inner).__module__.startswith("urllib3")
    )
    return _root_cause(inner) if inner is not None and wrapped else error


def _remedy(status: int, codes: list[int], path: str) -> str:
    for code in codes:
        if code in REMEDIES:
            return REMEDIES[code]
    if status == 403 and CONTAINERS in path:
        return REMEDY_CONTAINERS
    if status in (401, 403) or not AUTHENTICATION_CODES.isdisjoint(codes):
        return REMEDY_RIGHTS
    if status == 429:
        return "wait five minutes: Cloudflare allows 1,200 calls in that time for all of a user's tokens together."
    if status >= 500:
        return "try again in a minute (https://www.cloudflarestatus.com tells of known faults)."
    return ""
