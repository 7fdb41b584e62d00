// SPDX-License-Identifier: Apache-2.0
/**
 * `Providers`: where Hermes sends its model calls. It swaps this boot's capability for the real key and
 * passes the rest through, streaming both ways and reading nothing but refusals. The host of each provider is fixed and
 * only the paths in the table pass.
 */
import { WorkerEntrypoint } from "cloudflare:workers";
import { digestOf, hex } from "../base/digests.ts";
import { ApiError, reason } from "../base/errors.ts";
import { isOneOf } from "../base/headers.ts";
import { Log, Redactor } from "../base/log.ts";
import { LARGEST_OWN, OWN_FILE, ownFileOf, ownMessageOf } from "../channels/gate.ts";
import { OWN_MESSAGES } from "../config/channels.ts";
import { PROVIDERS, type Provider, type ProviderName } from "../config/providers.ts";
import {
  type Env,
  ownBaseUrl,
  providersOf,
  type Settings,
  secretValues,
  settingsOf,
} from "../config/settings.ts";
import { bearerOf } from "../gate/auth.ts";
import { askInstance, instanceOf } from "../gate/instance-stub.ts";
import { readBody } from "../gate/request-body.ts";
import { endTunnel } from "../gate/requests.ts";
import { CREDENTIAL, type Credential, clientGone, TROUBLED } from "../instance/leases.ts";
import type { Refusal } from "../instance/record.ts";
import { judged } from "./refusals.ts";
import { rehearsalChat, rehearsalModels } from "./rehearsal.ts";

/** Headers that end here: credentials, and whatever describes the hop before. */
const PRIVATE =
  /^(?:authorization|x-api-key|api-key|cookie|origin|referer|host|connection|upgrade|forwarded|via|expect|te|trailer|transfer-encoding|keep-alive|accept-encoding|proxy-.*|cf-.*|x-forwarded-.*|x-real-ip)$/;

/** The outbound entrypoint, bound to a loopback socket or to an intercepted address. */
export class Providers extends WorkerEntrypoint<Env> {
  override connect(socket: Socket): Promise<void> {
    return endTunnel(socket);
  }

