// SPDX-License-Identifier: Apache-2.0
/** What goes on after it was begun, as an answer that streams; and whatever is held until it is over. */

/** A result, and when all that belongs to it is over. */
export interface Lasting<T> {
  readonly value: T;
  /** Settles at the end, a good one or a bad one. */
  readonly end: Promise<unknown>;
}

/** A result with which all is over. */
export function over<T>(value: T): Lasting<T> {
  return { value, end: Promise.resolve() };
}

/**
 * Holds something during `work` and until what that began is over. The only way to hold it: nobody has to remember
 * to let go, on whichever of his ways out.
 */
export async function during<T>(letGo: () => void, work: () => Promise<Lasting<T>>): Promise<Lasting<T>> {
  try {
    const begun = await work();
    void begun.end.then(letGo, letGo);
    return begun;
  } catch (error) {
    letGo();
    throw error;
  }
}
