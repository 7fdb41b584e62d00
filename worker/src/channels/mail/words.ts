// SPDX-License-Identifier: Apache-2.0
/** What a person wrote in a mail, without what their program put around it. */

/** The longest text of a mail that Hermes is given, in characters. */
const LONGEST = 100_000;
/** And of a page that it is taken from. */
const LONGEST_PAGE = 1_000_000;

/** A mail that hands another one on: what is quoted is what it is about. */
const FORWARDED = /^\s*(?:fwd?|wg|tr|rv|i|vs|enc|doorst)\s*:/i;
/** Where programs put the mail that is answered below the answer. */
const ORIGINAL =
  /^-{2,}\s*(?:original message|original-nachricht|ursprüngliche nachricht|message d'origine)\s*-{2,}\s*$/im;
/** The head of such a mail, below a line, as Outlook writes it. */
const HEAD =
  /^_{10,}\s*\n(?:\s*\n)*\*?(?:from|von|de|da)\s?:\*?.*\n(?:.*\n){0,2}?\*?(?:sent|gesendet|envoyé|date|datum|to|an)\s?:/im;
/** The lines of a quote at the very end, below one or two that say who wrote them, and when. */
const QUOTE = /(?:^|\n)[^\n>][^\n]*(?:\n[^\n>][^\n]*)?:[ \t]*\n(?:[ \t]*\n)*(?:>[^\n]*(?:\n[ \t]*)*)+$/;

/**
 * The text of a mail as Hermes is given it: without the mail that it answers, where it is clear that it is one.
 * @param subject as its sender wrote it.
 */
export function wordsOf(subject: string, plain: string | undefined, html: string | undefined): string {
  const whole = plain?.trim() ? plain : textOf((html ?? "").slice(0, LONGEST_PAGE));
  const text = whole.replace(/\r\n?/g, "\n").trim().slice(0, LONGEST);
  const own = FORWARDED.test(subject) ? text : withoutHistory(text);
  return own === "" ? text : own;
}

function withoutHistory(text: string): string {
  const at = [ORIGINAL, HEAD, QUOTE].map((one) => text.search(one)).filter((one) => one >= 0);
  return text.slice(0, Math.min(text.length, ...at)).trim();
}

const ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  apos: "'",
  gt: ">",
  lt: "<",
  nbsp: " ",
  quot: '"',
};

/** A page's text, for mails that have nothing else. */
function textOf(html: string): string {
  return html
    .replace(/<!--[\s\S]*?(?:-->|$)/g, "")
    .replace(/<(head|style|script|title)\b[\s\S]*?(?:<\/\1\s*>|$)/gi, "")
    .replace(/\s+/g, " ")
    .replace(/<li\b[^>]*> ?/gi, "\n- ")
    .replace(/ ?<(?:br|\/p|\/div|\/tr|\/h[1-6]|\/ul|\/ol|\/blockquote|\/table|hr)\b[^>]*> ?/gi, "\n")
    .replace(/<[^>]*>/g, "")
    .replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]{1,8}));/gi, (all, decimal, hexadecimal, name) => {
      if (name !== undefined) return ENTITIES[name.toLowerCase()] ?? all;
      const code = decimal === undefined ? Number.parseInt(hexadecimal, 16) : Number(decimal);
      return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "";
    })
    .replace(/\n{3,}/g, "\n\n");
}
