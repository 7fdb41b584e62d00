# SPDX-License-Identifier: Apache-2.0
"""What every call of the API passes: token, rights, rate limit, the handler, and the envelope of the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web

from tests.cloudflare.accounts import Account, Module, State, Token, Zone
from tests.cloudflare.calls import BODY, TOKEN, scrubbed
from tests.cloudflare.errors import Refusal, authentication, no_route, unauthorized

if TYPE_CHECKING:
    from tests.cloudflare.plane import ControlPlane

PREFIX = "/client/v4"
UPLOAD_LIMIT = 64 * 1024 * 1024


@dataclass
class Call:
    """One call that was let through, as handlers see it."""

    plane: ControlPlane
    token: Token
    parts: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = None
    modules: list[Module] = field(default_factory=list)

    @property
    def state(self) -> State:
        return self.plane.state

    @property
    def account(self) -> Account:
        return self.state.accounts[self.parts["account"]]

    @property
    def zone(self) -> Zone:
        return self.state.zones[self.parts["zone"]]

    def field(self, name: str, kind: type, default: Any = None) -> Any:
        """Return a field of the JSON body; refuse one of another type."""
        body = self.body if isinstance(self.body, dict) else {}
        value = body.get(name, default)
        if not isinstance(value, kind):
            raise Refusal(400, 10026, f"Could not parse request body: field {name}.")
        return value


@dataclass
class Page:
    """A list that is answered page by page; `inside` names where in the result it lies, if not at its top."""

    items: list[Any]
    default_size: int = 20
    inside: str = ""


@dataclass
class Accepted:
    """A result that is not final: status 202."""

    result: Any


@dataclass
class Route:
    """A handler and the permission group that it needs."""

    method: str
    path: str
    permission: str
    handler: Callable[[Call], Any]


ROUTES: list[Route] = []


def route(
    method: str, path: str, permission: str = ""
) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
    """Register a handler. It returns the answer's `result`, or a Page, or raises a Refusal."""

    def register(handler: Callable[[Call], Any]) -> Callable[[Call], Any]:
        ROUTES.append(Route(method, path, permission, handler))
        return handler

    return register


class Front:
    """The API as a web application."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.application = web.Application(client_max_size=UPLOAD_LIMIT)
        for one in ROUTES:
            self.application.router.add_route(one.method, PREFIX + one.path, self._serve(one))
        self.application.router.add_route("*", "/{rest:.*}", self._unknown)

    def _serve(self, chosen: Route) -> Callable[[web.Request], Any]:
        async def serve(request: web.Request) -> web.Response:
            try:
                token = self._authenticate(request)
                body, modules = await _body(request)
                request[BODY] = logged(body, modules)
                self._limit(token)
                self._authorize(token, chosen, request.match_info)
                call = Call(
                    self.plane,
                    token,
                    request.match_info,
                    request.query,
                    request.headers,
                    body,
                    modules,
                )
                result = chosen.handler(call)
                if hasattr(result, "__await__"):
                    result = await result
            except Refusal as refusal:
                return refused(refusal)
            return answered(result, request.query)

        return serve

    async def _unknown(self, request: web.Request) -> web.Response:
        """Refuse what nobody taught this stand-in: a call that only seems to work would prove nothing."""
        self.plane.unknown.append(f"{request.method} {request.path}")
        known = any(expression(one.path).fullmatch(request.path) for one in ROUTES)
        status = 405 if known else 404
        message = f"The stand-in does not know {request.method} {request.path}."
        return refused(Refusal(status, 7000, f"No route for that URI. {message}"))

    def _authenticate(self, request: web.Request) -> Token:
        header = request.headers.get("Authorization", "")
        if not header:
            raise Refusal(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
        scheme, _, value = header.partition(" ")
        if scheme != "Bearer" or not value:
            raise Refusal(400, 6003, "Invalid request headers")
        token = self.plane.state.token(value)
        verifying = request.path.endswith("/tokens/verify")
        if token is None:
            # The one place that says 401; everywhere else an unknown token is forbidden.
            raise (
                Refusal(401, 1000, "Invalid API Token")
                if verifying
                else Refusal(403, 9109, "Invalid access token")
            )
        request[TOKEN] = token.id
        if token.status != "active" and not verifying:
            raise Refusal(403, 9109, "Invalid access token")
        return token

    def _limit(self, token: Token) -> None:
        clock = self.plane.clock()
        window = self.plane.rate_window
        token.calls = [at for at in token.calls if at > clock - window]
        if clock >= token.blocked_until and len(token.calls) >= self.plane.rate_limit:
            token.blocked_until = clock + window
        if clock < token.blocked_until:
            error = Refusal(429, 971, "Please wait and consider throttling your request speed")
            error.retry_after = token.blocked_until - clock
            raise error
        token.calls.append(clock)

    def _authorize(self, token: Token, chosen: Route, parts: Mapping[str, str]) -> None:
        account_id = parts.get("account")
        if "zone" in parts:
            zone = self.plane.state.zones.get(parts["zone"])
            if zone is None:
                raise no_route(f"/zones/{parts['zone']}")
            account_id = zone.account
            if token.zones is not None and zone.id not in token.zones:
                raise authentication()
        if account_id is None:
            return
        account = self.plane.state.accounts.get(account_id)
        if account is None and not _is_id(account_id):
            raise no_route(f"/accounts/{account_id}")
        if account is None or account_id not in token.accounts:
            raise authentication() if "/workers/" in chosen.path else unauthorized()
        if chosen.permission and not token.may(chosen.permission):
            raise authentication()
        if account.suspended and chosen.method not in ("GET", "HEAD"):
            raise Refusal(403, 10023, "workers.api.error.unauthorized")


def expression(path: str) -> re.Pattern[str]:
    """Return a route's path as a regular expression."""
    return re.compile(PREFIX + re.sub(r"\{\w+\}", "[^/]+", path))


