// SPDX-License-Identifier: Apache-2.0
/** Keeps what Hermes sends until its platform takes it: files, what no turn asked for, and answers refused for a while. */
import { ApiError } from "../base/errors.ts";
import type { Event, Outgoing, OwnFile, OwnMessage, SendRefused } from "./channel.ts";
import { type Entry, isHook, laneOf, ownLaneOf, type Taken } from "./inbox.ts";
import { piecesOf } from "./kept-files.ts";
import type { Shared } from "./parts.ts";
import { checkPlace, refuseStrangers } from "./recipients.ts";
import type { OfferedFile } from "./relay.ts";
import { inMegabytes, largestTaken } from "./sizes.ts";
import type { Turns } from "./turns.ts";

/** What Hermes is told that a message is called which waits here for its platform. */
export const KEPT = "kept";

/** What is said in the place of a file that is not sent. */
export function notSent(name: string, why: string): string {
  return `(I could not send you ${name === "" ? "a file" : `the file ${name}`}: ${why}.)`;
}

/** What waits for its platform. */
export class Outbox {
  readonly #shared: Shared;
  readonly #turns: Turns;
  /** Files are taken in one after the other. */
  #keeping: Promise<void> = Promise.resolve();

  constructor(shared: Shared, turns: Turns) {
    this.#shared = shared;
    this.#turns = turns;
  }

  /**
   * Keeps what Hermes sends on its own account: it is sent as soon as its platform takes it, whatever becomes of Hermes.
   * @returns what became of it.
   * @throws ApiError 404 `no_channel`; 403 `no_chat`; 429 `channel_full`.
   */
  sendOwn({ name, platform, chat, thread, text }: OwnMessage): Taken {
    checkPlace(this.#shared, platform, chat);
    const taken = this.#keepOwn(
      platform,
      eventOf(platform, `own ${name}`, { chat, thread, text, replyTo: null }),
    );
    if (taken === "full")
      throw new ApiError({
        status: 429,
        code: "channel_full",
        message: `${platform} takes nothing at the moment, and too much waits for it already.`,
        retryAfter: 60,
      });
    return taken;
  }

  /**
   * Keeps a file that Hermes sends on its own account, after what it sent before.
   * @throws ApiError 404 `no_channel`; 403 `no_chat`; Error when it ends before its end.
   */
  async sendOwnFile(file: OwnFile, body: ReadableStream<Uint8Array>): Promise<Taken> {
    const { name, platform, chat, thread, kind, called, mime, size } = file;
    checkPlace(this.#shared, platform, chat);
    const id = `own ${name}`;
    if (this.#shared.inbox.knows(platform, id)) {
      await body.cancel();
      return "known";
    }
    const what = { kind, name: called, mime, size, pieces: () => piecesOf(body) };
    await this.#takeFile(platform, id, null, { chat, thread, answers: null, part: 0, caption: "", ...what });
    return "new";
  }

  /** Hermes sends a file: it is kept before Hermes is told so, and sent as soon as its platform takes it. */
  async sendFile(platform: string, file: OfferedFile, name: string): Promise<string> {
    const { chat, answers, part } = file;
    const entry = answers === null ? null : this.#shared.inbox.answeredBy(platform, chat, answers);
    this.#turns.heard(entry, true);
    // What Hermes says to a webhook nobody is to hear.
    if (platform === "webhook") return "0";
    if (entry === null) refuseStrangers(this.#shared, platform, chat);
    // Another Hermes may send other files with the answer to the same message.
    const id = answers === null ? `file ${name}` : `file ${chat} ${answers} ${part}`;
    // The platform knows no message of a webhook's.
    const replyTo = entry === null || isHook(entry) ? null : answers;
    await this.#takeFile(platform, id, replyTo, file).finally(() => this.#turns.heard(entry, true));
    return KEPT;
  }

  /** Keeps a file, after those before it. */
  #takeFile(platform: string, id: string, replyTo: string | null, file: OfferedFile): Promise<void> {
    const kept = this.#keeping.then(() => this.#keepFile(platform, id, replyTo, file));
    this.#keeping = kept.catch(() => undefined);
    return kept;
  }

  /** @param id as which it is known when Hermes offers it again, which was not heard that it is kept. */
  async #keepFile(platform: string, id: string, replyTo: string | null, file: OfferedFile): Promise<void> {
    const { inbox, files, platforms } = this.#shared;
    if (inbox.knows(platform, id)) return;
    const { chat, thread, caption, kind, name, mime, size, pieces } = file;
    const event = eventOf(platform, id, { chat, thread, text: caption, replyTo });
    const why = this.#whyNotKept(platform, size);
    if (why !== null) {
      this.#keepOwn(platform, { ...event, text: `${caption}\n${notSent(name, why)}`.trimStart() });
      return;
    }
    const ref = `${platform} ${id}`;
    await files.keep(ref, size, pieces());
    const isWithIt = caption.length <= (platforms.get(platform)?.caption?.(kind) ?? 0);
    if (!isWithIt) this.#keepOwn(platform, { ...event, message_id: `${id} text` });
    const it = { message_type: kind, files: [{ ref, kind, name, mime, size }] };
    if (this.#keepOwn(platform, { ...event, text: isWithIt ? caption : "", ...it }) === "full")
      files.drop(ref);
  }

  /** Why a file is not kept for a platform; `null` = it is. @param size bytes. */
  #whyNotKept(platform: string, size: number): string | null {
    const most = largestTaken(platform);
    if (most === 0) return "files are not sent here";
    if (size > most) return `it is larger than ${inMegabytes(most)}`;
    return this.#shared.inbox.hasRoom(platform, true) ? null : "too many wait already";
  }

  #keepOwn(platform: string, event: Event): Taken {
    const taken = this.#shared.inbox.keepOwn(platform, event, this.#shared.time.now());
    this.#shared.answer(ownLaneOf(event));
    return taken;
  }

  /**
   * Keeps what a platform does not take for the moment, so that Hermes need not.
   * @param what as which it is known when Hermes says it again, which was not heard that it is kept.
   * @param attempt as which it is sent.
   * @param of the message that it is an answer to, and that one if it is all of the answer.
   * @throws SendRefused `why` where too much waits already.
   */
  keep(
    platform: string,
    what: string,
    attempt: string,
    said: Outgoing,
    { entry, ends }: { entry: Entry | null; ends: Entry | null },
    why: SendRefused,
  ): string {
    const { inbox, time } = this.#shared;
    const event = eventOf(platform, attempt, said);
    if (ends !== null) {
      const { user_id } = ends.event.source;
      inbox.answerWith(ends, { ...event, source: { ...event.source, user_id } });
      this.#turns.end(ends.n);
    } else if (entry !== null) {
      // The files of an answer come after it.
      if (this.#keepOwn(platform, event) === "full") throw why;
    } else {
      // What answers nothing comes after what waits in its chat.
      if (!inbox.keep(platform, event, time.now())) throw why;
      this.#shared.answer(laneOf(event));
    }
    inbox.noteKept(platform, what, KEPT, time.now());
    return KEPT;
  }
}

/** What Hermes says, as it is kept. @param id its name. */
function eventOf(platform: string, id: string, { chat, thread, text, replyTo }: Outgoing): Event {
  return {
    text,
    message_type: "text",
    message_id: id,
    ...(replyTo === null ? {} : { reply_to_message_id: replyTo }),
    source: {
      ...{ platform, chat_id: chat, chat_type: "dm", user_id: "hermes", message_id: id },
      ...(thread === null ? {} : { thread_id: thread }),
    },
  };
}
