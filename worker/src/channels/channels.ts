// SPDX-License-Identifier: Apache-2.0
/**
 * The messages of people: taken in, given to Hermes one after the other in each chat, answered. A message is stored
 * before its platform is told that it was received, and goes when the platform took its answer; whatever dies on the way,
 * it is given to Hermes again.
 */
import { Answers } from "./answers.ts";
import {
  type Channel,
  type FetchedFile,
  type Incoming,
  type OwnFile,
  type OwnMessage,
  type Registered,
  SendRefused,
  type Update,
} from "./channel.ts";
import { Handover } from "./handover.ts";
import { type Counts, Inbox, laneIn, type Taken, type Unanswered } from "./inbox.ts";
import { Intake } from "./intake.ts";
import { KeptFiles } from "./kept-files.ts";
import { Lanes } from "./lanes.ts";
import { Outbox } from "./outbox.ts";
import { type Paired, Pairing, type Person } from "./pairing.ts";
import type { ChannelsParts, Shared } from "./parts.ts";
import { opened } from "./platforms/platforms.ts";
import { Polling } from "./polling.ts";
import { Questions } from "./questions.ts";
import { Relay } from "./relay.ts";
import { Sender } from "./sender.ts";
import { Turns } from "./turns.ts";
import { Ways } from "./ways.ts";

/** What a channel is and did, for the owner. */
export interface ChannelView extends Counts {
  receives: "webhook" | "poll";
  waiting: number;
  /** Why it does not work; `null` when it does, as far as is known. */
  trouble: string | null;
  /** Who was let in by a code, and who has one: without the codes. */
  paired: Person[];
  asking: Person[];
}

/** What the platforms say to where they send messages, by channels; those that refused, in their words. */
export interface Registrations {
  registered: Record<string, Registered>;
  refused: Record<string, string>;
}

/** All channels of one instance: what may be asked of them. */
export class Channels {
  readonly #shared: Shared;
  readonly #intake: Intake;
  readonly #outbox: Outbox;
  readonly #polling: Polling;

  constructor(parts: ChannelsParts) {
    const { settings, storage, time, fetch, mail } = parts;
    const inbox = new Inbox(storage);
    const files = new KeptFiles(storage);
    files.dropAllBut(inbox.files());
    const platforms = opened(settings, (name) => ({
      time,
      fetch,
      mail,
      ways: new Ways(storage.kv, name),
      given: inbox.given(name),
    }));
    const shared: Shared = {
      ...{ ...parts, inbox, files, platforms, pairing: new Pairing(storage), troubles: new Map() },
      answer: (lane) => lanes.answer(lane),
    };
    const turns = new Turns(shared);
    const sender = new Sender(shared);
    const outbox = new Outbox(shared, turns);
    const answers = new Answers(shared, turns, sender, outbox);
    const questions = new Questions(shared, turns, sender);
    const relay = new Relay({
      time,
      port: () => parts.port(),
      send: (...sent) => answers.send(...sent),
      sendFile: (...sent) => outbox.sendFile(...sent),
      react: (...reaction) => answers.react(...reaction),
      ask: (...asked) => questions.ask(...asked),
      waits: (platform, chat) => handover.offerAnswers(laneIn(platform, chat)),
      processed: (id) => turns.processed(Number(id)),
      lost: () => turns.lost(),
    });
    const handover = new Handover(shared, turns, relay);
    const lanes = new Lanes(shared, turns, sender, handover, questions);
    this.#shared = shared;
    this.#outbox = outbox;
    this.#intake = new Intake(shared, turns, sender, handover);
    this.#polling = new Polling(shared, this.#intake);
  }

