// SPDX-License-Identifier: Apache-2.0
/** What a channel is: a platform by which people write to Hermes, and what it says of itself. */
import { ApiError } from "../base/errors.ts";
import type { Time } from "../base/time.ts";
import type { Bytes } from "./signatures.ts";
import type { Ways } from "./ways.ts";

/** Where a message is from; Hermes makes the key of its session of this. */
export interface Source {
  platform: string;
  chat_id: string;
  chat_type: "dm" | "group" | "webhook";
  chat_name?: string;
  user_id: string;
  user_name?: string;
  thread_id?: string;
  /** The workspace, where chats are of one. */
  scope_id?: string;
  message_id: string;
}

/** What Hermes makes of a file: it looks at pictures, and hears what was spoken. */
export type FileKind = "photo" | "voice" | "audio" | "video" | "document";

/** A file that came with a message. */
export interface Attachment {
  /** By what the platform finds it. */
  ref: string;
  kind: FileKind;
  /** As its sender named it; empty = not. */
  name: string;
  /** Its media type; empty = not known. */
  mime: string;
  /** How long one is that Hermes sends, in bytes. */
  size?: number;
}

/** A button that somebody pressed below a question of Hermes'. */
export interface Press {
  /** The platform's name for this press. */
  id: string;
  /** The question, the option that was chosen, and how the platform calls the message with the buttons. */
  prompt: string;
  option: string;
  message: string;
  /** What the question says there. */
  text: string;
}

/** A message as Hermes takes it in. */
export interface Event {
  text: string;
  message_type: "text" | FileKind;
  message_id: string;
  reply_to_message_id?: string;
  source: Source;
  /** What came with it. */
  files?: Attachment[];
  /** Where it is no message: it answers a question. */
  press?: Press;
}

/** A message that came in. */
export interface Incoming {
  /** The platform's name for this delivery: one that came before is dropped. */
  id: string;
  event: Event;
  /** Whether its text itself is for the chat, and Hermes is not asked. */
  isNotice?: boolean;
  /** What is in its files, by their `ref`, where their platform keeps them for nobody. */
  bytes?: ReadonlyMap<string, ArrayBuffer>;
}

/** What a platform sent: a message for Hermes; one that is answered without it; what became of one; or nothing for us. */
export type Update = Read | Stranger | Edit | Undelivered;

/** What a platform took, and tells later that it did not deliver. */
export interface Undelivered {
  kind: "undelivered";
  /** As it called the message. */
  message: string;
  why: string;
}

/** A message as its author changed it; who may not write changes nothing. */
export interface Edit {
  kind: "edit";
  of: Read | Stranger;
}

/** What somebody sent who may. */
export type Read =
  | Message
  | { kind: "answer"; chat: string; thread: string | null; message: string; text: string }
  | { kind: "nothing"; why: "stranger" | "not for the bot" | "no message" };

/** A message for Hermes. */
export interface Message {
  kind: "message";
  message: Incoming;
}

/** A message as its platform tells it; what it does not tell is left out. */
export interface Said {
  /** The platform's name for the delivery; left out where that is the message's own. */
  id?: string;
  message: string;
  text: string;
  chat: string;
  chatName?: string | undefined;
  isGroup: boolean;
  user: string;
  userName?: string | undefined;
  thread?: string | null;
  scope?: string | null | undefined;
  /** The message that it is an answer to. */
  replyTo?: string | undefined;
  files?: Attachment[];
  press?: Press;
}

/** What a person said, for Hermes. */
export function messageOf(platform: string, said: Said): Message {
  const {
    message,
    text,
    chat,
    chatName,
    isGroup,
    user,
    userName,
    thread,
    scope,
    replyTo,
    files = [],
    press,
  } = said;
  const event: Event = {
    text,
    message_type: files[0]?.kind ?? "text",
    message_id: message,
    ...(replyTo === undefined ? {} : { reply_to_message_id: replyTo }),
    source: {
      platform,
      chat_id: chat,
      chat_type: isGroup ? "group" : "dm",
      ...(chatName === undefined ? {} : { chat_name: chatName }),
      user_id: user,
      ...(userName === undefined ? {} : { user_name: userName }),
      ...(thread == null ? {} : { thread_id: thread }),
      ...(scope == null ? {} : { scope_id: scope }),
      message_id: message,
    },
    ...(files.length === 0 ? {} : { files }),
    ...(press === undefined ? {} : { press }),
  };
  return { kind: "message", message: { id: said.id ?? message, event } };
}

