// SPDX-License-Identifier: Apache-2.0
/**
 * E-mail by Cloudflare's Email Routing, which hands mails to the Worker's `email()`, and takes answers by a binding that
 * sends to nobody but those who may write. Facts: developers.cloudflare.com/email-service.
 */
import { within } from "../../base/time.ts";
import { type EmailSettings, longest } from "../../config/channels.ts";
import {
  messageOf,
  noChannel,
  type Outgoing,
  type OutgoingFile,
  onlyText,
  type Platform,
  type Registered,
  SendRefused,
  type Update,
} from "../channel.ts";
import { kindOf } from "../files.ts";
import type { Mail } from "../mail/mail.ts";
import { Messenger } from "../messenger.ts";

/** A mail is taken within so long; milliseconds. */
const PATIENCE = 20_000;
/** How long it is known what a mail is answered by, in milliseconds: longer than one that failed is kept. */
const KNOWN = 14 * 24 * 3600_000;
/** The longest line of a mail's head, in bytes, that Cloudflare takes. */
const LONGEST_FIELD = 2048;
/** The longest subject, in characters; Cloudflare takes 998 of one. */
const LONGEST_SUBJECT = 400;

/** Refusals that no other attempt ends otherwise: of what a mail is, and of whom it is to. */
const FINAL = [
  "E_VALIDATION_ERROR",
  "E_FIELD_MISSING",
  "E_RECIPIENT_NOT_ALLOWED",
  "E_RECIPIENT_SUPPRESSED",
  "E_CONTENT_TOO_LARGE",
  "E_DELIVERY_FAILED",
];
/** And those after which it is better to wait; milliseconds. */
const WAITS: Readonly<Record<string, number>> = {
  E_RATE_LIMIT_EXCEEDED: 60_000,
  E_DAILY_LIMIT_EXCEEDED: 3600_000,
  E_SENDER_NOT_VERIFIED: 60_000,
  E_SENDER_DOMAIN_NOT_AVAILABLE: 60_000,
};

/** E-mail, for the table of the platforms: nobody calls an address for it. */
export const email: Platform<EmailSettings> = {
  methods: [],
  receive: () => Promise.reject(noChannel()),
  open: (account, parts) => new Email(account, parts),
};

/** By what a mail is answered. */
interface Thread {
  subject: string;
  references: string[];
}

/** One address. */
class Email extends Messenger<EmailSettings> {
  protected readonly label = "Email Routing";

  override async read(told: object): Promise<Update[]> {
    const { id, from, name, subject, references, text, files: came } = told as Mail;
    const thread: Thread = { subject, references };
    const { time, ways } = this.parts;
    ways.keep(id, JSON.stringify(thread), time.now(), KNOWN);
    if (text === "" && came.length === 0) return [onlyText({ chat: from, thread: null, message: id })];
    const userName = name === "" ? undefined : name;
    const ref = (at: number) => `email ${id} ${at}`;
    const files = came.map(({ mime, ...file }, at) => ({
      ...{ ref: ref(at), kind: kindOf(mime), name: file.name, mime },
    }));
    const who = { chat: from, isGroup: false, user: from, userName };
    const { kind, message } = messageOf("email", { message: id, text, ...who, files });
    return [{ kind, message: { ...message, bytes: new Map(came.map(({ bytes }, at) => [ref(at), bytes])) } }];
  }

  async send(message: Outgoing): Promise<string> {
    return this.#send(message, []);
  }

  caption(): number {
    return longest("email");
  }

  /** A mail that says nothing is none. */
  async sendFile(message: Outgoing, { name, mime, bytes }: OutgoingFile): Promise<string> {
    const content = await new Response(bytes()).arrayBuffer();
    const file = {
      disposition: "attachment" as const,
      filename: lineOf(name) || "file",
      type: mime || "application/octet-stream",
      content,
    };
    return this.#send({ ...message, text: message.text.trim() || file.filename }, [file]);
  }

  async #send({ chat, text, replyTo }: Outgoing, attachments: EmailAttachment[]): Promise<string> {
    const way = this.parts.ways.of(replyTo, this.parts.time.now());
    const thread = way === null ? null : (JSON.parse(way) as Thread);
    const { mail, time } = this.parts;
    if (mail === undefined) throw new SendRefused(NO_BINDING, false);
    const sent = mail.send({
      to: chat,
      from: { name: "Hermes", email: this.settings.address },
      subject: thread === null ? lineOf(text.trim().split("\n")[0] ?? "") : answered(thread.subject),
      text,
      ...(attachments.length === 0 ? {} : { attachments }),
      headers: {
        "Auto-Submitted": thread === null ? "auto-generated" : "auto-replied",
        ...(thread === null ? {} : threading(thread.references)),
      },
    });
    const taken = await within(time, PATIENCE, sent).catch((error) => {
      throw refusal(error);
    });
    if (taken === undefined) throw new SendRefused(`${this.label} did not answer in time`, false, 0, true);
    return taken.messageId;
  }

  /** The rule that leads mails here is set by whoever deploys the Worker. */
  async register(): Promise<Registered> {
    if (this.parts.mail === undefined) throw new SendRefused(NO_BINDING, true);
    return this.registered(this.settings.address, "");
  }
}

const NO_BINDING = "the Worker has no binding that sends mails";

/** The subject of an answer. */
function answered(subject: string): string {
  const line = lineOf(subject);
  return /^re\s*:/i.test(line) ? line : `Re: ${line}`;
}

/** One line for a mail's head: what is encoded there may hold more. */
function lineOf(text: string): string {
  return [...text.replace(/[\s\p{Cc}]+/gu, " ").trim()].slice(0, LONGEST_SUBJECT).join("");
}

/** What puts an answer into its thread: the first mail of it, and as many of the last as there is room for. */
function threading(references: readonly string[]): Record<string, string> {
  const last = references.at(-1);
  if (last === undefined) return {};
  const [first = "", ...others] = references;
  const kept: string[] = [];
  let room = LONGEST_FIELD - first.length;
  for (const one of others.reverse()) {
    room -= one.length + 1;
    if (room < 0) break;
    kept.unshift(one);
  }
  return { "In-Reply-To": last, References: [first, ...kept].join(" ") };
}

function refusal(error: unknown): SendRefused {
  const { code = "", message = "" } = error as { code?: string; message?: string };
  const isFinal = FINAL.includes(code) || code.startsWith("E_HEADER");
  const wait = WAITS[code];
  // Its own words may name the person.
  const words =
    code || (/not a verified address/.test(message) ? "the address is not verified" : "it failed");
  const isUnsure = !isFinal && wait === undefined && words !== "the address is not verified";
  return new SendRefused(`Email Routing: ${words}`, isFinal, wait, isUnsure);
}
