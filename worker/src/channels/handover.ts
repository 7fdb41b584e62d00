// SPDX-License-Identifier: Apache-2.0
/** Hands over to Hermes: a message with what came with it, for a turn; and what answers a question in the middle of one. */
import { type Lasting, over } from "../base/lasting.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import { type Press, SendRefused } from "./channel.ts";
import { type Entry, isHook } from "./inbox.ts";
import type { Shared } from "./parts.ts";
import type { Relay } from "./relay.ts";
import type { Turns } from "./turns.ts";

/** The way of messages to Hermes, which is woken for them. */
export class Handover {
  readonly #shared: Shared;
  readonly #turns: Turns;
  readonly #relay: Relay;

  constructor(shared: Shared, turns: Turns, relay: Relay) {
    this.#shared = shared;
    this.#turns = turns;
    this.#relay = relay;
  }

  /** Gives Hermes a message; lasts until it is answered. */
  async answered(entry: Entry): Promise<void> {
    const { end } = await this.#atHermes((keys) => this.#turn(entry, keys));
    await end;
  }

  /** @returns what a question was answered, by this press or an earlier one; `null` when nobody waits for that. */
  async press(entry: Entry, press: Press): Promise<string | null> {
    // What a Hermes asked that sleeps by now it has forgotten.
    if (this.#shared.life.isAsleep) return null;
    const { value } = await this.#atHermes(async (keys) => {
      await this.#relay.connect(keys.gatewayKey);
      return over(await this.#relay.press(String(entry.n), press));
    });
    return value;
  }

  /** Lets what came after the message that Hermes is at answer what it asks in the middle of it. */
  offerAnswers(lane: string): void {
    if (this.#turns.in(lane) === undefined) return;
    for (const entry of this.#shared.inbox.behind(lane)) {
      const id = String(entry.n);
      // What a program says answers no question of Hermes'.
      if (isHook(entry) || entry.event.files !== undefined || this.#relay.holds(id)) continue;
      this.#relay.offer(entry.event, id);
    }
  }

  #atHermes<T>(work: (keys: BootKeys) => Promise<Lasting<T>>): Promise<Lasting<T>> {
    const { life } = this.#shared;
    return life.arrive(true, () => life.withSeat("message", true, ({ keys }) => work(keys)));
  }

  async #turn({ n }: Entry, keys: BootKeys): Promise<Lasting<void>> {
    const { inbox } = this.#shared;
    await this.#relay.connect(keys.gatewayKey);
    // What Hermes said while nobody was here, or before it died, may be its answer.
    await this.#turns.answerKnown(n);
    // Its author may have changed it while Hermes was woken.
    const entry = inbox.get(n);
    if (entry === null) return over(undefined);
    await this.#bring(entry);
    const { turn, end } = this.#turns.begin(entry);
    try {
      const isNew = this.#relay.hand(entry.event, String(n));
      // What it holds was counted by whoever gave it, an earlier life perhaps.
      if (isNew || this.#turns.wasSilent(n)) inbox.hand(entry);
      // What it asked was answered perhaps while nobody was here.
      if (!isNew) this.offerAnswers(entry.lane);
      return { value: undefined, end };
    } catch (error) {
      // It may have been ended with the line by which it was to begin.
      void end.catch(() => undefined);
      turn.resolve();
      throw error;
    }
  }

  /** Has Hermes get what came with a message, unless it is at it. */
  async #bring({ n, channel, event }: Entry): Promise<void> {
    const { files, platforms } = this.#shared;
    const id = String(n);
    if (this.#relay.holds(id)) return;
    const platform = platforms.get(channel);
    for (const [at, file] of (event.files ?? []).entries())
      await this.#relay.bring(id, at, file, async () => {
        const isHere = files.has(file.ref);
        const bytes = isHere ? files.opened(file).bytes() : await platform?.file?.(file);
        if (bytes === undefined) throw new SendRefused("files are not taken here", true);
        return bytes;
      });
  }
}
