// SPDX-License-Identifier: Apache-2.0
/** Who may come in. Tokens are compared as SHA-256 digests, in constant time. */
import { digestOf, hex } from "../base/digests.ts";
import { ApiError } from "../base/errors.ts";
import type { Settings } from "../config/settings.ts";
import { type Deaths, isDead, type TokenUse, type Which } from "../instance/token-rotation.ts";

interface Digest {
  bytes: ArrayBuffer;
  hex: string;
}

const digests = new Map<string, Digest>();

/** Our own tokens are few and fixed: their digests are kept. */
async function keptDigest(token: string): Promise<Digest> {
  const kept = digests.get(token);
  if (kept !== undefined) return kept;
  const bytes = await digestOf(token);
  const digest = { bytes, hex: hex(bytes) };
  digests.set(token, digest);
  return digest;
}

/** Which of the configured tokens `given` is, in time that tells nothing about how close it came. */
async function recognise(
  given: string,
  settings: Settings,
): Promise<Pick<TokenCaller, "which" | "digest"> | null> {
  const { current, previous } = await digestsOf(settings);
  const candidate = await digestOf(given);
  const isPrevious = previous !== null && crypto.subtle.timingSafeEqual(candidate, previous.bytes);
  if (current !== null && crypto.subtle.timingSafeEqual(candidate, current.bytes))
    return { which: "current", digest: current.hex };
  return isPrevious ? { which: "previous", digest: previous.hex } : null;
}

/** Digests of the configured tokens. A token that replaces itself was not replaced. */
async function digestsOf(settings: Settings): Promise<Record<Which, Digest | null>> {
  const { API_TOKEN, API_TOKEN_PREVIOUS } = settings.secrets;
  const current = API_TOKEN === undefined ? null : await keptDigest(API_TOKEN);
  const none = API_TOKEN_PREVIOUS === undefined || API_TOKEN_PREVIOUS === API_TOKEN;
  return { current, previous: none ? null : await keptDigest(API_TOKEN_PREVIOUS) };
}

/** Digests of the tokens that are good here, as far as this Worker is configured. */
export async function tokenDigests(settings: Settings): Promise<string[]> {
  const { current, previous } = await digestsOf(settings);
  return [current, previous].flatMap((digest) => (digest === null ? [] : [digest.hex]));
}

/** The token of an `Authorization: Bearer` header, or `null`. */
export function bearerOf(headers: Headers): string | null {
  const match = /^Bearer[ ]+([^\s]{1,4096})$/i.exec(headers.get("authorization") ?? "");
  return match?.[1] ?? null;
}

/** How long what the instance said about the tokens is believed, in milliseconds. */
const BELIEVED = 60_000;

/** What this isolate was told last, by its settings. */
const told = new WeakMap<Settings, { deaths: Deaths; at: number }>();

/** The token that let a request in. */
export interface TokenCaller {
  which: Which;
  /** What it is known by where it must not be kept. */
  digest: string;
  /** When the previous token dies or died, in milliseconds since the epoch; `null` while nobody used the new one. */
  previousUntil: number | null;
}

/** Asks the one record of replaced tokens. */
export type Registry = (use: TokenUse) => Promise<Deaths>;

/**
 * Lets a request pass that carries a valid token.
 * @returns which token it was; `null` where everyone is served.
 * @throws ApiError 503 `no_token` when none is configured, 403 `wrong_host` where a page may have been led here, 401 `missing_token`, `wrong_token` or `retired_token`.
 */
export async function authorize(
  headers: Headers,
  settings: Settings,
  registry: Registry,
): Promise<TokenCaller | null> {
  if (servesEveryone(settings)) {
    refuseRebound(headers, settings);
    return null;
  }
  const given = bearerOf(headers);
  if (given === null)
    throw new ApiError({
      status: 401,
      code: "missing_token",
      message: "Send the API token as 'Authorization: Bearer <token>'.",
    });
  return authorizeToken(given, settings, registry);
}

/**
 * Whether nobody has to show anything: no token is configured, and that is wanted.
 * @throws ApiError 503 `no_token` when none is configured by mistake: then nothing is served, whatever is shown.
 */
export function servesEveryone(settings: Settings): boolean {
  if (settings.secrets.API_TOKEN !== undefined) return false;
  if (settings.allowUnauthenticated) return true;
  throw new ApiError({
    status: 503,
    code: "no_token",
    message:
      "No API token is configured, so nothing is served. Set the secret API_TOKEN, " +
      'or HERMES_ALLOW_UNAUTHENTICATED to "true" to serve everyone.',
  });
}

/**
 * Lets a token pass that is valid, however it was sent.
 * @throws ApiError 401 `wrong_token` or `retired_token`; 503 `no_token`.
 */
export async function authorizeToken(
  given: string,
  settings: Settings,
  registry: Registry,
): Promise<TokenCaller> {
  servesEveryone(settings);
  const known = await recognise(given, settings);
  if (known === null)
    throw new ApiError({ status: 401, code: "wrong_token", message: "This API token is not valid here." });
  const deaths = await deathsOf(known.which, settings, registry);
  if (isDead(deaths[known.which], Date.now())) throw retired();
  return { ...known, previousUntil: deaths.previous };
}

/** What is known about the tokens; the instance is asked at the first use, and again when its answer may have changed. */
async function deathsOf(used: Which, settings: Settings, registry: Registry): Promise<Deaths> {
  const { current, previous } = await digestsOf(settings);
  const known = told.get(settings);
  // As long as the previous token has no end, each use of either may be the one that gives it one.
  const open = previous !== null && known?.deaths.previous === null;
  if (known !== undefined && !open && Date.now() - known.at < BELIEVED) return known.deaths;
  const deaths = await registry({
    used,
    current: current?.hex ?? "",
    previous: previous?.hex ?? null,
  });
  told.set(settings, { deaths, at: Date.now() });
  return deaths;
}

/** A page whose name was made to lead to this machine speaks to its own origin, as its browser sees it. */
function refuseRebound(headers: Headers, settings: Settings): void {
  const host = headers.get("host");
  if (settings.platform !== "workerd" || host === null) return;
  const name = host.toLowerCase().replace(/:\d+$/, "");
  if (/^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(name) || name === settings.dashboardHostname) return;
  throw new ApiError({
    status: 403,
    code: "wrong_host",
    message:
      "Without an API token this Worker is served under 127.0.0.1 and localhost only. Use one of these, or " +
      "configure a token.",
  });
}

function retired(): ApiError {
  return new ApiError({
    status: 401,
    code: "retired_token",
    message:
      "This API token was replaced and is refused for ever. Use the one that replaced it; " +
      "where the old one was configured again, configure a new one.",
  });
}