/** Somebody who wrote to the bot alone, and how they call themselves. */
export interface Asker {
  chat: string;
  user: string;
  name: string;
}

/** Somebody wrote who may not, where strangers are given a code; `said` counts once they may. */
export interface Stranger extends Asker {
  kind: "stranger";
  said: Read;
}

/** What somebody sent, by whether they may. @param asker who they are; `false` where nobody may ask to be let in. */
export function admitted(read: Read, isAllowed: boolean, asker: Asker | false): Read | Stranger {
  if (isAllowed) return read;
  return asker === false ? { kind: "nothing", why: "stranger" } : { kind: "stranger", ...asker, said: read };
}

/** What is said to what holds neither a text nor a file. */
export function onlyText(at: { chat: string; thread: string | null; message: string }): Read {
  return { kind: "answer", ...at, text: "I can take text and files only here." };
}

/** The message in an update, also a stranger's. */
export function messageIn(update: Update): Event | null {
  if (update.kind === "stranger") return messageIn(update.said);
  if (update.kind === "edit") return messageIn(update.of);
  return update.kind === "message" ? update.message.event : null;
}

/** A message that Hermes sends. */
export interface Outgoing {
  chat: string;
  thread: string | null;
  text: string;
  /** The message that it answers. */
  replyTo: string | null;
  /** The message whose turn it is said in, where it is no answer: by its way it may go. */
  during?: string;
  /** What goes with it: the text is what is said to that. */
  file?: OutgoingFile;
  /** The buttons below it; only where presses are taken. */
  buttons?: readonly Button[];
}

/** Hermes' reaction to a message. */
export interface Reaction {
  chat: string;
  message: string;
  emoji: string;
  /** Whether it is taken away. */
  isOver: boolean;
}

/** A button below a message. */
export interface Button {
  /** What comes back of it: at most 64 bytes. */
  data: string;
  label: string;
}

/** What comes back of a button, as Hermes' relay contract has it. */
const BUTTON = /^hp1:([\w.-]{1,32}):([\w.-]{1,26})$/;

/** What the button of a question's option is to send back. */
export function buttonData(prompt: string, option: string): string {
  const data = `hp1:${prompt}:${option}`;
  if (!BUTTON.test(data)) throw new Error("a question or an option has a bad name");
  return data;
}

/** What a button sent back; `null` for what is none of ours. */
export function pressOf(data: string): Pick<Press, "prompt" | "option"> | null {
  const [, prompt, option] = BUTTON.exec(data) ?? [];
  return prompt === undefined || option === undefined ? null : { prompt, option };
}

/** A file that Hermes sends. */
export interface OutgoingFile {
  kind: FileKind;
  name: string;
  /** Its media type; empty = not known. */
  mime: string;
  /** In bytes. */
  size: number;
  /** What is in it; each attempt to send it reads it anew. */
  bytes(): ReadableStream<Uint8Array>;
}

/** A file as its platform fetches it. */
export interface FetchedFile {
  name: string;
  mime: string;
  bytes: ArrayBuffer;
}

/** What Hermes sends on its own account, as the result of a job. */
export interface OwnMessage {
  /** Its own name for this; what comes again under it was kept. */
  name: string;
  platform: string;
  chat: string;
  thread: string | null;
  text: string;
}

/** A file that Hermes sends on its own account; without what is in it. */
export interface OwnFile {
  /** Its own name for this; what comes again under it was kept. */
  name: string;
  platform: string;
  chat: string;
  thread: string | null;
  kind: FileKind;
  /** What the file is called. */
  called: string;
  /** Its media type; empty = not known. */
  mime: string;
  /** In bytes. */
  size: number;
}

/** A platform would not take a message. */
export class SendRefused extends Error {
  /**
   * @param isFinal whether another attempt would end in the same way.
   * @param retryAfter milliseconds that the platform wants to be left alone for.
   * @param isUnsure whether the platform may have taken it, and only its answer was lost.
   */
  constructor(
    message: string,
    readonly isFinal: boolean,
    readonly retryAfter = 0,
    readonly isUnsure = false,
  ) {
    super(message);
    this.name = "SendRefused";
  }
}

/** Whether a platform sends its messages to us, as it says itself. */
export interface Registration {
  /** The bot's name there. */
  bot: string;
  /** Where it sends messages; empty = nowhere. */
  address: string;
  /** What it last said about a delivery that failed. */
  trouble: string | null;
  /** Messages that it has yet to deliver. */
  waiting: number;
}

