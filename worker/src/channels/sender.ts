// SPDX-License-Identifier: Apache-2.0
/** Sends messages to the platforms: each once, and marked where nobody knows whether it was taken before. */
import { longest } from "../config/channels.ts";
import { type Outgoing, SendRefused } from "./channel.ts";
import { InParts } from "./in-parts.ts";
import { SHORTEST_PAUSE, type Shared } from "./parts.ts";

/** How long a message to a platform is tried: Hermes waits 30 s for it. Milliseconds. */
const SEND_PATIENCE = 25_000;

/** Stands before what its reader may have got already. */
const MAYBE_TWICE = "(I do not know whether this reached you before.)\n";

/** The way to the platforms. */
export class Sender {
  readonly #shared: Shared;
  readonly #channels: ReadonlyMap<string, InParts>;
  /** What is on its way, by what it is. */
  readonly #sending = new Map<string, Promise<string>>();

  constructor(shared: Shared) {
    this.#shared = shared;
    const channels = [...shared.platforms].map(
      ([name, one]) => [name, new InParts(one, longest(name))] as const,
    );
    this.#channels = new Map(channels);
  }

  /** Says something without Hermes. @param what what it is: it is said once. */
  tell(name: string, what: string, said: Outgoing): void {
    const told = this.send(name, what, said, () => undefined);
    this.#shared.life.stay(told.catch(() => undefined));
  }

  /** Sends what may be asked for again while it is on its way. @param what what it is. */
  async once(what: string, send: () => Promise<string>): Promise<string> {
    const sending = this.#sending.get(what) ?? send();
    this.#sending.set(what, sending);
    try {
      return await sending;
    } finally {
      this.#sending.delete(what);
    }
  }

  /**
   * Sends a message, again while the platform refuses it for the moment.
   * @param attempt what it is: where it is unknown whether that was taken before, its reader is told so.
   * @param taken is called when the platform took it.
   */
  async send(name: string, attempt: string, message: Outgoing, taken: (id: string) => void): Promise<string> {
    const { inbox, log, time, troubles } = this.#shared;
    const channel = this.#channels.get(name);
    if (channel === undefined) throw new SendRefused(`no channel ${name}`, true);
    const began = time.now();
    for (let pause = SHORTEST_PAUSE; ; pause *= 2) {
      const isAgain = inbox.noteSending(name, attempt, time.now()) && !channel.hasBegun(message);
      try {
        const id = await channel.send(message, isAgain ? MAYBE_TWICE : "");
        if (isAgain) inbox.note(name, "twice");
        inbox.noteSent(name, attempt, id, time.now());
        taken(id);
        troubles.delete(name);
        return id;
      } catch (error) {
        if (!(error instanceof SendRefused)) throw error;
        if (!error.isUnsure && !isAgain && !channel.hasBegun(message)) inbox.noteNotSent(name, attempt);
        log.warn("message_not_sent", { channel: name, why: error.message });
        const wait = Math.max(error.retryAfter, pause);
        troubles.set(name, error.message);
        if (error.isFinal) inbox.note(name, "refused");
        if (error.isFinal || time.now() - began + wait > SEND_PATIENCE) throw error;
        await time.sleep(wait);
      }
    }
  }
}