def _is_id(text: str) -> bool:
    return len(text) == 32 and all(character in "0123456789abcdef" for character in text)


async def _body(request: web.Request) -> tuple[Any, list[Module]]:
    """Read JSON, or the metadata and modules of a multipart form."""
    if request.content_type == "multipart/form-data":
        return await _form(request)
    text = await request.read()
    if not text:
        return None, []
    try:
        return json.loads(text), []
    except ValueError as error:
        raise Refusal(400, 10026, "Could not parse request body as JSON.") from error


async def _form(request: web.Request) -> tuple[Any, list[Module]]:
    body: Any = None
    modules = []
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader), "a form in a form"
        content = bytes(await part.read(decode=True))
        if part.name in ("metadata", "settings"):
            body = json.loads(content)
        else:
            kind = part.headers.get("Content-Type", "")
            modules.append(Module(part.filename or part.name or "", kind, content))
    if body is None:
        raise Refusal(400, 10021, "Uncaught Error: the form has no part named metadata.")
    return body, modules


def logged(body: Any, modules: list[Module]) -> Any:
    """Return a body as the log may show it."""
    if modules:
        return {"metadata": scrubbed(body), "modules": [module.name for module in modules]}
    return scrubbed(body)


def answered(result: Any, query: Mapping[str, str]) -> web.Response:
    """Wrap a result as Cloudflare does."""
    if isinstance(result, web.Response):
        return result
    envelope: dict[str, Any] = {"success": True, "errors": [], "messages": []}
    status = 200
    if isinstance(result, Accepted):
        result, status = result.result, 202
    if isinstance(result, Page):
        inside = result.inside
        result, envelope["result_info"] = _paged(result, query)
        result = {inside: result} if inside else result
    return web.json_response({"result": result, **envelope}, status=status)


def _paged(page: Page, query: Mapping[str, str]) -> tuple[list[Any], dict[str, int]]:
    number = max(1, int(query.get("page") or 1))
    size = max(1, min(1000, int(query.get("per_page") or page.default_size)))
    items = page.items[(number - 1) * size : number * size]
    total = len(page.items)
    return items, {
        "page": number,
        "per_page": size,
        "count": len(items),
        "total_count": total,
        "total_pages": max(1, -(-total // size)),
    }


def refused(refusal: Refusal) -> web.Response:
    """Wrap a refusal as Cloudflare does."""
    headers = {}
    if refusal.retry_after:
        headers["Retry-After"] = str(int(refusal.retry_after) + 1)
    envelope = {
        "result": None,
        "success": False,
        "errors": [{"code": refusal.code, "message": refusal.message}],
        "messages": [],
    }
    reason = HTTPStatus(refusal.status).phrase
    return web.json_response(envelope, status=refusal.status, reason=reason, headers=headers)
