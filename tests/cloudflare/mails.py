# SPDX-License-Identifier: Apache-2.0
"""Mails at Cloudflare's edge: those that a Worker's `email()` is handed, and those that its binding sends.

workerd hands nobody a mail by itself. So beside the Worker runs another, which calls its `email()` as Email Routing
does, and is what its binding is bound to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.cloudflare.accounts import State, Version, Worker, Zone

MODULE = """
import { WorkerEntrypoint } from "cloudflare:workers";

export class Sender extends WorkerEntrypoint {
  async send({ attachments, ...given }) {
    const files = attachments?.map(({ content, ...told }) => ({
      ...told,
      content: new Uint8Array(content).toBase64(),
    }));
    const message = files === undefined ? given : { ...given, attachments: files };
    const asked = { method: "POST", body: JSON.stringify({ binding: this.ctx.props, message }) };
    const answer = await this.env.OUTBOX.fetch("http://outbox/", asked);
    const told = await answer.json();
    if (answer.ok) return told;
    throw Object.assign(new Error(told.message), { code: told.code });
  }
}

function headersOf(raw) {
  const headers = new Headers();
  const head = new TextDecoder("latin1").decode(raw).split(/\\r?\\n\\r?\\n/)[0];
  for (const line of head.replace(/\\r?\\n[ \\t]+/g, " ").split(/\\r?\\n/))
    headers.append(line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim());
  return headers;
}

export default {
  async fetch(request, env) {
    const { searchParams } = new URL(request.url);
    const raw = new Uint8Array(await request.arrayBuffer());
    let rejected = "";
    const refuse = async () => {
      throw new Error("the stand-in has nothing that forwards mails, or answers them at once");
    };
    try {
      await env.MAIN.email({
        from: searchParams.get("from"),
        to: searchParams.get("to"),
        headers: headersOf(raw),
        raw: new Blob([raw]).stream(),
        rawSize: raw.byteLength,
        canBeForwarded: true,
        setReject: (reason) => { rejected = reason; },
        forward: refuse,
        reply: refuse,
      });
    } catch (error) {
      return new Response(String(error), { status: 451 });
    }
    return new Response(rejected, { status: rejected === "" ? 250 : 550 });
  },
};
"""
ALLOWED_FIELDS = {
    *("in-reply-to", "references", "auto-submitted", "list-id", "precedence", "importance"),
    *("priority", "sensitivity", "organization", "keywords", "comments", "content-language"),
}
"""Lines of a mail's head that may be set, besides X-; not all of Cloudflare's list."""
LONGEST_FIELD = 2048
LONGEST_SUBJECT = 998
LARGEST_FIELDS = 16 * 1024
FIELDS = {
    *("to", "from", "subject", "text", "html", "cc", "bcc", "replyTo"),
    *("headers", "attachments"),
}
ATTACHED = {"content", "filename", "type", "disposition"}
LARGEST = 25 * 1024 * 1024
"""Of a mail to an address that was verified."""


def binding_of(version: Version) -> dict[str, Any] | None:
    """Return what binds a version to what sends mails, if anything does."""
    return next((one for one in version.bindings if one["type"] == "send_email"), None)


def ruled(state: State, address: str) -> tuple[Zone, Worker] | None:
    """Return the Worker that gets the mails to an address: the first of its rules that holds."""
    zone = state.zone_of(address.rpartition("@")[2])
    if zone is None or not zone.takes_mails:
        return None
    for rule in zone.mail_rules:
        if rule["enabled"] and rule["matchers"][0]["value"].lower() == address.lower():
            action = rule["actions"][0]
            workers = state.accounts[zone.account].workers
            worker = workers.get(action["value"][0]) if action["type"] == "worker" else None
            return (zone, worker) if worker else None
    return None


@dataclass
class Outbox:
    """What the Workers sent."""

    state: State
    sent: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    """Codes with which the next mails are refused."""

    def application(self) -> web.Application:
        """Return what the Workers' bindings ask."""
        application = web.Application(client_max_size=30 * 1024 * 1024)
        application.router.add_post("/", self._take)
        return application

    async def _take(self, request: web.Request) -> web.Response:
        asked = await request.json()
        refusal = self._refusal(asked["binding"], asked["message"])
        if refusal:
            code, message = refusal
            return web.json_response({"code": code, "message": message}, status=400)
        self.sent.append(asked["message"])
        return web.json_response({"messageId": f"<{len(self.sent)}@cloudflare-email.net>"})

    def _refusal(self, binding: dict[str, Any], message: dict[str, Any]) -> tuple[str, str] | None:
        if self.refusals:
            return self.refusals.pop(0), "An ordered refusal."
        if unknown := message.keys() - FIELDS:
            return "E_VALIDATION_ERROR", f"There is no {', '.join(unknown)}."
        if not all(message.get(name) for name in ("to", "from", "subject")):
            return "E_FIELD_MISSING", "A mail has to, from and subject."
        if not message.get("text") and not message.get("html"):
            return "E_FIELD_MISSING", "A mail has a text or a page."
        if len(message["subject"]) > LONGEST_SUBJECT or re.search(r"[\r\n]", message["subject"]):
            return "E_VALIDATION_ERROR", "The subject is no line."
        told = message["from"]
        sender = (told["email"] if isinstance(told, dict) else told).lower()
        to = message["to"] if isinstance(message["to"], list) else [message["to"]]
        zone = self.state.zone_of(sender.rpartition("@")[2])
        if zone is None or not zone.takes_mails:
            return "E_SENDER_DOMAIN_NOT_AVAILABLE", "The sender's domain is not onboarded."
        if sender not in binding.get("allowed_sender_addresses", [sender]):
            return "E_SENDER_NOT_VERIFIED", "The sender is not allowed."
        if not set(to) <= set(binding.get("allowed_destination_addresses", to)):
            return "E_RECIPIENT_NOT_ALLOWED", "The recipient is not allowed."
        known = self.state.accounts[zone.account].destinations
        if not all(known.get(one) for one in to):
            return "", "destination address is not a verified address"
        return _flaw_of(message.get("headers") or {}) or _flaw_in(message)


