// SPDX-License-Identifier: Apache-2.0
/**
 * The rotation of the API token. Old and new are valid side by side until the new one is used for the first
 * time, and for the overlap after that; then the old one is dead for ever, whatever is configured. Until then
 * the rotation can be taken back, by configuring the old one as the current one. Only its digest is kept.
 */

/** Which of the two configured tokens. */
export type Which = "current" | "previous";

/** A use of a token; the digests (hexadecimal SHA-256) are those that the asking Worker is configured with. */
export interface TokenUse {
  used: Which;
  current: string;
  previous: string | null;
}

/** From when on each token is refused, in milliseconds since the epoch; `null` = not as far as is known. */
export type Deaths = Record<Which, number | null>;

/** What the records are kept in. */
export interface TokenStore {
  get(key: string): number | undefined;
  put(key: string, at: number): void;
  delete(key: string): void;
}

/** The record of replaced tokens. */
export class TokenRotation {
  /** @param overlap how long the old token outlives the first use of the new one, in milliseconds. */
  constructor(
    readonly store: TokenStore,
    readonly overlap: number,
  ) {}

  /** Notes a use, and tells how long both tokens live. A token that was replaced once does not come back. */
  use({ used, current, previous }: TokenUse, now: number): Deaths {
    this.#pardon(current, now);
    const deaths = {
      current: this.#deathOf(current),
      previous: previous === null ? null : this.#deathOf(previous),
    };
    const proves = used === "current" && !isDead(deaths.current, now);
    if (!proves || previous === null || deaths.previous !== null) return deaths;
    this.store.put(keyOf(previous), now + this.overlap);
    return { ...deaths, previous: now + this.overlap };
  }

  /** Until when a token is good, in milliseconds since the epoch; as far as is known. */
  until(digest: string): number {
    return this.#deathOf(digest) ?? Number.POSITIVE_INFINITY;
  }

  /** A token that is the current one again before its end was not replaced after all. */
  #pardon(current: string, now: number): void {
    const death = this.#deathOf(current);
    if (death !== null && !isDead(death, now)) this.store.delete(keyOf(current));
  }

  #deathOf(digest: string): number | null {
    return this.store.get(keyOf(digest)) ?? null;
  }
}

/** Whether a token is refused now. */
export function isDead(death: number | null, now: number): boolean {
  return death !== null && now >= death;
}

function keyOf(digest: string): string {
  return `token-refused-from:${digest}`;
}
