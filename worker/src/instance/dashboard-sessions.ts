// SPDX-License-Identifier: Apache-2.0
/** The dashboard's sessions, in the object's own SQLite. Of an id only the digest is kept. */
import { digestOf, hex } from "../base/digests.ts";
import { type SessionTicket, sign } from "../base/session-cookie.ts";

/** How long a session lasts, in milliseconds. */
const SESSION_LIFE = 7 * 24 * 3600_000;
/** Sessions that one person may have open; the oldest give way. */
const MOST = 100;
const KEY = "dashboard-signing-key";

/** A session that was opened. */
export interface Opened extends SessionTicket {
  /** Value of its cookie. */
  cookie: string;
}

/** All sessions of one instance. */
export class DashboardSessions {
  readonly #storage: DurableObjectStorage;
  readonly #tokenUntil: (digest: string) => number;

  /** @param tokenUntil until when the API token that opened a session is good, in milliseconds since the epoch. */
  constructor(storage: DurableObjectStorage, tokenUntil: (digest: string) => number) {
    this.#storage = storage;
    this.#tokenUntil = tokenUntil;
    storage.sql.exec(
      "CREATE TABLE IF NOT EXISTS dashboard_sessions" +
        " (digest TEXT PRIMARY KEY, expires INTEGER NOT NULL, token TEXT NOT NULL) WITHOUT ROWID",
    );
  }

  /** Signs the cookies; made anew by {@link endAll}. */
  get key(): ArrayBuffer {
    const kept = this.#storage.kv.get<ArrayBuffer>(KEY);
    if (kept !== undefined) return kept;
    const made = crypto.getRandomValues(new Uint8Array(32)).buffer;
    this.#storage.kv.put(KEY, made);
    return made;
  }

  /** @param token digest of the API token that was given for it. */
  async open(token: string, now: number): Promise<Opened> {
    const ticket = {
      id: hex(crypto.getRandomValues(new Uint8Array(16)).buffer),
      expires: now + SESSION_LIFE,
    };
    const { sql } = this.#storage;
    const digest = hex(await digestOf(ticket.id));
    sql.exec("DELETE FROM dashboard_sessions WHERE expires <= ?", now);
    sql.exec("INSERT INTO dashboard_sessions VALUES (?, ?, ?)", digest, ticket.expires, token);
    sql.exec(
      "DELETE FROM dashboard_sessions WHERE digest NOT IN" +
        " (SELECT digest FROM dashboard_sessions ORDER BY expires DESC LIMIT ?)",
      MOST,
    );
    return { ...ticket, cookie: await sign(ticket, this.key) };
  }

  /**
   * Whether a session is open.
   * @param tokens digests of the API tokens that are configured: what another one opened is over.
   */
  async isOpen(id: string, tokens: readonly string[], now: number): Promise<boolean> {
    const digest = hex(await digestOf(id));
    return tokens.includes(this.#find(digest)?.token ?? "") && this.until(digest) > now;
  }

  /**
   * Until when a session is good, in milliseconds since the epoch, as far as is known; 0 when there is none.
   * @param digest of its id.
   */
  until(digest: string): number {
    const found = this.#find(digest);
    return found === null ? 0 : Math.min(found.expires, this.#tokenUntil(found.token));
  }

  #find(digest: string): { token: string; expires: number } | null {
    const query = "SELECT token, expires FROM dashboard_sessions WHERE digest = ?";
    const [row] = this.#storage.sql.exec<{ token: string; expires: number }>(query, digest).toArray();
    return row ?? null;
  }

  /** Ends one session. */
  async end(id: string): Promise<void> {
    const digest = hex(await digestOf(id));
    this.#storage.sql.exec("DELETE FROM dashboard_sessions WHERE digest = ?", digest);
  }

  /** Ends every session, and makes their signatures worthless. */
  endAll(): number {
    const ended = this.#storage.sql.exec("DELETE FROM dashboard_sessions").rowsWritten;
    this.#storage.kv.delete(KEY);
    return ended;
  }
}
