// SPDX-License-Identifier: Apache-2.0
/** What Hermes is at: a turn for each message, until it is answered, or silent for too long. */
import { Deadline } from "../base/time.ts";
import type { Entry } from "./inbox.ts";
import type { Shared } from "./parts.ts";

/** A turn that says nothing for so long is over, in milliseconds; so is one soon after it has answered. */
const SILENT_TURN = 1800_000;
const SILENT_AFTER_ANSWER = 120_000;

/** What Hermes is at, for one message. */
export interface Turn {
  entry: Entry;
  answered: boolean;
  /** Is called when Hermes says something in it. */
  heard(): void;
  resolve(): void;
  reject(why: Error): void;
}

/** The turns of one instance, and what is between two of a message's. */
export class Turns {
  readonly #shared: Shared;
  readonly #turns = new Map<number, Turn>();
  /** Messages that Hermes was at for so long without a word. */
  readonly #silent = new Set<number>();
  /** Messages that are tried again after a while. */
  readonly #pauses = new Map<number, AbortController>();
  /** Until it is known whether a message's answer was taken. */
  readonly #answering = new Map<number, Promise<unknown>>();

  constructor(shared: Shared) {
    this.#shared = shared;
  }

  /** The turn that a lane waits for. */
  in(lane: string): Turn | undefined {
    return [...this.#turns.values()].find(({ entry }) => entry.lane === lane);
  }

  /** Begins one. @returns what settles at its end. */
  begin(entry: Entry): { turn: Turn; end: Promise<void> } {
    const done = Promise.withResolvers<void>();
    const turn = this.#turnOf(entry, done);
    this.#turns.set(entry.n, turn);
    return { turn, end: done.promise.finally(() => this.#turns.delete(entry.n)) };
  }

  #turnOf(entry: Entry, done: PromiseWithResolvers<void>): Turn {
    const { time } = this.#shared;
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
          if (turn.answered) return this.over(entry.n);
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

  /** Whether Hermes was silent about a message before. It is forgotten. */
  wasSilent(n: number): boolean {
    return this.#silent.delete(n);
  }

  /** Hermes said something in a message's turn. @param isAnswer whether it is some of its answer, of which more may come. */
  heard(entry: Entry | null, isAnswer: boolean): void {
    const turn = this.#turns.get(entry?.n ?? 0);
    if (turn === undefined) return;
    turn.answered ||= isAnswer;
    turn.heard();
  }

  /** A message is answered, or needs no answer: nothing of it is kept. */
  over(n: number): void {
    this.#shared.inbox.done({ n });
    this.#silent.delete(n);
    this.end(n);
    this.#pauses.get(n)?.abort();
  }

  /** Hermes is done with a message. One whose answer is on its way, or waits for its platform, is over with that. */
  processed(n: number): void {
    if (!this.#answering.has(n) && this.#shared.inbox.get(n) !== null) this.over(n);
  }

  /** A message needs Hermes no longer. */
  end(n: number): void {
    this.#turns.get(n)?.resolve();
  }

  /** Has the turn that a lane waits for ended. */
  interrupt(lane: string): void {
    const turn = this.in(lane);
    if (turn !== undefined) this.over(turn.entry.n);
  }

  /** Nobody is heard any more. */
  lost(): void {
    for (const turn of this.#turns.values()) turn.reject(new Error("Hermes' relay hung up"));
  }

  /** Waits until a message is tried again, or needs no answer any more: what Hermes said before it died may be taken yet. */
  async pause({ n }: Entry, ms: number): Promise<void> {
    const over = new AbortController();
    this.#pauses.set(n, over);
    await this.#shared.time.sleep(ms, over.signal).catch(() => undefined);
    this.#pauses.delete(n);
  }

  /** Sends what may end a message. */
  async whileAnswering<T>(n: number | undefined, send: () => Promise<T>): Promise<T> {
    if (n === undefined) return send();
    const isKnown = Promise.withResolvers<void>();
    this.#answering.set(n, isKnown.promise);
    try {
      return await send();
    } finally {
      this.#answering.delete(n);
      isKnown.resolve();
    }
  }

  /** Resolves when it is known whether a message's answer was taken. */
  async answerKnown(n: number): Promise<void> {
    await this.#answering.get(n);
  }
}
