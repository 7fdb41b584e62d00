// SPDX-License-Identifier: Apache-2.0
/** What the Worker holds, proved without showing it: HMAC-SHA256 over a nonce, keyed with each secret. */
import type { Context } from "hono";
import * as z from "zod/mini";
import { servesEveryone } from "./auth.ts";
import { hex } from "./digests.ts";
import { ApiError } from "./errors.ts";
import type { Base } from "./requests.ts";
import type { Settings } from "./settings.ts";

/** Where anybody may ask who answers here. */
export const IDENTITY = "/api/identity";

const schema = z.object({ nonce: z.string().check(z.regex(/^[0-9a-f]{64}$/)) });

/**
 * Answers `{"nonce": 64 hex digits}` with a proof for each secret that is set.
 * @throws ApiError 400 `bad_nonce`.
 */
export async function prove(
  body: ArrayBuffer | null,
  secrets: Settings["secrets"],
): Promise<{ proofs: Record<string, string> }> {
  const { nonce } = parse(body);
  const proofs: Record<string, string> = {};
  for (const [name, value] of Object.entries(secrets)) proofs[name] = await hmac(value, nonce);
  return { proofs };
}

/**
 * Proves to whoever asks that this is the Worker that holds an API token, so that nobody has to send the token to find
 * out. The address that was asked is in the proof: whoever else passes the question on gets one that is of no use to
 * them.
 * @throws ApiError 400 `bad_nonce`, 503 `no_token` when none is configured by mistake.
 */
export async function identify<E extends Base>(c: Context<E>): Promise<Response> {
  servesEveryone(c.var.settings);
  const { nonce } = checked({ nonce: c.req.query("nonce") });
  const { API_TOKEN, API_TOKEN_PREVIOUS } = c.var.settings.secrets;
  const tokens = [API_TOKEN, API_TOKEN_PREVIOUS].filter((token) => token !== undefined);
  const { hostname } = new URL(c.req.raw.url);
  const proofs = await Promise.all(tokens.map((token) => hmac(token, `${hostname} ${nonce}`)));
  return c.json({ proofs }, { headers: { "cache-control": "no-store" } });
}

function parse(body: ArrayBuffer | null): z.infer<typeof schema> {
  try {
    return checked(JSON.parse(new TextDecoder().decode(body ?? new ArrayBuffer(0))));
  } catch (error) {
    throw badNonce(error);
  }
}

function checked(given: unknown): z.infer<typeof schema> {
  const result = schema.safeParse(given);
  if (!result.success) throw badNonce(result.error);
  return result.data;
}

function badNonce(cause: unknown): ApiError {
  return new ApiError({
    status: 400,
    code: "bad_nonce",
    message: 'Send {"nonce": "<64 lower-case hex digits>"}, or ?nonce= where nothing is sent.',
    cause,
  });
}

async function hmac(value: string, text: string): Promise<string> {
  const encoder = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(value), algorithm, false, ["sign"]);
  const signature = await crypto.subtle.sign("HMAC", key, encoder.encode(text));
  return hex(signature);
}
