// SPDX-License-Identifier: Apache-2.0
/**
 * The messages of people: taken in, given to Hermes one after the other in each chat, answered. A message is stored
 * before its platform is told that it was received, and goes when the platform took its answer; whatever dies on the way,
 * it is given to Hermes again.
 */
import { digestOf, hex } from "../base/digests.ts";
import { ApiError } from "../base/errors.ts";
import type { Lasting } from "../base/lasting.ts";
import type { Log } from "../base/log.ts";
import { Deadline, type Time } from "../base/time.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import type { Settings } from "../config/settings.ts";
import { type Incoming, type Outgoing, type Registration, SendRefused, type Update } from "./channel.ts";
import { type Counts, type Entry, Inbox, type Taken, type Unanswered } from "./inbox.ts";
import { Relay } from "./relay.ts";
import { readUpdate, Telegram, type TelegramUpdate } from "./telegram.ts";

/** A Hermes that does not start is tried again for so long, in milliseconds; then the person is told. */
const START_PATIENCE = 900_000;
/** How often Hermes is given a message that it does not survive. */
const MOST_HANDED = 4;
/** A turn that says nothing for so long is over, in milliseconds; so is one soon after it has answered. */
const SILENT_TURN = 1800_000;
const SILENT_AFTER_ANSWER = 120_000;
/** Pauses between attempts, in milliseconds. */
const SHORTEST_PAUSE = 1000;
const LONGEST_PAUSE = 60_000;
/** How long a message to a platform is tried: Hermes waits 30 s for it. Milliseconds. */
const SEND_PATIENCE = 25_000;
/** Telegram shows that somebody writes for 5 s. Milliseconds. */
const TYPING = 4500;
/** What does not wait for the turn that is under way: it ends that. */
const STOP = /^\/stop\b/i;

const NOT_ANSWERED =
  "I could not answer this. The message is kept, and my owner can see why and have me try it again.";

/** What the channels need of the instance's life. */
export interface Life {
  withSeat<T>(
    why: string,
    writes: boolean,
    turn: (at: { keys: BootKeys }) => Promise<Lasting<T>>,
  ): Promise<Lasting<T>>;
  arrive<T>(isActivity: boolean, answer: () => Promise<Lasting<T>>): Promise<Lasting<T>>;
  stay(work: Promise<unknown>): void;
}

/** What the channels work with. */
export interface ChannelsParts {
  settings: Settings;
  storage: DurableObjectStorage;
  life: Life;
  time: Time;
  log: Log;
  port(): { fetch(url: string, init?: RequestInit): Promise<Response> };
  fetch(url: string, init: RequestInit): Promise<Response>;
}

/** What a channel is and did, for the owner. */
export interface ChannelView extends Counts {
  receives: "webhook" | "poll";
  waiting: number;
  /** Why it does not work; `null` when it does, as far as is known. */
  trouble: string | null;
}

/** What Hermes is at, for one message. */
interface Turn {
  entry: Entry;
  answered: boolean;
  heard(): void;
  resolve(): void;
  reject(why: Error): void;
}

/** All channels of one instance. */
export class Channels {
  readonly #parts: ChannelsParts;
  readonly #inbox: Inbox;
  readonly #relay: Relay;
  readonly #telegram: Telegram | null;
  readonly #chats = new Map<string, Promise<void>>();
  readonly #turns = new Map<number, Turn>();
  #name: Promise<string> | null = null;
  #polling: Promise<void> | null = null;
  /** What is on its way to a platform, by what it is. */
  readonly #sending = new Map<string, Promise<string>>();
  #trouble: string | null = null;

