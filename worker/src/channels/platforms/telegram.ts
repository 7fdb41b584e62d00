// SPDX-License-Identifier: Apache-2.0
/**
 * Telegram: what a bot is sent, and what it sends. Text and files go to Hermes; of anything else the person is told so
 * at once. Facts: core.telegram.org/bots/api.
 */
import * as z from "zod/mini";
import { digestOf, hex, isEqual } from "../../base/digests.ts";
import { within } from "../../base/time.ts";
import { botNumber, longest, type TelegramSettings } from "../../config/channels.ts";
import {
  type Attachment,
  admitted,
  badSignature,
  badUpdate,
  type Call,
  type FileKind,
  messageOf,
  noChannel,
  type Outgoing,
  type OutgoingFile,
  type Platform,
  type PlatformParts,
  type Press,
  pressOf,
  type Reaction,
  type Read,
  type Received,
  type Registered,
  type Registration,
  SendRefused,
  type Stranger,
  type Update,
} from "../channel.ts";
import { tooLarge } from "../files.ts";
import { Messenger, UPLOAD_PATIENCE } from "../messenger.ts";
import { multipart } from "../multipart.ts";
import { SHOWN as LARGEST_SHOWN, largestGiven } from "../sizes.ts";

/** An answer to a call comes within so long; milliseconds. */
const PATIENCE = 15_000;
/** How long Telegram holds a question for messages when there are none, in seconds. */
const POLL = 25;
/** Telegram shows that somebody writes for 5 s. Milliseconds. */
const TYPING = 4500;
/** The kinds of updates that are read here. */
const KINDS = ["message", "edited_message", "callback_query"];

/** Where Telegram sends updates. */
const TELEGRAM_PATH = "/channels/telegram";
/** The header in which Telegram proves that an update is from it. */
export const TELEGRAM_PROOF = "x-telegram-bot-api-secret-token";

interface Chat {
  id: number;
  type: string;
  title?: string;
}

interface Message {
  message_id: number;
  message_thread_id?: number;
  from?: { id: number; is_bot?: boolean; first_name?: string; username?: string };
  chat: Chat;
  text?: string;
  caption?: string;
  reply_to_message?: { message_id: number; from?: { id: number } };
  [kind: string]: unknown;
}

/** A button that was pressed below a message of the bot's. */
interface CallbackQuery {
  id: string;
  from: NonNullable<Message["from"]>;
  /** One that is too old has neither text nor date. */
  message?: Message & { date?: number };
  data?: string;
}

/** One update, as far as it is read here. */
export interface TelegramUpdate {
  update_id: number;
  message?: Message;
  edited_message?: Message;
  callback_query?: CallbackQuery;
}

/** A file, as Telegram tells of one; of a picture it has several sizes, the largest last. */
interface TelegramFile {
  file_id: string;
  file_size?: number;
  file_name?: string;
  mime_type?: string;
}

/** What may come with a message, what it is to Hermes, and of what type it is where Telegram does not tell. */
const FILES: Readonly<Record<string, { kind: FileKind; mime: string }>> = {
  photo: { kind: "photo", mime: "image/jpeg" },
  voice: { kind: "voice", mime: "audio/ogg" },
  audio: { kind: "audio", mime: "audio/mpeg" },
  video: { kind: "video", mime: "video/mp4" },
  video_note: { kind: "video", mime: "video/mp4" },
  animation: { kind: "video", mime: "video/mp4" },
  document: { kind: "document", mime: "" },
};

/** The longest text that goes with a file, in UTF-16 units. */
const CAPTION = 1024;
/** What of a file's types Telegram takes as what; all others it takes as documents. */
const SHOWN: Readonly<Record<string, "photo" | "animation" | "voice" | "audio" | "video">> = {
  "image/jpeg": "photo",
  "image/png": "photo",
  "image/webp": "photo",
  "image/gif": "animation",
  "audio/ogg": "voice",
  "audio/mpeg": "audio",
  "audio/mp4": "audio",
  "video/mp4": "video",
};
const METHODS = {
  photo: "sendPhoto",
  animation: "sendAnimation",
  voice: "sendVoice",
  audio: "sendAudio",
  video: "sendVideo",
  document: "sendDocument",
} as const;

