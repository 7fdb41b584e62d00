// SPDX-License-Identifier: Apache-2.0
/**
 * Who asks for Hermes, and who is at it. Each is counted from coming to going, on whichever way out: nobody gives a seat
 * back by hand.
 */
import { ApiError } from "../base/errors.ts";
import { during, type Lasting } from "../base/lasting.ts";
import { type Time, within } from "../base/time.ts";
import type { BootKeys } from "../config/hermes-config.ts";

/** A place at a Hermes that is ready. */
export interface Seat {
  keys: BootKeys;
  bootId: string;
}

/** What the seats work with. */
export interface SeatsParts {
  time: Time;
  /** How long a stop waits for those who are at Hermes, in milliseconds. */
  drainTimeout: number;
}

/** Requests of one instance. */
export class Seats {
  readonly #parts: SeatsParts;
  #inFlight = 0;
  #taken = 0;
  #emptied: (() => void)[] = [];

  constructor(parts: SeatsParts) {
    this.#parts = parts;
  }

  /** Requests that are not yet answered to their end, those that wait for Hermes among them. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /**
   * Counts a request from its arrival to the end of its answer.
   * @param gone is called then.
   */
  arrive<T>(gone: () => void, answer: () => Promise<Lasting<T>>): Promise<Lasting<T>> {
    this.#inFlight++;
    const leave = () => {
      this.#inFlight--;
      gone();
    };
    return during(leave, answer);
  }

  /**
   * Has a seat at Hermes until the turn is over.
   * @param left is called then.
   */
  withSeat<T>(left: () => void, turn: () => Promise<Lasting<T>>): Promise<Lasting<T>> {
    this.#taken++;
    const leave = () => {
      this.#taken--;
      left();
      if (this.#taken === 0) for (const tell of this.#emptied.splice(0)) tell();
    };
    return during(leave, turn);
  }

  /**
   * Waits for the turns that Hermes is at.
   * @throws ApiError 409 `busy` when they outlast the drain timeout.
   */
  async drain(): Promise<void> {
    if (this.#taken === 0) return;
    const { time, drainTimeout } = this.#parts;
    const empty = new Promise<true>((resolve) => this.#emptied.push(() => resolve(true)));
    if ((await within(time, drainTimeout, empty)) === undefined && this.#taken > 0)
      throw new ApiError({
        status: 409,
        code: "busy",
        message:
          `${this.#taken} requests were still being answered after ${drainTimeout / 1000} s; nothing was ` +
          "stopped. Try again when they are done.",
        retryAfter: 30,
      });
  }
}
