// SPDX-License-Identifier: Apache-2.0
/** Looks after what waits in each chat, one after the other: each is tried again until it is done, or given up. */
import { Patience } from "../base/time.ts";
import { SendRefused } from "./channel.ts";
import type { Handover } from "./handover.ts";
import { type Entry, isHook } from "./inbox.ts";
import { notSent } from "./outbox.ts";
import { clean, LONGEST_PAUSE, SHORTEST_PAUSE, type Shared } from "./parts.ts";
import type { Questions } from "./questions.ts";
import type { Sender } from "./sender.ts";
import type { Turns } from "./turns.ts";

/** A Hermes that does not start is tried again for so long, in milliseconds; then the person is told. */
const START_PATIENCE = 900_000;
/** How often Hermes is given a message that it does not survive. */
const MOST_HANDED = 4;
/** How many webhooks Hermes is at, at the same time. */
const MOST_HOOKS = 4;

/** How long what is to be sent is kept for a platform that does not take it, in milliseconds. */
const SENT_WITHIN = 24 * 3600_000;
/** And how often it is tried at least: a machine that slept for a day wakes before its network. */
const LEAST_REFUSED = 10;

const NOT_ANSWERED =
  "I could not answer this. The message is kept, and my owner can see why and have me try it again.";

/** The lanes of one instance. */
export class Lanes {
  readonly #shared: Shared;
  readonly #turns: Turns;
  readonly #sender: Sender;
  readonly #handover: Handover;
  readonly #questions: Questions;
  /** What is looked after. */
  readonly #lanes = new Set<string>();
  readonly #hooks = new Places(MOST_HOOKS);

  constructor(shared: Shared, turns: Turns, sender: Sender, handover: Handover, questions: Questions) {
    this.#shared = shared;
    this.#turns = turns;
    this.#sender = sender;
    this.#handover = handover;
    this.#questions = questions;
  }

  /** Sees to it that a lane is looked after. */
  answer(lane: string): void {
    if (this.#lanes.has(lane)) return;
    this.#lanes.add(lane);
    const work = this.#answerAll(lane).finally(() => {
      this.#lanes.delete(lane);
      // One may have come at the very end.
      if (this.#shared.inbox.next(lane) !== null) this.answer(lane);
    });
    this.#shared.life.stay(work);
  }

  async #answerAll(lane: string): Promise<void> {
    const patience = new Patience(this.#shared.time, START_PATIENCE);
    await this.#answerEach(lane, patience).finally(() => patience.stop());
  }

  /** @param patience with a Hermes that takes nothing. */
  async #answerEach(lane: string, patience: Patience): Promise<void> {
    const { inbox, time, log } = this.#shared;
    let pause = SHORTEST_PAUSE;
    /** What the platform does not take, since when, and how often it did not. */
    let refused = { what: "", since: 0, times: 0 };
    for (let entry = inbox.next(lane); entry !== null; entry = inbox.next(lane)) {
      const began = time.now();
      try {
        await this.#answerOne(entry);
        patience.renew();
        pause = SHORTEST_PAUSE;
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        const now = inbox.next(lane);
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
        if (isHopeless) this.#giveUp(now, why);
        else await this.#turns.pause(entry, Math.max(pause, asked));
        pause = isHopeless ? SHORTEST_PAUSE : Math.min(pause * 2, LONGEST_PAUSE);
      }
    }
  }

  /** Returns when something is done; meanwhile the person sees that somebody is at it. */
  async #answerOne(entry: Entry): Promise<void> {
    if (entry.is !== "message") return this.#notify(entry);
    const { press } = entry.event;
    if (press !== undefined) return this.#questions.press(entry, press, this.#handover);
    const ask = () => this.#handover.answered(entry);
    const answered = entry.event.source.platform === "webhook" ? this.#hooks.during(ask) : ask();
    void this.#typeUntil(entry, answered);
    await answered;
  }

  async #typeUntil({ event: { source } }: Entry, end: Promise<void>): Promise<void> {
    const platform = this.#shared.platforms.get(source.platform);
    if (platform === undefined || platform.showsFor === 0) return void (await end.catch(() => undefined));
    const left = new AbortController();
    const ended = () => left.abort();
    end.then(ended, ended);
    while (!left.signal.aborted) {
      await platform.show(source.chat_id, source.thread_id ?? null).catch(() => undefined);
      await this.#shared.time.sleep(platform.showsFor, left.signal).catch(() => undefined);
    }
  }

  /** Sends what needs no Hermes. */
  async #notify(entry: Entry): Promise<void> {
    const { inbox, files } = this.#shared;
    const { source, text, message_id: message } = entry.event;
    const isFailure = entry.is === "failure";
    const replyTo = isFailure ? message : (entry.event.reply_to_message_id ?? null);
    const to = { chat: source.chat_id, thread: source.thread_id ?? null, replyTo };
    const what = isFailure ? `failure ${entry.n}` : message;
    const file = isFailure ? undefined : entry.event.files?.[0];
    const it = file === undefined ? {} : { file: files.opened(file) };
    const said = { ...to, text: isFailure ? NOT_ANSWERED : text, ...it };
    const taken = () => {
      if (isFailure) inbox.told(entry);
      else inbox.done(entry);
    };
    try {
      await this.#sender.send(source.platform, what, said, taken);
    } catch (error) {
      if (!(error instanceof SendRefused && error.isFinal)) throw error;
      // What the platform will never take nobody can be told.
      this.#giveUp(entry, error.message);
    }
  }

  #giveUp(entry: Entry, why: string): void {
    const { inbox } = this.#shared;
    const reason = clean(this.#shared, why);
    if (entry.is === "failure") inbox.told(entry);
    else if (entry.is === "notice" && entry.event.files !== undefined) this.#sayNotSent(entry, reason);
    else inbox.fail(entry, reason, isHook(entry));
  }

  /** Has somebody told that a file was not sent, in its place. */
  #sayNotSent(entry: Entry, why: string): void {
    const { files = [], ...event } = entry.event;
    const text = notSent(files[0]?.name ?? "", why);
    const message_id = `${event.message_id} refused`;
    this.#shared.inbox.answerWith(entry, { ...event, text, message_type: "text", message_id });
  }
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