  /** Goes on with what an earlier life of this object left. */
  resume(): void {
    for (const lane of this.#shared.inbox.lanes()) this.#shared.answer(lane);
    this.#polling.start();
  }

  /** Takes in what a platform sent; it is stored when this returns. */
  receive(name: string, told: object): Promise<(Taken | Update["kind"])[]> {
    return this.#intake.receive(name, told);
  }

  /** Takes in what a webhook was sent, by its name; it is stored when this returns. */
  hook(name: string, message: Incoming): Taken {
    return this.#intake.take(`hooks/${name}`, message);
  }

  /**
   * Keeps what Hermes sends on its own account.
   * @throws ApiError 404 `no_channel`; 403 `no_chat`; 429 `channel_full`.
   */
  sendOwn(message: OwnMessage): Taken {
    return this.#outbox.sendOwn(message);
  }

  /** The same of a file. @throws ApiError 404 `no_channel`; 403 `no_chat`; Error when it ends before its end. */
  sendOwnFile(file: OwnFile, body: ReadableStream<Uint8Array>): Promise<Taken> {
    return this.#outbox.sendOwnFile(file, body);
  }

  /** Lets in whoever was given a code, and tells them. @throws ApiError 404 `no_such_code`; 429 `too_many_codes`. */
  pair(code: string): Promise<Paired> {
    return this.#intake.pair(code);
  }

  /** Lets in no longer whom a code let in. @returns whether there was one. */
  unpair(channel: string, user: string): boolean {
    return this.#shared.pairing.remove(channel, user);
  }

  /** A file that a platform fetches; `null` = it was offered none of this name, or not any more. */
  async offered(channel: string, name: string): Promise<FetchedFile | null> {
    return (await this.#shared.platforms.get(channel)?.offered?.(name)) ?? null;
  }

  /** What each channel is and did. */
  views(): Record<string, ChannelView> {
    const named = Object.keys(this.#shared.settings.channels.hooks).map((name) => `hooks/${name}`);
    const all = [...this.#shared.platforms.keys(), ...named];
    return Object.fromEntries(
      all.map((name) => [
        name,
        {
          receives: this.#shared.platforms.get(name)?.receives ?? "webhook",
          waiting: this.#shared.inbox.waiting(name),
          trouble: this.#shared.troubles.get(name) ?? null,
          paired: this.#shared.pairing.people(name),
          asking: this.#shared.pairing.asking(name, this.#shared.time.now()),
          ...this.#shared.inbox.counts(name),
        },
      ]),
    );
  }

  /** What could not be answered. */
  failed(): Unanswered[] {
    return this.#shared.inbox.failed(this.#shared.time.now());
  }

  /** Gives Hermes once more what could not be answered. */
  retry(): number {
    const number = this.#shared.inbox.retry();
    this.resume();
    return number;
  }

  /**
   * Holds where the platforms send messages against where they should, and mends it.
   * @param address where this deployment is reached from outside; empty = nowhere.
   * @param look whether to change nothing.
   * @returns of each what was found, and whether it had to be, or would have to be, changed; or why it refused.
   */
  async register(address: string, look: boolean): Promise<Registrations> {
    const registered: Record<string, Registered> = {};
    const refused = await this.#ofAll([...this.#shared.platforms.keys()], async (name, platform) => {
      registered[name] = await platform.register(address, look);
    });
    this.#polling.start();
    // Whoever sends to a webhook is told of its address by a person.
    for (const name of Object.keys(this.#shared.settings.channels.hooks))
      registered[`hooks/${name}`] = {
        bot: "",
        address: `${address}/hooks/${name}`,
        trouble: null,
        waiting: 0,
        changed: false,
      };
    return { registered, refused };
  }

  /** Has platforms send nothing here any more. @returns why one refused. */
  unregister(names: readonly string[]): Promise<Record<string, string>> {
    return this.#ofAll(names, (_, platform) => platform.unregister());
  }

  /** Asks platforms at once. @returns the words of those that refuse. */
  async #ofAll(
    names: readonly string[],
    ask: (name: string, platform: Channel) => Promise<void>,
  ): Promise<Record<string, string>> {
    const refused: Record<string, string> = {};
    const asked = names.map(async (name) => {
      const platform = this.#shared.platforms.get(name);
      if (platform === undefined) return;
      try {
        await ask(name, platform);
        this.#shared.troubles.delete(name);
      } catch (error) {
        if (!(error instanceof SendRefused)) throw error;
        this.#shared.troubles.set(name, error.message);
        refused[name] = error.message;
      }
    });
    await Promise.all(asked);
    return refused;
  }
}
