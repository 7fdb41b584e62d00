// SPDX-License-Identifier: Apache-2.0
/**
 * A mail, as Cloudflare's Email Routing hands it to the Worker: who may not write, and what no person wrote, is left here
 * without a word. Facts: developers.cloudflare.com/email-service.
 */
import PostalMime, { addressParser } from "postal-mime";
import { digestOf, hex } from "../../base/digests.ts";
import type { EmailSettings } from "../../config/channels.ts";
import { inMegabytes, LARGEST_MAIL } from "../sizes.ts";
import { isAuthentic } from "./authentic.ts";
import { wordsOf } from "./words.ts";

/** So much is read of a mail that is too large, in bytes: what it says stands before what is attached. */
const READ = 2 * 1024 * 1024;
/** How many of the files that came with a mail are taken; and of how many that are not Hermes is told. */
const MOST_FILES = 10;
const MOST_NAMED = 10;
/** What a mail may be called, to be named in its answer. */
const MESSAGE_ID = /^<[!-;=?-~]{1,900}>$/;

/** What of a mail the instance is told. */
export interface Mail {
  /** A digest of what its sender calls it. */
  id: string;
  /** Who wrote it, in lower case. */
  from: string;
  /** As they call themselves; empty = not. */
  name: string;
  subject: string;
  /** Of the mails before it and of itself, as its answer names them. */
  references: string[];
  /** Empty where it says nothing that Hermes is given. */
  text: string;
  files: MailFile[];
}

/** A file that came with a mail. */
export interface MailFile {
  /** Empty = none was said. */
  name: string;
  mime: string;
  bytes: ArrayBuffer;
}

/**
 * Reads a mail.
 * @returns `null` for one that is not for us: of a stranger, of whom it does not prove to be, or of a program.
 */
export async function mailOf(
  message: ForwardableEmailMessage,
  settings: EmailSettings,
): Promise<Mail | null> {
  const { headers } = message;
  if (!isTo(message.to, settings.address) || isOfAProgram(message.from, headers)) return null;
  const from = senderOf(headers.get("from") ?? "");
  // Before anything of it is read: a stranger's mail costs nothing.
  if (from === null || !settings.allow.includes(from)) return null;
  const isWhole = message.rawSize <= LARGEST_MAIL;
  const mail = await PostalMime.parse(await beginningOf(message.raw, isWhole ? LARGEST_MAIL : READ));
  const [field, ...others] = mail.headers.filter(({ key }) => key === "from");
  if (field === undefined || others.length > 0 || senderOf(field.value) !== from) return null;
  if (!isAuthentic(mail.headers, from.slice(from.indexOf("@") + 1))) return null;
  const { messageId = "", subject = "", references = "", inReplyTo = "", text, html } = mail;
  const files = mail.attachments.filter(
    ({ disposition, related }) => disposition === "attachment" || !related,
  );
  const taken = isWhole ? files.slice(0, MOST_FILES) : [];
  const before = references.match(/<[^<>\s]+>/g) ?? inReplyTo.match(/<[^<>\s]+>/g) ?? [];
  return {
    id: await idOf(messageId, mail.headers),
    from,
    name: mail.from?.name ?? "",
    subject,
    references: [...before, messageId].filter((one) => MESSAGE_ID.test(one)),
    text: told(
      subject,
      wordsOf(subject, text, html),
      files.slice(taken.length).map(({ filename }) => filename ?? ""),
    ),
    files: await Promise.all(
      taken.map(async ({ filename, mimeType, content }) => ({
        name: filename ?? "",
        mime: mimeType,
        bytes: await new Blob([content]).arrayBuffer(),
      })),
    ),
  };
}

/** Whether a mail is to our address, with or without a detail behind a plus. */
function isTo(to: string, address: string): boolean {
  return to.toLowerCase().replace(/\+[^@]*@/, "@") === address.replace(/\+[^@]*@/, "@");
}

/** Whether a program wrote a mail: whoever answers that may be answered for ever (RFC 3834). */
function isOfAProgram(envelope: string, headers: Headers): boolean {
  const automatic = headers.get("auto-submitted")?.trim().toLowerCase() ?? "no";
  return (
    envelope.replace(/[<>\s]/g, "") === "" ||
    !/^no\b/.test(automatic) ||
    /^\s*(?:bulk|list|junk|auto_reply)\b/i.test(headers.get("precedence") ?? "") ||
    headers.has("list-id") ||
    /^\s*multipart\/report\b/i.test(headers.get("content-type") ?? "")
  );
}

/** The one address of a `From`, in lower case; `null` where it is not as plain as people's are. */
function senderOf(value: string): string | null {
  const [, name = "", inAngles, bare] =
    /^([^<>]*)<([^<>\s]+)>\s*$|^\s*([^<>\s]+)\s*$/.exec(value.replace(/\r?\n/g, "")) ?? [];
  // A name that is no mere name may be another address to others.
  if (/[,;:@()]/.test(name.replace(/"(?:\\.|[^"\\])*"/g, ""))) return null;
  const address = (inAngles ?? bare ?? "").toLowerCase();
  const [found, ...others] = addressParser(value, { flatten: true });
  if (others.length > 0 || found?.address?.toLowerCase() !== address) return null;
  return /^[^\s"(),:;<>@[\\\]]+@[a-z0-9.-]+$/.test(address) ? address : null;
}

async function beginningOf(raw: ReadableStream<Uint8Array>, most: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of raw) {
    pieces.push(piece);
    size += piece.byteLength;
    if (size >= most) break;
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.byteLength;
  }
  return bytes;
}

/** A name for a mail that is the same when it comes again. */
async function idOf(messageId: string, headers: readonly object[]): Promise<string> {
  const name = messageId || JSON.stringify(headers.slice(-20));
  return hex(await digestOf(name)).slice(0, 32);
}

/** What Hermes is told of a mail. A command stands alone, and an answer's subject says nothing new. */
function told(subject: string, words: string, files: readonly string[]): string {
  const note =
    files.length === 0
      ? []
      : [
          `(Files came with this mail that are not taken: ${namesOf(files)}. Of a mail of up to` +
            ` ${inMegabytes(LARGEST_MAIL)} the first ${MOST_FILES} are. Tell its sender.)`,
        ];
  const isAlone = words.startsWith("/") || /^\s*re\s*:/i.test(subject);
  const isTold = subject !== "" && (words === "" || !isAlone);
  return [...(isTold ? [`Subject: ${subject}`] : []), words, ...note]
    .filter((one) => one !== "")
    .join("\n\n");
}

function namesOf(files: readonly string[]): string {
  const named = files
    .slice(0, MOST_NAMED)
    .map((name) => name.replace(/\s+/g, " ").slice(0, 100) || "one without a name");
  return [...named, ...(files.length > MOST_NAMED ? ["and more"] : [])].join(", ");
}
