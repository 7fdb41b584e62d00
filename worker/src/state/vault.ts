// SPDX-License-Identifier: Apache-2.0
/**
 * Hermes' state, in this object's own SQLite. A save is a generation: a manifest row and the archive's
 * bytes in rows. Nothing older goes before its successor is complete and verified, and what was brought from
 * elsewhere is no successor before Hermes has run with it.
 */
import { ApiError } from "../base/errors.ts";
import { realTime, type Time } from "../base/time.ts";

/** The first line of an archive. */
export interface Manifest {
  format: 1;
  /** Boot that wrote it. */
  boot: string;
  /** Digest of the content: equal state, equal digest. */
  digest: string;
  /** SHA-256 of the bytes that follow, hex. */
  sha256: string;
  /** Number of bytes that follow. */
  bytes: number;
  /** What could not be taken along, each with the reason. */
  leftOut?: string[];
  /** Number of files in it, and the names of those that are databases. */
  files?: number;
  databases?: unknown;
}

/** One kept save. */
export interface Generation {
  id: number;
  boot: string;
  digest: string;
  sha256: string;
  bytes: number;
  /** Milliseconds since the epoch. */
  created: number;
  reason: string;
  /** Image that was running. */
  image: string;
  state: "good" | "damaged";
  /** Why it is damaged. */
  note: string | null;
  /** Since when it is kept only because the state is much smaller now; milliseconds since the epoch. */
  apart: number | null;
}

/** A state that is a fraction of what it was. */
export interface Shrinkage {
  /** The generation from before, which is kept. */
  from: Generation;
  now: Generation;
  /** Milliseconds since the epoch. */
  since: number;
}

/** Where an archive comes from. */
export interface Origin {
  boot: string;
  reason: string;
  image: string;
}

/** Thrown when a generation's bytes are not what was written. */
export class DamagedGeneration extends Error {
  constructor(
    readonly id: number,
    why: string,
  ) {
    super(`Backup ${id} is damaged: ${why}.`);
    this.name = "DamagedGeneration";
  }
}

/** Generations that are kept. */
const KEPT = 3;
/** A state that has less than one in so many of the bytes it had has lost something, perhaps. */
const FRACTION = 2;
/** For so long the generation from before is kept apart then, in milliseconds. */
const APART_FOR = 30 * 24 * 3600_000;
/** What Hermes' memory is in. */
const MEMORY = "state.db";
/** Largest state, in bytes. */
export const CAP = 256 * 1024 * 1024;
/** Bytes in one row. An object's rows may hold 2 MB, but small ones leave less garbage behind when they are read. */
export const ROW = 128 * 1024;
/**
 * Rows that were handed out and are not let go yet: whoever takes them may hold some before they are written on.
 * 8 MB.
 */
const BEHIND = 64;
/** Garbage is collected, and requests are served, only between turns of the event loop: each so many rows. */
const ROWS_IN_A_TURN = 8;
/** Longest first line that is believed, in bytes. */
export const MANIFEST_LIMIT = 64 * 1024;
/** Characters of what is no manifest that are shown: an engine may say there why it ran no command. */
const LONGEST_QUOTE = 200;

type Row = Record<string, SqlStorageValue>;

/** The vault. One writer at a time; the caller sees to that. */
export class Vault {
  readonly #sql: SqlStorage;

