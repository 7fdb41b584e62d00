// SPDX-License-Identifier: Apache-2.0
/** The clock that everything asks, so that a test can hand out another one. */
import { ApiError } from "./errors.ts";

/** Time as the lifecycle sees it. */
export interface Time {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Resolves after so many milliseconds; rejects when the signal is aborted before. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/**
 * Waits for a promise, but no longer than so many milliseconds; leaves no timer behind.
 * @returns `undefined` when it took too long.
 */
export async function within<T>(time: Time, ms: number, promise: Promise<T>): Promise<T | undefined> {
  const deadline = new Deadline(time, ms);
  try {
    return await Promise.race([promise, deadline.over]);
  } finally {
    deadline.stop();
  }
}

/**
 * Waits for a promise, but not for ever.
 * @param what is named when it took too long.
 * @throws ApiError 503 `sandbox_silent` then.
 */
export async function inTime<T>(time: Time, what: string, ms: number, promise: Promise<T>): Promise<T> {
  const done = await within(
    time,
    ms,
    promise.then((value) => ({ value })),
  );
  if (done === undefined) throw tookTooLong(what, ms);
  return done.value;
}

/** The refusal for what was waited for in vain. */
export function tookTooLong(what: string, ms: number): ApiError {
  return new ApiError({
    status: 503,
    code: SILENT,
    message: `Nothing came of ${what} within ${ms / 1000} s. See GET /api/instance/logs; try again.`,
    retryAfter: 10,
  });
}

/** Code of {@link tookTooLong}. */
export const SILENT = "sandbox_silent";

/**
 * The end of somebody's patience. It is a timer, not a time of day: a clock that is set back must not make
 * anybody wait for so much longer. Call {@link stop} when nobody waits any more.
 */
export class Deadline {
  /** Resolves when it is over, or stopped. */
  readonly over: Promise<undefined>;
  readonly #timer = new AbortController();
  #isOver = false;

  constructor(time: Time, ms: number) {
    this.over = time.sleep(ms, this.#timer.signal).then(
      () => {
        this.#isOver = true;
        return undefined;
      },
      () => undefined,
    );
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  stop(): void {
    this.#timer.abort();
  }
}

/** Patience that begins anew with {@link renew}; a {@link Deadline} otherwise. */
export class Patience {
  #deadline: Deadline;

  constructor(
    readonly time: Time,
    readonly ms: number,
  ) {
    this.#deadline = new Deadline(time, ms);
  }

  get isOver(): boolean {
    return this.#deadline.isOver;
  }

  renew(): void {
    this.stop();
    this.#deadline = new Deadline(this.time, this.ms);
  }

  stop(): void {
    this.#deadline.stop();
  }
}

/** The machine's own time. */
export const realTime: Time = {
  now: () => Date.now(),
  sleep: (ms, signal) => scheduler.wait(ms, signal === undefined ? {} : { signal }),
};
