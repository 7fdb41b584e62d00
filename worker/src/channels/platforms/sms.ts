// SPDX-License-Identifier: Apache-2.0
/** SMS and MMS by Twilio: what its number gets, and what it sends. Facts: twilio.com/docs. */
import type { SmsSettings } from "../../config/channels.ts";
import {
  type Attachment,
  admitted,
  badSignature,
  badUpdate,
  type Call,
  messageOf,
  type Outgoing,
  onlyText,
  type Platform,
  type Received,
  type Registered,
  SendRefused,
  type Update,
} from "../channel.ts";
import { kindOf } from "../files.ts";
import { Messenger } from "../messenger.ts";
import { isSignedWith, ofBase64, plain } from "../signatures.ts";

const PATH = "/channels/sms";
/** How many files Twilio brings with a message at most. */
const MOST_FILES = 10;

/** SMS, for the table of the platforms. */
export const sms: Platform<SmsSettings> = {
  methods: ["POST"],
  receive,
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
  code?: number;
}

/** One number's calls. */
class Sms extends Messenger<SmsSettings> {
  protected readonly label = "Twilio";

  async send({ chat, text }: Outgoing): Promise<string> {
    const { sid } = await this.#call("Messages.json", { To: chat, From: this.settings.number, Body: text });
    return sid ?? "";
  }

  async file({ ref }: Attachment): Promise<ReadableStream<Uint8Array>> {
    return this.bytesAt(ref, [new URL(this.settings.apiUrl).origin], this.#proof, undefined, true);
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
