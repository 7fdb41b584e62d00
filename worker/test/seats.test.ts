// SPDX-License-Identifier: Apache-2.0
/** A stop waits for those who are at Hermes: for all of them, no longer than that, and not for ever. */
import { describe, expect, it } from "vitest";
import { Seats } from "../src/instance/seats.ts";
import { ManualTime, settled } from "./stand-ins/sandbox.ts";

/** Somebody at Hermes, who leaves when told to. */
function guest(seats: Seats) {
  const end = Promise.withResolvers<void>();
  void seats.withSeat(
    () => undefined,
    async () => ({ value: null, end: end.promise }),
  );
  return { leave: end.resolve };
}

/** What has become of a stop that waits: nothing yet, that it goes on, or the code with which it was refused. */
function waiting(seats: Seats) {
  let outcome: string | null = null;
  seats.drain().then(
    () => {
      outcome = "goes on";
    },
    ({ code }: { code: string }) => {
      outcome = code;
    },
  );
  return () => outcome;
}

describe("a stop", () => {
  it("goes on when the last of those at Hermes has left, and waits no longer", async () => {
    const time = new ManualTime();
    const seats = new Seats({ time, drainTimeout: 2000 });
    const [first, second] = [guest(seats), guest(seats)];
    const [stop, another] = [waiting(seats), waiting(seats)];
    first.leave();
    await settled();
    expect([stop(), another()]).toEqual([null, null]);
    second.leave();
    await settled();
    expect([stop(), another(), time.timers]).toEqual(["goes on", "goes on", 0]);
    const third = waiting(seats);
    await settled();
    expect([third(), time.timers]).toEqual(["goes on", 0]);
  });

  it("is refused when they outlast the drain timeout", async () => {
    const time = new ManualTime();
    const seats = new Seats({ time, drainTimeout: 2000 });
    guest(seats);
    const stop = waiting(seats);
    await time.pass(1999);
    expect(stop()).toBeNull();
    await time.pass(1);
    expect(stop()).toBe("busy");
  });

  it("is not refused for somebody who leaves at that very moment", async () => {
    const timer = Promise.withResolvers<void>();
    const seats = new Seats({ time: { now: () => 0, sleep: () => timer.promise }, drainTimeout: 2000 });
    const { leave } = guest(seats);
    const stop = waiting(seats);
    await settled();
    timer.resolve();
    leave();
    await settled();
    expect(stop()).toBe("goes on");
  });
});
