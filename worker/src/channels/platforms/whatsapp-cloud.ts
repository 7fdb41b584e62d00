// SPDX-License-Identifier: Apache-2.0
/** WhatsApp by Meta's Cloud API: webhooks of an app, and messages of its number. Facts: developers.facebook.com. */
import * as z from "zod/mini";
import { isEqual } from "../../base/digests.ts";
import type { WhatsAppSettings } from "../../config/channels.ts";
import {
  type Attachment,
  admitted,
  badSignature,
  badUpdate,
  type Call,
  type FileKind,
  messageOf,
  type Outgoing,
  type OutgoingFile,
  onlyText,
  type Platform,
  type Reaction,
  type Received,
  type Registered,
  SendRefused,
  type Update,
} from "../channel.ts";
import { kindOf } from "../files.ts";
import { starred } from "../marks.ts";
import { Messenger } from "../messenger.ts";
import { multipart } from "../multipart.ts";
import { isSignedWith, ofHex } from "../signatures.ts";
import { SHOWN as LARGEST_SHOWN, largestGiven } from "../sizes.ts";

/** Refusals after which another attempt may end otherwise: too many calls, Meta itself, a token being replaced. */
const FOR_NOW = new Set([1, 2, 4, 190, 80007, 130429, 131000, 131016, 131048, 131056, 133004]);
/** Nobody may be written to who has not written for a day. */
const TOO_LATE = 131047;

/** Where Meta keeps files. */
const FILES = "https://lookaside.fbsbx.com";

/** The longest text that goes with a file, in UTF-16 units; with what is heard goes none. */
const CAPTION = 1024;
/** What WhatsApp shows as what; all else goes as a document. */
const SHOWN: Readonly<Record<keyof typeof LARGEST_SHOWN.whatsapp_cloud, readonly string[]>> = {
  image: ["image/jpeg", "image/png"],
  audio: ["audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"],
  video: ["video/mp4", "video/3gpp"],
};

const fileSchema = z.optional(
  z.looseObject({
    id: z.string(),
    mime_type: z.optional(z.string()),
    filename: z.optional(z.string()),
    caption: z.optional(z.string()),
    voice: z.optional(z.boolean()),
  }),
);
const messageSchema = z.looseObject({
  from: z.string(),
  id: z.string(),
  type: z.string(),
  text: z.optional(z.object({ body: z.string() })),
  image: fileSchema,
  audio: fileSchema,
  video: fileSchema,
  document: fileSchema,
  context: z.optional(z.looseObject({ id: z.optional(z.string()) })),
});
/** What became of a message of ours. */
const statusSchema = z.looseObject({
  id: z.string(),
  status: z.string(),
  errors: z.optional(z.array(z.looseObject({ code: z.optional(z.number()), title: z.optional(z.string()) }))),
});
const updateSchema = z.object({
  object: z.literal("whatsapp_business_account"),
  entry: z.array(
    z.object({
      changes: z.array(
        z.object({
          value: z.looseObject({
            metadata: z.optional(z.looseObject({ phone_number_id: z.string() })),
            contacts: z.optional(
              z.array(
                z.looseObject({
                  wa_id: z.optional(z.string()),
                  profile: z.optional(z.looseObject({ name: z.optional(z.string()) })),
                }),
              ),
            ),
            messages: z.optional(z.array(messageSchema)),
            // What is none of these is no reason to lose a message beside it.
            statuses: z.catch(z.array(statusSchema), []),
          }),
        }),
      ),
    }),
  ),
});

type Value = z.infer<typeof updateSchema>["entry"][number]["changes"][number]["value"];

/** WhatsApp, for the table of the platforms. */
export const whatsapp: Platform<WhatsAppSettings> = {
  methods: ["GET", "POST"],
  receive: async (call, app) => (call.method === "GET" ? challenged(call, app) : receive(call, app)),
  open: (app, parts) => new WhatsApp(app, parts),
};

