// SPDX-License-Identifier: Apache-2.0
/**
 * A backup that arrives in parts. Cloudflare's edge lets no body in that is larger than 100 MB, and what is cut goes on
 * with what is missing. Nothing of it is a backup yet: whole, it is put back as if it had come in one piece.
 */
import { ApiError } from "../base/errors.ts";
import { realTime, type Time } from "../base/time.ts";
import { ArchiveReader, CAP, letGo, MANIFEST_LIMIT, ROW, Sha256 } from "./vault.ts";

/** Largest part, in bytes. */
const PART = 64 * 1024 * 1024;
/** The most parts of one upload. */
const MOST_PARTS = 64;
/** An upload to which nothing comes for so long is forgotten, in milliseconds. */
const KEPT_FOR = 24 * 3600_000;
/** An upload to which something came so recently gives way to no other one, in milliseconds. */
const UNDER_WAY = 600_000;
/** Garbage is collected, and requests are served, only between turns of the event loop; in rows. */
const BREATH = 8;

type Row = Record<string, SqlStorageValue>;

/** One part, as it is announced. */
export interface Part {
  /** What the upload is known by: the SHA-256 of all its bytes. */
  upload: string;
  /** How many parts it has. */
  parts: number;
  /** Which one this is, from 0. */
  n: number;
  /** SHA-256 of the part, hex. */
  sha256: string;
}

/** The one upload that is kept. */
export class Uploads {
  readonly #sql: SqlStorage;

