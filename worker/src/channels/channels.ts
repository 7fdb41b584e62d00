// SPDX-License-Identifier: Apache-2.0
/**
 * The messages of people: taken in, given to Hermes one after the other in each chat, answered. A message is stored
 * before its platform is told that it was received, and goes when the platform took its answer; whatever dies on the way,
 * it is given to Hermes again.
 */
import { digestOf, hex } from "../base/digests.ts";
import { ApiError } from "../base/errors.ts";
import { type Lasting, over } from "../base/lasting.ts";
import type { Log } from "../base/log.ts";
import { Deadline, Patience, type Time } from "../base/time.ts";
import { longest, type PlatformName } from "../config/channels.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import type { Settings } from "../config/settings.ts";
import {
  buttonData,
  type Channel,
  type Event,
  type Incoming,
  noChannel,
  type Outgoing,
  type OwnFile,
  type OwnMessage,
  type Press,
  type Read,
  type Registered,
  SendRefused,
  type Source,
  type Stranger,
  type Update,
} from "./channel.ts";
import { InParts } from "./in-parts.ts";
import {
  type Counts,
  type Entry,
  Inbox,
  laneIn,
  laneOf,
  ownLaneOf,
  type Taken,
  type Unanswered,
} from "./inbox.ts";
import { KeptFiles, piecesOf } from "./kept-files.ts";
import { type Paired, Pairing, type Person } from "./pairing.ts";
import { opened } from "./platforms/platforms.ts";
import { type Asked, type Manner, type OfferedFile, Relay } from "./relay.ts";
import { inMegabytes, largestTaken } from "./sizes.ts";
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

/** How long what is to be sent is kept for a platform that does not take it, in milliseconds. */
const SENT_WITHIN = 24 * 3600_000;
/** And how often it is tried at least: a machine that slept for a day wakes before its network. */
const LEAST_REFUSED = 10;

/** What Hermes is told that a message is called which waits here for its platform. */
const KEPT = "kept";

/** Stands before what its reader may have got already. */
const MAYBE_TWICE = "(I do not know whether this reached you before.)\n";

const NOT_ANSWERED =
  "I could not answer this. The message is kept, and my owner can see why and have me try it again.";

/** What is put below a question that nobody waits for any more. */
const TOO_LATE = "(I do not wait for this any more.)";

const PAIRED = "You may write to me from now on.";

/** What a stranger is told. */
function codeWords(code: string): string {
  return `I do not know you. If you know whose assistant I am, tell them this code: ${code}. It is good for an hour.`;
}

