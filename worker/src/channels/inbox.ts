// SPDX-License-Identifier: Apache-2.0
/**
 * What people wrote, from before the platform is told "received" until the platform took the answer. A message stays no
 * longer than that, but for one that could not be answered: it waits for the owner.
 */
import type { Event, Incoming, Source } from "./channel.ts";

/** How many messages of a channel may wait; what comes when there are so many is dropped, and counted. */
export const MOST = 500;
/** How many of one person's: where everybody may write, one leaves room for the others. */
export const MOST_OF_ONE = 50;
/** How many messages that Hermes sends on its own account may wait for a platform. */
export const MOST_OWN = 100;
/** And how many files. */
export const MOST_OWN_FILES = 20;
/** Of how many chats of a platform, the last ones, it is known who wrote there. */
const MOST_CHATS = 1000;
/** How many that could not be answered are kept, the newest, and for how long, in milliseconds. */
const MOST_FAILED = 100;
const FAILED_KEPT = 7 * 24 * 3600_000;
/** How long the names of deliveries and of what was sent are kept; platforms try again for a day. Milliseconds. */
const NAMES_KEPT = 48 * 3600_000;

/** What is yet to be done: what failed waits until its sender was told. */
const WAITS = "(why IS NULL OR notice = 2)";

type Row = Record<string, SqlStorageValue>;

/** A message for Hermes; a text that itself is for the chat; or a message whose sender is to be told that it failed. */
export type Kind = "message" | "notice" | "failure";

const KINDS: readonly Kind[] = ["message", "notice", "failure"];

/** A message that waits, or that Hermes is at. */
export interface Entry {
  n: number;
  /** By what it came in, and is counted. */
  channel: string;
  /** What is answered one after the other. */
  lane: string;
  event: Event;
  is: Kind;
  /** Milliseconds since the epoch. */
  received: number;
  /** How often Hermes was given it. */
  handed: number;
}

/** What became of a delivery. */
export type Taken = "new" | "known" | "full";

/** What a channel did, for the owner. Times are milliseconds since the epoch; 0 = never. */
export interface Counts {
  lastIn: number;
  lastOut: number;
  /** Dropped, because too much waited, or waited too long for the owner. */
  dropped: number;
  /** Handed over once more after Hermes had begun. */
  again: number;
  /** Sent once more, and marked, because nobody knew whether the platform had taken it: somebody may see it twice. */
  twice: number;
  /** Sent, and never taken by the platform. */
  refused: number;
}

/** A message that could not be answered. */
export interface Unanswered {
  n: number;
  channel: string;
  received: number;
  why: string;
}

const NO_COUNTS: Counts = { lastIn: 0, lastOut: 0, dropped: 0, again: 0, twice: 0, refused: 0 };

/** The messages of one instance. */
export class Inbox {
  readonly #sql: SqlStorage;
  readonly #kv: SyncKvStorage;