/** What somebody sent who says to be a platform. */
export interface Call {
  method: string;
  /** As the platform knows it. */
  url: string;
  headers: Headers;
  /** Read only from whoever may be the platform. */
  body(): Promise<Bytes>;
  /** Milliseconds since the epoch. */
  now: number;
}

/** What a platform is answered, and what of its call the instance is told; `null` = nothing. */
export interface Received {
  answer: Response;
  told: object | null;
}

/** What a channel works with. */
export interface PlatformParts {
  time: Time;
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** Sends mails, where that is a channel. */
  mail?: SendEmail | undefined;
  /** Ways that it gives for one answer alone. */
  ways: Ways;
  /** What is known of that with which the platform was last told to prove itself. */
  given: { get(): string | undefined; put(proof: string): void };
}

/** One kind of channel: all that is known of a platform is in its file in `platforms/`. */
export interface Platform<S> {
  /** The methods by which it sends; of others its address knows nothing. */
  readonly methods: readonly string[];
  /**
   * Takes a call: whoever sent it has to prove to be the platform, and of strangers the instance is not told.
   * @throws ApiError 404 `no_channel`; 401 `bad_signature`; 400 `bad_update`.
   */
  receive(call: Call, settings: S): Promise<Received>;
  /** Reads which file a call fetches that its platform was offered; `null` = none. Only where platforms fetch files. */
  fetches?(call: Call, settings: S): Promise<string | null>;
  open(settings: S, parts: PlatformParts): Channel;
}

/** A platform by which people write. */
export interface Channel {
  /** How messages come. */
  readonly receives: "webhook" | "poll";
  /** Reads what the instance was told of a call. */
  read(told: object): Promise<Update[]>;
  /** Waits for updates from a number on, where it is asked for them. */
  updates?(offset: number): Promise<{ id: number; told: object }[]>;
  /** How long it shows that somebody writes, in milliseconds; 0 = it does not. */
  readonly showsFor: number;
  /**
   * Sends a message.
   * @returns what the platform calls it.
   * @throws SendRefused.
   */
  send(message: Outgoing): Promise<string>;
  /**
   * Fetches a file that came with a message; only where files are taken.
   * @throws SendRefused.
   */
  file?(it: Attachment): Promise<ReadableStream<Uint8Array>>;
  /** The longest text that goes with a file of a kind, in UTF-16 units; only where files are sent. */
  caption?(kind: FileKind): number;
  /**
   * Sends a file, and the message's text with it.
   * @returns what the platform calls it.
   * @throws SendRefused.
   */
  sendFile?(message: Outgoing, file: OutgoingFile): Promise<string>;
  /** A file that the platform fetches, which was offered to it under a name; only where it fetches files. */
  offered?(name: string): Promise<FetchedFile | null>;
  /**
   * Has the platform show that a press was heard; only where presses are taken, and where it waits for that.
   * @throws SendRefused.
   */
  heard?(press: Press): Promise<void>;
  /**
   * Puts words below a question, and takes its buttons away; only where presses are taken.
   * @throws SendRefused.
   */
  settle?(chat: string, press: Press, words: string): Promise<void>;
  /**
   * Adds a reaction to a message, or takes it away; only where there are such. It may be done again.
   * @throws SendRefused.
   */
  react?(reaction: Reaction): Promise<void>;
  /** Shows that an answer is being written. */
  show(chat: string, thread: string | null): Promise<void>;
  /**
   * Holds where it sends messages against where it should, and mends it.
   * @param address where this deployment is reached from outside; empty = nowhere.
   * @param look whether to change nothing.
   * @throws SendRefused.
   */
  register(address: string, look: boolean): Promise<Registered>;
  /** Has it send nothing here any more, as far as it takes that from us. */
  unregister(): Promise<void>;
}

/** What a platform says, and whether that had to be, or would have to be, changed. */
export type Registered = Registration & { changed: boolean };

/** The refusal for a channel that there is not. */
export function noChannel(): ApiError {
  return new ApiError({ status: 404, code: "no_channel", message: "There is no such channel here." });
}

/** The refusal for whoever does not prove to be the platform. */
export function badSignature(): ApiError {
  return new ApiError({
    status: 401,
    code: "bad_signature",
    message: "This does not prove to be from the platform.",
  });
}

/** The refusal for what is no update. */
export function badUpdate(cause?: unknown): ApiError {
  return new ApiError({ status: 400, code: "bad_update", message: "This is no update, or no JSON.", cause });
}
