// SPDX-License-Identifier: Apache-2.0
/**
 * Files whose bytes are kept here, in pieces: those that Hermes sends, until their platform took them, for Hermes may be
 * asleep by then; and those that came with a message whose platform keeps them for nobody. They go with their message, in
 * the same step.
 */
import type { Attachment, OutgoingFile } from "./channel.ts";

type Row = Record<string, SqlStorageValue>;

/** The shortest piece of a file that is kept, but for the last one, in bytes. */
const PIECE = 512 * 1024;

/** What comes of a file in pieces of any length, in such that are worth a row each. */
export async function* piecesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<ArrayBuffer> {
  let [chunks, length]: [Uint8Array[], number] = [[], 0];
  for await (const chunk of body) {
    chunks.push(chunk);
    length += chunk.byteLength;
    if (length < PIECE) continue;
    yield new Blob(chunks).arrayBuffer();
    [chunks, length] = [[], 0];
  }
  if (length > 0) yield new Blob(chunks).arrayBuffer();
}

/** How many bytes may be kept of what came with messages; what comes with more is dropped, and counted. */
const MOST_BYTES = 100 * 1024 * 1024;

/** What is left of a file when its message is gone, or is another one by now. */
const LEFT = `DELETE FROM inbox_pieces WHERE file IN
  (SELECT json_extract(value, '$.ref') FROM json_each(OLD.event, '$.files'))`;

/** The bytes of files, by names. To be made after the inbox. */
export class KeptFiles {
  readonly #sql: SqlStorage;

  constructor(storage: DurableObjectStorage) {
    this.#sql = storage.sql;
    this.#sql.exec(`
      CREATE TABLE IF NOT EXISTS inbox_pieces (
        file TEXT NOT NULL, piece INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (file, piece));
      CREATE TRIGGER IF NOT EXISTS inbox_pieces_done AFTER DELETE ON inbox_messages BEGIN ${LEFT}; END;
      CREATE TRIGGER IF NOT EXISTS inbox_pieces_changed AFTER UPDATE OF event ON inbox_messages BEGIN
        ${LEFT} AND file NOT IN (SELECT json_extract(value, '$.ref') FROM json_each(NEW.event, '$.files')); END;`);
  }

  /** Whether so many bytes may be kept besides what is. */
  hasRoom(size: number): boolean {
    const [row] = this.#sql.exec<Row>("SELECT TOTAL(LENGTH(bytes)) AS size FROM inbox_pieces");
    return Number(row?.["size"]) + size <= MOST_BYTES;
  }

  /** Keeps a file that is here already, in one step. */
  put(name: string, bytes: ArrayBuffer): void {
    // One that is empty is kept too.
    for (let at = 0; at === 0 || at < bytes.byteLength; at += PIECE)
      this.#insert(name, at / PIECE, bytes.slice(at, at + PIECE));
  }

  /** Whether a file is kept here. */
  has(name: string): boolean {
    return this.#sql.exec("SELECT 1 FROM inbox_pieces WHERE file = ? LIMIT 1", name).toArray().length > 0;
  }

  #insert(name: string, piece: number, bytes: ArrayBuffer): void {
    this.#sql.exec("INSERT INTO inbox_pieces VALUES (?, ?, ?)", name, piece, bytes);
  }

  /**
   * Keeps a file.
   * @param size how long it is, in bytes.
   * @throws Error when less or more comes; nothing of it is kept then.
   */
  async keep(name: string, size: number, pieces: AsyncIterable<ArrayBuffer>): Promise<void> {
    this.drop(name);
    let [piece, kept] = [0, 0];
    try {
      for await (const bytes of pieces) {
        kept += bytes.byteLength;
        if (kept > size) break;
        this.#insert(name, piece++, bytes);
      }
      if (kept !== size) throw new Error("a file is not as long as it was said to be");
    } catch (error) {
      this.drop(name);
      throw error;
    }
  }

  /** What of a file a platform, or Hermes, is sent. */
  opened({ ref, kind, name, mime, size = 0 }: Attachment): OutgoingFile {
    return { kind, name, mime, size, bytes: () => this.#read(ref) };
  }

  drop(name: string): void {
    this.#sql.exec("DELETE FROM inbox_pieces WHERE file = ?", name);
  }

  /** Drops what an earlier life of this object did not get to its end. */
  dropAllBut(names: readonly string[]): void {
    this.#sql.exec(
      "DELETE FROM inbox_pieces WHERE file NOT IN (SELECT value FROM json_each(?))",
      JSON.stringify(names),
    );
  }

  #read(name: string): ReadableStream<Uint8Array> {
    let piece = 0;
    return new ReadableStream<Uint8Array>(
      {
        pull: (reader) => {
          const [row] = this.#sql.exec<Row>(
            "SELECT bytes FROM inbox_pieces WHERE file = ? AND piece = ?",
            ...[name, piece++],
          );
          if (row === undefined) reader.close();
          else reader.enqueue(new Uint8Array(row["bytes"] as ArrayBuffer));
        },
      },
      { highWaterMark: 0 },
    );
  }
}