const NO_FILE = { kind: "document", mime: "" } as const;

/** What else a message may hold besides text, as people call it. */
const OTHERS: Readonly<Record<string, string>> = {
  sticker: "stickers",
  location: "locations",
  contact: "contacts",
  poll: "polls",
};

/** What Telegram proves itself with: made of the token, so that there is no second secret to keep and rotate. */
export async function proofOf(token: string): Promise<string> {
  return hex(await digestOf(`telegram webhook ${token}`));
}

const messageSchema = z.optional(z.looseObject({}));
const updateSchema = z.looseObject({
  update_id: z.number(),
  message: messageSchema,
  edited_message: messageSchema,
  callback_query: messageSchema,
});

/** Telegram, for the table of the platforms. */
export const telegram: Platform<TelegramSettings> = {
  methods: ["POST"],
  receive,
  open: (bot, parts) => new Telegram(bot, parts),
};

async function receive(call: Call, bot: TelegramSettings): Promise<Received> {
  if (bot.receive !== "webhook") throw noChannel();
  const proof = call.headers.get(TELEGRAM_PROOF) ?? "";
  if (!isEqual(proof, await proofOf(bot.token))) throw badSignature();
  const update = parsed(await call.body());
  // Whether a group's message is for the bot is known by its name alone: the instance looks again.
  const { kind, ...more } = readUpdate(update, bot, "");
  const isForNobody = kind === "nothing" && "why" in more && more.why !== "not for the bot";
  return { answer: new Response(null, { status: 200 }), told: isForNobody ? null : update };
}

function parsed(body: Uint8Array): TelegramUpdate {
  try {
    return updateSchema.parse(JSON.parse(new TextDecoder().decode(body))) as unknown as TelegramUpdate;
  } catch (error) {
    throw badUpdate(error);
  }
}

/** Reads an update. Who is not allowed learns nothing, not even that. */
function readUpdate(update: TelegramUpdate, bot: TelegramSettings, name: string): Update {
  const { update_id: id, message, edited_message: edited, callback_query: pressed } = update;
  if (pressed !== undefined) return readPress(id, pressed, bot);
  if (edited === undefined) return readSaid(id, message, bot, name);
  const of = readSaid(id, edited, bot, name);
  return of.kind === "nothing" ? of : { kind: "edit", of };
}

function readSaid(
  id: number,
  message: Message | undefined,
  bot: TelegramSettings,
  name: string,
): Read | Stranger {
  const from = message?.from;
  if (message === undefined || from === undefined || from.is_bot === true)
    return { kind: "nothing", why: "no message" };
  return heardOf(from, message.chat, readMessage(id, message, from, bot, name), bot);
}

/** What somebody says in a chat, by whether they may. */
function heardOf(
  from: NonNullable<Message["from"]>,
  chat: Chat,
  read: Read,
  { allow, pairing }: TelegramSettings,
): Read | Stranger {
  const isAllowed = [from.id, chat.id].some((id) => allow.includes(String(id)));
  const who = { chat: String(chat.id), user: String(from.id), name: from.first_name ?? "" };
  return admitted(read, isAllowed, pairing && chat.type === "private" && who);
}

