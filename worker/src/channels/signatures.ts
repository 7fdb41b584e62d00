// SPDX-License-Identifier: Apache-2.0
/** How senders sign: what they sign, how signatures are written, and whether one is good. */
import { hex } from "../base/digests.ts";

/** A signature with a time in it is good for so long, either way; milliseconds. */
export const AGE = 300_000;

/** Bytes of their own. */
export type Bytes = Uint8Array<ArrayBuffer>;

type Hash = "SHA-256" | "SHA-1";

const encoder = new TextEncoder();

/** A text as bytes. */
export function plain(text: string): Bytes {
  return encoder.encode(text) as Bytes;
}

/** What is signed where something stands before the body. */
export function joined(before: string, body: Bytes): Bytes {
  const head = encoder.encode(before);
  const whole = new Uint8Array(head.byteLength + body.byteLength);
  whole.set(head);
  whole.set(body, head.byteLength);
  return whole;
}

/** Bytes of hexadecimal digits. */
export function ofHex(text: string): Bytes {
  return new Uint8Array((text.match(/../g) ?? []).map((pair) => Number.parseInt(pair, 16)));
}

/** Bytes of base64. */
export function ofBase64(text: string): Bytes {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

/** Milliseconds since the epoch of a time in seconds that is not too old, nor too early; else `null`. */
export function timely(seconds: string, now: number): number | null {
  const at = /^\d{1,12}$/.test(seconds) ? Number(seconds) * 1000 : Number.NaN;
  return Math.abs(now - at) <= AGE ? at : null;
}

/** A key to sign with, and to verify in time that tells nothing about how close a signature came. */
export function hmacKey(key: Bytes, hash: Hash = "SHA-256"): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", key, { name: "HMAC", hash }, false, ["sign", "verify"]);
}

/** A text's signature by a secret, in hexadecimal digits. */
export async function signatureOf(secret: string, text: string): Promise<string> {
  return hex(await crypto.subtle.sign("HMAC", await hmacKey(plain(secret)), plain(text)));
}

/** Whether a text was signed with a secret. */
export async function isSignedWith(
  secret: string,
  signature: Bytes,
  text: Bytes,
  hash: Hash = "SHA-256",
): Promise<boolean> {
  return crypto.subtle.verify("HMAC", await hmacKey(plain(secret), hash), signature, text);
}
