// SPDX-License-Identifier: Apache-2.0
/** What the Worker holds, proved without showing it: HMAC-SHA256 over a nonce, keyed with each secret. */
import * as z from "zod/mini";
import { hex } from "./digests.ts";
import { ApiError } from "./errors.ts";
import type { Settings } from "./settings.ts";

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

function parse(body: ArrayBuffer | null): z.infer<typeof schema> {
  try {
    return schema.parse(JSON.parse(new TextDecoder().decode(body ?? new ArrayBuffer(0))));
  } catch (error) {
    throw new ApiError({
      status: 400,
      code: "bad_nonce",
      message: 'Send {"nonce": "<64 lower-case hex digits>"}.',
      cause: error,
    });
  }
}

async function hmac(value: string, nonce: string): Promise<string> {
  const encoder = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(value), algorithm, false, ["sign"]);
  const signature = await crypto.subtle.sign("HMAC", key, encoder.encode(nonce));
  return hex(signature);
}
