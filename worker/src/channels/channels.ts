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
import { longest } from "../config/channels.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import type { Settings } from "../config/settings.ts";
import {
  type Channel,
  type Incoming,
  type Outgoing,
  type Registered,
  SendRefused,
  type Update,
} from "./channel.ts";
import { InParts } from "./in-parts.ts";
import { type Counts, type Entry, Inbox, laneOf, type Taken, type Unanswered } from "./inbox.ts";
import { opened } from "./platforms/platforms.ts";
import { Relay } from "./relay.ts";
import { Ways } from "./ways.ts";

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
/** How many webhooks Hermes is at, at the same time. */
const MOST_HOOKS = 4;
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
  readonly #platforms: ReadonlyMap<string, Channel>;
  readonly #senders = new Map<string, InParts>();
  /** What is being answered, one after the other each. */
  readonly #lanes = new Map<string, Promise<void>>();
  readonly #hooks = new Places(MOST_HOOKS);
  readonly #turns = new Map<number, Turn>();
  readonly #polling = new Map<string, Promise<void>>();
  /** What is on its way to a platform, by what it is. */
  readonly #sending = new Map<string, Promise<string>>();
  /** Why a channel does not work, as far as is known. */
  readonly #troubles = new Map<string, string>();

  constructor(parts: ChannelsParts) {
    this.#parts = parts;
    this.#inbox = new Inbox(parts.storage);
    const { time, fetch } = parts;
    this.#platforms = opened(parts.settings, (name) => ({
      time,
      fetch,
      ways: new Ways(parts.storage.kv, name),
      given: this.#inbox.given(name),
    }));
    for (const [name, channel] of this.#platforms)
      this.#senders.set(name, new InParts(channel, longest(name)));
    this.#relay = new Relay({
      time: parts.time,
      port: () => parts.port(),
      send: (platform, message, isLast) => this.#fromHermes(platform, message, isLast),
      processed: (id) => this.#turns.get(Number(id))?.resolve(),
      lost: () => {
        for (const turn of this.#turns.values()) turn.reject(new Error("Hermes' relay hung up"));
      },
    });
  }

  /** Goes on with what an earlier life of this object left. */
  resume(): void {
    for (const lane of this.#inbox.lanes()) this.#answer(lane);
    this.#poll();
  }

  /** Takes in what a platform sent; it is stored when this returns. */
  async receive(name: string, told: object): Promise<(Taken | Update["kind"])[]> {
    const updates = (await this.#platforms.get(name)?.read(told)) ?? [];
    return updates.map((read) => {
      if (read.kind === "message") return this.#take(name, read.message);
      if (read.kind === "answer") {
        const { chat, thread, message, text } = read;
        const sent = this.#send(name, { chat, thread, text, replyTo: message }).catch(() => undefined);
        this.#parts.life.stay(sent);
      }
      return read.kind;
    });
  }

  /** Takes in what a webhook was sent, by its name; it is stored when this returns. */
  hook(name: string, message: Incoming): Taken {
    return this.#take(`hooks/${name}`, message);
  }

  /** What each channel is and did. */
  views(): Record<string, ChannelView> {
    const named = Object.keys(this.#parts.settings.channels.hooks).map((name) => `hooks/${name}`);
    const all = [...this.#platforms.keys(), ...named];
    return Object.fromEntries(
      all.map((name) => [
        name,
        {
          receives: this.#platforms.get(name)?.receives ?? "webhook",
          waiting: this.#inbox.waiting(name),
          trouble: this.#troubles.get(name) ?? null,
          ...this.#inbox.counts(name),
        },
      ]),
    );
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
  async register(address: string, look: boolean): Promise<Record<string, Registered>> {
    const found: Record<string, Registered> = {};
    for (const [name, platform] of this.#platforms)
      try {
        found[name] = await platform.register(address, look);
        this.#troubles.delete(name);
      } catch (error) {
        if (!(error instanceof SendRefused)) throw error;
        this.#troubles.set(name, error.message);
        throw new ApiError({
          status: 502,
          code: "channel_refused",
          message: error.message,
          retryAfter: 10,
          param: name,
        });
      }
    this.#poll();
    // Whoever sends to a webhook is told of its address by a person.
    for (const name of Object.keys(this.#parts.settings.channels.hooks))
      found[`hooks/${name}`] = {
        bot: "",
        address: `${address}/hooks/${name}`,
        trouble: null,
        waiting: 0,
        changed: false,
      };
    return found;
  }

  /** Has platforms send nothing here any more; the others are left alone. */
  async unregister(names: readonly string[]): Promise<void> {
    for (const name of names) await this.#platforms.get(name)?.unregister();
  }

  #take(channel: string, message: Incoming): Taken {
    const taken = this.#inbox.take(channel, message, this.#parts.time.now());
    if (taken === "full") this.#parts.log.warn("message_dropped", { channel, why: "too many wait" });
    if (taken !== "new") return taken;
    const lane = laneOf(message.event);
    if (STOP.test(message.event.text)) this.#interrupt(lane);
    this.#answer(lane);
    return taken;
  }

  /** Has the turn that a chat waits for ended, so that its next message is the one that says so. */
  #interrupt(lane: string): void {
    for (const turn of this.#turns.values()) if (turn.entry.lane === lane) turn.resolve();
  }

  /** Answers a chat's messages, one after the other. */
  #answer(lane: string): void {
    if (this.#lanes.has(lane)) return;
    const work = this.#answerAll(lane).finally(() => {
      this.#lanes.delete(lane);
      // One may have come at the very end.
      if (this.#inbox.next(lane) !== null) this.#answer(lane);
    });
    this.#lanes.set(lane, work);
    const all = this.#parts.life.arrive(true, async () => ({ value: undefined, end: work }));
    this.#parts.life.stay(Promise.all([all, work]));
  }

  async #answerAll(lane: string): Promise<void> {
    const { time, log } = this.#parts;
    let pause = SHORTEST_PAUSE;
    /** Since when Hermes does not start for the message that is next. */
    let waits: number | null = null;
    for (let entry = this.#inbox.next(lane); entry !== null; entry = this.#inbox.next(lane)) {
      try {
        await this.#answerOne(entry);
        this.#inbox.done(entry);
        pause = SHORTEST_PAUSE;
        waits = null;
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        const { handed } = this.#inbox.next(lane) ?? entry;
        log.warn("message_not_answered", { channel: entry.channel, handed, why });
        waits ??= time.now();
        const isHopeless = handed === 0 ? time.now() - waits > START_PATIENCE : handed >= MOST_HANDED;
        if (isHopeless) await this.#giveUp(entry, why);
        else await time.sleep(pause);
        if (isHopeless) waits = null;
        pause = Math.min(pause * 2, LONGEST_PAUSE);
      }
    }
  }

  /** Returns when a message is answered; meanwhile the person sees that somebody is at it. */
  async #answerOne(entry: Entry): Promise<void> {
    if (entry.isNotice) return this.#notify(entry);
    if (entry.event.source.platform === "webhook") return this.#hooks.during(() => this.#answered(entry));
    const answered = this.#answered(entry);
    void this.#typeUntil(entry, answered);
    await answered;
  }

  /** Sends the text itself. What the platform will never take is done. */
  async #notify({ event: { source, text } }: Entry): Promise<void> {
    try {
      const to = { chat: source.chat_id, thread: null, replyTo: null };
      await this.#sendOnce(source.platform, this.#platform(source.platform), "", { ...to, text });
    } catch (error) {
      if (!(error instanceof SendRefused && error.isFinal)) throw error;
    }
  }

  async #answered(entry: Entry): Promise<void> {
    const { end } = await this.#parts.life.withSeat("message", true, ({ keys }) => this.#turn(entry, keys));
    await end;
  }

  async #giveUp(entry: Entry, why: string): Promise<void> {
    this.#inbox.fail(entry, this.#parts.log.redactor.clean(why).slice(0, 300));
    if (isHook(entry)) return;
    const { source, message_id: replyTo } = entry.event;
    const to = { chat: source.chat_id, thread: source.thread_id ?? null, replyTo };
    await this.#send(source.platform, { ...to, text: NOT_ANSWERED }).catch(() => undefined);
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

  async #typeUntil({ event: { source } }: Entry, end: Promise<void>): Promise<void> {
    const platform = this.#platforms.get(source.platform);
    if (platform === undefined || platform.showsFor === 0) return void (await end.catch(() => undefined));
    let isOver = false;
    const left = new AbortController();
    const ended = () => {
      isOver = true;
      left.abort();
    };
    end.then(ended, ended);
    while (!isOver) {
      await platform.show(source.chat_id, source.thread_id ?? null).catch(() => undefined);
      await this.#parts.time.sleep(platform.showsFor, left.signal).catch(() => undefined);
    }
  }

  /** Hermes sends something; the message that it answers is done when the platform took it. */
  async #fromHermes(platform: string, message: Outgoing, isLast: boolean): Promise<string> {
    const turn = [...this.#turns.values()].find(
      ({ entry: { event } }) =>
        event.source.platform === platform &&
        event.source.chat_id === message.chat &&
        event.message_id === message.replyTo,
    );
    const id = await this.#send(platform, message, turn?.entry).catch((error: unknown) => {
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
  async #send(platform: string, message: Outgoing, answers?: Entry): Promise<string> {
    // What Hermes says to a webhook nobody is to hear.
    if (platform === "webhook") return "0";
    const channel = this.#platform(platform);
    const what = hex(
      await digestOf(JSON.stringify([message.chat, message.thread, message.replyTo, message.text])),
    );
    // What answers nothing may be meant to be said twice.
    if (message.replyTo === null) return this.#sendOnce(platform, channel, what, message);
    const known = this.#inbox.sent(platform, what);
    if (known !== null) return known;
    // The platform knows no message of a webhook's.
    const said = answers !== undefined && isHook(answers) ? { ...message, replyTo: null } : message;
    const sending = this.#sending.get(what) ?? this.#sendOnce(platform, channel, what, said);
    this.#sending.set(what, sending);
    try {
      return await sending;
    } finally {
      this.#sending.delete(what);
    }
  }

  /** Sends a message, again while the platform refuses it for the moment. */
  async #sendOnce(name: string, channel: InParts, what: string, message: Outgoing): Promise<string> {
    const { time, log } = this.#parts;
    const began = time.now();
    for (let pause = SHORTEST_PAUSE; ; pause *= 2) {
      try {
        const id = await channel.send(message);
        this.#inbox.noteSent(name, what, id, time.now());
        this.#troubles.delete(name);
        return id;
      } catch (error) {
        if (!(error instanceof SendRefused)) throw error;
        log.warn("message_not_sent", { channel: name, why: error.message });
        const wait = Math.max(error.retryAfter, pause);
        this.#troubles.set(name, error.message);
        if (error.isFinal || time.now() - began + wait > SEND_PATIENCE) throw error;
        await time.sleep(wait);
      }
    }
  }

  #platform(name: string): InParts {
    const platform = this.#senders.get(name);
    if (platform === undefined) throw new SendRefused(`no channel ${name}`, true);
    return platform;
  }

  /** Asks the platforms for messages that cannot send them. */
  #poll(): void {
    for (const [name, channel] of this.#platforms) {
      if (channel.receives !== "poll" || this.#polling.has(name)) continue;
      const polling = this.#pollForEver(name, channel);
      this.#polling.set(name, polling);
      this.#parts.life.stay(polling);
    }
  }

  async #pollForEver(name: string, channel: Channel): Promise<void> {
    const { time, log } = this.#parts;
    for (let pause = SHORTEST_PAUSE; ; ) {
      try {
        const asked = time.now();
        const updates = (await channel.updates?.(this.#inbox.offset(name))) ?? [];
        for (const { id, told } of updates) {
          await this.receive(name, told);
          this.#inbox.moveOffset(name, id + 1);
        }
        this.#troubles.delete(name);
        pause = SHORTEST_PAUSE;
        // A server that does not hold the question is not asked all the time.
        if (updates.length === 0) await time.sleep(Math.max(0, asked + SHORTEST_PAUSE - time.now()));
      } catch (error) {
        const why = error instanceof SendRefused ? error.message : "its messages could not be read";
        if (this.#troubles.get(name) !== why) log.warn("channel_trouble", { channel: name, why });
        this.#troubles.set(name, why);
        await time.sleep(Math.max(pause, error instanceof SendRefused ? error.retryAfter : 0));
        pause = Math.min(pause * 2, LONGEST_PAUSE);
      }
    }
  }
}

/** Whether a message came by a webhook. */
function isHook({ channel }: Entry): boolean {
  return channel.startsWith("hooks/");
}

/** So many at the same time; others wait for their turn. */
class Places {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(free: number) {
    this.#free = free;
  }

  async during<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}
