# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves a deployment by real chats through the Worker, and shows the summary."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ansible_collections.hermes.workers.plugins.module_utils.client import (
    Answer,
    Unreachable,
    WorkerClient,
)
from ansible_collections.hermes.workers.plugins.module_utils.errors import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings import (
    REHEARSAL_MODEL,
    SECRET_VARIABLES,
    canonical,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.service import (
    CloudflareService,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.deploy import (
    SECRETS_OPTION,
    SETTINGS_OPTION,
    DeploymentAction,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.processes import health
from ansible_collections.hermes.workers.plugins.plugin_utils.service import LocalService
from ansible_collections.hermes.workers.plugins.plugin_utils.table import FULL_CARDS

CHAT_SECONDS = 180.0
QUESTION = "Reply with one short sentence: are you ready?"
COUNTING = "Count from one to ten in words, separated by spaces."

Service = LocalService | CloudflareService
"""Where a deployment is served."""


class ActionModule(DeploymentAction):
    """hermes.workers.verify_deployment"""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = (
        SETTINGS_OPTION | SECRETS_OPTION | {"changed_before": {"type": "bool", "default": False}}
    )

    def deploy(self) -> dict[str, Any]:
        self.service = self._service()
        if self.check_mode and self.options["changed_before"]:
            return {
                "changed": False,
                "skipped": True,
                "msg": "Not verified: nothing was deployed in check mode.",
            }
        self.client = self.service.client(self.deployment.token())
        status = self._health()
        result: dict[str, Any] = {
            "changed": False,
            "version": self.service.version,
            "url": self.service.url,
            "verified": "health",
        }
        if self._full() and not self.check_mode:
            self._refuses_strangers()
            result |= self._chats()
            self.deployment.note_proof(self.service.version)
            self.service.prune()
            status = self._health()
        result["health"] = health_words(status)
        if len(self.task_vars.get("ansible_play_hosts_all", [])) <= FULL_CARDS:
            self.show(self._summary(status, result))
        return result

    def _service(self) -> Service:
        """Return where the deployment is served."""
        if self.settings.platform == "workerd":
            return LocalService(self.settings, self.deployment, self.runtime)
        token = self.options["secrets"].get("cloudflare_api_token") or ""
        return CloudflareService(self.settings, self.deployment, self.runtime, token)

    def _full(self) -> bool:
        wanted = self.options["changed_before"] or self.settings.verify == "full"
        return wanted or not self.deployment.is_proved(self.service.version)

    def _health(self) -> dict[str, Any]:
        """Return /api/health of the version that was deployed. Raises a Card."""
        answer = health(self.client, timeout=10)
        if (
            answer is None
            or answer.status != 200
            or answer.json()["worker"]["version"] != self.service.version
        ):
            raise self.service.not_served(answer)
        return answer.json()

    def _refuses_strangers(self) -> None:
        """Make sure that nobody gets in without the token."""
        if self.settings.allow_unauthenticated:
            return
        for token, words in ((None, "no token"), ("hw_wrong", "a wrong token")):
            answer = self._request(self.service.client(token), "GET", "/api/health")
            if answer.status != 401:
                raise Card.of(
                    self.settings.name,
                    f"the Worker answers {answer.status} to a request with {words}, not 401.",
                    "run `make destroy` and report it: the deployment is not safe.",
                    "verify",
                )

    def _chats(self) -> dict[str, Any]:
        self.progress("asking Hermes; a sleeping one wakes first")
        answer = self._request(
            self.client, "POST", "/v1/chat/completions", chat(QUESTION, stream=False)
        )
        model = answer.headers.get("x-hermes-model")
        self._judge_chat(answer)
        first = self._judge_stream()
        return {"verified": "chat", "model": model, "seconds_to_first_token": round(first, 2)}

    def _judge_chat(self, answer: Answer) -> None:
        content = answer.json()
        choices = content.get("choices") if isinstance(content, dict) else None
        if answer.status != 200 or not choices:
            raise self._failed(answer.complaint(), answer.headers)
        choice = choices[0]
        text = (choice.get("message") or {}).get("content") or ""
        if choice.get("finish_reason") != "stop":
            complaint = (
                answer.headers.get("x-hermes-error")
                or text
                or f"finish_reason {choice.get('finish_reason')}"
            )
            raise self._failed(complaint, answer.headers)
        usage = content.get("usage") or {}
        if not text.strip() or not usage.get("total_tokens", 0) > 0:
            raise self._failed("an empty answer without tokens came back", answer.headers)

    def _judge_stream(self) -> float:
        """Stream a chat and return the seconds to its first text. Raises a Card."""
        texts, first, finish, ended = [], None, None, False
        head: Answer | None = None
        try:
            for seconds, item in self.client.stream(
                "/v1/chat/completions", chat(COUNTING, stream=True), CHAT_SECONDS
            ):
                if isinstance(item, Answer):
                    head = item
                elif item == "[DONE]":
                    ended = True
                else:
                    text, reason = delta(item)
                    finish = reason or finish
                    if text:
                        first = seconds if first is None else first
                        texts.append(text)
        except Unreachable as error:
            raise self._failed(f"the stream broke: {error}", {}) from error
        if head is None or head.status != 200:
            raise self._failed(
                head.complaint() if head else "no answer", head.headers if head else {}
            )
        if finish != "stop" or first is None:
            raise self._failed(
                head.headers.get("x-hermes-error") or f"the stream ended with {finish}",
                head.headers,
            )
        if not ended or len(texts) < 2:
            raise self._failed("the stream came in one piece, or without its end", head.headers)
        return first

    def _request(self, client: WorkerClient, method: str, path: str, body: Any = None) -> Answer:
        try:
            return client.request(method, path, body, timeout=CHAT_SECONDS)
        except Unreachable as error:
            raise self._failed(f"no answer: {error}", {}) from error

    def _failed(self, complaint: str, headers: dict[str, str]) -> Card:
        """Return the card for a failed chat: the provider's refusal with the variable to mend, if it was that."""
        complaint = " ".join(complaint.split())[:400]
        request = f" (request {headers['x-request-id']})" if headers.get("x-request-id") else ""
        refused = self._provider_error()
        done = self.changed_so_far() or "Nothing was changed."
        if refused:
            variable = SECRET_VARIABLES.get(refused["variable"], refused["variable"])
            return Card.of(
                variable,
                f"{refused['provider']} refuses it with {refused['status']}: {complaint}{request}",
                f"set {variable} (or export {refused['variable']}) to a key that is valid for"
                f" {self.settings.default_model}, then run it again.",
                "provider-refused",
                changed=f"{done} Deployed, not verified.",
            )
        return Card.of(
            self.settings.name,
            f"the chat failed: {complaint}{request}",
            f"see `{self.command('logs')}`, mend the cause and run it again.",
            "verify",
            changed=f"{done} Deployed, not verified.",
        )

    def _provider_error(self) -> dict[str, Any] | None:
        """Return what the Worker noted of a provider that refused our key, or None."""
        try:
            content = self.client.request("GET", "/api/instance/status", timeout=10).json()
        except Unreachable:
            return None
        found = content.get("lastProviderError") if isinstance(content, dict) else None
        return found if isinstance(found, dict) and found.get("variable") else None

    def _summary(self, status: dict[str, Any], result: dict[str, Any]) -> list[str]:
        url = self.service.url
        rows = [
            ("URL", url),
            ("version", f"{self.service.version}, Hermes {self.sources.hermes_version}"),
            ("health", result["health"]),
        ]
        if "seconds_to_first_token" in result:
            rows.append(("first token", f"{result['seconds_to_first_token']} s"))
        rows += [
            ("dashboard", self.service.dashboard(status)),
            ("model", self._model_words()),
            *self.service.rows(status),
            ("token", self._token_words()),
        ]
        verdict = "deployed and verified"
        if result["verified"] == "health":
            verdict += " (by its health; nothing changed since its last chat)"
        lines = ["", f"{self.settings.name}: {verdict}"]
        lines += [f"  {name:<12} {value}" for name, value in rows]
        return [*lines, "", "Next:", *(f"  {line}" for line in self._next(url))]

    def _model_words(self) -> str:
        if self.settings.default_model == REHEARSAL_MODEL:
            return "rehearsal: answers come from this machine, no provider is called; set a provider key to change that"
        return ", ".join([self.settings.default_model, *self.settings.models])

    def _token_words(self) -> str:
        if self.deployment.token():
            return self.deployment.shown(self.deployment.token_file)
        return f"none: {self.service.audience} may use it (hermes_allow_unauthenticated)"

    def _next(self, url: str) -> list[str]:
        shown = self.deployment.shown(self.deployment.token_file)
        header = f'-H "Authorization: Bearer $(cat {shown})" ' if self.deployment.token() else ""
        body = canonical({"model": "hermes", "messages": [{"role": "user", "content": "Hello"}]})
        return [
            f"curl {url}/v1/chat/completions {header}-H 'Content-Type: application/json' -d '{body}'",
            self.command("logs"),
            self.command("destroy"),
        ]


def health_words(status: dict[str, Any]) -> str:
    """Return the answer of /api/health in a few words."""
    return f"{status.get('status')}, Hermes is {status.get('instance', {}).get('state')}"


def chat(text: str, *, stream: bool) -> dict[str, Any]:
    """Return the body of a chat with one user message."""
    body: dict[str, Any] = {
        "model": "hermes",
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


def delta(event: str) -> tuple[str, str | None]:
    """Return the text and the finish reason of one streamed chunk."""
    try:
        choices = json.loads(event).get("choices") or [{}]
    except (ValueError, AttributeError):
        return "", None
    return (choices[0].get("delta") or {}).get("content") or "", choices[0].get("finish_reason")
