// SPDX-License-Identifier: Apache-2.0
/** SMS and MMS by Twilio: what its number gets, and what it sends. Facts: twilio.com/docs. */
import type { SmsSettings } from "../../config/channels.ts";
import {
  type Attachment,
  admitted,
  badSignature,
  badUpdate,
  type Call,
  type FetchedFile,
  messageOf,
  type Outgoing,
  type OutgoingFile,
  onlyText,
  type Platform,
  type Received,
  type Registered,
  SendRefused,
  type Update,
} from "../channel.ts";
import { kindOf } from "../files.ts";
import { Messenger } from "../messenger.ts";
import { isSignedWith, ofBase64, ofHex, plain, signatureOf } from "../signatures.ts";
import { LARGEST_AS_IT_IS, largestGiven, limited } from "../sizes.ts";

const PATH = "/channels/sms";
/** How many files Twilio brings with a message at most. */
const MOST_FILES = 10;

/** What Twilio makes as small as a phone takes it, and what it sends as it is; others it refuses. */
const PICTURES = ["image/jpeg", "image/png", "image/gif"];
const OTHERS = new Set([
  ...["image/bmp", "image/heic", "image/heif", "image/tiff"],
  ...["3gpp", "3gpp2", "mp4", "mpeg", "quicktime", "webm", "H261", "H263", "H264"].map((of) => `video/${of}`),
  ...["3gpp", "3gpp2", "ac3", "amr", "basic", "L24", "mp4", "mpeg", "ogg", "vnd.wave", "webm"].map(
    (of) => `audio/${of}`,
  ),
  ...["calendar", "csv", "directory", "richtext", "rtf", "vcard", "x-vcard"].map((of) => `text/${of}`),
  ...["application/pdf", "application/vcard", "application/vnd.apple.pkpass"],
]);

/** The longest name of a file that Twilio tells phones. */
const LONGEST_NAME = 20;
/** A file is offered to Twilio for so long at most; milliseconds. */
const OFFERED_FOR = 300_000;
/** Pauses before it is asked what became of a message, in milliseconds. */
const SHORTEST_PAUSE = 1000;
const LONGEST_PAUSE = 15_000;
/** A message that Twilio has not sent yet, and one that it will not send. */
const NOT_SENT_YET = ["accepted", "scheduled", "queued", "sending"];
const NEVER_SENT = ["failed", "undelivered", "canceled"];

/** SMS, for the table of the platforms. */
export const sms: Platform<SmsSettings> = {
  methods: ["POST"],
  receive,
  fetches,
  open: (account, parts) => new Sms(account, parts),
};

async function receive({ headers, body, url }: Call, account: SmsSettings): Promise<Received> {
  const signature = /^[A-Za-z0-9+/]{27}=$/.exec(headers.get("x-twilio-signature") ?? "")?.[0];
  if (signature === undefined) throw badSignature();
  const form = new URLSearchParams(new TextDecoder().decode(await body()));
  const fields = [...form].sort(([one], [other]) => (one < other ? -1 : Number(one > other)));
  const signed = plain(url + fields.flat().join(""));
  const verified = account.authTokens.map((token) =>
    isSignedWith(token, ofBase64(signature), signed, "SHA-1"),
  );
  if (!(await Promise.all(verified)).includes(true)) throw badSignature();
  const update = read(form, account);
  // Twilio wants to be told what to do next: nothing.
  const answer = new Response('<?xml version="1.0" encoding="UTF-8"?><Response/>', {
    headers: { "content-type": "text/xml" },
  });
  return { answer, told: update.kind === "nothing" ? null : { updates: [update] } };
}

/**
 * Reads the name of a file that Twilio fetches. It shows no proof there, so the name is one: whoever makes one up is told
 * as little as at any other address, and the instance is not asked.
 */
