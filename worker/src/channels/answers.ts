// SPDX-License-Identifier: Apache-2.0
/** Sends what Hermes says; the message that it answers is done in the same step that notes that the platform took it. */
import { digestOf, hex } from "../base/digests.ts";
import { type Outgoing, type Reaction, SendRefused } from "./channel.ts";
import { isHook } from "./inbox.ts";
import { KEPT, type Outbox } from "./outbox.ts";
import { clean, type Shared } from "./parts.ts";
import { refuseStrangers } from "./recipients.ts";
import type { Manner } from "./relay.ts";
import type { Sender } from "./sender.ts";
import type { Turns } from "./turns.ts";

/** The answers of one Hermes, and what else it says. */
export class Answers {
  readonly #shared: Shared;
  readonly #turns: Turns;
  readonly #sender: Sender;
  readonly #outbox: Outbox;

  constructor(shared: Shared, turns: Turns, sender: Sender, outbox: Outbox) {
    this.#shared = shared;
    this.#turns = turns;
    this.#sender = sender;
    this.#outbox = outbox;
  }

  /** @returns what the platform calls it. @throws SendRefused. */
  async send(platform: string, message: Outgoing, { name, isLast, hasMore }: Manner): Promise<string> {
    const { inbox, time } = this.#shared;
    const { chat, thread, text, replyTo } = message;
    const entry = replyTo === null ? null : inbox.answeredBy(platform, chat, replyTo);
    const isAnswer = entry !== null && isLast;
    // One that files are part of is over when Hermes is done with it.
    const ends = isAnswer && !hasMore ? entry : null;
    const taken = () => {
      if (ends !== null) this.#turns.over(ends.n);
      else this.#turns.heard(entry, isAnswer);
    };
    // What Hermes says to a webhook nobody is to hear.
    if (platform === "webhook") {
      taken();
      return "0";
    }
    if (entry === null) refuseStrangers(this.#shared, platform, chat);
    // It is known by what it says; what answers nothing may be meant to be said twice.
    const what = hex(await digestOf(JSON.stringify([chat, thread, replyTo ?? name, text])));
    // Another Hermes may answer the same message in other words.
    const attempt = isAnswer ? `answer ${chat} ${replyTo}` : `said ${what}`;
    const known = inbox.sent(platform, what) ?? (isAnswer ? this.#said(platform, attempt) : null);
    if (known !== null) {
      taken();
      return known;
    }
    // The platform knows no message of a webhook's.
    const said = entry !== null && isHook(entry) ? { ...message, replyTo: null } : message;
    const noted = (id: string) => {
      inbox.noteSent(platform, what, id, time.now());
      taken();
    };
    const send = async () => {
      try {
        return await this.#sender.send(platform, attempt, said, noted);
      } catch (error) {
        if (!(error instanceof SendRefused) || (entry !== null && !isAnswer)) throw error;
        if (!error.isFinal) return this.#outbox.keep(platform, what, attempt, said, { entry, ends }, error);
        // What the platform will never take is no reason to ask Hermes again.
        if (ends === null) throw error;
        inbox.fail(ends, clean(this.#shared, error.message), true);
        this.#turns.end(ends.n);
        throw error;
      }
    };
    return this.#sender.once(`${platform} ${what}`, () => this.#turns.whileAnswering(ends?.n, send));
  }

  /** Reacts to a message: once, for what it is to say is over soon. @throws SendRefused. */
  async react(platform: string, reaction: Reaction): Promise<void> {
    refuseStrangers(this.#shared, platform, reaction.chat);
    const channel = this.#shared.platforms.get(platform);
    if (channel?.react === undefined) throw new SendRefused(`${platform} has no reactions`, true);
    await channel.react(reaction);
  }

  /** What became of an answer that was said, and whose files were not all there before Hermes died. */
  #said(platform: string, attempt: string): string | null {
    const { inbox } = this.#shared;
    return inbox.sent(platform, attempt) ?? (inbox.knows(platform, attempt) ? KEPT : null);
  }
}
