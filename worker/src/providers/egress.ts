// SPDX-License-Identifier: Apache-2.0
/** `Egress`: what a container asks of the internet, when only some hosts are allowed. */
import { WorkerEntrypoint } from "cloudflare:workers";
import { Log, Redactor } from "../base/log.ts";
import { type Env, secretValues, settingsOf } from "../config/settings.ts";

/** The outbound entrypoint for everything but the model providers. */
export class Egress extends WorkerEntrypoint<Env> {
  override async fetch(request: Request): Promise<Response> {
    const settings = settingsOf(this.env);
    const { protocol, hostname } = new URL(request.url);
    const host = hostname.toLowerCase().replace(/\.+$/, "");
    if (settings.egress === "open" || settings.egress.some((allowed) => covers(allowed, host)))
      return fetch(request, { redirect: "manual" });
    const log = new Log(new Redactor(secretValues(settings)));
    log.warn("egress_blocked", { host, scheme: protocol.slice(0, -1), method: request.method });
    const message = `This sandbox may not reach ${host}. Its owner allows hosts by hermes_egress.`;
    // A browser folds JSON into a viewer of its own, and what Hermes is told of a page are its title and headings. A
    // host's name can hold no "<".
    if (request.headers.get("Accept")?.includes("text/html"))
      return new Response(`<!doctype html><title>Refused</title><h1>${message}</h1>`, {
        status: 403,
        headers: { "Content-Type": "text/html; charset=utf-8" },
      });
    return Response.json({ error: { code: "egress_blocked", message } }, { status: 403 });
  }
}

/** A host covers itself; one that begins with a dot, everything below it. */
function covers(allowed: string, host: string): boolean {
  return allowed.startsWith(".") ? host.endsWith(allowed) : host === allowed;
}
