// SPDX-License-Identifier: Apache-2.0
/** What the Worker holds, proved without showing it: HMAC-SHA256 over a nonce, keyed with each secret. */
import type { Context } from "hono";
import * as z from "zod/mini";
import { hmac, isEqual } from "../base/digests.ts";
import { ApiError } from "../base/errors.ts";
import type { Settings } from "../config/settings.ts";
import { servesEveryone } from "./auth.ts";
import type { Base } from "./requests.ts";

/** Where who holds an API token may ask whether this Worker does, without sending it. */
export const IDENTITY = "/api/identity";
/** Header of such a question: HMAC-SHA256 in hexadecimal of `asked <hostname> <nonce>`, keyed with the token. */
const ASKER = "x-hermes-asked";

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
 * Proves to who holds an API token that this Worker holds it too, so that nobody has to send the token to find out. Who
 * asks shows it first, by a proof of its own: whoever does not hold the token gets nothing by which to guess it. The
 * address that was asked is in both: passed on to or from another address they are of no use.
 * @throws ApiError 400 `bad_nonce`, 401 `wrong_token`, 503 `no_token` when none is configured by mistake.
 */
export async function identify<E extends Base>(c: Context<E>): Promise<Response> {
  const { settings } = c.var;
  const { nonce } = checked({ nonce: c.req.query("nonce") });
  const { hostname } = new URL(c.req.raw.url);
  const { API_TOKEN, API_TOKEN_PREVIOUS } = settings.secrets;
  const headers = { "cache-control": "no-store" };
  if (servesEveryone(settings)) return c.json({ proofs: [] }, { headers });
  for (const token of [API_TOKEN, API_TOKEN_PREVIOUS]) {
    if (token === undefined) continue;
    const asked = await hmac(token, `asked ${hostname} ${nonce}`);
    if (isEqual(asked, c.req.header(ASKER) ?? ""))
      return c.json({ proofs: [await hmac(token, `${hostname} ${nonce}`)] }, { headers });
  }
  throw new ApiError({
    status: 401,
    code: "wrong_token",
    message: "Whoever asks does not hold an API token that is valid here.",
  });
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