def _flaw_in(message: dict[str, Any]) -> tuple[str, str] | None:
    """Return what is wrong with a mail's files."""
    files = message.get("attachments", [])
    for one in files:
        if one.keys() != ATTACHED or one["disposition"] != "attachment" or not one["filename"]:
            return "E_VALIDATION_ERROR", "An attachment is not described."
    if sum(len(one["content"]) * 78 // 76 for one in files) + len(message["text"]) > LARGEST:
        return "E_CONTENT_TOO_LARGE", "The mail is too large."
    return None


def _flaw_of(headers: dict[str, str]) -> tuple[str, str] | None:
    for name, value in headers.items():
        if name.lower() not in ALLOWED_FIELDS and not name.startswith("X-"):
            return "E_HEADER_NOT_ALLOWED", f"Header '{name}' is not allowed."
        if not value or re.search(r"[\r\n]", value):
            return "E_HEADER_VALUE_INVALID", f"Header '{name}' has no good value."
        if len(value.encode()) > LONGEST_FIELD:
            return "E_HEADER_VALUE_TOO_LONG", f"Header '{name}' is too long."
    if sum(len(name) + len(value.encode()) + 4 for name, value in headers.items()) > LARGEST_FIELDS:
        return "E_HEADERS_TOO_LARGE", "Total custom headers payload is too large."
    automatic = headers.get("Auto-Submitted", "auto-replied")
    if automatic not in ("auto-generated", "auto-replied", "auto-notified"):
        return "E_HEADER_VALUE_INVALID", "Header 'Auto-Submitted' has no good value."
    return None