/** Meta asks whether the address is the app's. */
function challenged({ url }: Call, { verifyToken }: WhatsAppSettings): Received {
  const asked = new URL(url).searchParams;
  const isOurs = isEqual(asked.get("hub.verify_token") ?? "", verifyToken);
  if (asked.get("hub.mode") !== "subscribe" || !isOurs) throw badSignature();
  return { answer: new Response(asked.get("hub.challenge") ?? ""), told: null };
}

async function receive({ headers, body }: Call, app: WhatsAppSettings): Promise<Received> {
  const signature = /^sha256=([0-9a-f]{64})$/.exec(headers.get("x-hub-signature-256") ?? "")?.[1];
  if (signature === undefined) throw badSignature();
  const bytes = await body();
  if (!(await isSignedWith(app.appSecret, ofHex(signature), bytes))) throw badSignature();
  const updates = valuesOf(bytes)
    .flatMap((value) => read(value, app))
    .filter(({ kind }) => kind !== "nothing");
  return { answer: new Response(null, { status: 200 }), told: updates.length === 0 ? null : { updates } };
}

function valuesOf(bytes: Uint8Array): Value[] {
  try {
    const { entry } = updateSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
    return entry.flatMap(({ changes }) => changes.map(({ value }) => value));
  } catch (error) {
    throw badUpdate(error);
  }
}

/** Reads the messages in an update, and which of ours were not delivered: Meta tells that after it has taken them. */
function read({ metadata, contacts, messages = [], statuses }: Value, app: WhatsAppSettings): Update[] {
  if (metadata?.phone_number_id !== app.phoneNumberId) return [];
  const failed = statuses.filter(({ status }) => status === "failed");
  const undelivered = failed.map(({ id: message, errors: [error = {}] = [] }): Update => {
    return { kind: "undelivered", message, why: wordsOf(error.code, error.title) };
  });
  const read = messages.map((message) => {
    const { from, id, type, text, context } = message;
    const userName = contacts?.find((one) => one.wa_id === from)?.profile?.name;
    const said = { message: id, chat: from, user: from, userName, replyTo: context?.id, isGroup: false };
    const came = fileOf(message);
    const body = (type === "text" ? text?.body : came?.caption) ?? "";
    const read =
      body.trim() === "" && came === null
        ? onlyText({ chat: from, thread: null, message: id })
        : messageOf("whatsapp_cloud", { ...said, text: body, files: came === null ? [] : [came.file] });
    const who = { chat: from, user: from, name: userName ?? "" };
    return admitted(read, app.allow.includes(from), app.pairing && who);
  });
  return [...undelivered, ...read];
}

/** Why WhatsApp does not send something. */
function wordsOf(code = 0, words = "no reason was given"): string {
  const why = code === TOO_LATE ? "more than 24 hours have passed since they wrote" : words;
  return `WhatsApp: ${why} (${code})`;
}

/** What came with a message, and what its sender said to it. */
function fileOf(message: z.infer<typeof messageSchema>): { file: Attachment; caption: string } | null {
  const { image, audio, video, document } = message;
  const it = { image, audio, video, document }[message.type];
  if (it === undefined) return null;
  // It names its codec behind a semicolon.
  const mime = it.mime_type?.split(";")[0] ?? "";
  const kind = it === document ? "document" : it.voice === true ? "voice" : kindOf(mime);
  return { file: { ref: it.id, kind, name: it.filename ?? "", mime }, caption: it.caption ?? "" };
}

/** As what a file is sent. */
function shownAs({ kind, mime, size }: OutgoingFile): keyof typeof SHOWN | "document" {
  const as = (["image", "audio", "video"] as const).find((one) => SHOWN[one].includes(mime));
  const isShown = kind !== "document" && as !== undefined && size <= LARGEST_SHOWN.whatsapp_cloud[as];
  return isShown ? as : "document";
}