  override async fetch(request: Request): Promise<Response> {
    let shape: Provider["errors"] = "openai";
    try {
      const settings = settingsOf(this.env);
      checkOrigin(request, settings);
      if (new URL(request.url).pathname === OWN_MESSAGES) return await this.#keepOwn(request);
      const call = callOf(request, settings);
      shape = PROVIDERS[call.provider].errors;
      return await this.#duringBoot(request, call.provider, (signal) =>
        call.provider === "rehearsal"
          ? rehearse(call, request)
          : this.#forward(call.provider, call.path, request, settings, signal),
      );
    } catch (error) {
      return refusal(error, shape);
    }
  }

  /** Takes what Hermes sends on its own account to people, whose platforms' tokens it does not have. */
  async #keepOwn(request: Request): Promise<Response> {
    if (request.method !== "POST") throw notServed();
    const { stopWatching } = await this.#watch(await credentialOf(request.headers), () => undefined);
    try {
      if (request.headers.has(OWN_FILE) && request.body !== null)
        // What was read once cannot be given to another life of the object: Hermes says it again.
        return await instanceOf(this.env).sendOwnFile("", ownFileOf(request.headers), request.body);
      const message = ownMessageOf(await readBody(request, LARGEST_OWN));
      return await askInstance(this.env, (it) => it.sendOwn("", message));
    } finally {
      stopWatching();
    }
  }

  /**
   * Answers a caller who holds the capability of the boot that runs, and breaks the answer off with that boot.
   * @throws ApiError 401 `bad_capability`.
   */
  async #duringBoot(
    request: Request,
    provider: ProviderName,
    work: (signal: AbortSignal) => Promise<Response>,
  ): Promise<Response> {
    const credential = await credentialOf(request.headers);
    const over = new AbortController();
    request.signal.addEventListener("abort", () => over.abort(clientGone()), { once: true });
    const { stopWatching, troubled } = await this.#watch(credential, () => over.abort(badCapability()));
    try {
      const answer = await work(over.signal);
      if (answer.ok && troubled === provider)
        this.ctx.waitUntil(instanceOf(this.env).providerServed(provider));
      if (answer.body === null) {
        stopWatching();
        return answer;
      }
      const { readable, writable } = new IdentityTransformStream();
      answer.body.pipeTo(writable, { signal: over.signal }).then(stopWatching, stopWatching);
      return new Response(readable, answer);
    } catch (error) {
      stopWatching();
      throw over.signal.aborted ? over.signal.reason : error;
    }
  }

  /**
   * Has the instance, which knows the boot, tell when it is over.
   * @returns what ends that, and the provider that refused us last.
   * @throws ApiError 401 `bad_capability` when it is over already, or never was.
   */
  async #watch(
    credential: Credential,
    onEnd: () => void,
  ): Promise<{ stopWatching: () => void; troubled: string | null }> {
    const headers = { [CREDENTIAL]: credential };
    const ask = () => askInstance(this.env, (it) => it.fetch("http://instance/", { headers }));
    const first = await ask();
    if (!first.ok || first.body === null) throw badCapability();
    let reader = first.body.getReader();
    let isWatched = true;
    const watch = async () => {
      for (;;) {
        await reader.read().catch(() => undefined);
        if (!isWatched) return;
        // The object may have been started over in the middle of a boot.
        const again = await ask();
        if (!again.ok || again.body === null) return;
        reader = again.body.getReader();
      }
    };
    watch().then(
      () => isWatched && onEnd(),
      () => isWatched && onEnd(),
    );
    const stopWatching = () => {
      isWatched = false;
      reader.cancel().catch(() => undefined);
    };
    return { stopWatching, troubled: first.headers.get(TROUBLED) };
  }

  async #forward(
    name: Exclude<ProviderName, "rehearsal">,
    path: string,
    request: Request,
    settings: Settings,
    signal: AbortSignal,
  ): Promise<Response> {
    const provider = PROVIDERS[name];
    const gateway = gatewayOf(settings, name);
    const replaced = ownBaseUrl(settings, name) || gateway;
    const target = targetOf(replaced || provider.base, path, new URL(request.url).search);
    const key = settings.secrets[provider.key];
    const gatewayToken = gateway === "" ? undefined : settings.secrets.AI_GATEWAY_TOKEN;
    // A gateway that knows who asks may hold the provider's key itself.
    if (key === undefined && provider.keyNeeded && gatewayToken === undefined)
      throw this.#noKey(name, provider.key);
    const headers = outerHeaders(request.headers, name, key);
    if (gatewayToken !== undefined) headers.set("cf-aig-authorization", `Bearer ${gatewayToken}`);
    const init: RequestInit = {
      method: request.method,
      headers,
      body: request.body,
      redirect: "manual",
      signal,
    };
    const { answer, why } = judged(await this.#reach(replaced, target, init));
    if (answer.status >= 300 && answer.status < 400) {
      await answer.body?.cancel();
      throw new ApiError({
        status: 502,
        code: "provider_redirected",
        message:
          `The provider ${name} answered with a redirect, which is not followed. ` +
          `Mend ${gateway === "" ? "HERMES_PROVIDER_BASE_URL" : "HERMES_AI_GATEWAY"}.`,
      });
    }
    this.ctx.waitUntil(why.then((found) => found && this.#report(name, answer.status, provider.key, found)));
    const told = new Headers(answer.headers);
    told.delete("set-cookie");
    return new Response(answer.body, { status: answer.status, headers: told });
  }

  async #reach(replaced: string, target: string, init: RequestInit): Promise<Response> {
    const { PROVIDER } = this.env;
    const local = replaced !== "" && isLoopback(new URL(target).hostname);
    try {
      if (replaced !== "" && PROVIDER !== undefined) return await PROVIDER.fetch(target, init);
      if (local) throw new Error("this Worker has no way to this machine (binding PROVIDER)");
      return await fetch(target, init);
    } catch (error) {
      throw new ApiError({
        status: 502,
        code: "provider_unreachable",
        message: `The provider at ${new URL(target).host} cannot be reached: ${reason(error)}.`,
        cause: error,
      });
    }
  }

  #noKey(provider: string, variable: string): ApiError {
    this.#report(provider, 401, variable, "key");
    return new ApiError({
      status: 401,
      code: "invalid_api_key",
      message: `The Worker holds no key for ${provider}: set ${variable} and deploy again.`,
    });
  }

  /** Operators see what to mend, in the log and in the instance's status. */
  #report(provider: string, status: number, variable: string, why: Refusal): void {
    const log = new Log(new Redactor(secretValues(settingsOf(this.env))));
    log.error("provider_refused", { provider, status, variable, why });
    this.ctx.waitUntil(instanceOf(this.env).providerRefused({ provider, status, variable, why }));
  }
}