  constructor(
    readonly storage: DurableObjectStorage,
    readonly time: Time = realTime,
    readonly cap: number = CAP,
  ) {
    this.#sql = storage.sql;
    this.#sql.exec(`
      CREATE TABLE IF NOT EXISTS generations (
        id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL, digest TEXT NOT NULL,
        sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, created INTEGER NOT NULL, reason TEXT NOT NULL,
        image TEXT NOT NULL, manifest TEXT NOT NULL, state TEXT NOT NULL, note TEXT);
      CREATE TABLE IF NOT EXISTS chunks (
        generation INTEGER NOT NULL, n INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (generation, n));`);
    // What the generation's chunks are filed under, unless its id; and since when it is kept apart.
    for (const name of ["body", "apart"]) this.#mustHaveColumn(name);
    this.#collect();
  }

  /** Newest first. */
  list(): Generation[] {
    return this.#find("state IN ('good', 'damaged')");
  }

  /** Good ones, newest first. */
  good(): Generation[] {
    return this.list().filter((generation) => generation.state === "good");
  }

  /** What could not be taken along into the newest good generation, each with the reason. */
  get leftOut(): string[] {
    const [row] = this.#sql.exec<Row>(
      "SELECT manifest FROM generations WHERE state = 'good' ORDER BY id DESC LIMIT 1",
    );
    const { leftOut } = jsonOf(String(row?.["manifest"])) ?? {};
    return Array.isArray(leftOut) ? leftOut.map(String) : [];
  }

  /** What was brought from elsewhere and is to be tried by the next boot, or `null`. */
  get offered(): Generation | null {
    return this.#find("state = 'offered'")[0] ?? null;
  }

  /** That the state is a fraction of what it was, or `null`. */
  get shrinkage(): Shrinkage | null {
    const good = this.good();
    const [now] = good;
    const from = largest(good);
    if (now === undefined || from === null || !isFraction(now, from)) return null;
    return { from, now, since: from.apart ?? good[good.indexOf(from) - 1]?.created ?? now.created };
  }

  /** Whether there ever was a complete generation; a sandbox may start empty only when there was none. */
  get hasHistory(): boolean {
    return this.list().length > 0;
  }

  /**
   * Stores an archive as a new generation and lets the oldest go.
   * @param stream the archive: one line of JSON, then the bytes it announces.
   * @param meta.boot the boot that must have written it.
   * @param complete resolves when the producer has said that all went well; a rejection discards the bytes.
   * @throws ApiError 507 `state_too_large`; Error when the archive is not what its first line says.
   */
  async write(
    stream: ReadableStream<Uint8Array>,
    meta: Origin,
    complete: () => Promise<void>,
  ): Promise<Generation> {
    const isOf = (manifest: Manifest) => {
      if (manifest.boot !== meta.boot)
        throw new Error(`The archive is of boot ${manifest.boot}, not ${meta.boot}.`);
      return null;
    };
    return this.#seal(await this.#take(stream, meta, isOf, complete));
  }

  /**
   * Stores an archive that was kept elsewhere, of any boot. It takes the place of none and is in no list: see
   * {@link offer}. Only the newest is kept.
   * @returns what it is known by until then.
   * @throws ApiError 507 `state_too_large`; Error when the archive is not what its first line says, or holds no memory.
   */
  async upload(stream: ReadableStream<Uint8Array>, image: string): Promise<number> {
    const [row] = this.#sql.exec<Row>(
      "SELECT MIN(COALESCE(MIN(id), 0), COALESCE(MIN(body), 0), 0) - 1 AS id FROM generations",
    );
    const holdsMemory = (manifest: Manifest) => {
      const { files, databases } = manifest;
      if (files === 0 || (Array.isArray(databases) && !databases.includes(MEMORY)))
        throw new Error(`There is no memory of Hermes in it (${MEMORY}).`);
      return Number(row?.["id"]);
    };
    const meta = { boot: "", reason: "upload", image };
    const id = await this.#take(stream, meta, holdsMemory, async () => undefined);
    this.#sql.exec("UPDATE generations SET state = 'unproved' WHERE id = ?", id);
    return id;
  }

  /** Has the next boot try an upload, and no other. The same bytes as of a good generation need not be tried. */
  offer(upload: number): Generation {
    const id = this.storage.transactionSync(() => {
      for (const other of this.#find("state = 'offered'")) this.#drop(other.id);
      const [row] = this.#sql.exec<Row>(
        `INSERT INTO generations (boot, digest, sha256, bytes, created, reason, image, manifest, state, body)
         SELECT boot, digest, sha256, bytes, created, reason, image, manifest, 'offered', id
         FROM generations WHERE id = ? RETURNING id`,
        upload,
      );
      this.#sql.exec("DELETE FROM generations WHERE id = ?", upload);
      return Number(row?.["id"]);
    });
    return this.#same(id).length > 0 ? this.prove(id) : this.#one(id);
  }

  /** Hermes has run with it: it counts from now on, and others may go for it. */
  prove(id: number): Generation {
    return this.storage.transactionSync(() => {
      // The same bytes twice are no second generation.
      for (const same of this.#same(id)) this.#drop(same.id);
      return this.#count(id);
    });
  }

  /** Forgets an upload, unless it has been proved. */
  withdraw(id: number): void {
    if (this.#find("state IN ('unproved', 'offered') AND id = ?", id).length > 0) this.#drop(id);
  }

  async #take(
    stream: ReadableStream<Uint8Array>,
    meta: Origin,
    accept: (manifest: Manifest) => number | null,
    complete: () => Promise<void>,
  ): Promise<number> {
    const source = new ArchiveReader(stream);
    let id: number | null = null;
    try {
      const { manifest, line } = await source.manifest();
      const wanted = accept(manifest);
      if (manifest.bytes > this.cap) throw this.#tooLarge(manifest.bytes);
      id = this.#open(wanted, manifest, line, meta);
      const { bytes, sha256 } = await this.#fill(id, source);
      await complete();
      if (bytes !== manifest.bytes) throw new Error(`The archive has ${bytes} bytes, not ${manifest.bytes}.`);
      if (sha256 !== manifest.sha256) throw new Error("The archive's SHA-256 is not the one it announces.");
      return id;
    } catch (error) {
      await source.cancel(error);
      if (id !== null) this.#drop(id);
      throw error;
    }
  }

  /**
   * Reads a generation back: its first line, then its bytes, one row at a time.
   * @throws DamagedGeneration through the stream when a row is missing or of the wrong size.
   */
  read(id: number): ReadableStream<Uint8Array> {
    const [row] = this.#sql.exec<Row>(
      "SELECT manifest, bytes FROM generations WHERE id = ? AND state <> 'writing'",
      id,
    );
    if (row === undefined)
      throw new ApiError({ status: 404, code: "no_such_backup", message: `There is no backup ${id}.` });
    const total = Number(row["bytes"]);
    const body = this.#body(id, total);
    let first: Uint8Array | null = new TextEncoder().encode(`${String(row["manifest"])}\n`);
    const out: Uint8Array[] = [];
    let rows = 0;
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          if (first !== null) {
            controller.enqueue(first);
            first = null;
            return;
          }
          if (++rows % ROWS_IN_A_TURN === 0) await scheduler.wait(0);
          const { done, value } = body.next();
          if (done) return controller.close();
          out.push(value);
          if (out.length > BEHIND) letGo(out.shift());
          controller.enqueue(value);
        },
      },
      { highWaterMark: 0 },
    );
  }

  /**
   * Reads every row of a generation and compares.
   * @throws DamagedGeneration
   */
  async verify(id: number): Promise<void> {
    const [row] = this.#sql.exec<Row>("SELECT bytes, sha256 FROM generations WHERE id = ?", id);
    if (row === undefined) throw new DamagedGeneration(id, "its manifest is gone");
    const hash = new Sha256();
    let rows = 0;
    for (const chunk of this.#body(id, Number(row["bytes"]))) {
      await hash.update(chunk);
      letGo(chunk);
      if (++rows % ROWS_IN_A_TURN === 0) await scheduler.wait(0);
    }
    if ((await hash.hex()) !== row["sha256"])
      throw new DamagedGeneration(id, "its bytes are not those that were written");
  }

  /**
   * Whether all rows of a generation are there with their sizes; a look that reads no contents.
   * @throws DamagedGeneration
   */
  check(id: number): void {
    const [row] = this.#sql.exec<Row>(
      `SELECT g.bytes AS announced, COALESCE(SUM(LENGTH(c.data)), 0) AS stored
       FROM generations g LEFT JOIN chunks c ON c.generation = COALESCE(g.body, g.id)
       WHERE g.id = ? GROUP BY g.id`,
      id,
    );
    if (row === undefined || row["announced"] !== row["stored"])
      throw new DamagedGeneration(id, "some of its rows are missing or cut");
  }

  /** Marks a generation as damaged: it is restored only when no other is left, and it is then found to be good. */
  condemn(id: number, why: string): void {
    this.#sql.exec("UPDATE generations SET state = 'damaged', note = ? WHERE id = ?", why, id);
  }

  /** Takes that back. */
  acquit(id: number): void {
    this.#sql.exec(
      "UPDATE generations SET state = 'good', note = NULL WHERE id = ? AND state = 'damaged'",
      id,
    );
  }

  *#body(id: number, total: number): Generator<Uint8Array, undefined> {
    const body = this.#bodyOf(id);
    let seen = 0;
    for (let n = 0; seen < total; n++) {
      const [row] = this.#sql.exec<Row>("SELECT data FROM chunks WHERE generation = ? AND n = ?", body, n);
      if (row === undefined) throw new DamagedGeneration(id, `row ${n} is missing`);
      const data = new Uint8Array(row["data"] as ArrayBuffer);
      seen += data.byteLength;
      if (data.byteLength === 0 || seen > total)
        throw new DamagedGeneration(id, `row ${n} has the wrong size`);
      yield data;
    }
    return undefined;
  }

  #open(id: number | null, manifest: Manifest, line: string, meta: Origin): number {
    const [row] = this.#sql.exec<Row>(
      `INSERT INTO generations (id, boot, digest, sha256, bytes, created, reason, image, manifest, state)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'writing') RETURNING id`,
      id,
      manifest.boot,
      manifest.digest,
      manifest.sha256,
      manifest.bytes,
      this.time.now(),
      meta.reason,
      meta.image,
      line,
    );
    return Number(row?.["id"]);
  }

  async #fill(id: number, source: ArchiveReader): Promise<{ bytes: number; sha256: string }> {
    const hash = new Sha256();
    let bytes = 0;
    for (let n = 0; ; n++) {
      const data = await source.block(ROW);
      if (data === null) return { bytes, sha256: await hash.hex() };
      bytes += data.byteLength;
      if (bytes > this.cap) throw this.#tooLarge(bytes);
      await hash.update(data);
      this.#sql.exec("INSERT INTO chunks (generation, n, data) VALUES (?, ?, ?)", id, n, data);
      letGo(data);
    }
  }

  /** Makes a save count; it has all that Hermes knew, so nothing that was offered before is to replace it. */
  #seal(id: number): Generation {
    return this.storage.transactionSync(() => {
      for (const offered of this.#find("state = 'offered'")) this.#drop(offered.id);
      return this.#count(id);
    });
  }

  /** Makes a generation count, and only then lets older ones go; in a transaction. */
  #count(id: number): Generation {
    this.#sql.exec("UPDATE generations SET state = 'good' WHERE id = ?", id);
    this.#shed();
    return this.#one(id);
  }

  /** Good generations of the same bytes. */
  #same(id: number): Generation[] {
    const { sha256 } = this.#one(id);
    return this.good().filter((other) => other.id !== id && other.sha256 === sha256);
  }

  /** Lets go what is older than the newest three, but for one that is much larger than all of them. */
  #shed(): void {
    const all = this.list();
    const good = all.filter((generation) => generation.state === "good");
    const [kept, old] = [good.slice(0, KEPT), good.slice(KEPT)];
    const apart = this.#keptApart(kept, old);
    for (const one of old) if (one.id !== apart?.id) this.#drop(one.id);
    const isLongOver = ({ id }: Generation) => good.filter((newer) => newer.id > id).length > KEPT;
    for (const bad of all) if (bad.state === "damaged" && isLongOver(bad)) this.#drop(bad.id);
  }

  /** A memory that was emptied by mistake must not push out the one that was not. */
  #keptApart(kept: readonly Generation[], old: readonly Generation[]): Generation | null {
    const before = largest(old);
    if (before === null || !kept.every((newer) => isFraction(newer, before))) return null;
    // The oldest of the newest three is the one that followed it.
    const since = before.apart ?? kept.at(-1)?.created ?? this.time.now();
    if (this.time.now() - since > APART_FOR) return null;
    this.#sql.exec("UPDATE generations SET apart = ? WHERE id = ?", since, before.id);
    return before;
  }

  #find(where: string, ...bindings: SqlStorageValue[]): Generation[] {
    const rows = this.#sql.exec<Row>(
      `SELECT id, boot, digest, sha256, bytes, created, reason, image, state, note, apart FROM generations
       WHERE ${where} ORDER BY id DESC`,
      ...bindings,
    );
    return [...rows] as unknown as Generation[];
  }

  #one(id: number): Generation {
    const [found] = this.#find("id = ?", id);
    if (found === undefined) throw new Error(`Backup ${id} vanished.`);
    return found;
  }

  #bodyOf(id: number): number {
    const [row] = this.#sql.exec<Row>("SELECT COALESCE(body, id) AS body FROM generations WHERE id = ?", id);
    return Number(row?.["body"] ?? id);
  }

  #drop(id: number): void {
    this.#sql.exec("DELETE FROM chunks WHERE generation = ?", this.#bodyOf(id));
    this.#sql.exec("DELETE FROM generations WHERE id = ?", id);
  }

  #mustHaveColumn(name: string): void {
    const columns = [...this.#sql.exec<Row>("PRAGMA table_info(generations)")];
    if (!columns.some((column) => column["name"] === name))
      this.#sql.exec(`ALTER TABLE generations ADD COLUMN ${name} INTEGER`);
  }

  /** Removes what a save or an upload left that was cut off. */
  #collect(): void {
    this.#sql.exec("DELETE FROM generations WHERE state IN ('writing', 'unproved')");
    this.#sql.exec("DELETE FROM chunks WHERE generation NOT IN (SELECT COALESCE(body, id) FROM generations)");
  }

  #tooLarge(bytes: number): ApiError {
    const mb = (value: number) => `${Math.ceil(value / (1024 * 1024))} MB`;
    return new ApiError({
      status: 507,
      code: "state_too_large",
      message:
        `Hermes' state is ${mb(bytes)}, more than the ${mb(this.cap)} that a backup may have; the backups before ` +
        "it are kept. Remove old sessions or large files from its home, then save again.",
    });
  }
}

