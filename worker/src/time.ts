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
  const timer = new AbortController();
  const late = time.sleep(ms, timer.signal).then(
    () => undefined,
    () => undefined,
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
  }
}

/** The machine's own time. */
export const realTime: Time = {
  now: () => Date.now(),
  sleep: (ms, signal) => scheduler.wait(ms, signal === undefined ? {} : { signal }),
};
