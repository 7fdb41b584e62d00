// SPDX-License-Identifier: Apache-2.0
/** What a channel is: a platform by which people write to Hermes, and what it says of itself. */

/** Where a message is from; Hermes makes the key of its session of this. */
export interface Source {
  platform: string;
  chat_id: string;
  chat_type: "dm" | "group" | "webhook";
  chat_name?: string;
  user_id: string;
  user_name?: string;
  thread_id?: string;
  message_id: string;
}

/** A message as Hermes takes it in. */
export interface Event {
  text: string;
  message_type: "text";
  message_id: string;
  reply_to_message_id?: string;
  source: Source;
}

/** A message that came in. */
export interface Incoming {
  /** The platform's name for this delivery: one that came before is dropped. */
  id: string;
  event: Event;
  /** Whether its text itself is for the chat, and Hermes is not asked. */
  isNotice?: boolean;
}

/** What a platform sent: a message for Hermes; one that is answered without it; or nothing for us. */
export type Update =
  | { kind: "message"; message: Incoming }
  | { kind: "answer"; chat: string; thread: string | null; message: string; text: string }
  | { kind: "nothing"; why: "stranger" | "not for the bot" | "no message" };

/** A message that Hermes sends. */
export interface Outgoing {
  chat: string;
  thread: string | null;
  text: string;
  /** The message that it answers. */
  replyTo: string | null;
}

/** A platform would not take a message. */
export class SendRefused extends Error {
  /**
   * @param isFinal whether another attempt would end in the same way.
   * @param retryAfter milliseconds that the platform wants to be left alone for.
   */
  constructor(
    message: string,
    readonly isFinal: boolean,
    readonly retryAfter = 0,
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

/** A platform by which people write. */
export interface Channel {
  /** How long it shows that somebody writes, in milliseconds; 0 = it does not. */
  readonly showsFor: number;
  /**
   * Sends a message.
   * @returns what the platform calls it.
   * @throws SendRefused.
   */
  send(message: Outgoing): Promise<string>;
  /** Shows that an answer is being written. */
  show(chat: string, thread: string | null): Promise<void>;
  /**
   * Holds where it sends messages against where it should, and mends it.
   * @param address where this deployment is reached from outside; empty = nowhere.
   * @param look whether to change nothing.
   * @throws SendRefused.
   */
  register(address: string, look: boolean): Promise<Registered>;
  /** Has it send nothing here any more. */
  unregister(): Promise<void>;
}

/** What a platform says, and whether that had to be, or would have to be, changed. */
export type Registered = Registration & { changed: boolean };
