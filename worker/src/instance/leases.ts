// SPDX-License-Identifier: Apache-2.0
/**
 * What a credential has opened: answers that stream, sockets, uploads. All of it ends when the credential does, in
 * both directions and whether the other side helps or not. Whether a credential is good is asked of the records
 * that know it, so that nothing here can be forgotten to be told.
 */
import { ApiError } from "../base/errors.ts";
import { during, type Lasting } from "../base/lasting.ts";
import type { Time } from "../base/time.ts";

/** Header by which the Worker, which is the gate, tells the instance what let a request in: see {@link Credential}. */
export const CREDENTIAL = "x-hermes-worker-credential";
/** Header of the answer to a provider's call that asks so: the provider whose last refusal the status shows. */
export const TROUBLED = "x-hermes-worker-troubled";

/** What let somebody in: a token by its digest, a session by its id, Access until a time, a boot by its capability's digest. */
export type Credential = `${"token" | "session" | "access" | "capability"} ${string}` | "anyone";

/** Until when a credential is good, in milliseconds since the epoch; as far as is known now. */
export type Until = () => number;

/** Longer than this no timer is set. */
const LONGEST_TIMER = 24 * 3600_000;

interface Lease {
  until: Until;
  end: AbortController;
}

/** All that is open. */
export class Leases {
  readonly #time: Time;
  readonly #open = new Set<Lease>();
  /** The next look that is due by itself. */
  #next: { at: number; timer: AbortController } | null = null;

  constructor(time: Time) {
    this.#time = time;
  }

  /** How much is open. */
  get size(): number {
    return this.#open.size;
  }

  /**
   * Does something for somebody, for as long as what let them in is good.
   * @param left aborted when they are gone.
   * @param work gets a signal that is aborted by either; whatever it began has to heed it to its end.
   * @throws ApiError 401 `credential_over` when it is over, at once or while they wait; 499 when they left.
   */
  hold<T>(
    until: Until,
    left: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<Lasting<T>>,
  ): Promise<Lasting<T>> {
    const lease = { until, end: new AbortController() };
    const { signal } = lease.end;
    const leave = () => lease.end.abort(clientGone());
    left?.addEventListener("abort", leave, { once: true });
    if (left?.aborted) leave();
    this.#open.add(lease);
    const release = () => {
      this.#open.delete(lease);
      if (this.#open.size === 0) this.#setTimer(Number.POSITIVE_INFINITY);
    };
    return during(release, async () => {
      this.#endIfOver(lease, this.#time.now());
      this.#lookAt(until());
      signal.throwIfAborted();
      return await Promise.race([work(signal), abortOf(signal)]);
    });
  }

  /** Ends what is open by credentials that are good no more. To be called when one may have ended. */
  look(): void {
    const now = this.#time.now();
    this.#setTimer(Number.POSITIVE_INFINITY);
    for (const lease of this.#open) {
      this.#endIfOver(lease, now);
      if (!lease.end.signal.aborted) this.#lookAt(lease.until());
    }
  }

  #endIfOver({ until, end }: Lease, now: number): void {
    if (until() <= now) end.abort(credentialOver());
  }

  /** Looks again at a time, if not earlier. */
  #lookAt(at: number): void {
    if (at < (this.#next?.at ?? Number.POSITIVE_INFINITY)) this.#setTimer(at);
  }

  #setTimer(at: number): void {
    this.#next?.timer.abort();
    this.#next = null;
    if (at === Number.POSITIVE_INFINITY) return;
    const timer = new AbortController();
    this.#next = { at, timer };
    const wait = Math.min(Math.max(0, at - this.#time.now()), LONGEST_TIMER);
    this.#time.sleep(wait, timer.signal).then(
      () => this.look(),
      () => undefined,
    );
  }
}

/** Rejects when a signal is aborted, with the reason. */
export function abortOf(signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  if (signal.aborted) reject(signal.reason);
  else signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  return promise;
}

/** Why something ended whose client left. */
export function clientGone(): ApiError {
  return new ApiError({
    status: 499,
    code: "client_gone",
    message: "The client went away before the answer began.",
  });
}

function credentialOver(): ApiError {
  return new ApiError({
    status: 401,
    code: "credential_over",
    message:
      "What let this request in has ended meanwhile: its API token was replaced, or its session is over. " +
      "Come again with a good one.",
  });
}