async function fetches({ url, now }: Call, { authTokens }: SmsSettings): Promise<string | null> {
  const name = new URL(url).searchParams.get("file") ?? "";
  const [, signed = "", until, signature = ""] = NAME.exec(name) ?? [];
  if (!(Number(until) > now)) return null;
  const verified = authTokens.map((token) => isSignedWith(token, ofHex(signature), plain(signed)));
  return (await Promise.all(verified)).includes(true) ? name : null;
}

/** A file's name: until when it is good, what nobody guesses, and the signature of both. */
const NAME = /^(file-(\d{13})-[0-9a-f-]{36})-([0-9a-f]{64})$/;

async function nameOf(until: number, [token = ""]: readonly string[]): Promise<string> {
  const name = `file-${until}-${crypto.randomUUID()}`;
  return `${name}-${await signatureOf(token, name)}`;
}

function read(form: URLSearchParams, account: SmsSettings): Update {
  const of = (name: string) => form.get(name) ?? "";
  const [from, id, text] = [of("From"), of("MessageSid"), of("Body")];
  if (from === "" || id === "") throw badUpdate();
  if (of("AccountSid") !== account.accountSid) return { kind: "nothing", why: "not for the bot" };
  const files = Array.from({ length: Math.min(MOST_FILES, Number(of("NumMedia")) || 0) }, (_, at) =>
    fileOf(of(`MediaUrl${at}`), of(`MediaContentType${at}`)),
  );
  const read =
    text.trim() !== "" || files.length > 0
      ? messageOf("sms", { message: id, text, chat: from, isGroup: false, user: from, files })
      : onlyText({ chat: from, thread: null, message: id });
  const who = { chat: from, user: from, name: "" };
  return admitted(read, account.allow.includes(from), account.pairing && who);
}

/** Why Twilio would refuse a file; `null` = it takes it. */
function whyNot({ mime, size }: OutgoingFile): string | null {
  if (PICTURES.includes(mime)) return null;
  if (!OTHERS.has(mime)) return `it takes no files of the type ${mime || "that this one has"}`;
  return size > LARGEST_AS_IT_IS ? `it is larger than ${LARGEST_AS_IT_IS / 1000} KB` : null;
}

function fileOf(ref: string, mime: string): Attachment {
  return { ref, kind: kindOf(mime), name: "", mime };
}

interface PhoneNumber {
  sid: string;
  sms_url?: string | null;
  sms_method?: string | null;
}

/** What Twilio answers. */
interface Answer {
  sid?: string;
  incoming_phone_numbers?: PhoneNumber[];
  message?: string;
  /** What became of a message. */
  status?: string;
  error_code?: number | null;
  error_message?: string | null;
}

/** One number's calls. */
class Sms extends Messenger<SmsSettings> {
  protected readonly label = "Twilio";
  /** What Twilio may fetch, by names; and whether it did. */
  readonly #offered = new Map<string, { file: OutgoingFile; isFetched: boolean }>();

  async send({ chat, text }: Outgoing): Promise<string> {
    const { sid } = await this.#call("Messages.json", { To: chat, From: this.settings.number, Body: text });
    return sid ?? "";
  }

  /** Twilio fetches a file where its number sends messages; its words are a message of their own. */
  async sendFile({ chat }: Outgoing, file: OutgoingFile): Promise<string> {
    const why = whyNot(file);
    if (why !== null) throw new SendRefused(`Twilio: ${why}`, true);
    const { sms_url: here } = await this.#number();
    if (!here?.endsWith(PATH))
      throw new SendRefused(
        "Twilio: it does not know where to fetch files, for its number sends elsewhere",
        true,
      );
    const until = this.parts.time.now() + OFFERED_FOR;
    const name = await nameOf(until, this.settings.authTokens);
    const offered = { file, isFetched: false };
    this.#offered.set(name, offered);
    try {
      const to = { To: chat, From: this.settings.number, MediaUrl: `${here}?file=${name}` };
      const { sid = "" } = await this.#call("Messages.json", to);
      await this.#sent(sid, until, offered);
      return sid;
    } finally {
      this.#offered.delete(name);
    }
  }