/** Reads that a button was pressed. */
function readPress(
  id: number,
  { id: query, from, message, data = "" }: CallbackQuery,
  bot: TelegramSettings,
): Update {
  const pressed = pressOf(data);
  if (message === undefined || pressed === null) return { kind: "nothing", why: "no message" };
  const { chat } = message;
  const press = { id: query, ...pressed, message: String(message.message_id), text: message.text ?? "" };
  const read = messageOf("telegram", {
    id: String(id),
    message: `press ${query}`,
    text: "",
    chat: String(chat.id),
    isGroup: chat.type !== "private",
    user: String(from.id),
    userName: from.first_name,
    thread: message.message_thread_id === undefined ? null : String(message.message_thread_id),
    press,
  });
  return heardOf(from, chat, read, bot);
}

function readMessage(
  id: number,
  message: Message,
  from: NonNullable<Message["from"]>,
  bot: TelegramSettings,
  name: string,
): Read {
  const { chat } = message;
  const isGroup = chat.type !== "private";
  const said = message.text ?? message.caption ?? "";
  const number = Number(botNumber(bot.token));
  if (isGroup && !isAddressed(said, name) && message.reply_to_message?.from?.id !== number)
    return { kind: "nothing", why: "not for the bot" };
  const thread = message.message_thread_id === undefined ? null : String(message.message_thread_id);
  const at = { chat: String(chat.id), thread, message: String(message.message_id) };
  const came = fileOf(message);
  if ((came?.size ?? 0) > largestGiven("telegram"))
    return { kind: "answer", ...at, text: tooLarge("telegram") };
  const other = Object.keys(OTHERS).find((kind) => message[kind] !== undefined);
  if (came === null && (other !== undefined || said.trim() === ""))
    return {
      kind: "answer",
      ...at,
      text: `I cannot take ${OTHERS[other ?? ""] ?? "this"} here, only text and files.`,
    };
  return messageOf("telegram", {
    ...at,
    id: String(id),
    text: isGroup ? withoutName(said, name) : said,
    isGroup,
    chatName: chat.title,
    user: String(from.id),
    userName: from.first_name,
    replyTo: message.reply_to_message && String(message.reply_to_message.message_id),
    ...(came === null ? {} : { files: [came.file] }),
  });
}

/** What came with a message, and how large it is, in bytes. */
function fileOf(message: Message): { file: Attachment; size: number } | null {
  // A film without sound is told of as a file too.
  const [type, { kind, mime }] = Object.entries(FILES).find(([name]) => message[name] !== undefined) ?? [
    "",
    NO_FILE,
  ];
  const told = message[type] as TelegramFile | TelegramFile[] | undefined;
  const it = Array.isArray(told) ? told.at(-1) : told;
  if (it === undefined) return null;
  const file = { ref: it.file_id, kind, name: it.file_name ?? "", mime: it.mime_type ?? mime };
  return { file, size: it.file_size ?? 0 };
}

/** As what a file is sent: spoken is only what Hermes says to be. */
function shownAs({ kind, mime, size }: OutgoingFile): keyof typeof METHODS {
  const as = kind === "document" ? undefined : SHOWN[mime];
  const isRight = as === "voice" ? kind === "voice" : as !== "photo" || size <= LARGEST_SHOWN.telegram.photo;
  return as !== undefined && isRight ? as : "document";
}

/** Whether a group's message is for the bot: it is called by its name, or given a command. */
function isAddressed(text: string, name: string): boolean {
  const mention = new RegExp(`@${name}\\b`, "i");
  return name !== "" && mention.test(text) ? true : /^\/\w+(?:\s|$)/.test(text);
}

function withoutName(text: string, name: string): string {
  return name === "" ? text : text.replace(new RegExp(`\\s*@${name}\\b`, "gi"), "").trim();
}

/** A question and what became of it, within what a message may hold. */
function withWords(text: string, words: string): string {
  const below = `\n\n${words}`;
  return `${text.slice(0, longest("telegram") - below.length)}${below}`;
}

/** What Telegram answers to every call. */
interface Answer {
  ok: boolean;
  result?: unknown;
  error_code?: number;
  description?: string;
  parameters?: { retry_after?: number };
}

