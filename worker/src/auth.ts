// SPDX-License-Identifier: Apache-2.0
/** Who may come in. Tokens are compared as SHA-256 digests, in constant time. */
import { ApiError } from "./errors.ts";
import type { Settings } from "./settings.ts";

const encoder = new TextEncoder();
const digests = new Map<string, ArrayBuffer>();

/** SHA-256 of a text. */
export function digestOf(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest("SHA-256", encoder.encode(text));
}

/** Our own tokens are few and fixed: their digests are kept. */
async function keptDigest(token: string): Promise<ArrayBuffer> {
  const kept = digests.get(token);
  if (kept !== undefined) return kept;
  const digest = await digestOf(token);
  if (digests.size > 16) digests.clear();
  digests.set(token, digest);
  return digest;
}

/** Whether `given` equals one of `accepted`, in time that tells nothing about how close it came. */
export async function matches(given: string, accepted: readonly string[]): Promise<boolean> {
  const candidate = await digestOf(given);
  let found = false;
  for (const token of accepted) {
    if (crypto.subtle.timingSafeEqual(candidate, await keptDigest(token))) found = true;
  }
  return found;
}

/** The token of an `Authorization: Bearer` header, or `null`. */
export function bearerOf(headers: Headers): string | null {
  const match = /^Bearer[ ]+([^\s]{1,4096})$/i.exec(headers.get("authorization") ?? "");
  return match?.[1] ?? null;
}

/**
 * Lets a request pass that carries a valid token.
 * @throws ApiError 503 `no_token` when none is configured, 401 `missing_token` or `wrong_token` otherwise.
 */
export async function authorize(headers: Headers, settings: Settings): Promise<void> {
  const { API_TOKEN, API_TOKEN_NEXT } = settings.secrets;
  const accepted = [API_TOKEN, API_TOKEN_NEXT].filter((token) => token !== undefined);
  if (accepted.length === 0) {
    if (settings.allowUnauthenticated) return;
    throw new ApiError({
      status: 503,
      code: "no_token",
      message:
        "No API token is configured, so nothing is served. Set the secret API_TOKEN, " +
        'or HERMES_ALLOW_UNAUTHENTICATED to "true" to serve everyone.',
    });
  }
  const given = bearerOf(headers);
  if (given === null)
    throw new ApiError({
      status: 401,
      code: "missing_token",
      message: "Send the API token as 'Authorization: Bearer <token>'.",
    });
  if (!(await matches(given, accepted)))
    throw new ApiError({ status: 401, code: "wrong_token", message: "This API token is not valid here." });
}
