// SPDX-License-Identifier: Apache-2.0
/**
 * People who ask to write, as Hermes' own pairing has it: whoever is a stranger is given a code, which the owner says to
 * the Worker, and may write from then on. What is kept of a code is a digest. Codes are few, short-lived and rarely given.
 */
import { digestOf, hex, isEqual } from "../base/digests.ts";
import { ApiError } from "../base/errors.ts";

/** What codes are made of: nothing that looks like something else. */
const ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const LENGTH = 8;
/** How long a code is good, and how long a person is not given another; milliseconds. */
const GOOD_FOR = 3600_000;
const AGAIN_AFTER = 600_000;
/** How many codes of a channel are good at the same time. */
const MOST_CODES = 3;
/** After so many wrong codes none is taken for a while; milliseconds. */
const MOST_WRONG = 5;
const LOCKED_FOR = 3600_000;
const LOCK = "pairing lock";

type Row = Record<string, SqlStorageValue>;

/** Somebody who is known to a channel. */
export interface Person {
  user: string;
  /** As they call themselves. */
  name: string;
  /** Milliseconds since the epoch: of one who may write, since when; of one who asks, until when. */
  at: number;
}

/** Somebody who may write from now on, and where they are told so. */
export interface Paired {
  channel: string;
  user: string;
  name: string;
  chat: string;
}

/** Who was let in, and who asks to be. */
export class Pairing {
  readonly #sql: SqlStorage;
  readonly #kv: SyncKvStorage;

  constructor(storage: DurableObjectStorage) {
    this.#sql = storage.sql;
    this.#kv = storage.kv;
    this.#sql.exec(`
      CREATE TABLE IF NOT EXISTS pairing_people (
        channel TEXT NOT NULL, user TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (channel, user)) WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS pairing_codes (
        channel TEXT NOT NULL, user TEXT NOT NULL, name TEXT NOT NULL, chat TEXT NOT NULL, digest TEXT NOT NULL,
        at INTEGER NOT NULL, PRIMARY KEY (channel, user)) WITHOUT ROWID;`);
  }

  /** Whether somebody was let in. */
  has(channel: string, user: string): boolean {
    const found = this.#sql.exec(
      "SELECT 1 FROM pairing_people WHERE channel = ? AND user = ?",
      channel,
      user,
    );
    return found.toArray().length > 0;
  }

  /**
   * Gives somebody a code.
   * @returns `null` while they have a new one, others have as many as there may be, or too many wrong ones came.
   */
  async offer({ channel, user, name, chat }: Paired, now: number): Promise<string | null> {
    const code = newCode();
    const digest = await digestFor(channel, code);
    this.#forget(now);
    const asking = this.asking(channel, now);
    const before = asking.find((one) => one.user === user);
    const isSoon = before !== undefined && before.at - GOOD_FOR + AGAIN_AFTER > now;
    const isFull = before === undefined && asking.length >= MOST_CODES;
    if (isSoon || isFull || this.#lockedUntil(now) !== null) return null;
    const row = [channel, user, plainName(name), chat, digest, now];
    this.#sql.exec("INSERT OR REPLACE INTO pairing_codes VALUES (?, ?, ?, ?, ?, ?)", ...row);
    return code;
  }

  /**
   * Lets in whoever was given a code.
   * @throws ApiError 404 `no_such_code`; 429 `too_many_codes` after too many wrong ones.
   */
  async approve(said: string, now: number): Promise<Paired> {
    const code = said.trim().toUpperCase();
    this.#forget(now);
    const channels = this.#sql.exec<Row>("SELECT DISTINCT channel FROM pairing_codes").toArray();
    const digests = await Promise.all(channels.map(({ channel }) => digestFor(String(channel), code)));
    const until = this.#lockedUntil(now);
    if (until !== null) throw tooMany(until - now);
    const rows = this.#sql.exec<Row>("SELECT * FROM pairing_codes").toArray();
    const found = rows.find(({ digest }) => digests.some((one) => isEqual(one, String(digest))));
    if (found === undefined) throw this.#wrong(now);
    const [channel, user, name, chat] = ["channel", "user", "name", "chat"].map((key) => String(found[key]));
    const paired = { channel, user, name, chat } as Paired;
    this.#kv.delete(LOCK);
    this.#sql.exec("DELETE FROM pairing_codes WHERE channel = ? AND user = ?", paired.channel, paired.user);
    this.#sql.exec(
      "INSERT OR REPLACE INTO pairing_people VALUES (?, ?, ?, ?)",
      ...[paired.channel, paired.user, paired.name, now],
    );
    return paired;
  }

  /** Lets somebody in no longer. @returns whether they were. */
  remove(channel: string, user: string): boolean {
    const gone = this.#sql.exec(
      "DELETE FROM pairing_people WHERE channel = ? AND user = ? RETURNING user",
      channel,
      user,
    );
    return gone.toArray().length > 0;
  }

  /** Who was let in. */
  people(channel: string): Person[] {
    return this.#persons("SELECT user, name, at FROM pairing_people WHERE channel = ? ORDER BY at", channel);
  }

  /** Who has a code that is good. */
  asking(channel: string, now: number): Person[] {
    return this.#persons(
      `SELECT user, name, at + ${GOOD_FOR} AS at FROM pairing_codes
        WHERE channel = ? AND at > ? ORDER BY at`,
      ...[channel, now - GOOD_FOR],
    );
  }

  #persons(query: string, ...values: SqlStorageValue[]): Person[] {
    return [...this.#sql.exec<Row>(query, ...values)].map(({ user, name, at }) => ({
      user: String(user),
      name: String(name),
      at: Number(at),
    }));
  }

  #forget(now: number): void {
    this.#sql.exec("DELETE FROM pairing_codes WHERE at <= ?", now - GOOD_FOR);
  }

  #lockedUntil(now: number): number | null {
    const { until = 0 } = this.#kv.get<Lock>(LOCK) ?? {};
    return until > now ? until : null;
  }

  #wrong(now: number): ApiError {
    const wrong = (this.#kv.get<Lock>(LOCK)?.wrong ?? 0) + 1;
    const isMuch = wrong >= MOST_WRONG;
    this.#kv.put<Lock>(LOCK, isMuch ? { wrong: 0, until: now + LOCKED_FOR } : { wrong, until: 0 });
    return noSuchCode();
  }
}

/** The refusal for a code that nobody was given. */
export function noSuchCode(): ApiError {
  return new ApiError({
    status: 404,
    code: "no_such_code",
    message: "No stranger has this code; one is good for an hour.",
  });
}

interface Lock {
  wrong: number;
  /** Milliseconds since the epoch. */
  until: number;
}

function newCode(): string {
  // 32 divides 256: each letter is as likely as another.
  return [...crypto.getRandomValues(new Uint8Array(LENGTH))]
    .map((byte) => ALPHABET[byte % ALPHABET.length])
    .join("");
}

async function digestFor(channel: string, code: string): Promise<string> {
  return hex(await digestOf(`pairing ${channel} ${code}`));
}

/** A name as its owner may be shown it: a stranger chose it. */
function plainName(name: string): string {
  return name.replace(/[^\p{L}\p{N} ._-]/gu, "").slice(0, 40);
}

function tooMany(left: number): ApiError {
  return new ApiError({
    status: 429,
    code: "too_many_codes",
    message: "Too many wrong codes were said.",
    retryAfter: Math.ceil(left / 1000),
  });
}
