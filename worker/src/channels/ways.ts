// SPDX-License-Identifier: Apache-2.0
/** Ways that a platform gives for the answer to one message alone, until they lead nowhere any more. */

interface Way {
  to: string;
  /** Milliseconds since the epoch. */
  until: number;
}

/** The ways of one platform. Hermes knows none of them. */
export class Ways {
  readonly #kv: SyncKvStorage;
  readonly #prefix: string;

  constructor(kv: SyncKvStorage, platform: string) {
    this.#kv = kv;
    this.#prefix = `way ${platform} `;
  }

  /** Keeps a message's way, and forgets those that are over. */
  keep(message: string, to: string, now: number, lasts: number): void {
    for (const [name, { until }] of [...this.#kv.list<Way>({ prefix: this.#prefix })])
      if (until <= now) this.#kv.delete(name);
    this.#kv.put<Way>(`${this.#prefix}${message}`, { to, until: now + lasts });
  }

  /** The way of a message, or `null`. */
  of(message: string | null, now: number): string | null {
    const way = message === null ? undefined : this.#kv.get<Way>(`${this.#prefix}${message}`);
    return way === undefined || way.until <= now ? null : way.to;
  }
}
