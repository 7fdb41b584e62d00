// SPDX-License-Identifier: Apache-2.0
/** The clock that everything asks, so that a test can hand out another one. */

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

/** The machine's own time. */
export const realTime: Time = {
  now: () => Date.now(),
  sleep: (ms, signal) => scheduler.wait(ms, signal === undefined ? {} : { signal }),
};
