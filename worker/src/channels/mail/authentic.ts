// SPDX-License-Identifier: Apache-2.0
/**
 * Whether a mail is from whom its `From` names. Cloudflare's server looked when it took the mail, and wrote what it found
 * above all that the sender wrote, as `Authentication-Results` (RFC 8601). DMARC says what is asked here: that SPF or DKIM
 * proved the domain that people see.
 */

/** What Cloudflare's server calls itself in what it writes. */
const SERVER = "mx.cloudflare.net";

/** A field of a mail's head; its name is in lower case. */
export interface Field {
  key: string;
  value: string;
}

/**
 * Whether Cloudflare found that a mail is of this domain.
 * @param fields all of the mail's head, from above.
 * @param domain in lower case.
 */
export function isAuthentic(fields: readonly Field[], domain: string): boolean {
  const written = fields.find(({ key }) => key === "authentication-results")?.value ?? "";
  const [server, ...results] = clausesOf(written);
  if (server?.split(/\s/)[0]?.toLowerCase() !== SERVER) return false;
  // Some of what it writes are words of the sender's: one that brings a second result is believed none.
  const [found, ...others] = results.filter((result) => /^dmarc\b/i.test(result));
  if (found === undefined || others.length > 0) return false;
  const [verdict, ...properties] = found.toLowerCase().split(/\s+/);
  return verdict === "dmarc=pass" && properties.includes(`header.from=${domain}`);
}

/** The parts between semicolons, without comments; what is quoted is one word. */
function clausesOf(value: string): string[] {
  const clauses = [""];
  let depth = 0;
  for (const [token] of value.matchAll(/"(?:\\.|[^"\\])*"|\\.|[\s\S]/g)) {
    if (token === "(") depth++;
    else if (token === ")") depth = Math.max(0, depth - 1);
    else if (depth > 0) continue;
    else if (token === ";") clauses.push("");
    else clauses.push(`${clauses.pop()}${token}`);
  }
  return clauses.map((clause) => clause.trim());
}
