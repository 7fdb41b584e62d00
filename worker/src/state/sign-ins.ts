// SPDX-License-Identifier: Apache-2.0
/**
 * The keys and sign-ins in Hermes' home, in this object's own SQLite and apart from its state: they outlive a sleep and
 * a restore, and no backup that leaves this object has them. Only the newest count, for those before them are used up.
 */
import { ArchiveReader, parseManifest, Sha256 } from "./vault.ts";

/** Digest of no keys and no sign-ins. */
const NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/** Most bytes of them; the sandbox knows this number as well. */
const CAP = 8 * 1024 * 1024;
const ROW = 128 * 1024;

/** What an object has of them. */
export class SignIns {
  readonly #storage: DurableObjectStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    // Row 0 is the archive's first line, the others its bytes.
    storage.sql.exec("CREATE TABLE IF NOT EXISTS sign_ins (n INTEGER PRIMARY KEY, data BLOB NOT NULL)");
  }

  /** Digest of what is kept; that of nothing when there never was anything. */
  get digest(): string {
    return this.#line === null ? NOTHING : parseManifest(this.#line).digest;
  }

  /** Whether there ever was anything. */
  get isKept(): boolean {
    return this.#line !== null;
  }

  /**
   * Puts an archive in the place of what was kept.
   * @param boot the boot that must have written it.
   * @param complete resolves when the producer has said that all went well.
   * @throws Error when it is not what its first line says; what was kept stays.
   */
  async write(
    stream: ReadableStream<Uint8Array>,
    boot: string,
    complete: () => Promise<void>,
  ): Promise<void> {
    const source = new ArchiveReader(stream);
    try {
      const { manifest, line } = await source.manifest();
      if (manifest.boot !== boot) throw new Error(`The sign-ins are of boot ${manifest.boot}, not ${boot}.`);
      if (manifest.bytes > CAP) throw new Error("There is more than sign-ins can be.");
      const rows: Uint8Array[] = [new TextEncoder().encode(`${line}\n`)];
      const hash = new Sha256();
      let bytes = 0;
      for (let data = await source.block(ROW); data !== null; data = await source.block(ROW)) {
        bytes += data.byteLength;
        if (bytes > manifest.bytes) break;
        await hash.update(data);
        rows.push(data);
      }
      await complete();
      if (bytes !== manifest.bytes || (await hash.hex()) !== manifest.sha256)
        throw new Error("The sign-ins are not what their first line announces.");
      this.#replace(rows);
    } catch (error) {
      await source.cancel(error);
      throw error;
    }
  }

  /** The archive as it was written. */
  read(): ReadableStream<Uint8Array> {
    const rows = this.#storage.sql.exec<{ data: ArrayBuffer }>("SELECT data FROM sign_ins ORDER BY n");
    return new Blob([...rows].map((row) => row.data)).stream();
  }

  /** Forgets them. */
  drop(): void {
    this.#replace([]);
  }

  get #line(): string | null {
    const [row] = this.#storage.sql.exec<{ data: ArrayBuffer }>("SELECT data FROM sign_ins WHERE n = 0");
    return row === undefined ? null : new TextDecoder().decode(row.data);
  }

  #replace(rows: readonly Uint8Array[]): void {
    const { sql } = this.#storage;
    this.#storage.transactionSync(() => {
      sql.exec("DELETE FROM sign_ins");
      rows.forEach((data, n) => {
        sql.exec("INSERT INTO sign_ins (n, data) VALUES (?, ?)", n, data);
      });
    });
  }
}