  constructor(
    readonly storage: DurableObjectStorage,
    readonly time: Time = realTime,
    readonly cap: number = CAP,
    readonly largest: number = PART,
  ) {
    this.#sql = storage.sql;
    this.#sql.exec(`
      CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, parts INTEGER NOT NULL, touched INTEGER NOT NULL);
      CREATE TABLE IF NOT EXISTS upload_parts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, upload TEXT NOT NULL, n INTEGER NOT NULL,
        bytes INTEGER NOT NULL, whole INTEGER NOT NULL);
      CREATE TABLE IF NOT EXISTS upload_rows (
        part INTEGER NOT NULL, n INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (part, n));
      DELETE FROM upload_parts WHERE whole = 0;`);
    this.#collect();
  }

  /** The parts that have yet to be sent. */
  missing(upload: string, parts: number): number[] {
    const [known] = this.#sql.exec<Row>("SELECT parts FROM uploads WHERE id = ?", upload);
    const there = new Set(known?.["parts"] === parts ? this.#whole(upload).map(({ n }) => n) : []);
    return Array.from({ length: parts }, (_, n) => n).filter((n) => !there.has(n));
  }

  /**
   * Takes a part in; it counts once all its bytes are there and are those that were announced.
   * @returns the parts that have yet to be sent.
   * @throws ApiError 400 `bad_part`; 409 `busy` while another upload is under way; 413 `part_too_large`;
   * 507 `state_too_large`.
   */
  async take({ upload, parts, n, sha256 }: Part, stream: ReadableStream<Uint8Array>): Promise<number[]> {
    const source = new ArchiveReader(stream);
    let id: number | null = null;
    try {
      this.#begin(upload, parts);
      id = this.#open(upload, n);
      const told = await this.#fill(id, upload, n, source);
      if (told !== sha256) throw badPart(n);
      this.#close(id, upload, n);
    } catch (error) {
      await source.cancel(error);
      if (id !== null) this.#drop(id);
      throw error;
    }
    return this.missing(upload, parts);
  }

  /**
   * All the parts in a row.
   * @throws ApiError 409 `upload_incomplete`.
   */
  read(upload: string): ReadableStream<Uint8Array> {
    const [known] = this.#sql.exec<Row>("SELECT parts FROM uploads WHERE id = ?", upload);
    const left = known === undefined ? [0] : this.missing(upload, Number(known["parts"]));
    if (left.length > 0) throw incomplete(left);
    const rows = this.#rows(this.#whole(upload).map(({ id }) => id));
    let count = 0;
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          if (++count % BREATH === 0) await scheduler.wait(0);
          const { done, value } = rows.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** Forgets an upload with its parts. */
  forget(upload: string): void {
    this.#sql.exec("DELETE FROM uploads WHERE id = ?", upload);
    this.#collect();
  }

  *#rows(parts: readonly number[]): Generator<Uint8Array, undefined> {
    for (const part of parts)
      for (let n = 0; ; n++) {
        const [row] = this.#sql.exec<Row>("SELECT data FROM upload_rows WHERE part = ? AND n = ?", part, n);
        if (row === undefined) break;
        yield new Uint8Array(row["data"] as ArrayBuffer);
      }
    return undefined;
  }

  #begin(upload: string, parts: number): void {
    const now = this.time.now();
    const [other] = this.#sql.exec<Row>("SELECT touched FROM uploads WHERE id <> ?", upload);
    // Either way: the clock may have been set back.
    if (other !== undefined && Math.abs(now - Number(other["touched"])) < UNDER_WAY) throw anotherUpload();
    this.#sql.exec("DELETE FROM uploads WHERE id <> ? OR parts <> ?", upload, parts);
    // Before it is known again: the parts of another cut are none of this one.
    this.#sql.exec("DELETE FROM upload_parts WHERE upload NOT IN (SELECT id FROM uploads)");
    this.#sql.exec(
      "INSERT INTO uploads VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET touched = excluded.touched",
      upload,
      parts,
      now,
    );
    this.#collect();
  }

  #open(upload: string, n: number): number {
    const [row] = this.#sql.exec<Row>(
      "INSERT INTO upload_parts (upload, n, bytes, whole) VALUES (?, ?, 0, 0) RETURNING id",
      upload,
      n,
    );
    return Number(row?.["id"]);
  }

  async #fill(id: number, upload: string, part: number, source: ArchiveReader): Promise<string> {
    const hash = new Sha256();
    let bytes = 0;
    for (let n = 0; ; n++) {
      const data = await source.block(ROW);
      if (data === null) return hash.hex();
      bytes += data.byteLength;
      if (bytes > this.largest) throw partTooLarge(this.largest);
      await hash.update(data);
      this.#sql.exec("INSERT INTO upload_rows VALUES (?, ?, ?)", id, n, data);
      letGo(data);
      this.#sql.exec("UPDATE upload_parts SET bytes = ? WHERE id = ?", bytes, id);
      // Of all parts, also of those that arrive at this moment, but for the one that this one takes the place of.
      if (this.#bytesBut(part, upload) > this.cap + MANIFEST_LIMIT) throw this.#tooLarge();
    }
  }

  /** Makes a part count; one that was sent twice counts once. */
  #close(id: number, upload: string, n: number): void {
    this.storage.transactionSync(() => {
      for (const one of this.#whole(upload)) if (one.n === n) this.#drop(one.id);
      this.#sql.exec("UPDATE upload_parts SET whole = 1 WHERE id = ?", id);
      this.#sql.exec("UPDATE uploads SET touched = ? WHERE id = ?", this.time.now(), upload);
    });
  }

  #whole(upload: string): { id: number; n: number }[] {
    const rows = this.#sql.exec<Row>(
      "SELECT id, n FROM upload_parts WHERE upload = ? AND whole = 1 ORDER BY n",
      upload,
    );
    return [...rows] as unknown as { id: number; n: number }[];
  }

  #bytesBut(replaced: number, upload: string): number {
    const [row] = this.#sql.exec<Row>(
      "SELECT SUM(bytes) AS bytes FROM upload_parts WHERE upload = ? AND NOT (whole = 1 AND n = ?)",
      upload,
      replaced,
    );
    return Number(row?.["bytes"]);
  }

  #drop(id: number): void {
    this.#sql.exec("DELETE FROM upload_rows WHERE part = ?", id);
    this.#sql.exec("DELETE FROM upload_parts WHERE id = ?", id);
  }

  /** Removes what is old, or was cut off. */
  #collect(): void {
    const now = this.time.now();
    this.#sql.exec("DELETE FROM uploads WHERE ABS(? - touched) > ?", now, KEPT_FOR);
    this.#sql.exec("DELETE FROM upload_parts WHERE upload NOT IN (SELECT id FROM uploads)");
    this.#sql.exec("DELETE FROM upload_rows WHERE part NOT IN (SELECT id FROM upload_parts)");
  }

  #tooLarge(): ApiError {
    return new ApiError({
      status: 507,
      code: "state_too_large",
      message: `A backup has at most ${Math.ceil(this.cap / (1024 * 1024))} MB, and what was sent of this one has more.`,
    });
  }
}

const ID = /^[0-9a-f]{64}$/;

/**
 * Reads how a part is announced: `/uploads/<SHA-256 of all>/<number>?parts=<count>&sha256=<SHA-256 of the part>`.
 * @throws ApiError 400 `bad_part`.
 */
export function partOf(upload: string, n: string, query: Record<string, string>): Part {
  const sha256 = query["sha256"] ?? "";
  const part = { upload, parts: partsOf(query), n: Number(n), sha256 };
  if (!ID.test(sha256) || part.n >= part.parts)
    throw new ApiError({
      status: 400,
      code: "bad_part",
      message: "Say how many parts there are and what this one's SHA-256 is: ?parts=COUNT&sha256=HEX.",
    });
  return part;
}

/** @throws ApiError 400 `bad_part` for what is no number of parts. */
export function partsOf(query: Record<string, string>): number {
  const parts = /^[0-9]{1,2}$/.test(query["parts"] ?? "") ? Number(query["parts"]) : 0;
  if (parts >= 1 && parts <= MOST_PARTS) return parts;
  throw new ApiError({
    status: 400,
    code: "bad_part",
    message: `Say how many parts there are, 1 to ${MOST_PARTS}: ?parts=COUNT.`,
  });
}

function badPart(n: number): ApiError {
  return new ApiError({
    status: 400,
    code: "bad_part",
    message: `What arrived of part ${n} is not what its SHA-256 announces. Send it again.`,
  });
}

function partTooLarge(largest: number): ApiError {
  return new ApiError({
    status: 413,
    code: "part_too_large",
    message: `A part has at most ${largest / (1024 * 1024)} MB.`,
  });
}

function incomplete(missing: readonly number[]): ApiError {
  return new ApiError({
    status: 409,
    code: "upload_incomplete",
    message: `Of this upload are missing: ${missing.slice(0, 10).join(", ")}. Send these parts, then ask again.`,
  });
}

function anotherUpload(): ApiError {
  return new ApiError({
    status: 409,
    code: "busy",
    message:
      "Another backup is being uploaded at this moment. Try again when it is through, or in ten minutes.",
    retryAfter: 60,
  });
}
