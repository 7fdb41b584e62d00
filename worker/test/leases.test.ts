// SPDX-License-Identifier: Apache-2.0
/** What a credential has opened ends with it, at the moment at which it ends. */
import { expect, it } from "vitest";
import { over } from "../src/base/lasting.ts";
import { DashboardSockets } from "../src/instance/dashboard-sockets.ts";
import { abortOf, Leases } from "../src/instance/leases.ts";
import { ManualTime, settled } from "./stand-ins/sandbox.ts";

const TRIES = 200;

/** The same numbers in every run, from 0 to below `n`. */
function chances(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

/** A socket of the dashboard, opened by somebody who is let in until `end` is called, and never answers a close. */
async function visitor(sockets: DashboardSockets, leases: Leases) {
  let isGood = true;
  const { 0: far, 1: hermes } = new WebSocketPair();
  const until = () => (isGood ? Number.POSITIVE_INFINITY : 0);
  const connect = async () => far;
  const joined = leases.hold(until, undefined, (signal) => sockets.join(signal, connect, () => undefined));
  const person = (await joined).value;
  const heard = { hermes: [] as string[], person: [] as string[] };
  for (const [end, name] of [
    [hermes, "hermes"],
    [person, "person"],
  ] as const) {
    end.accept();
    end.addEventListener("message", ({ data }) => {
      heard[name].push(String(data));
    });
  }
  const end = () => {
    isGood = false;
    leases.look();
  };
  return { person, hermes, heard, end };
}

/** Says something where that is still possible. */
function say(socket: WebSocket, text: string): void {
  try {
    socket.send(text);
  } catch {
    // This end was told to close.
  }
}

it("passes nothing in either direction from the moment of the end, whoever speaks at that very moment", async () => {
  const chance = chances(20261126);
  const time = new ManualTime();
  const leases = new Leases(time);
  const sockets: DashboardSockets = new DashboardSockets({ time, fetchEnd: async (id) => sockets.end(id) });
  for (let at = 0; at < TRIES; at++) {
    const { person, hermes, heard, end } = await visitor(sockets, leases);
    say(person, "before");
    say(hermes, "before");
    await settled();
    const moments = [
      ...Array.from({ length: chance(4) }, () => () => say(person, "just before")),
      ...Array.from({ length: chance(4) }, () => () => say(hermes, "just before")),
    ];
    for (const moment of moments) {
      moment();
      if (chance(2) === 0) await Promise.resolve();
      if (chance(4) === 0) await scheduler.wait(0);
    }
    end();
    for (let more = 1 + chance(3); more > 0; more--) {
      say(person, "after");
      say(hermes, "after");
      if (chance(2) === 0) await scheduler.wait(0);
    }
    await time.pass(chance(2) * 1000);
    say(person, "long after");
    say(hermes, "long after");
    await settled();
    expect(heard.hermes.filter((one) => one.endsWith("after"))).toEqual([]);
    expect(heard.person.filter((one) => one.endsWith("after"))).toEqual([]);
    expect([heard.hermes[0], heard.person[0]]).toEqual(["before", "before"]);
  }
  // None of the 200 counts any more, though none has closed.
  expect(leases.size).toBe(0);
}, 60_000);

it("cuts both ends when they do not close by themselves", async () => {
  const time = new ManualTime();
  const cut: string[] = [];
  const sockets: DashboardSockets = new DashboardSockets({
    time,
    fetchEnd: async (id, signal) => {
      signal.addEventListener("abort", () => cut.push("person"));
      return sockets.end(id);
    },
  });
  const over = new AbortController();
  const { value } = await sockets.join(
    over.signal,
    async (signal) => {
      signal.addEventListener("abort", () => cut.push("hermes"));
      return new WebSocketPair()[0];
    },
    () => undefined,
  );
  value.accept();
  over.abort();
  expect(cut, "what is on its way to Hermes does not arrive").toEqual(["hermes"]);
  await time.pass(1000);
  expect(cut).toEqual(["hermes", "person"]);
});

/** Somebody who is let in until a time, and how it ended for them. */
function commands(leases: Leases, until: () => number) {
  const left = new AbortController();
  const done = Promise.withResolvers<void>();
  let why: unknown = null;
  const held = leases.hold(until, left.signal, async (signal) => {
    signal.addEventListener("abort", () => {
      why = (signal.reason as { code: string }).code;
      done.resolve();
    });
    return { value: null, end: done.promise };
  });
  return { held, leave: () => left.abort(), finish: done.resolve, why: () => why };
}

it("ends at the time at which the credential ends, and leaves no timer behind", async () => {
  const time = new ManualTime();
  const leases = new Leases(time);
  const start = time.now();
  const [first, second, third] = [1000, 5000, Number.POSITIVE_INFINITY].map((ms) =>
    commands(leases, () => start + ms),
  );
  await time.pass(999);
  expect([first?.why(), leases.size]).toEqual([null, 3]);
  await time.pass(1);
  expect([first?.why(), second?.why(), leases.size]).toEqual(["credential_over", null, 2]);
  await time.pass(4000);
  expect([second?.why(), third?.why(), leases.size]).toEqual(["credential_over", null, 1]);
  third?.finish();
  await settled();
  expect([leases.size, time.timers]).toEqual([0, 0]);
});

it("learns of an end that was set or taken back meanwhile", async () => {
  const time = new ManualTime();
  const leases = new Leases(time);
  let end = Number.POSITIVE_INFINITY;
  const one = commands(leases, () => end);
  await one.held;
  end = time.now() + 1000;
  leases.look();
  await time.pass(500);
  end = Number.POSITIVE_INFINITY;
  await time.pass(5000);
  expect(one.why()).toBeNull();
  end = 0;
  leases.look();
  expect(one.why()).toBe("credential_over");
});

it("does not begin for a credential that is over, nor wait with one that ends meanwhile", async () => {
  const time = new ManualTime();
  const leases = new Leases(time);
  let isBegun = false;
  const dead = leases.hold(
    () => time.now(),
    undefined,
    async () => {
      isBegun = true;
      return over(null);
    },
  );
  await expect(dead).rejects.toMatchObject({ status: 401, code: "credential_over" });
  expect(isBegun).toBe(false);
  const end = time.now() + 1000;
  const waiting = leases.hold(
    () => end,
    undefined,
    () => new Promise<never>(() => undefined),
  );
  const refused = expect(waiting).rejects.toMatchObject({ status: 401 });
  await time.pass(1000);
  await refused;
  expect(leases.size).toBe(0);
});

it("ends with a client that leaves", async () => {
  const leases = new Leases(new ManualTime());
  const one = commands(leases, () => Number.POSITIVE_INFINITY);
  await one.held;
  one.leave();
  await settled();
  expect([one.why(), leases.size]).toEqual(["client_gone", 0]);
});

it("leaves no timer behind for who is done early, and has one for all that are looked at again", async () => {
  const time = new ManualTime();
  const leases = new Leases(time);
  const end = time.now() + 5000;
  const one = commands(leases, () => end);
  await one.held;
  for (let look = 0; look < 3; look++) leases.look();
  await settled();
  expect([leases.size, time.timers]).toEqual([1, 1]);
  one.finish();
  await settled();
  expect([leases.size, time.timers]).toEqual([0, 0]);
});

it("begins nothing for a client that has left already", async () => {
  const leases = new Leases(new ManualTime());
  let isBegun = false;
  const late = leases.hold(
    () => Number.POSITIVE_INFINITY,
    AbortSignal.abort(),
    async () => {
      isBegun = true;
      return over(null);
    },
  );
  await expect(late).rejects.toMatchObject({ status: 499, code: "client_gone" });
  expect([isBegun, leases.size]).toEqual([false, 0]);
});

it("does not wait with a signal that was aborted before", async () => {
  await expect(Promise.race([abortOf(AbortSignal.abort(new Error("gone"))), settled()])).rejects.toThrow(
    "gone",
  );
});