  constructor(parts: ChannelsParts) {
    this.#parts = parts;
    this.#inbox = new Inbox(parts.storage);
    const { telegram: bot } = parts.settings.channels;
    this.#telegram = bot === null ? null : new Telegram({ bot, time: parts.time, fetch: parts.fetch });
    this.#relay = new Relay({
      time: parts.time,
      port: () => parts.port(),
      send: (platform, message, isLast) => this.#fromHermes(platform, message, isLast),
      lost: () => {
        for (const turn of this.#turns.values()) turn.reject(new Error("Hermes' relay hung up"));
      },
    });
  }

  /** Goes on with what an earlier life of this object left. */
  resume(): void {
    for (const { channel, chat } of this.#inbox.chats()) this.#answer(channel, chat);
    this.#poll();
  }

  /** Takes an update of Telegram's in; it is stored when this returns. */
  async telegram(update: TelegramUpdate): Promise<Taken | Update["kind"]> {
    const { telegram: bot } = this.#parts.settings.channels;
    if (bot === null || this.#telegram === null) return "nothing";
    const read = readUpdate(update, bot, isGroup(update) ? await this.#botName() : "");
    if (read.kind === "answer") {
      const { chat, thread, message, text } = read;
      const told = this.#send("telegram", { chat, thread, text, replyTo: message }).catch(() => undefined);
      this.#parts.life.stay(told);
    }
    return read.kind === "message" ? this.#take("telegram", read.message) : read.kind;
  }

  /** What each channel is and did. */
  views(): Record<string, ChannelView> {
    const { telegram } = this.#parts.settings.channels;
    if (telegram === null) return {};
    return {
      telegram: {
        receives: telegram.receive,
        waiting: this.#inbox.waiting("telegram"),
        trouble: this.#trouble,
        ...this.#inbox.counts("telegram"),
      },
    };
  }

  /** What could not be answered. */
  failed(): Unanswered[] {
    return this.#inbox.failed();
  }

  /** Gives Hermes once more what could not be answered. */
  retry(): number {
    const number = this.#inbox.retry();
    this.resume();
    return number;
  }

  /**
   * Holds where the platforms send messages against where they should, and mends it.
   * @param address where this deployment is reached from outside; empty = nowhere.
   * @param look whether to change nothing.
   * @returns what was found, and whether it had to be, or would have to be, changed.
   * @throws ApiError `channel_refused` with the platform's own words.
   */
  async register(
    address: string,
    look: boolean,
  ): Promise<Record<string, Registration & { changed: boolean }>> {
    const telegram = this.#telegram;
    if (telegram === null) return {};
    const { receive } = this.#parts.settings.channels.telegram ?? { receive: "poll" };
    const wanted = receive === "webhook" ? `${address}/channels/telegram` : "";
    try {
      const found = await telegram.registration();
      const changed = found.address !== wanted;
      if (changed && !look) await (wanted === "" ? telegram.unregister() : telegram.register(wanted));
      this.#trouble = null;
      this.#poll();
      return { telegram: { ...found, changed } };
    } catch (error) {
      if (!(error instanceof SendRefused)) throw error;
      this.#trouble = error.message;
      throw new ApiError({ status: 502, code: "channel_refused", message: error.message, retryAfter: 10 });
    }
  }

  /** Has the platforms send nothing here any more. */
  async unregister(): Promise<void> {
    await this.#telegram?.unregister();
  }

  #take(channel: string, message: Incoming): Taken {
    const taken = this.#inbox.take(channel, message, this.#parts.time.now());
    if (taken === "full") this.#parts.log.warn("message_dropped", { channel, why: "too many wait" });
    if (taken !== "new") return taken;
    const { chat_id: chat } = message.event.source;
    if (STOP.test(message.event.text)) this.#interrupt(channel, chat);
    this.#answer(channel, chat);
    return taken;
  }

  /** Has the turn that a chat waits for ended, so that its next message is the one that says so. */
  #interrupt(channel: string, chat: string): void {
    for (const turn of this.#turns.values())
      if (turn.entry.channel === channel && turn.entry.event.source.chat_id === chat) turn.resolve();
  }

  /** Answers a chat's messages, one after the other. */
  #answer(channel: string, chat: string): void {
    const key = `${channel} ${chat}`;
    if (this.#chats.has(key)) return;
    const work = this.#answerAll(channel, chat).finally(() => {
      this.#chats.delete(key);
      // One may have come at the very end.
      if (this.#inbox.next(channel, chat) !== null) this.#answer(channel, chat);
    });
    this.#chats.set(key, work);
    const all = this.#parts.life.arrive(true, async () => ({ value: undefined, end: work }));
    this.#parts.life.stay(Promise.all([all, work]));
  }

  async #answerAll(channel: string, chat: string): Promise<void> {
    const { time, log } = this.#parts;
    let pause = SHORTEST_PAUSE;
    for (
      let entry = this.#inbox.next(channel, chat);
      entry !== null;
      entry = this.#inbox.next(channel, chat)
    ) {
      try {
        await this.#answerOne(entry);
        this.#inbox.done(entry);
        pause = SHORTEST_PAUSE;
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        const { handed } = this.#inbox.next(channel, chat) ?? entry;
        log.warn("message_not_answered", { channel, handed, why });
        const isHopeless =
          handed === 0 ? time.now() - entry.received > START_PATIENCE : handed >= MOST_HANDED;
        if (isHopeless) await this.#giveUp(entry, why);
        else await time.sleep(pause);
        pause = Math.min(pause * 2, LONGEST_PAUSE);
      }
    }
  }

  /** Returns when a message is answered; meanwhile the person sees that somebody is at it. */
  async #answerOne(entry: Entry): Promise<void> {
    const answered = this.#answered(entry);
    void this.#typeUntil(entry, answered);
    await answered;
  }

  async #answered(entry: Entry): Promise<void> {
    const { end } = await this.#parts.life.withSeat("message", true, ({ keys }) => this.#turn(entry, keys));
    await end;
  }

  async #giveUp(entry: Entry, why: string): Promise<void> {
    this.#inbox.fail(entry, this.#parts.log.redactor.clean(why).slice(0, 300));
    const { source, message_id: replyTo } = entry.event;
    const to = { chat: source.chat_id, thread: source.thread_id ?? null, replyTo };
    await this.#send(entry.channel, { ...to, text: NOT_ANSWERED }).catch(() => undefined);
  }

  /** Gives Hermes a message; lasts until it is answered. */
  async #turn(entry: Entry, keys: BootKeys): Promise<Lasting<void>> {
    await this.#relay.connect(keys.gatewayKey);
    const done = Promise.withResolvers<void>();
    const turn = this.#turnOf(entry, done);
    this.#turns.set(entry.n, turn);
    try {
      this.#inbox.hand(entry);
      await this.#relay.hand(keys.gatewayKey, entry.event, String(entry.n));
    } catch (error) {
      this.#turns.delete(entry.n);
      throw error;
    }
    return { value: undefined, end: done.promise.finally(() => this.#turns.delete(entry.n)) };
  }

  #turnOf(entry: Entry, done: PromiseWithResolvers<void>): Turn {
    const { time } = this.#parts;
    let silence: Deadline | null = null;
    const turn: Turn = {
      entry,
      answered: false,
      heard: () => {
        silence?.stop();
        const mine = new Deadline(time, turn.answered ? SILENT_AFTER_ANSWER : SILENT_TURN);
        silence = mine;
        void mine.over.then(() => {
          if (!mine.isOver) return;
          if (turn.answered) turn.resolve();
          else turn.reject(new Error("Hermes said nothing for half an hour"));
        });
      },
      resolve: () => {
        silence?.stop();
        done.resolve();
      },
      reject: (why) => {
        silence?.stop();
        done.reject(why);
      },
    };
    turn.heard();
    return turn;
  }

  async #typeUntil({ channel, event }: Entry, end: Promise<void>): Promise<void> {
    const telegram = this.#telegram;
    if (channel !== "telegram" || telegram === null) return;
    let isOver = false;
    const left = new AbortController();
    const ended = () => {
      isOver = true;
      left.abort();
    };
    end.then(ended, ended);
    while (!isOver) {
      await telegram.typing(event.source.chat_id, event.source.thread_id ?? null).catch(() => undefined);
      await this.#parts.time.sleep(TYPING, left.signal).catch(() => undefined);
    }
  }

  /** Hermes sends something; the message that it answers is done when the platform took it. */
  async #fromHermes(platform: string, message: Outgoing, isLast: boolean): Promise<string> {
    const turn = [...this.#turns.values()].find(
      ({ entry: { channel, event } }) =>
        channel === platform &&
        event.source.chat_id === message.chat &&
        (message.replyTo === null || event.message_id === message.replyTo),
    );
    turn?.heard();
    const id = await this.#send(platform, message).catch((error: unknown) => {
      // What the platform will never take is no reason to ask Hermes again.
      if (error instanceof SendRefused && error.isFinal) turn?.resolve();
      throw error;
    });
    if (turn !== undefined && message.replyTo !== null) {
      turn.answered = true;
      if (isLast) turn.resolve();
      else turn.heard();
    }
    return id;
  }

  /** Sends a message once: Hermes says it again when it was not told in time that it was taken. */
  async #send(platform: string, message: Outgoing): Promise<string> {
    if (platform !== "telegram" || this.#telegram === null)
      throw new SendRefused(`no channel ${platform}`, true);
    const what = hex(
      await digestOf(JSON.stringify([message.chat, message.thread, message.replyTo, message.text])),
    );
    // What answers nothing may be meant to be said twice.
    if (message.replyTo === null) return this.#sendOnce(this.#telegram, what, message);
    const known = this.#inbox.sent(platform, what);
    if (known !== null) return known;
    const sending = this.#sending.get(what) ?? this.#sendOnce(this.#telegram, what, message);
    this.#sending.set(what, sending);
    try {
      return await sending;
    } finally {
      this.#sending.delete(what);
    }
  }

  /** Sends a message, again while the platform refuses it for the moment. */
  async #sendOnce(telegram: Telegram, what: string, message: Outgoing): Promise<string> {
    const { time, log } = this.#parts;
    const began = time.now();
    for (let pause = SHORTEST_PAUSE; ; pause *= 2) {
      try {
        const id = await telegram.send(message);
        this.#inbox.noteSent("telegram", what, id, time.now());
        this.#trouble = null;
        return id;
      } catch (error) {
        if (!(error instanceof SendRefused)) throw error;
        log.warn("message_not_sent", { channel: "telegram", why: error.message });
        const wait = Math.max(error.retryAfter, pause);
        this.#trouble = error.message;
        if (error.isFinal || time.now() - began + wait > SEND_PATIENCE) throw error;
        await time.sleep(wait);
      }
    }
  }

  #botName(): Promise<string> {
    this.#name ??= (this.#telegram?.name() ?? Promise.resolve("")).catch(() => {
      this.#name = null;
      return "";
    });
    return this.#name;
  }

  /** Asks Telegram for messages, where it cannot send them. */
  #poll(): void {
    const { telegram: bot } = this.#parts.settings.channels;
    if (bot?.receive !== "poll" || this.#telegram === null || this.#polling !== null) return;
    this.#polling = this.#pollForEver(this.#telegram);
    this.#parts.life.stay(this.#polling);
  }

  async #pollForEver(telegram: Telegram): Promise<void> {
    const { time, log } = this.#parts;
    for (let pause = SHORTEST_PAUSE; ; ) {
      try {
        const asked = time.now();
        const updates = await telegram.updates(this.#inbox.offset("telegram"));
        for (const update of updates) {
          await this.telegram(update);
          this.#inbox.moveOffset("telegram", update.update_id + 1);
        }
        this.#trouble = null;
        pause = SHORTEST_PAUSE;
        // A server that does not hold the question is not asked all the time.
        if (updates.length === 0) await time.sleep(Math.max(0, asked + SHORTEST_PAUSE - time.now()));
      } catch (error) {
        const why = error instanceof SendRefused ? error.message : "its messages could not be read";
        if (this.#trouble !== why) log.warn("channel_trouble", { channel: "telegram", why });
        this.#trouble = why;
        await time.sleep(Math.max(pause, error instanceof SendRefused ? error.retryAfter : 0));
        pause = Math.min(pause * 2, LONGEST_PAUSE);
      }
    }
  }
}

function isGroup({ message }: TelegramUpdate): boolean {
  return message !== undefined && message.chat.type !== "private";
}