/** What Meta answers to every call. */
interface Answer {
  id?: string;
  url?: string;
  file_size?: number;
  messages?: { id: string }[];
  display_phone_number?: string;
  error?: { message?: string; code?: number };
}

/** One number's calls. */
class WhatsApp extends Messenger<WhatsAppSettings> {
  protected readonly label = "WhatsApp";

  async send({ chat, text, replyTo }: Outgoing): Promise<string> {
    const { messages } = await this.#call("/messages", "POST", {
      messaging_product: "whatsapp",
      recipient_type: "individual",
      to: chat,
      type: "text",
      text: { body: starred(text), preview_url: false },
      ...(replyTo === null ? {} : { context: { message_id: replyTo } }),
    });
    return messages?.[0]?.id ?? "";
  }

  /** It has one reaction to a message. */
  async react({ chat, message, emoji, isOver }: Reaction): Promise<void> {
    await this.#call("/messages", "POST", {
      messaging_product: "whatsapp",
      recipient_type: "individual",
      to: chat,
      type: "reaction",
      reaction: { message_id: message, emoji: isOver ? "" : emoji },
    });
  }

  caption(kind: FileKind): number {
    return kind === "voice" || kind === "audio" ? 0 : CAPTION;
  }

  async sendFile({ chat, text }: Outgoing, file: OutgoingFile): Promise<string> {
    const { apiUrl, phoneNumberId, token } = this.settings;
    // Of texts it knows one type.
    const mime = file.mime.startsWith("text/") ? "text/plain" : file.mime;
    const fields = { messaging_product: "whatsapp", type: mime };
    const url = `${apiUrl}/${phoneNumberId}/media`;
    const { id } = this.#known(
      await this.upload<Answer>(url, `Bearer ${token}`, multipart(fields, "file", { ...file, mime })),
    );
    const type = shownAs(file);
    const { messages } = await this.#call("/messages", "POST", {
      messaging_product: "whatsapp",
      recipient_type: "individual",
      to: chat,
      type,
      [type]: {
        id,
        ...(text === "" || type === "audio" ? {} : { caption: text }),
        ...(file.kind === "voice" && file.mime === "audio/ogg" ? { voice: true } : {}),
        ...(type === "document" ? { filename: file.name } : {}),
      },
    });
    return messages?.[0]?.id ?? "";
  }

  async file({ ref }: Attachment): Promise<ReadableStream<Uint8Array>> {
    const { apiUrl, token } = this.settings;
    const { url = "", file_size: size = 0 } = await this.#ask(`/${encodeURIComponent(ref)}`, "GET");
    if (size > largestGiven("whatsapp_cloud")) throw new SendRefused("a file is too large", true);
    return this.bytesAt(url, [FILES, new URL(apiUrl).origin], `Bearer ${token}`);
  }

  /** Meta is told by a person where to send; whether token and number are good it tells itself. */
  async register(address: string): Promise<Registered> {
    const { display_phone_number: bot = "" } = await this.#call("?fields=display_phone_number", "GET");
    return this.registered(bot, `${address}/channels/whatsapp_cloud`);
  }

  /** Calls our number. @throws SendRefused. */
  #call(path: string, method: string, body?: object): Promise<Answer> {
    return this.#ask(`/${this.settings.phoneNumberId}${path}`, method, body);
  }

  /** @throws SendRefused. */
  async #ask(path: string, method: string, body?: object): Promise<Answer> {
    const { apiUrl, token } = this.settings;
    const url = `${apiUrl}${path}`;
    return this.#known(await this.ask<Answer>(url, `Bearer ${token}`, method, body));
  }

  /** @throws SendRefused for what is no success. */
  #known({ response, answer }: { response: Response; answer: Answer }): Answer {
    if (response.ok) return answer;
    const { code = 0, message } = answer.error ?? {};
    const isFinal = response.status < 500 && response.status !== 429 && code !== 0 && !FOR_NOW.has(code);
    throw new SendRefused(wordsOf(code, message), isFinal);
  }
}
