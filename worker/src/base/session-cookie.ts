// SPDX-License-Identifier: Apache-2.0
/** What a dashboard's session cookie says: an id and an expiry, signed. It holds no token. */
import { base64url } from "jose";

/** What a good cookie says. */
export interface SessionTicket {
  id: string;
  /** Milliseconds since the epoch. */
  expires: number;
}

const encoder = new TextEncoder();
const ALGORITHM = { name: "HMAC", hash: "SHA-256" };

/** Writes a cookie's value. */
export async function sign({ id, expires }: SessionTicket, key: ArrayBuffer): Promise<string> {
  const text = `${id}.${expires}`;
  const mac = await crypto.subtle.sign("HMAC", await hmacKey(key), encoder.encode(text));
  return `${text}.${base64url.encode(new Uint8Array(mac))}`;
}

/** Reads a cookie's value; `null` when it is expired, or not ours. */
export async function verify(value: string, key: ArrayBuffer, now: number): Promise<SessionTicket | null> {
  const [, text = "", id = "", expires = "", mac = ""] =
    /^(([0-9a-f]{32})\.(\d{1,15}))\.([\w-]{43})$/.exec(value) ?? [];
  if (text === "" || Number(expires) <= now) return null;
  const signature = base64url.decode(mac);
  const good = await crypto.subtle.verify("HMAC", await hmacKey(key), signature, encoder.encode(text));
  return good ? { id, expires: Number(expires) } : null;
}

function hmacKey(key: ArrayBuffer): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", key, ALGORITHM, false, ["sign", "verify"]);
}
