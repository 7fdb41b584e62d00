// SPDX-License-Identifier: Apache-2.0
/**
 * Files that Hermes sends. Their bytes are kept here, in pieces, until their platform took them: Hermes may be asleep by
 * then. No more than one piece of one is in memory.
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

/** The bytes of files, by names. */
export class SentFiles {
  readonly #sql: SqlStorage;

  constructor(storage: DurableObjectStorage) {
    this.#sql = storage.sql;
    this.#sql.exec(`
      CREATE TABLE IF NOT EXISTS inbox_pieces (
        file TEXT NOT NULL, piece INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (file, piece))`);
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
        this.#sql.exec("INSERT INTO inbox_pieces VALUES (?, ?, ?)", name, piece++, bytes);
      }
      if (kept !== size) throw new Error("a file is not as long as it was said to be");
    } catch (error) {
      this.drop(name);
      throw error;
    }
  }

  /** What of a file a platform is sent. */
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