function largest(generations: readonly Generation[]): Generation | null {
  return generations.reduce<Generation | null>(
    (most, one) => (most === null || one.bytes > most.bytes ? one : most),
    null,
  );
}

function isFraction(now: Generation, before: Generation): boolean {
  return now.bytes * FRACTION < before.bytes;
}

/**
 * Gives up bytes of which nobody reads any more. What waits for the garbage collector counts: an isolate has 128 MB on
 * Cloudflare, and a large state leaves as much as itself behind. Bytes that are part of more are left alone.
 */
export function letGo(bytes: Uint8Array | undefined): void {
  if (bytes !== undefined && bytes.byteLength === bytes.buffer.byteLength)
    (bytes.buffer as ArrayBuffer).transfer(0);
}

/** SHA-256 over a stream, piece by piece. */
export class Sha256 {
  readonly #stream = new crypto.DigestStream("SHA-256");
  readonly #writer = this.#stream.getWriter();

  async update(chunk: Uint8Array): Promise<void> {
    await this.#writer.write(chunk);
  }

  async hex(): Promise<string> {
    await this.#writer.close();
    return [...new Uint8Array(await this.#stream.digest)]
      .map((byte) => byte.toString(16).padStart(2, "0"))
      .join("");
  }
}

/** Takes an archive apart: its first line, then blocks of a size that we choose. */
export class ArchiveReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #chunks: Uint8Array[] = [];
  #size = 0;
  #done = false;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /** @throws Error when the stream does not begin with the line of an archive. */
  async manifest(): Promise<{ manifest: Manifest; line: string }> {
    let searched = 0;
    for (;;) {
      const end = this.#chunks.at(-1)?.indexOf(10) ?? -1;
      if (end >= 0) {
        const bytes = this.#take(searched + end + 1);
        const line = new TextDecoder().decode(bytes).trimEnd();
        return { manifest: parseManifest(line), line };
      }
      searched = this.#size;
      if (searched > MANIFEST_LIMIT || !(await this.#more()))
        throw new Error("There is no archive in what was sent.");
    }
  }

  /** Up to `size` bytes; less only at the end; `null` when there are no more. */
  async block(size: number): Promise<Uint8Array | null> {
    while (this.#size < size && (await this.#more()));
    return this.#size === 0 ? null : this.#take(Math.min(size, this.#size));
  }

  async cancel(why: unknown): Promise<void> {
    await this.#reader.cancel(why).catch(() => undefined);
  }

  async #more(): Promise<boolean> {
    if (this.#done) return false;
    const { done, value } = await this.#reader.read();
    this.#done = done;
    if (done) return false;
    if (value.byteLength === 0) return this.#more();
    this.#chunks.push(value);
    this.#size += value.byteLength;
    return true;
  }

  #take(length: number): Uint8Array {
    const out = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const chunk = this.#chunks[0] as Uint8Array;
      const part = chunk.subarray(0, length - filled);
      out.set(part, filled);
      filled += part.byteLength;
      if (part.byteLength === chunk.byteLength) letGo(this.#chunks.shift());
      else this.#chunks[0] = chunk.subarray(part.byteLength);
    }
    this.#size -= filled;
    return out;
  }
}

/** @throws Error when the line is not that of an archive we understand. */
export function parseManifest(line: string): Manifest {
  const value = jsonOf(line);
  const sound =
    value?.format === 1 &&
    typeof value.boot === "string" &&
    typeof value.digest === "string" &&
    typeof value.sha256 === "string" &&
    /^[0-9a-f]{64}$/.test(value.sha256) &&
    Number.isSafeInteger(value.bytes) &&
    Number(value.bytes) >= 0;
  if (sound !== true)
    throw new Error(`The archive's first line is not understood: ${line.slice(0, LONGEST_QUOTE)}`);
  return value as Manifest;
}

function jsonOf(line: string): Partial<Manifest> | null {
  try {
    return JSON.parse(line) as Partial<Manifest> | null;
  } catch {
    return null;
  }
}
