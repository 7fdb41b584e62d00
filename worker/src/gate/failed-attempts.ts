// SPDX-License-Identifier: Apache-2.0
/**
 * Failed sign-ins, counted by address. Whoever fails too often is told to wait, and costs nothing more; what
 * they send is still compared, so that nobody can lock the owner out, not even from the same address. The
 * count lives with the isolate: tokens are long and random, so it spares work and logs rather than secrets.
 */

/** Failures that an address may have at once, and milliseconds after which one of them is forgiven. */
const ALLOWED = 20;
const FORGIVEN_AFTER = 15_000;
/** Addresses that are remembered; beyond, the ones that failed longest ago are forgotten. */
const REMEMBERED = 4096;

/** Counts failures. */
export class FailedAttempts {
  /** When the count of an address would be zero again, in milliseconds since the epoch; ordered by last failure. */
  readonly #zeroAt = new Map<string, number>();

  /**
   * Notes a failure.
   * @returns seconds to wait, or 0 while there were not too many.
   */
  fail(address: string, now: number): number {
    const zeroAt = Math.max(this.#zeroAt.get(address) ?? 0, now);
    const full = now + ALLOWED * FORGIVEN_AFTER;
    this.#zeroAt.delete(address);
    this.#zeroAt.set(address, Math.min(zeroAt + FORGIVEN_AFTER, full));
    if (this.#zeroAt.size > REMEMBERED) this.#zeroAt.delete(this.#zeroAt.keys().next().value as string);
    return zeroAt + FORGIVEN_AFTER <= full ? 0 : Math.ceil((zeroAt + FORGIVEN_AFTER - full) / 1000);
  }

  /** How many addresses are remembered. */
  get size(): number {
    return this.#zeroAt.size;
  }
}

/** Log lines about strangers that may come at once, of each kind, and milliseconds after which there may be one more. */
const LINES = 30;
const LINE_EVERY = 5000;

/**
 * Bounds what strangers can have written into the log: a flood of requests must not push out what was there before,
 * nor hide what is of another kind.
 */
export class Quiet {
  /** When a kind would have all its lines again, in milliseconds since the epoch. There are as many as reasons to refuse. */
  readonly #fullAt = new Map<string, number>();
  #dropped = 0;

  /**
   * Asks for a line.
   * @returns how many were left out since the last one, or `null` when this one is to be left out, too.
   */
  take(kind: string, now: number): number | null {
    const full = now + LINES * LINE_EVERY;
    // A clock that was set back keeps nothing out for longer than it takes to fill.
    const fullAt = Math.min(Math.max(this.#fullAt.get(kind) ?? 0, now), full) + LINE_EVERY;
    if (fullAt > full) {
      this.#dropped++;
      return null;
    }
    this.#fullAt.set(kind, fullAt);
    const dropped = this.#dropped;
    this.#dropped = 0;
    return dropped;
  }
}

/** Who counts as one: an IPv4 address, or the /64 that a single IPv6 customer has. */
export function addressOf(ip: string): string {
  if (!ip.includes(":")) return ip;
  const [head, tail] = ip.toLowerCase().replace(/%.*/, "").split("::") as [string, string?];
  const before = head.split(":").filter((group) => group !== "");
  const after = (tail ?? "").split(":").filter((group) => group !== "");
  const mapped = after.at(-1) ?? "";
  if (mapped.includes(".")) return mapped;
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  const groups = [...before, ...Array<string>(zeros).fill("0"), ...after];
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/64`;
}