  async offered(name: string): Promise<FetchedFile | null> {
    const offered = this.#offered.get(name);
    if (offered === undefined) return null;
    const { mime, name: called, bytes: read } = offered.file;
    const bytes = await new Response(read()).arrayBuffer();
    offered.isFetched = true;
    return { mime, bytes, name: called.replaceAll(/[^\w.-]/g, "_").slice(-LONGEST_NAME) };
  }

  /** Waits until Twilio sent a message: it fetches files after it took that. @throws SendRefused when it does not. */
  async #sent(sid: string, until: number, offered: { isFetched: boolean }): Promise<void> {
    const { time } = this.parts;
    for (let pause = SHORTEST_PAUSE; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
      await time.sleep(pause);
      const { status = "", error_code: code, error_message: why } = await this.#message(sid);
      if (NEVER_SENT.includes(status))
        throw new SendRefused(`Twilio: ${why ?? "it was not sent"} (${code})`, true);
      if (!NOT_SENT_YET.includes(status)) return;
      if (time.now() < until) continue;
      // What it has it sends when it can, as it does with texts.
      if (offered.isFetched) return;
      throw new SendRefused("Twilio: a file was not fetched in time", false, 0, true);
    }
  }

  /** What Twilio says of a message; nothing new while it cannot be asked. */
  async #message(sid: string): Promise<Answer> {
    try {
      return await this.#call(`Messages/${sid}.json`);
    } catch (error) {
      if (!(error instanceof SendRefused) || error.isFinal) throw error;
      return { status: "queued" };
    }
  }

  async file({ ref }: Attachment): Promise<ReadableStream<Uint8Array>> {
    const home = new URL(this.settings.apiUrl).origin;
    // It does not say before how large one is.
    return limited(await this.bytesAt(ref, [home], this.#proof, undefined, true), largestGiven("sms"));
  }

  async register(address: string, look: boolean): Promise<Registered> {
    const wanted = `${address}${PATH}`;
    const found = await this.#number();
    const changed = found.sms_url !== wanted || found.sms_method !== "POST";
    if (changed && !look) await this.#sendTo(found, wanted);
    const now = look ? (found.sms_url ?? "") : wanted;
    return this.registered(this.settings.number, now, changed);
  }

  /** An address that is another's stays. */
  override async unregister(): Promise<void> {
    const found = await this.#number();
    if (found.sms_url?.endsWith(PATH)) await this.#sendTo(found, "");
  }

  async #number(): Promise<PhoneNumber> {
    const asked = new URLSearchParams({ PhoneNumber: this.settings.number });
    const [found] = (await this.#call(`IncomingPhoneNumbers.json?${asked}`)).incoming_phone_numbers ?? [];
    if (found === undefined) throw new SendRefused("Twilio: this account has no such number", true);
    return found;
  }

  async #sendTo({ sid }: PhoneNumber, url: string): Promise<void> {
    await this.#call(`IncomingPhoneNumbers/${sid}.json`, { SmsUrl: url, SmsMethod: "POST" });
  }

  get #proof(): string {
    const { accountSid, authTokens } = this.settings;
    return `Basic ${btoa(`${accountSid}:${authTokens[0]}`)}`;
  }

  /** @throws SendRefused. */
  async #call(path: string, form?: Record<string, string>): Promise<Answer> {
    const { accountSid, apiUrl } = this.settings;
    const { response, answer } = await this.ask<Answer>(
      `${apiUrl}/2010-04-01/Accounts/${accountSid}/${path}`,
      this.#proof,
      form === undefined ? "GET" : "POST",
      form && new URLSearchParams(form),
    );
    if (response.ok) return answer;
    throw this.refusal(response, answer.message);
  }
}