  constructor(storage: DurableObjectStorage) {
    this.#sql = storage.sql;
    this.#kv = storage.kv;
    this.#sql.exec(`
      CREATE TABLE IF NOT EXISTS inbox_messages (
        n INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, lane TEXT NOT NULL, event TEXT NOT NULL,
        notice INTEGER NOT NULL, received INTEGER NOT NULL, handed INTEGER NOT NULL, why TEXT);
      CREATE TABLE IF NOT EXISTS inbox_known (
        channel TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (channel, id)) WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS inbox_sent (
        channel TEXT NOT NULL, what TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (channel, what)) WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS inbox_chats (
        platform TEXT NOT NULL, chat TEXT NOT NULL, who TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (platform, chat)) WITHOUT ROWID;`);
  }

  /** Stores a message, unless it came before or too many wait. @param hasRoom whether there is room for its files. */
  take(channel: string, { id, event, isNotice = false }: Incoming, now: number, hasRoom: boolean): Taken {
    this.#forget(now);
    if (this.knows(channel, id)) return "known";
    const { platform, user_id: sender } = event.source;
    // A webhook is one sender, into whatever chat it speaks.
    const isMuch = platform === channel && this.waiting(channel, sender) >= MOST_OF_ONE;
    if (isMuch || !hasRoom || this.waiting(channel) >= MOST) {
      this.#count(channel, ({ dropped }) => ({ dropped: dropped + 1 }));
      return "full";
    }
    this.#sql.exec("INSERT INTO inbox_known VALUES (?, ?, ?)", channel, id, now);
    this.#insert(channel, event, isNotice, now);
    this.#count(channel, () => ({ lastIn: now }));
    if (platform === channel) this.#noteChat(event.source, now);
    return "new";
  }

  #insert(channel: string, event: Event, isNotice: boolean, now: number, lane = laneOf(event)): void {
    this.#sql.exec(
      "INSERT INTO inbox_messages (channel, lane, event, notice, received, handed) VALUES (?, ?, ?, ?, ?, 0)",
      ...[channel, lane, JSON.stringify(event), isNotice ? 1 : 0, now],
    );
  }

  #noteChat({ platform, chat_id: chat, user_id: user, scope_id: scope }: Source, now: number): void {
    const who = JSON.stringify(scope === undefined ? [user] : [user, scope]);
    this.#sql.exec("INSERT OR REPLACE INTO inbox_chats VALUES (?, ?, ?, ?)", platform, chat, who, now);
    this.#sql.exec(
      `DELETE FROM inbox_chats WHERE platform = ?1 AND chat NOT IN
        (SELECT chat FROM inbox_chats WHERE platform = ?1 ORDER BY at DESC LIMIT ?2)`,
      platform,
      MOST_CHATS,
    );
  }

  /** Who wrote in a chat last, and of what it is a part: those that let them write are among these. */
  whoWroteIn(platform: string, chat: string): string[] {
    const [row] = this.#sql.exec<Row>(
      "SELECT who FROM inbox_chats WHERE platform = ? AND chat = ?",
      platform,
      chat,
    );
    return row === undefined ? [] : (JSON.parse(String(row["who"])) as string[]);
  }

  /** Keeps a text that a chat is to get as soon as its platform takes it. @returns whether there is room for it. */
  keep(channel: string, event: Event, now: number): boolean {
    const hasRoom = this.waiting(channel) < MOST;
    if (hasRoom) this.#insert(channel, event, true, now);
    else this.#count(channel, ({ dropped }) => ({ dropped: dropped + 1 }));
    return hasRoom;
  }

  /** Keeps what Hermes sends on its own account, under a name that it says again until it is told that it was kept. */
  keepOwn(channel: string, event: Event, now: number): Taken {
    const [lane, id] = [ownLaneOf(event), event.message_id];
    if (this.knows(channel, id)) return "known";
    if (!this.hasRoom(channel, event.files !== undefined)) {
      this.#count(channel, ({ dropped }) => ({ dropped: dropped + 1 }));
      return "full";
    }
    this.#sql.exec("INSERT INTO inbox_known VALUES (?, ?, ?)", channel, id, now);
    this.#insert(channel, event, true, now, lane);
    return "new";
  }

  /** Whether something came by this name. */
  knows(channel: string, id: string): boolean {
    const known = this.#sql.exec("SELECT 1 FROM inbox_known WHERE channel = ? AND id = ?", channel, id);
    return known.toArray().length > 0;
  }

  /** Whether more may be kept of what Hermes sends on its own account. */
  hasRoom(channel: string, isFile: boolean): boolean {
    const [row] = this.#sql.exec<Row>(
      `SELECT COUNT(*) AS n, COUNT(json_extract(event, '$.files')) AS files
        FROM inbox_messages WHERE why IS NULL AND channel = ? AND lane LIKE 'own %'`,
      channel,
    );
    return Number(row?.["n"] ?? 0) < MOST_OWN && !(isFile && Number(row?.["files"] ?? 0) >= MOST_OWN_FILES);
  }

  /** The names of the files of all messages. */
  files(): string[] {
    const rows = this.#sql.exec<Row>(
      "SELECT json_extract(value, '$.ref') AS name FROM inbox_messages, json_each(event, '$.files')",
    );
    return [...rows].map(({ name }) => String(name));
  }

  /** Keeps a message's answer in its place until the platform takes it. */
  answerWith({ n }: Entry, answer: Event): void {
    const text = JSON.stringify(answer);
    this.#sql.exec(
      "UPDATE inbox_messages SET event = ?, notice = 1, handed = 0, why = NULL WHERE n = ?",
      text,
      n,
    );
  }

  /** Lanes in which a message waits, the longest waiting first. */
  lanes(): string[] {
    const rows = this.#sql.exec<Row>(
      `SELECT lane FROM inbox_messages WHERE ${WAITS} GROUP BY lane ORDER BY MIN(n)`,
    );
    return [...rows].map((row) => String(row["lane"]));
  }

  /** The message of a lane that is next. */
  next(lane: string): Entry | null {
    const [row] = this.#sql.exec<Row>(
      `SELECT * FROM inbox_messages WHERE ${WAITS} AND lane = ? ORDER BY n LIMIT 1`,
      lane,
    );
    return row === undefined ? null : entryOf(row);
  }

  /** What waits in a lane for Hermes, the oldest first. */
  behind(lane: string): Entry[] {
    const rows = this.#sql.exec<Row>(
      "SELECT * FROM inbox_messages WHERE why IS NULL AND notice = 0 AND lane = ? ORDER BY n",
      lane,
    );
    return [...rows].map(entryOf);
  }

  /** The number of the last message that came. */
  last(): number {
    const [row] = this.#sql.exec<Row>("SELECT MAX(n) AS n FROM inbox_messages");
    return Number(row?.["n"] ?? 0);
  }

  /** The message that an answer is for. */
  answeredBy(platform: string, chat: string, message: string): Entry | null {
    const rows = this.#sql.exec<Row>(
      "SELECT * FROM inbox_messages WHERE notice <> 1 AND lane = ? ORDER BY n",
      laneIn(platform, chat),
    );
    return [...rows].map(entryOf).find(({ event }) => event.message_id === message) ?? null;
  }

  /** A message as it is by now, where Hermes is still to answer it. */
  get(n: number): Entry | null {
    const [row] = this.#sql.exec<Row>(
      "SELECT * FROM inbox_messages WHERE n = ? AND why IS NULL AND notice = 0",
      n,
    );
    return row === undefined ? null : entryOf(row);
  }

  /** Puts a message in the place of the one that it was before, unless Hermes was given that. */
  amend(channel: string, event: Event): void {
    this.#sql.exec(
      `UPDATE inbox_messages SET event = ? WHERE channel = ? AND lane = ? AND handed = 0 AND why IS NULL
        AND notice = 0 AND json_extract(event, '$.message_id') = ?`,
      ...[JSON.stringify(event), channel, laneOf(event), event.message_id],
    );
  }

  /** Notes that Hermes is given a message. */
  hand({ n, channel, handed }: Entry): void {
    this.#sql.exec("UPDATE inbox_messages SET handed = handed + 1 WHERE n = ?", n);
    if (handed > 0) this.#count(channel, ({ again }) => ({ again: again + 1 }));
  }

  /** Its answer was taken by the platform: nothing of it is kept. */
  done({ n }: { n: number }): void {
    this.#sql.exec("DELETE FROM inbox_messages WHERE n = ?", n);
  }

  /**
   * It cannot be answered: it waits for the owner.
   * @param isTold whether its sender need not be told.
   */
  fail({ n, is }: Entry, why: string, isTold: boolean): void {
    const kind = KINDS.indexOf(is === "message" && !isTold ? "failure" : is);
    this.#sql.exec("UPDATE inbox_messages SET why = ?, notice = ? WHERE n = ?", why, kind, n);
    this.#drop(
      "n NOT IN (SELECT n FROM inbox_messages WHERE why IS NOT NULL ORDER BY n DESC LIMIT ?)",
      MOST_FAILED,
    );
  }

  /** Its sender was told that it could not be answered. */
  told({ n }: Entry): void {
    this.#sql.exec("UPDATE inbox_messages SET notice = 0 WHERE n = ?", n);
  }

  /** Lets Hermes have a message again that could not be answered, or all of them. */
  retry(): number {
    const cursor = this.#sql.exec(
      "UPDATE inbox_messages SET why = NULL, handed = 0, notice = notice % 2 WHERE why IS NOT NULL",
    );
    cursor.toArray();
    return cursor.rowsWritten;
  }

  /** What could not be answered, the oldest first; without a word of it. */
  failed(now: number): Unanswered[] {
    this.#forget(now);
    const rows = this.#sql.exec<Row>(
      "SELECT n, channel, received, why FROM inbox_messages WHERE why IS NOT NULL ORDER BY n",
    );
    return [...rows].map((row) => ({
      n: Number(row["n"]),
      channel: String(row["channel"]),
      received: Number(row["received"]),
      why: String(row["why"]),
    }));
  }

  /** How many messages of a channel wait, or of one person in it. */
  waiting(channel: string, sender: string | null = null): number {
    const [row] = this.#sql.exec<Row>(
      `SELECT COUNT(*) AS n FROM inbox_messages WHERE why IS NULL AND channel = ?1
        AND (?2 IS NULL OR json_extract(event, '$.source.user_id') = ?2)`,
      channel,
      sender,
    );
    return Number(row?.["n"] ?? 0);
  }

  /** What the platform called something that it was sent before, or `null`. */
  sent(channel: string, what: string): string | null {
    const [row] = this.#sql.exec<Row>(
      "SELECT id FROM inbox_sent WHERE channel = ? AND what = ? AND id <> ''",
      channel,
      what,
    );
    return row === undefined ? null : String(row["id"]);
  }

  /**
   * Notes that a platform is about to be sent something.
   * @returns whether it was before, and nobody knows whether it took it.
   */
  noteSending(channel: string, what: string, now: number): boolean {
    const found = this.#sql.exec("SELECT 1 FROM inbox_sent WHERE channel = ? AND what = ?", channel, what);
    if (found.toArray().length > 0) return true;
    this.#sql.exec("INSERT INTO inbox_sent VALUES (?, ?, '', ?)", channel, what, now);
    return false;
  }

  /** Notes that a platform certainly did not take something. */
  noteNotSent(channel: string, what: string): void {
    this.#sql.exec("DELETE FROM inbox_sent WHERE channel = ? AND what = ?", channel, what);
  }

  /** Notes what a platform took. */
  noteSent(channel: string, what: string, id: string, now: number): void {
    this.noteKept(channel, what, id, now);
    this.#count(channel, () => ({ lastOut: now }));
  }

  /** Notes that something need not be said again: it waits here for its platform. */
  noteKept(channel: string, what: string, id: string, now: number): void {
    this.#sql.exec("INSERT OR REPLACE INTO inbox_sent VALUES (?, ?, ?, ?)", channel, what, id, now);
  }

  /** Counts something that happened once more. */
  note(channel: string, what: "twice" | "refused"): void {
    this.#count(channel, (counts) => ({ [what]: counts[what] + 1 }));
  }

  /** From which of its updates on a platform is to be asked. */
  offset(channel: string): number {
    return this.#kv.get<number>(`offset ${channel}`) ?? 0;
  }

  moveOffset(channel: string, offset: number): void {
    this.#kv.put(`offset ${channel}`, offset);
  }

  /** What is known of that with which a platform was last told to prove itself. */
  given(channel: string): { get(): string | undefined; put(proof: string): void } {
    const name = `given ${channel}`;
    return { get: () => this.#kv.get<string>(name), put: (proof) => this.#kv.put(name, proof) };
  }

  /** What a channel did. */
  counts(channel: string): Counts {
    return { ...NO_COUNTS, ...this.#kv.get<Counts>(`channel ${channel}`) };
  }

  #count(channel: string, change: (counts: Counts) => Partial<Counts>): void {
    const counts = this.counts(channel);
    this.#kv.put(`channel ${channel}`, { ...counts, ...change(counts) });
  }

  #forget(now: number): void {
    this.#sql.exec("DELETE FROM inbox_known WHERE at < ?", now - NAMES_KEPT);
    this.#sql.exec("DELETE FROM inbox_sent WHERE at < ?", now - NAMES_KEPT);
    this.#drop("received < ?", now - FAILED_KEPT);
  }

  /** Keeps some of what could not be answered no longer. */
  #drop(which: string, value: number): void {
    const dropped = this.#sql.exec<Row>(
      `DELETE FROM inbox_messages WHERE why IS NOT NULL AND ${which} RETURNING channel`,
      value,
    );
    for (const { channel } of dropped.toArray())
      this.#count(String(channel), (counts) => ({ dropped: counts.dropped + 1 }));
  }
}

/**
 * What is answered one after the other: the messages of a chat, by whatever they come. A press answers what one of them
 * waits for.
 */
export function laneOf({ source, press }: Event): string {
  const lane = laneIn(source.platform, source.chat_id);
  return press === undefined ? lane : `press ${lane}`;
}

/** What Hermes sends on its own account waits for no turn of the chat. */
export function ownLaneOf(event: Event): string {
  return `own ${laneOf(event)}`;
}

/** Whether a message came by a webhook. */
export function isHook({ channel }: Entry): boolean {
  return channel.startsWith("hooks/");
}

export function laneIn(platform: string, chat: string): string {
  return `${platform} ${chat}`;
}

function entryOf(row: Row): Entry {
  return {
    n: Number(row["n"]),
    channel: String(row["channel"]),
    lane: String(row["lane"]),
    is: KINDS[Number(row["notice"])] ?? "message",
    event: JSON.parse(String(row["event"])) as Event,
    received: Number(row["received"]),
    handed: Number(row["handed"]),
  };
}