/** What the channels need of the instance's life. */
export interface Life {
  withSeat<T>(
    why: string,
    writes: boolean,
    turn: (at: { keys: BootKeys }) => Promise<Lasting<T>>,
  ): Promise<Lasting<T>>;
  arrive<T>(isActivity: boolean, answer: () => Promise<Lasting<T>>): Promise<Lasting<T>>;
  /** Whether a turn would have to wake Hermes. */
  readonly isAsleep: boolean;
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
  /** Sends mails, where that is a channel. */
  mail?: SendEmail | undefined;
}

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
  readonly #files: KeptFiles;
  readonly #pairing: Pairing;
  readonly #relay: Relay;
  readonly #platforms: ReadonlyMap<string, Channel>;
  readonly #senders = new Map<string, InParts>();
  /** What is being answered, one after the other each. */
  readonly #lanes = new Map<string, Promise<void>>();
  readonly #hooks = new Places(MOST_HOOKS);
  readonly #turns = new Map<number, Turn>();
  /** Messages that Hermes was at for so long without a word. */
  readonly #silent = new Set<number>();
  /** Messages that are tried again after a while. */
  readonly #pauses = new Map<number, AbortController>();
  readonly #polling = new Map<string, Promise<void>>();
  /** Until it is known whether a message's answer was taken. */
  readonly #answering = new Map<number, Promise<unknown>>();
  /** Files of Hermes' are taken in one after the other. */
  #keeping: Promise<void> = Promise.resolve();
  /** What is on its way to a platform, by what it is. */
  readonly #sending = new Map<string, Promise<string>>();
  /** Why a channel does not work, as far as is known. */
  readonly #troubles = new Map<string, string>();

  constructor(parts: ChannelsParts) {
    this.#parts = parts;
    this.#inbox = new Inbox(parts.storage);
    this.#files = new KeptFiles(parts.storage);
    this.#files.dropAllBut(this.#inbox.files());
    this.#pairing = new Pairing(parts.storage);
    const { time, fetch, mail } = parts;
    this.#platforms = opened(parts.settings, (name) => ({
      time,
      fetch,
      mail,
      ways: new Ways(parts.storage.kv, name),
      given: this.#inbox.given(name),
    }));
    for (const [name, channel] of this.#platforms)
      this.#senders.set(name, new InParts(channel, longest(name)));
    this.#relay = new Relay({
      time: parts.time,
      port: () => parts.port(),
      send: (...sent) => this.#fromHermes(...sent),
      sendFile: (...sent) => this.#fileFromHermes(...sent),
      ask: (...asked) => this.#ask(...asked),
      waits: (platform, chat) => this.#offerAnswers(laneIn(platform, chat)),
      processed: (id) => this.#over(Number(id)),
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
    const taken: (Taken | Update["kind"])[] = [];
    for (const read of updates) taken.push(await this.#admit(name, read));
    return taken;
  }

  /** Hears who may write, and whom a code let in; another may be given one. */
  async #admit(name: string, read: Update): Promise<Taken | Update["kind"]> {
    if (read.kind === "edit") {
      const { of } = read;
      const said = of.kind !== "stranger" ? of : this.#pairing.has(name, of.user) ? of.said : null;
      if (said?.kind === "message") this.#inbox.amend(name, said.message.event);
      return read.kind;
    }
    if (read.kind !== "stranger") return this.#hear(name, read);
    if (this.#pairing.has(name, read.user)) return this.#hear(name, read.said);
    await this.#offer(name, read);
    return read.kind;
  }

  #hear(name: string, read: Read): Taken | Update["kind"] {
    if (read.kind === "message") {
      const taken = this.#take(name, read.message);
      const { press } = read.message.event;
      const heard = press && this.#platforms.get(name)?.heard?.(press);
      if (heard !== undefined) this.#parts.life.stay(heard.catch(() => undefined));
      return taken;
    }
    if (read.kind === "answer") {
      const { chat, thread, message, text } = read;
      this.#tell(name, `told ${chat} ${message}`, { chat, thread, text, replyTo: message });
    }
    return read.kind;
  }

  /** Says something without Hermes. @param what what it is: it is said once. */
  #tell(name: string, what: string, said: Outgoing): void {
    const told = this.#sendOnce(name, what, said, () => undefined);
    this.#parts.life.stay(told.catch(() => undefined));
  }

  /** Gives a stranger a code; one who has it, or comes when there are enough, hears nothing. */
  async #offer(channel: string, { chat, user, name, said }: Stranger): Promise<void> {
    const code = await this.#pairing.offer({ channel, user, name, chat }, this.#parts.time.now());
    if (code === null) return;
    const replyTo = said.kind === "message" ? said.message.event.message_id : null;
    this.#tell(channel, `code ${chat} ${replyTo}`, { chat, thread: null, text: codeWords(code), replyTo });
  }

  /**
   * Lets in whoever was given a code, and tells them.
   * @throws ApiError 404 `no_such_code`; 429 `too_many_codes`.
   */
  async pair(code: string): Promise<Paired> {
    const now = this.#parts.time.now();
    const paired = await this.#pairing.approve(code, now);
    const { channel, user, chat } = paired;
    this.#tell(channel, `paired ${user} ${now}`, { chat, thread: null, text: PAIRED, replyTo: null });
    return paired;
  }

  /** Lets in no longer whom a code let in. @returns whether there was one. */
  unpair(channel: string, user: string): boolean {
    return this.#pairing.remove(channel, user);
  }

  /** Takes in what a webhook was sent, by its name; it is stored when this returns. */
  hook(name: string, message: Incoming): Taken {
    return this.#take(`hooks/${name}`, message);
  }

  /**
   * Keeps what Hermes sends on its own account: it is sent as soon as its platform takes it, whatever becomes of Hermes.
   * @returns what became of it.
   * @throws ApiError 404 `no_channel`; 403 `no_chat`; 429 `channel_full`.
   */
  sendOwn({ name, platform, chat, thread, text }: OwnMessage): Taken {
    this.#checkPlace(platform, chat);
    const source: Source = {
      ...{ platform, chat_id: chat, chat_type: "dm", user_id: "hermes", message_id: `own ${name}` },
      ...(thread === null ? {} : { thread_id: thread }),
    };
    const event: Event = { text, message_type: "text", message_id: source.message_id, source };
    const taken = this.#inbox.keepOwn(platform, event, this.#parts.time.now());
    if (taken === "full")
      throw new ApiError({
        status: 429,
        code: "channel_full",
        message: `${platform} takes nothing at the moment, and too much waits for it already.`,
        retryAfter: 60,
      });
    this.#answer(ownLaneOf(event));
    return taken;
  }

  /**
   * Keeps a file that Hermes sends on its own account, after what it sent before.
   * @throws ApiError 404 `no_channel`; 403 `no_chat`; Error when it ends before its end.
   */
  async sendOwnFile(file: OwnFile, body: ReadableStream<Uint8Array>): Promise<Taken> {
    const { name, platform, chat, thread, kind, called, mime, size } = file;
    this.#checkPlace(platform, chat);
    const id = `own ${name}`;
    if (this.#inbox.knows(platform, id)) {
      await body.cancel();
      return "known";
    }
    const what = { kind, name: called, mime, size, pieces: () => piecesOf(body) };
    await this.#takeFile(platform, id, null, { chat, thread, answers: null, part: 0, caption: "", ...what });
    return "new";
  }

  #checkPlace(platform: string, chat: string): void {
    if (!this.#platforms.has(platform)) throw noChannel();
    if (!this.#isOurs(platform, chat))
      throw new ApiError({ status: 403, code: "no_chat", message: notOurs(platform, chat) });
  }

  /** Whether a chat is one that the owner named, or in which somebody wrote who may. */
  #isOurs(platform: string, chat: string): boolean {
    const { platforms, hooks } = this.#parts.settings.channels;
    const declared = platforms[platform as PlatformName];
    const allowed: readonly string[] = declared?.allow ?? [];
    return (
      chat === declared?.home ||
      [chat, ...this.#inbox.whoWroteIn(platform, chat)].some(
        (one) => allowed.includes(one) || (declared?.pairing === true && this.#pairing.has(platform, one)),
      ) ||
      Object.values(hooks).some(({ chat: to }) => to?.platform === platform && to.id === chat)
    );
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
          paired: this.#pairing.people(name),
          asking: this.#pairing.asking(name, this.#parts.time.now()),
          ...this.#inbox.counts(name),
        },
      ]),
    );
  }

  /** What could not be answered. */
  failed(): Unanswered[] {
    return this.#inbox.failed(this.#parts.time.now());
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
   * @returns of each what was found, and whether it had to be, or would have to be, changed; or why it refused.
   */
  async register(address: string, look: boolean): Promise<Registrations> {
    const registered: Record<string, Registered> = {};
    const refused = await this.#ofAll([...this.#platforms.keys()], async (name, platform) => {
      registered[name] = await platform.register(address, look);
    });
    this.#poll();
    // Whoever sends to a webhook is told of its address by a person.
    for (const name of Object.keys(this.#parts.settings.channels.hooks))
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
      const platform = this.#platforms.get(name);
      if (platform === undefined) return;
      try {
        await ask(name, platform);
        this.#troubles.delete(name);
      } catch (error) {
        if (!(error instanceof SendRefused)) throw error;
        this.#troubles.set(name, error.message);
        refused[name] = error.message;
      }
    });
    await Promise.all(asked);
    return refused;
  }

  #take(channel: string, message: Incoming): Taken {
    const bytes = [...(message.bytes ?? [])];
    const hasRoom = this.#files.hasRoom(bytes.reduce((sum, [, { byteLength }]) => sum + byteLength, 0));
    const taken = this.#inbox.take(channel, message, this.#parts.time.now(), hasRoom);
    if (taken === "full") this.#parts.log.warn("message_dropped", { channel, why: "too many wait" });
    if (taken !== "new") return taken;
    for (const [ref, one] of bytes) this.#files.put(ref, one);
    const lane = laneOf(message.event);
    if (STOP.test(message.event.text)) this.#interrupt(lane);
    else this.#offerAnswers(lane);
    this.#answer(lane);
    return taken;
  }

  /** Has the turn that a chat waits for ended, so that its next message is the one that says so. */
  #interrupt(lane: string): void {
    for (const { entry } of this.#turns.values()) if (entry.lane === lane) this.#over(entry.n);
  }

  /** Lets what came after the message that Hermes is at answer what it asks in the middle of it. */
  #offerAnswers(lane: string): void {
    const isAtOne = [...this.#turns.values()].some(({ entry }) => entry.lane === lane);
    if (!isAtOne) return;
    for (const entry of this.#inbox.behind(lane)) {
      const id = String(entry.n);
      // What a program says answers no question of Hermes'.
      if (isHook(entry) || entry.event.files !== undefined || this.#relay.holds(id)) continue;
      this.#relay.offer(entry.event, id);
    }
  }

  /** A message is answered, or needs no answer: nothing of it is kept. */
  #over(n: number): void {
    this.#inbox.done({ n });
    this.#silent.delete(n);
    this.#turns.get(n)?.resolve();
    this.#pauses.get(n)?.abort();
  }

  /** Waits until a message is tried again, or needs no answer any more: what Hermes said before it died may be taken yet. */
  async #pause({ n }: Entry, ms: number): Promise<void> {
    const over = new AbortController();
    this.#pauses.set(n, over);
    await this.#parts.time.sleep(ms, over.signal).catch(() => undefined);
    this.#pauses.delete(n);
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
    this.#parts.life.stay(work);
  }

  async #answerAll(lane: string): Promise<void> {
    const patience = new Patience(this.#parts.time, START_PATIENCE);
    await this.#answerEach(lane, patience).finally(() => patience.stop());
  }

  /** @param patience with a Hermes that takes nothing. */
  async #answerEach(lane: string, patience: Patience): Promise<void> {
    const { time, log } = this.#parts;
    let pause = SHORTEST_PAUSE;
    /** What the platform does not take, since when, and how often it did not. */
    let refused = { what: "", since: 0, times: 0 };
    for (let entry = this.#inbox.next(lane); entry !== null; entry = this.#inbox.next(lane)) {
      const began = time.now();
      try {
        await this.#answerOne(entry);
        patience.renew();
        pause = SHORTEST_PAUSE;
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        const now = this.#inbox.next(lane);
        // It was answered, and only the end of its turn was not heard.
        if (now?.n !== entry.n) continue;
        const { handed, received, is } = now;
        log.warn("message_not_answered", { channel: entry.channel, handed, why });
        if (handed !== entry.handed) patience.renew();
        const what = `${is} ${entry.n}`;
        if (refused.what !== what) refused = { what, since: began, times: 0 };
        refused.times++;
        // A clock may have been set, and a machine that slept for hours saw nobody fail meanwhile.
        const isLate = patience.isOver && Math.abs(time.now() - received) > START_PATIENCE;
        const isNeverTaken = refused.times >= LEAST_REFUSED && time.now() - refused.since > SENT_WITHIN;
        const isRefused = error instanceof SendRefused && error.isFinal;
        const isHopeless = is === "message" ? isLate || isRefused || handed >= MOST_HANDED : isNeverTaken;
        const asked = error instanceof SendRefused ? error.retryAfter : 0;
        if (!isHopeless) await this.#pause(entry, Math.max(pause, asked));
        else if (is === "failure") this.#inbox.told(entry);
        else if (is === "notice" && now.event.files !== undefined) this.#sayNotSent(now, why);
        else this.#inbox.fail(entry, this.#clean(why), isHook(entry));
        pause = isHopeless ? SHORTEST_PAUSE : Math.min(pause * 2, LONGEST_PAUSE);
      }
    }
  }

  /** Returns when a message is answered; meanwhile the person sees that somebody is at it. */
  async #answerOne(entry: Entry): Promise<void> {
    if (entry.is !== "message") return this.#notify(entry);
    const { press } = entry.event;
    if (press !== undefined) return this.#press(entry, press);
    const ask = () => this.#answered(entry);
    const answered = entry.event.source.platform === "webhook" ? this.#hooks.during(ask) : ask();
    void this.#typeUntil(entry, answered);
    await answered;
  }

  /** Answers a question by a button; whoever pressed it sees what it was answered, or that nobody waits for it. */
  async #press(entry: Entry, press: Press): Promise<void> {
    const { life } = this.#parts;
    const { platform, chat_id: chat, thread_id: thread = null } = entry.event.source;
    // What a Hermes asked that sleeps by now it has forgotten.
    const asked = life.isAsleep
      ? null
      : await life.arrive(true, () =>
          life.withSeat("message", true, async ({ keys }) => {
            await this.#relay.connect(keys.gatewayKey);
            return over(await this.#relay.press(String(entry.n), press));
          }),
        );
    const answer = asked?.value ?? null;
    const words = answer === null ? TOO_LATE : `→ ${answer}`;
    try {
      await this.#platforms.get(platform)?.settle?.(chat, press, words);
    } catch (error) {
      if (!(error instanceof SendRefused)) throw error;
      if (!error.isFinal) throw error;
      // A message that cannot be changed stays as it is; that it was too late is said in another one.
      const said = { chat, thread, text: TOO_LATE, replyTo: null };
      if (answer === null) this.#tell(platform, `press ${entry.n}`, said);
    }
    this.#inbox.done(entry);
  }

  /** Hermes asks something: it is asked once, with buttons where the platform has them. */
  async #ask(
    platform: string,
    { chat, thread, text, prompt, options, typed }: Asked,
  ): Promise<{ id: string; after: number }> {
    const channel = this.#platforms.get(platform);
    if (channel === undefined) throw new SendRefused("nobody is there to be asked", true);
    if (!this.#isOurs(platform, chat)) throw new SendRefused(notOurs(platform, chat), true);
    const what = `question ${prompt}`;
    const before = `before ${what}`;
    const now = this.#parts.time.now();
    // Asked again by a Hermes that was not heard: what came in between may be the answer.
    if (this.#inbox.sent(platform, before) === null)
      this.#inbox.noteKept(platform, before, String(this.#inbox.last()), now);
    const after = Number(this.#inbox.sent(platform, before));
    const turn = [...this.#turns.values()].find(({ entry }) => entry.lane === laneIn(platform, chat));
    turn?.heard();
    const hasButtons = channel.settle !== undefined && options.length > 0;
    const buttons = options.map(({ id, label }) => ({ data: buttonData(prompt, id), label }));
    const said = {
      ...{ chat, thread, replyTo: null },
      text: hasButtons || typed === "" ? text : `${text}\n\n${typed}`,
      ...(hasButtons ? { buttons } : {}),
      ...(turn === undefined || isHook(turn.entry) ? {} : { during: turn.entry.event.message_id }),
    };
    const known = this.#inbox.sent(platform, what);
    if (known !== null) return { id: known, after };
    const sending = this.#sending.get(what) ?? this.#sendOnce(platform, what, said, () => undefined);
    this.#sending.set(what, sending);
    try {
      return { id: await sending, after };
    } finally {
      this.#sending.delete(what);
    }
  }

  /** Sends a text that needs no Hermes. */
  async #notify(entry: Entry): Promise<void> {
    const { source, text, message_id: message } = entry.event;
    const isFailure = entry.is === "failure";
    const replyTo = isFailure ? message : (entry.event.reply_to_message_id ?? null);
    const to = { chat: source.chat_id, thread: source.thread_id ?? null, replyTo };
    const what = isFailure ? `failure ${entry.n}` : message;
    const file = isFailure ? undefined : entry.event.files?.[0];
    const it = file === undefined ? {} : { file: this.#files.opened(file) };
    const said = { ...to, text: isFailure ? NOT_ANSWERED : text, ...it };
    const taken = () => {
      if (isFailure) this.#inbox.told(entry);
      else this.#inbox.done(entry);
    };
    try {
      await this.#sendOnce(source.platform, what, said, taken);
    } catch (error) {
      if (!(error instanceof SendRefused && error.isFinal)) throw error;
      // What the platform will never take nobody can be told.
      if (isFailure) this.#inbox.told(entry);
      else if (file !== undefined) this.#sayNotSent(entry, error.message);
      else this.#inbox.fail(entry, this.#clean(error.message), true);
    }
  }

  /** Has somebody told that a file was not sent, in its place. */
  #sayNotSent(entry: Entry, why: string): void {
    const { files = [], ...event } = entry.event;
    const text = notSent(files[0]?.name ?? "", this.#clean(why));
    const message_id = `${event.message_id} refused`;
    this.#inbox.answerWith(entry, { ...event, text, message_type: "text", message_id });
  }

  async #answered(entry: Entry): Promise<void> {
    const { life } = this.#parts;
    const { end } = await life.arrive(true, () =>
      life.withSeat("message", true, ({ keys }) => this.#turn(entry, keys)),
    );
    await end;
  }

  #clean(why: string): string {
    return this.#parts.log.redactor.clean(why).slice(0, 300);
  }

  /** Gives Hermes a message; lasts until it is answered. */
  async #turn({ n }: Entry, keys: BootKeys): Promise<Lasting<void>> {
    await this.#relay.connect(keys.gatewayKey);
    // What Hermes said while nobody was here, or before it died, may be its answer.
    await this.#answering.get(n);
    // Its author may have changed it while Hermes was woken.
    const entry = this.#inbox.get(n);
    if (entry === null) return over(undefined);
    await this.#bring(entry);
    const done = Promise.withResolvers<void>();
    const turn = this.#turnOf(entry, done);
    this.#turns.set(entry.n, turn);
    try {
      const isNew = this.#relay.hand(entry.event, String(entry.n));
      // What it holds was counted by whoever gave it, an earlier life perhaps.
      if (isNew || this.#silent.delete(entry.n)) this.#inbox.hand(entry);
      // What it asked was answered perhaps while nobody was here.
      if (!isNew) this.#offerAnswers(entry.lane);
    } catch (error) {
      this.#turns.delete(entry.n);
      // It may have been ended with the line by which it was to begin.
      void done.promise.catch(() => undefined);
      turn.resolve();
      throw error;
    }
    return { value: undefined, end: done.promise.finally(() => this.#turns.delete(entry.n)) };
  }

  /** Has Hermes get what came with a message, unless it is at it. */
  async #bring({ n, channel, event }: Entry): Promise<void> {
    const id = String(n);
    if (this.#relay.holds(id)) return;
    const platform = this.#platforms.get(channel);
    for (const [at, file] of (event.files ?? []).entries())
      await this.#relay.bring(id, at, file, async () => {
        const isHere = this.#files.has(file.ref);
        const bytes = isHere ? this.#files.opened(file).bytes() : await platform?.file?.(file);
        if (bytes === undefined) throw new SendRefused("files are not taken here", true);
        return bytes;
      });
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
          if (turn.answered) return this.#over(entry.n);
          this.#silent.add(entry.n);
          turn.reject(new Error("Hermes said nothing for half an hour"));
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

  /** Hermes sends something; the message that it answers is done in the same step that notes that the platform took it. */
  async #fromHermes(platform: string, message: Outgoing, { name, isLast, hasMore }: Manner): Promise<string> {
    const { chat, thread, text, replyTo } = message;
    const entry = replyTo === null ? null : this.#inbox.answeredBy(platform, chat, replyTo);
    const isAnswer = entry !== null && isLast;
    // One that files are part of is over when Hermes is done with it.
    const ends = isAnswer && !hasMore ? entry : null;
    const taken = () => {
      if (ends !== null) return this.#over(ends.n);
      const turn = this.#turns.get(entry?.n ?? 0);
      if (turn === undefined) return;
      turn.answered = true;
      turn.heard();
    };
    // What Hermes says to a webhook nobody is to hear.
    if (platform === "webhook") {
      taken();
      return "0";
    }
    if (entry === null && !this.#isOurs(platform, chat)) throw new SendRefused(notOurs(platform, chat), true);
    // It is known by what it says; what answers nothing may be meant to be said twice.
    const what = hex(await digestOf(JSON.stringify([chat, thread, replyTo ?? name, text])));
    // Another Hermes may answer the same message in other words.
    const attempt = isAnswer ? `answer ${chat} ${replyTo}` : what;
    const known = this.#inbox.sent(platform, what) ?? (isAnswer ? this.#said(platform, attempt) : null);
    if (known !== null) {
      taken();
      return known;
    }
    // The platform knows no message of a webhook's.
    const said = entry !== null && isHook(entry) ? { ...message, replyTo: null } : message;
    const noted = (id: string) => {
      this.#inbox.noteSent(platform, what, id, this.#parts.time.now());
      taken();
    };
    const sending = this.#sending.get(what) ?? this.#sendOnce(platform, attempt, said, noted);
    this.#sending.set(what, sending);
    const isKnown = Promise.withResolvers<void>();
    if (ends !== null) this.#answering.set(ends.n, isKnown.promise);
    try {
      return await sending;
    } catch (error) {
      if (!(error instanceof SendRefused) || (entry !== null && !isAnswer)) throw error;
      if (!error.isFinal) return this.#keep(platform, what, attempt, said, ends, error);
      // What the platform will never take is no reason to ask Hermes again.
      if (ends === null) throw error;
      this.#inbox.fail(ends, this.#clean(error.message), true);
      this.#turns.get(ends.n)?.resolve();
      throw error;
    } finally {
      this.#sending.delete(what);
      if (ends !== null) this.#answering.delete(ends.n);
      isKnown.resolve();
    }
  }

  /** What became of an answer that was said, and whose files were not all there before Hermes died. */
  #said(platform: string, attempt: string): string | null {
    return this.#inbox.sent(platform, attempt) ?? (this.#inbox.knows(platform, attempt) ? KEPT : null);
  }

  /** Hermes sends a file: it is kept before Hermes is told so, and sent as soon as its platform takes it. */
  async #fileFromHermes(platform: string, file: OfferedFile, name: string): Promise<string> {
    const { chat, answers, part } = file;
    const entry = answers === null ? null : this.#inbox.answeredBy(platform, chat, answers);
    const heard = () => {
      const turn = this.#turns.get(entry?.n ?? 0);
      if (turn === undefined) return;
      turn.answered = true;
      turn.heard();
    };
    heard();
    // What Hermes says to a webhook nobody is to hear.
    if (platform === "webhook") return "0";
    if (entry === null && !this.#isOurs(platform, chat)) throw new SendRefused(notOurs(platform, chat), true);
    // Another Hermes may send other files with the answer to the same message.
    const id = answers === null ? `file ${name}` : `file ${chat} ${answers} ${part}`;
    // The platform knows no message of a webhook's.
    const replyTo = entry === null || isHook(entry) ? null : answers;
    await this.#takeFile(platform, id, replyTo, file).finally(heard);
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
    if (this.#inbox.knows(platform, id)) return;
    const { chat, thread, caption, kind, name, mime, size, pieces } = file;
    const source: Source = {
      ...{ platform, chat_id: chat, chat_type: "dm", user_id: "hermes", message_id: id },
      ...(thread === null ? {} : { thread_id: thread }),
    };
    const to = replyTo === null ? {} : { reply_to_message_id: replyTo };
    const event: Event = { text: caption, message_type: "text", message_id: id, ...to, source };
    const keep = (one: Event) => this.#inbox.keepOwn(platform, one, this.#parts.time.now());
    const channel = this.#platforms.get(platform);
    const why = this.#whyNotKept(platform, size);
    if (why === null) {
      const ref = `${platform} ${id}`;
      await this.#files.keep(ref, size, pieces());
      const isWithIt = caption.length <= (channel?.caption?.(kind) ?? 0);
      if (!isWithIt) keep({ ...event, message_id: `${id} text` });
      const text = isWithIt ? caption : "";
      const files = [{ ref, kind, name, mime, size }];
      if (keep({ ...event, text, message_type: kind, files }) === "full") this.#files.drop(ref);
    } else keep({ ...event, text: `${caption}\n${notSent(name, why)}`.trimStart() });
    this.#answer(ownLaneOf(event));
  }

  /** Why a file is not kept for a platform; `null` = it is. @param size bytes. */
  #whyNotKept(platform: string, size: number): string | null {
    const most = largestTaken(platform);
    if (most === 0) return "files are not sent here";
    if (size > most) return `it is larger than ${inMegabytes(most)}`;
    return this.#inbox.hasRoom(platform, true) ? null : "too many wait already";
  }

  /**
   * Keeps what a platform does not take for the moment, so that Hermes need not.
   * @param what as which it is known when Hermes says it again, which was not heard that it is kept.
   */
  #keep(
    platform: string,
    what: string,
    attempt: string,
    said: Outgoing,
    ends: Entry | null,
    why: SendRefused,
  ): string {
    const { chat, thread, text, replyTo } = said;
    const source: Source = {
      ...(ends?.event.source ?? { platform, chat_id: chat, chat_type: "dm", user_id: chat }),
      message_id: attempt,
      ...(thread === null ? {} : { thread_id: thread }),
    };
    const to = replyTo === null ? {} : { reply_to_message_id: replyTo };
    const event: Event = { text, message_type: "text", message_id: attempt, ...to, source };
    if (ends === null) {
      const now = this.#parts.time.now();
      // The files of an answer come after it; what answers nothing comes after what waits in its chat.
      const isAnswer = attempt !== what;
      const isKept = isAnswer
        ? this.#inbox.keepOwn(platform, event, now) !== "full"
        : this.#inbox.keep(platform, event, now);
      if (!isKept) throw why;
      this.#answer(isAnswer ? ownLaneOf(event) : laneOf(event));
    } else {
      this.#inbox.answerWith(ends, event);
      this.#turns.get(ends.n)?.resolve();
    }
    this.#inbox.noteKept(platform, what, KEPT, this.#parts.time.now());
    return KEPT;
  }

  /**
   * Sends a message, again while the platform refuses it for the moment.
   * @param attempt what it is: where it is unknown whether that was taken before, its reader is told so.
   * @param taken is called when the platform took it.
   */
  async #sendOnce(
    name: string,
    attempt: string,
    message: Outgoing,
    taken: (id: string) => void,
  ): Promise<string> {
    const { time, log } = this.#parts;
    const channel = this.#platform(name);
    const began = time.now();
    for (let pause = SHORTEST_PAUSE; ; pause *= 2) {
      const isAgain = this.#inbox.noteSending(name, attempt, time.now()) && !channel.hasBegun(message);
      try {
        const id = await channel.send(message, isAgain ? MAYBE_TWICE : "");
        if (isAgain) this.#inbox.note(name, "twice");
        this.#inbox.noteNotSent(name, attempt);
        this.#inbox.noteSent(name, attempt, id, time.now());
        taken(id);
        this.#troubles.delete(name);
        return id;
      } catch (error) {
        if (!(error instanceof SendRefused)) throw error;
        if (!error.isUnsure && !isAgain && !channel.hasBegun(message)) this.#inbox.noteNotSent(name, attempt);
        log.warn("message_not_sent", { channel: name, why: error.message });
        const wait = Math.max(error.retryAfter, pause);
        this.#troubles.set(name, error.message);
        if (error.isFinal) this.#inbox.note(name, "refused");
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

function notOurs(platform: string, chat: string): string {
  return (
    `${platform}:${chat.slice(0, 100)} is no chat to write to: it is neither the channel's home nor in its allow, and ` +
    "nobody of those wrote there."
  );
}

function notSent(name: string, why: string): string {
  return `(I could not send you ${name === "" ? "a file" : `the file ${name}`}: ${why}.)`;
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