/** One bot's calls. */
class Telegram extends Messenger<TelegramSettings> {
  protected readonly label = "Telegram";
  override readonly showsFor = TYPING;
  override readonly receives: "webhook" | "poll";
  #name: Promise<string> | null = null;

  constructor(bot: TelegramSettings, parts: PlatformParts) {
    super(bot, parts);
    this.receives = bot.receive;
  }

  override async read(told: object): Promise<Update[]> {
    const update = told as TelegramUpdate;
    const said = update.message ?? update.edited_message;
    const isGroup = said !== undefined && said.chat.type !== "private";
    return [readUpdate(update, this.settings, isGroup ? await this.#knownName() : "")];
  }

  /** The bot's name; empty while Telegram does not tell it. */
  #knownName(): Promise<string> {
    this.#name ??= this.#askName().catch(() => {
      this.#name = null;
      return "";
    });
    return this.#name;
  }

  async #askName(): Promise<string> {
    const me = (await this.#call("getMe", {})) as { username?: string };
    return me.username ?? "";
  }

  async register(address: string, look: boolean): Promise<Registered> {
    const wanted = this.settings.receive === "webhook" ? `${address}${TELEGRAM_PATH}` : "";
    const { given } = this.parts;
    const found = await this.#registration();
    // Telegram does not tell what it proves itself with: after a new token that is the old one's still.
    const proof = wanted === "" ? "" : await proofOf(this.settings.token);
    // Of what proves a call to be Telegram's no copy is kept.
    const mark = hex(await digestOf(`${proof} ${KINDS}`));
    const changed = found.address !== wanted || (wanted !== "" && given.get() !== mark);
    if (changed && !look) {
      await (wanted === "" ? this.unregister() : this.#setWebhook(wanted, proof));
      given.put(mark);
    }
    return { ...found, changed };
  }

  /** Has messages kept until they are asked for; none is lost by it. */
  override async unregister(): Promise<void> {
    await this.#call("deleteWebhook", {});
  }

  async #registration(): Promise<Registration> {
    const [bot, told] = [await this.#askName(), await this.#call("getWebhookInfo", {})];
    const info = told as { url?: string; pending_update_count?: number; last_error_message?: string };
    return {
      bot,
      address: info.url ?? "",
      trouble: info.last_error_message ?? null,
      waiting: info.pending_update_count ?? 0,
    };
  }

  /** What waits is sent there, too. */
  async #setWebhook(url: string, proof: string): Promise<void> {
    await this.#call("setWebhook", {
      url,
      secret_token: proof,
      allowed_updates: KINDS,
      max_connections: 10,
    });
  }

  /** Waits for messages from `offset` on. */
  async updates(offset: number): Promise<{ id: number; told: object }[]> {
    const asked = { offset, timeout: POLL, allowed_updates: KINDS };
    const found = await this.#call("getUpdates", asked, PATIENCE + POLL * 1000);
    return (found as TelegramUpdate[]).map((told) => ({ id: told.update_id, told }));
  }

  caption(): number {
    return CAPTION;
  }

  /** What Telegram does not show as what it is, as a picture a mile wide, it takes as a document. */
  async sendFile(message: Outgoing, file: OutgoingFile): Promise<string> {
    const as = shownAs(file);
    try {
      return await this.#sendAs(as, message, file);
    } catch (error) {
      if (as === "document" || !(error instanceof SendRefused && error.isFinal)) throw error;
      return this.#sendAs("document", message, file);
    }
  }

  async #sendAs(
    as: keyof typeof METHODS,
    { chat, thread, text }: Outgoing,
    file: OutgoingFile,
  ): Promise<string> {
    const fields = {
      chat_id: chat,
      ...(text === "" ? {} : { caption: text }),
      ...(thread === null ? {} : { message_thread_id: thread }),
    };
    const { headers, body } = multipart(fields, as, file);
    const sent = (await this.#call(METHODS[as], body, UPLOAD_PATIENCE, headers)) as { message_id: number };
    return String(sent.message_id);
  }

  async heard({ id }: Press): Promise<void> {
    await this.#call("answerCallbackQuery", { callback_query_id: id });
  }

  /** Words take the place of the buttons; of a message that is too old Telegram does not tell what it says. */
  async settle(chat: string, { message, text }: Press, words: string): Promise<void> {
    if (text === "") throw new SendRefused("Telegram: a message is too old to be changed", true);
    const it = { chat_id: chat, message_id: Number(message) };
    await this.#call("editMessageText", { ...it, text: withWords(text, words) });
  }

  /** A bot has one reaction to a message; of many emojis Telegram knows none. */
  async react({ chat, message, emoji, isOver }: Reaction): Promise<void> {
    const reaction = isOver ? [] : [{ type: "emoji", emoji }];
    await this.#call("setMessageReaction", { chat_id: chat, message_id: Number(message), reaction });
  }

  async send({ chat, thread, text, replyTo, buttons = [] }: Outgoing): Promise<string> {
    const keyboard = buttons.map(({ label, data }) => [{ text: label, callback_data: data }]);
    const sent = (await this.#call("sendMessage", {
      chat_id: chat,
      text,
      ...(keyboard.length === 0 ? {} : { reply_markup: { inline_keyboard: keyboard } }),
      ...(thread === null ? {} : { message_thread_id: Number(thread) }),
      ...(replyTo === null
        ? {}
        : { reply_parameters: { message_id: Number(replyTo), allow_sending_without_reply: true } }),
    })) as { message_id: number };
    return String(sent.message_id);
  }

  async file({ ref }: Attachment): Promise<ReadableStream<Uint8Array>> {
    const { file_path: path } = (await this.#call("getFile", { file_id: ref })) as { file_path?: string };
    if (path === undefined) throw new SendRefused("Telegram has no such file", true);
    const { apiUrl, token } = this.settings;
    return this.bytesOf(`${apiUrl}/file/bot${token}/${path}`);
  }

  override async show(chat: string, thread: string | null): Promise<void> {
    const at = thread === null ? {} : { message_thread_id: Number(thread) };
    await this.#call("sendChatAction", { chat_id: chat, action: "typing", ...at });
  }

  /** @throws SendRefused: nothing of what it says holds the token. */
  async #call(
    method: string,
    body: object,
    patience = PATIENCE,
    headers?: Record<string, string>,
  ): Promise<unknown> {
    const answer = await this.#ask(method, body, patience, headers);
    if (answer.ok) return answer.result;
    const code = answer.error_code ?? 0;
    const wait = (answer.parameters?.retry_after ?? 0) * 1000;
    // What Telegram has to say of our call is final; of itself, of too many calls, or of a token that is just being
    // replaced, it is not.
    const isFinal = code >= 400 && code < 500 && ![401, 409, 429].includes(code);
    throw new SendRefused(`Telegram: ${answer.description ?? `${method} failed`}`, isFinal, wait);
  }

  async #ask(
    method: string,
    body: object,
    patience: number,
    headers: Record<string, string> = { "content-type": "application/json" },
  ): Promise<Answer> {
    const { fetch, time } = this.parts;
    const { apiUrl, token } = this.settings;
    const left = new AbortController();
    const call = fetch(`${apiUrl}/bot${token}/${method}`, {
      method: "POST",
      headers,
      body: body instanceof ReadableStream ? body : JSON.stringify(body),
      redirect: "manual",
      signal: left.signal,
    }).then((response) => response.json<Answer>());
    try {
      const answer = await within(time, patience, call);
      if (answer !== undefined) return answer;
    } catch {
      // Its message may name the address, and with it the token.
      throw new SendRefused("Telegram could not be reached", false, 0, true);
    } finally {
      left.abort();
    }
    throw new SendRefused("Telegram did not answer in time", false, 0, true);
  }
}
