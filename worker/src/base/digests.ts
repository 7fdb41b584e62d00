// SPDX-License-Identifier: Apache-2.0
/** SHA-256, and how it is written. */

const encoder = new TextEncoder();

/** SHA-256 of a text. */
export function digestOf(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest("SHA-256", encoder.encode(text));
}

/** Bytes as hexadecimal digits. */
export function hex(bytes: ArrayBuffer): string {
  return [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
