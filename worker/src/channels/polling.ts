// SPDX-License-Identifier: Apache-2.0
/** Asks the platforms for messages that cannot send them here. */
import { type Channel, SendRefused } from "./channel.ts";
import type { Intake } from "./intake.ts";
import { LONGEST_PAUSE, SHORTEST_PAUSE, type Shared } from "./parts.ts";

/** What asks, for as long as this object lives. */
export class Polling {
  readonly #shared: Shared;
  readonly #intake: Intake;
  readonly #asked = new Set<string>();

  constructor(shared: Shared, intake: Intake) {
    this.#shared = shared;
    this.#intake = intake;
  }

  /** Sees to it that each is asked. */
  start(): void {
    for (const [name, channel] of this.#shared.platforms) {
      if (channel.receives !== "poll" || this.#asked.has(name)) continue;
      this.#asked.add(name);
      this.#shared.life.stay(this.#forEver(name, channel));
    }
  }

  async #forEver(name: string, channel: Channel): Promise<void> {
    const { inbox, time, log, troubles } = this.#shared;
    for (let pause = SHORTEST_PAUSE; ; ) {
      try {
        const asked = time.now();
        const updates = (await channel.updates?.(inbox.offset(name))) ?? [];
        for (const { id, told } of updates) {
          await this.#intake.receive(name, told);
          inbox.moveOffset(name, id + 1);
        }
        troubles.delete(name);
        pause = SHORTEST_PAUSE;
        // A server that does not hold the question is not asked all the time.
        if (updates.length === 0) await time.sleep(Math.max(0, asked + SHORTEST_PAUSE - time.now()));
      } catch (error) {
        const why = error instanceof SendRefused ? error.message : "its messages could not be read";
        if (troubles.get(name) !== why) log.warn("channel_trouble", { channel: name, why });
        troubles.set(name, why);
        await time.sleep(Math.max(pause, error instanceof SendRefused ? error.retryAfter : 0));
        pause = Math.min(pause * 2, LONGEST_PAUSE);
      }
    }
  }
}