/** A call that passed the table. */
interface Call {
  provider: ProviderName;
  /** What follows the provider's base URL. */
  path: string;
}

/**
 * By what a caller is known.
 * @throws ApiError 401 `bad_capability`.
 */
async function credentialOf(headers: Headers): Promise<Credential> {
  const given = bearerOf(headers) ?? headers.get("x-api-key");
  if (given === null || given.length > 4096) throw badCapability();
  return `capability ${hex(await digestOf(given))}`;
}

/** A rebound browser page has another Host or an Origin; Hermes has neither. */
function checkOrigin(request: Request, settings: Settings): void {
  const host = request.headers.get("host") ?? new URL(request.url).host;
  const ours = new URL(settings.providersAddress).host;
  if (host.toLowerCase() === ours && request.headers.get("origin") === null) return;
  throw new ApiError({
    status: 403,
    code: "wrong_origin",
    message: "This address serves the running Hermes only.",
  });
}

/**
 * Finds the provider and checks method and path against the table. Only plain segments are understood:
 * what needs decoding, normalising or guessing is refused.
 */
function callOf(request: Request, settings: Settings): Call {
  const raw = /^https?:\/\/[^/?#]*([^?#]*)/i.exec(request.url)?.[1] ?? "";
  const parts = /^\/([a-z]+)((?:\/[a-z0-9_-]+)+)$/.exec(raw);
  const provider = providersOf(settings).find((name) => name === parts?.[1]);
  const inner = parts?.[2] ?? "";
  if (provider === undefined) throw notServed();
  if (provider === "rehearsal") return { provider, path: inner };
  const { suffix, allowed } = PROVIDERS[provider];
  const path = inner.startsWith(`${suffix}/`) ? inner.slice(suffix.length) : null;
  if (path === null || !allowed.includes(`${request.method} ${path}`)) throw notServed();
  return { provider, path };
}

function badCapability(): ApiError {
  return new ApiError({
    status: 401,
    code: "bad_capability",
    message: "This address serves the running Hermes only.",
  });
}

function notServed(): ApiError {
  return new ApiError({ status: 404, code: "not_served", message: "No provider is served under this path." });
}

/** A provider's place behind the AI Gateway, or an empty text; endpoints of the owner's own have none. */
function gatewayOf(settings: Settings, provider: ProviderName): string {
  if (settings.aiGateway === "" || provider === "custom" || provider === "rehearsal") return "";
  return ownBaseUrl(settings, provider) === "" ? `${settings.aiGateway}/${provider}` : "";
}

/** The fixed base plus an allowed path; the result must still be below that base. */
function targetOf(base: string, path: string, search: string): string {
  const target = new URL(base + path + search);
  const fixed = new URL(base);
  if (target.origin !== fixed.origin || !target.pathname.startsWith(fixed.pathname)) throw notServed();
  return target.href;
}

function outerHeaders(inner: Headers, provider: ProviderName, key: string | undefined): Headers {
  const headers = new Headers();
  for (const [name, value] of inner) if (!isOneOf(PRIVATE, name)) headers.append(name, value);
  // The answer is handed on as it comes; compressed events would arrive in lumps.
  headers.set("accept-encoding", "identity");
  if (key === undefined) return headers;
  if (provider === "anthropic") headers.set("x-api-key", key);
  else headers.set("authorization", `Bearer ${key}`);
  return headers;
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(?:\.\d+){3}$/.test(hostname);
}

async function rehearse(call: Call, request: Request): Promise<Response> {
  if (request.method === "POST" && call.path === "/v1/chat/completions") return rehearsalChat(request);
  if (request.method === "GET" && call.path === "/v1/models") return rehearsalModels();
  throw notServed();
}

/** An error in the shape that the provider's own client library understands. */
function refusal(error: unknown, shape: Provider["errors"]): Response {
  const known =
    error instanceof ApiError
      ? error
      : new ApiError({ status: 502, code: "providers_failed", message: reason(error), cause: error });
  const { status, message, code, type } = known;
  const kind = status === 401 ? "authentication_error" : type;
  const body =
    shape === "anthropic"
      ? { type: "error", error: { type: kind, message } }
      : { error: { message, type: kind, param: null, code } };
  return Response.json(body, { status });
}
