// SPDX-License-Identifier: Apache-2.0
/**
 * STAND-INS for the platform in plain Node: an object's SQLite, and the few globals that the code under test
 * takes from workerd. All of it is synchronous or settles in microtasks, so that a seed always runs the same.
 */
import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import type { Time } from "../../src/base/time.ts";

class DigestStream extends WritableStream<Uint8Array> {
  readonly digest: Promise<ArrayBuffer>;

  constructor() {
    const hash = createHash("sha256");
    const { promise, resolve } = Promise.withResolvers<ArrayBuffer>();
    super({
      write: (chunk) => void hash.update(chunk),
      close: () => resolve(new Uint8Array(hash.digest()).buffer),
    });
    this.digest = promise;
  }
}

/** Puts the globals in place. */
export function install(): void {
  const global = globalThis as unknown as Record<string, unknown>;
  global["scheduler"] = { wait: async () => undefined };
  global["IdentityTransformStream"] = TransformStream;
  Object.defineProperty(crypto, "DigestStream", { value: DigestStream, configurable: true });
  // Node's own answers from a thread: in another order each time.
  Object.defineProperty(crypto.subtle, "digest", {
    value: async (_: string, data: ArrayBuffer | Uint8Array) => sha256(new Uint8Array(data)).buffer,
    configurable: true,
  });
}

/** SHA-256 of bytes. */
export function sha256(data: Uint8Array): Uint8Array<ArrayBuffer> {
  const hash = createHash("sha256");
  hash.update(data);
  return new Uint8Array(hash.digest());
}

/** Thrown at whoever belongs to an object that was torn down. */
export class ObjectGone extends Error {}

/** The storage of one Durable Object over all of its lives. */
export class Disk {
  readonly #db = new DatabaseSync(":memory:");
  readonly #statements = new Map<string, { all(...bindings: unknown[]): Record<string, unknown>[] }>();

  readonly kept = new Map<string, unknown>();

  /** Runs SQL. */
  sql(query: string, ...bindings: unknown[]): Record<string, unknown>[] {
    if (query.trimEnd().endsWith(";")) {
      this.#db.exec(query);
      return [];
    }
    let statement = this.#statements.get(query);
    if (statement === undefined) {
      statement = this.#db.prepare(query);
      this.#statements.set(query, statement);
    }
    return statement.all(...bindings);
  }

  /** The storage as one life of the object sees it. */
  storage(alive: () => boolean): DurableObjectStorage {
    const mustLive = () => {
      if (!alive()) throw new ObjectGone("this life of the object is over");
    };
    const { kept } = this;
    return {
      sql: {
        exec: (query: string, ...bindings: unknown[]) => {
          mustLive();
          const rows = this.sql(query, ...bindings);
          return Object.assign(rows, { toArray: () => rows, rowsWritten: 0 });
        },
      },
      kv: {
        get: (name: string) => kept.get(name),
        put: (name: string, value: unknown) => {
          mustLive();
          kept.set(name, structuredClone(value));
        },
      },
      transactionSync: (work: () => unknown) => {
        mustLive();
        this.#db.exec("BEGIN");
        try {
          const result = work();
          this.#db.exec("COMMIT");
          return result;
        } catch (error) {
          this.#db.exec("ROLLBACK");
          throw error;
        }
      },
    } as unknown as DurableObjectStorage;
  }

  close(): void {
    this.#db.close();
  }
}

/** Random numbers from a seed. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761) >>> 0;
  }

  /** From 0 up to, but not including, 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let value = this.#state;
    value = Math.imul(value ^ (value >>> 15), value | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** A whole number from `least` up to and including `most`. */
  between(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  /** One of the entries, as often as its weight says. */
  pick<T>(entries: readonly (readonly [weight: number, value: T])[]): T {
    let left = this.next() * entries.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, value] of entries) {
      left -= weight;
      if (left < 0) return value;
    }
    return (entries[entries.length - 1] as readonly [number, T])[1];
  }
}

/** A clock that moves when it is told to, and whose hands can be set. */
export class SimulatedTime implements Time {
  /** Milliseconds that have really passed. */
  elapsed = 0;
  #ahead = Date.UTC(2026, 0, 1);
  #timers: { at: number; wake: () => void }[] = [];

  now(): number {
    return this.elapsed + this.#ahead;
  }

  /** Sets the hands, forward or back. */
  jump(ms: number): void {
    this.#ahead += ms;
  }

  get timers(): number {
    return this.#timers.length;
  }

  /** When the next timer ends, as {@link elapsed} will be. */
  get next(): number {
    return this.#timers.reduce((least, timer) => Math.min(least, timer.at), Number.POSITIVE_INFINITY);
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = { at: this.elapsed + ms, wake: resolve };
      this.#timers.push(timer);
      signal?.addEventListener("abort", () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
        reject(new Error("aborted"));
      });
    });
  }

  /** Moves on and wakes whoever waited. */
  advance(to: number): void {
    this.elapsed = Math.max(this.elapsed, to);
    const due = this.#timers.filter((timer) => timer.at <= this.elapsed).sort((a, b) => a.at - b.at);
    this.#timers = this.#timers.filter((timer) => timer.at > this.elapsed);
    for (const timer of due) timer.wake();
  }
}

/** Returns when everything that needs no time has happened. */
export async function settled(): Promise<void> {
  for (let round = 0; round < 2; round++) await new Promise<void>((resolve) => setImmediate(resolve));
}
