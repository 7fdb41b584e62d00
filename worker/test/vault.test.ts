// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { DamagedGeneration, letGo, Vault } from "../src/state/vault.ts";
import { anew, ask, chat, crash, env } from "./helpers.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const META = { boot: "b", reason: "test", image: "i" };
const fine = async () => undefined;
let rooms = 0;

/** Runs with the storage of an object that nobody used before. */
function withStorage<T>(work: (storage: DurableObjectStorage) => Promise<T>): Promise<T> {
  const stub = env.PLAIN.getByName(`room ${rooms++}`);
  return runInDurableObject(stub, (_, state) => work(state.storage));
}

async function archive(content: Uint8Array, change: object = {}): Promise<ReadableStream<Uint8Array>> {
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", content as Uint8Array<ArrayBuffer>));
  const sha256 = [...sum].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const manifest = {
    format: 1,
    boot: "b",
    digest: `d-${sha256}`,
    sha256,
    bytes: content.byteLength,
    ...change,
  };
  const line = new TextEncoder().encode(`${JSON.stringify(manifest)}\n`);
  return streamOf([line.subarray(0, 10), line.subarray(10), ...cut(content, 300_000)]);
}

function cut(bytes: Uint8Array, size: number): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.byteLength / size) }, (_, n) =>
    bytes.subarray(n * size, (n + 1) * size),
  );
}

function streamOf(chunks: Uint8Array[], end?: Error): ReadableStream<Uint8Array> {
  const rest = [...chunks];
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const chunk = rest.shift();
      if (chunk !== undefined) controller.enqueue(chunk);
      else if (end !== undefined) controller.error(end);
      else controller.close();
    },
  });
}

function bytes(size: number, seed = 1): Uint8Array {
  const out = new Uint8Array(size);
  for (let at = 0, value = seed; at < size; at++) {
    value = (value * 1103515245 + 12345) & 0x7fffffff;
    out[at] = value >> 16;
  }
  return out;
}

async function restored(vault: Vault, id: number): Promise<Uint8Array> {
  const whole = new Uint8Array(await new Response(vault.read(id)).arrayBuffer());
  return whole.subarray(whole.indexOf(10) + 1);
}

describe("the vault", () => {
  it("gives back what it was given, over many rows", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      const content = bytes(3 * 1024 * 1024 + 17);
      const { id } = await vault.write(await archive(content), META, fine);
      const back = await restored(vault, id);
      expect(back.byteLength).toBe(content.byteLength);
      expect(crypto.subtle.timingSafeEqual(back, content)).toBe(true);
      await vault.verify(id);
      expect([...storage.sql.exec("SELECT count(*) AS n FROM chunks")][0]?.["n"]).toBe(25);
    });
  });

  it("tells what the newest state had to leave out", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      expect(vault.leftOut).toEqual([]);
      const leftOut = ["sessions/closed: no permission to read it"];
      await vault.write(await archive(bytes(10), { leftOut }), META, fine);
      expect(vault.leftOut).toEqual(leftOut);
      const { id } = await vault.write(await archive(bytes(10, 3), { leftOut: ["another"] }), META, fine);
      vault.condemn(id, "damaged by the test");
      expect(vault.leftOut).toEqual(leftOut);
      await vault.write(await archive(bytes(10, 2)), META, fine);
      expect(vault.leftOut).toEqual([]);
    });
  });

  it("keeps an empty state, too", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      const { id } = await vault.write(await archive(new Uint8Array(0)), META, fine);
      expect(await restored(vault, id)).toHaveLength(0);
      await vault.verify(id);
    });
  });

  it("keeps the last three and not a row more", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      for (let seed = 1; seed <= 5; seed++)
        await vault.write(await archive(bytes(2_000_000, seed)), META, fine);
      expect(vault.list().map((generation) => generation.id)).toEqual([5, 4, 3]);
      expect([...storage.sql.exec("SELECT DISTINCT generation FROM chunks ORDER BY 1")]).toEqual([
        { generation: 3 },
        { generation: 4 },
        { generation: 5 },
      ]);
    });
  });

  it.each([
    [
      "bytes that are not those announced",
      async () => archive(bytes(1000), { sha256: "0".repeat(64) }),
      fine,
    ],
    ["fewer bytes than announced", async () => archive(bytes(1000), { bytes: 1001 }), fine],
    ["more bytes than announced", async () => archive(bytes(1000), { bytes: 999 }), fine],
    ["another boot's archive", async () => archive(bytes(1000), { boot: "ghost" }), fine],
    ["another format", async () => archive(bytes(1000), { format: 2 }), fine],
    ["no archive at all", async () => streamOf([new TextEncoder().encode("Traceback ...\n")]), fine],
    ["an endless first line", async () => streamOf([bytes(100_000).fill(120)]), fine],
    ["nothing", async () => streamOf([]), fine],
    [
      "a producer that failed afterwards",
      async () => archive(bytes(1000)),
      async () => Promise.reject(new Error("exit 71")),
    ],
    [
      "a stream that was cut",
      async () => streamOf([new TextEncoder().encode('{"format":1')], new Error("cut")),
      fine,
    ],
  ])("stores nothing for %s, and keeps what there was", async (_, stream, complete) => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      await vault.write(await archive(bytes(10)), META, fine);
      await expect(vault.write(await stream(), META, complete)).rejects.toThrow();
      expect(vault.list().map((generation) => generation.id)).toEqual([1]);
      expect([...storage.sql.exec("SELECT count(*) AS n FROM chunks")][0]?.["n"]).toBe(1);
    });
  });

  it("reads no first line without an end", async () => {
    await withStorage(async (storage) => {
      let given = 0;
      const endless = new ReadableStream<Uint8Array>({
        pull(controller) {
          controller.enqueue(new Uint8Array(10_000).fill(120));
          if (++given === 1000) controller.close();
        },
      });
      await expect(new Vault(storage).write(endless, META, fine)).rejects.toThrow("no archive");
      expect(given).toBeLessThan(20);
    });
  });

  it("refuses a state above the cap, announced or not, with a sentence that helps", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage, undefined, 1_500_000);
      await vault.write(await archive(bytes(10)), META, fine);
      for (const change of [{}, { bytes: 10 }])
        await expect(vault.write(await archive(bytes(3_000_000), change), META, fine)).rejects.toMatchObject({
          code: "state_too_large",
          status: 507,
        });
      expect(vault.good().map((generation) => generation.id)).toEqual([1]);
    });
  });

  it.each([
    ["a changed row", "UPDATE chunks SET data = zeroblob(length(data)) WHERE n = 1", false],
    ["a missing row", "DELETE FROM chunks WHERE n = 1", true],
    ["a shortened row", "UPDATE chunks SET data = zeroblob(5) WHERE n = 2", true],
    ["an empty row", "UPDATE chunks SET data = zeroblob(0) WHERE n = 0", true],
    ["a row that is too long", "UPDATE chunks SET data = zeroblob(131072) WHERE n = 19", true],
  ])("notices %s", async (_, damage, isOfSizes) => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      const { id } = await vault.write(await archive(bytes(2_500_000)), META, fine);
      storage.sql.exec(damage);
      await expect(vault.verify(id)).rejects.toBeInstanceOf(DamagedGeneration);
      if (isOfSizes) {
        expect(() => vault.check(id)).toThrow(DamagedGeneration);
        await expect(restored(vault, id)).rejects.toBeInstanceOf(DamagedGeneration);
      } else vault.check(id);
      vault.condemn(id, "damaged by the test");
      expect(vault.good()).toEqual([]);
      expect(vault.hasHistory).toBe(true);
    });
  });

  it("lets a damaged generation go only when three newer ones are good", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      const { id } = await vault.write(await archive(bytes(10)), META, fine);
      vault.condemn(id, "x");
      for (let seed = 2; seed <= 4; seed++) await vault.write(await archive(bytes(10, seed)), META, fine);
      expect(vault.list().map((generation) => generation.state)).toEqual(["good", "good", "good", "damaged"]);
      await vault.write(await archive(bytes(10, 9)), META, fine);
      expect(vault.list().map((generation) => generation.id)).toEqual([5, 4, 3]);
    });
  });

  it("collects at the start what a cut save left", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      await vault.write(await archive(bytes(10)), META, fine);
      storage.sql.exec("INSERT INTO chunks (generation, n, data) VALUES (99, 0, x'00')");
      storage.sql.exec(
        "INSERT INTO generations (boot, digest, sha256, bytes, created, reason, image, manifest, state) VALUES ('b','d','s',1,1,'r','i','{}','writing')",
      );
      expect(() => vault.read(2)).toThrow("no backup 2");
      expect(new Vault(storage).list()).toHaveLength(1);
      expect([...storage.sql.exec("SELECT generation FROM chunks")]).toEqual([{ generation: 1 }]);
    });
  });
});

describe("bytes of which nobody reads any more", () => {
  it("are given up at once, but for those that are part of more", () => {
    const whole = new Uint8Array(8);
    letGo(whole.subarray(0, 4));
    expect(whole.byteLength).toBe(8);
    letGo(whole);
    expect(whole.byteLength).toBe(0);
  });
});

describe("a state that shrinks", () => {
  const days = 24 * 3600_000;
  const sizes = async (vault: Vault, ...all: number[]) => {
    for (const [seed, size] of all.entries())
      await vault.write(await archive(bytes(size, seed + size)), META, fine);
  };

  it("does not push out what it was, however often it is saved, and is told", async () => {
    await withStorage(async (storage) => {
      const time = new ManualTime();
      const vault = new Vault(storage, time);
      await sizes(vault, 90_000, 100_000);
      expect(vault.shrinkage).toBeNull();
      const since = time.now();
      await sizes(vault, 1000);
      expect(vault.shrinkage).toMatchObject({ from: { id: 2 }, now: { bytes: 1000 }, since });
      await time.pass(days);
      await sizes(vault, 1010, 1020, 1030, 1040);
      expect(vault.list().map(({ id }) => id)).toEqual([7, 6, 5, 2]);
      expect(vault.shrinkage).toMatchObject({ from: { id: 2, bytes: 100_000 }, now: { id: 7 }, since });
      await vault.verify(2);
      expect(new Vault(storage, time).list().map(({ id }) => id)).toEqual([7, 6, 5, 2]);
    });
  });

  it("is one that has less than half", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage, new ManualTime());
      await sizes(vault, 100_000, 50_000);
      expect(vault.shrinkage).toBeNull();
      await sizes(vault, 49_999);
      expect(vault.shrinkage).toMatchObject({ from: { bytes: 100_000 }, now: { bytes: 49_999 } });
    });
  });

  it("lets it go once it has grown again, or after a month", async () => {
    for (const later of [
      async (vault: Vault) => sizes(vault, 60_000),
      async (vault: Vault, time: ManualTime) => {
        await time.pass(31 * days);
        await sizes(vault, 1050);
      },
      async (vault: Vault, time: ManualTime) => {
        for (let week = 0; week < 5; week++) {
          await time.pass(7 * days);
          await sizes(vault, 1050 + week);
        }
      },
    ])
      await withStorage(async (storage) => {
        const time = new ManualTime();
        const vault = new Vault(storage, time);
        await sizes(vault, 100_000, 1010, 1020, 1030, 1040);
        expect(vault.list()).toHaveLength(4);
        await later(vault, time);
        expect(vault.list()).toHaveLength(3);
      });
  });
});

describe("an upload", () => {
  const kept = (vault: Vault) => vault.list().map(({ id }) => id);

  it("is in no list and takes nobody's place until it is proved", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      for (let seed = 1; seed <= 3; seed++) await vault.write(await archive(bytes(10, seed)), META, fine);
      for (let seed = 4; seed <= 8; seed++) {
        const { id } = vault.offer(await vault.upload(await archive(bytes(10, seed), { boot: "x" }), "i"));
        expect(kept(vault)).toEqual([3, 2, 1]);
        expect(vault.offered?.id).toBe(id);
        // A boot that had no trouble with it is no proof before Hermes has run with it.
        vault.acquit(id);
        expect(kept(vault)).toEqual([3, 2, 1]);
      }
      expect(vault.prove(vault.offered?.id ?? 0)).toMatchObject({ state: "good", reason: "upload" });
      expect(kept(vault)).toEqual([8, 3, 2]);
      expect(await restored(vault, 8)).toEqual(bytes(10, 8));
      await vault.verify(8);
      vault.check(8);
      expect(new Vault(storage).list()).toHaveLength(3);
      expect([...storage.sql.exec("SELECT count(*) AS n FROM chunks")][0]?.["n"]).toBe(3);
    });
  });

  it("that nobody offers is gone with the object, one that is offered is not", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      await vault.upload(await archive(bytes(10, 1)), "i");
      const { id } = vault.offer(await vault.upload(await archive(bytes(10, 2)), "i"));
      expect(new Vault(storage).offered?.id).toBe(id);
      expect([...storage.sql.exec("SELECT count(*) AS n FROM chunks")][0]?.["n"]).toBe(1);
      // What is saved has all that Hermes knew: nothing that was offered before it may take its place.
      await vault.write(await archive(bytes(10, 3)), META, fine);
      expect(vault.offered).toBeNull();
    });
  });

  it.each([
    ["is empty", { files: 0 }],
    ["holds another database", { files: 9, databases: ["kanban.db"] }],
  ])("that %s is refused", async (_, change) => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      await expect(vault.upload(await archive(bytes(10), change), "i")).rejects.toThrow("no memory");
      expect([...storage.sql.exec("SELECT count(*) AS n FROM chunks")][0]?.["n"]).toBe(0);
    });
  });

  it.each<[string, object]>([
    ["no format", { format: undefined }],
    ["a boot that is no text", { boot: 7 }],
    ["a digest that is no text", { digest: null }],
    ["a SHA-256 that is no text", { sha256: ["0".repeat(64)] }],
    ["a SHA-256 that is none", { sha256: "0".repeat(63) }],
    ["a size that is no number", { bytes: "10" }],
    ["a size that is no whole number", { bytes: 10.5 }],
    ["a size below nothing", { bytes: -1 }],
  ])("with %s in its first line is not understood, and leaves nothing", async (_, change) => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      await expect(vault.upload(await archive(bytes(10), change), "i")).rejects.toThrow("not understood");
      expect([...storage.sql.exec("SELECT id FROM generations")]).toEqual([]);
    });
  });

  it("of the same bytes as a good generation takes that one's place", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      for (let seed = 1; seed <= 3; seed++) await vault.write(await archive(bytes(10, seed)), META, fine);
      for (let again = 0; again < 3; again++)
        vault.offer(await vault.upload(await archive(bytes(10, 1), { boot: "x" }), "i"));
      expect(vault.good().map(({ sha256 }) => sha256)).toHaveLength(3);
      expect(kept(vault)).toEqual([6, 3, 2]);
      expect(vault.offered).toBeNull();
    });
  });

  it("works in a storage from before there were any", async () => {
    await withStorage(async (storage) => {
      const vault = new Vault(storage);
      await vault.write(await archive(bytes(10)), META, fine);
      storage.sql.exec("ALTER TABLE generations DROP COLUMN body");
      storage.sql.exec("ALTER TABLE generations DROP COLUMN apart");
      const again = new Vault(storage);
      expect(await restored(again, 1)).toEqual(bytes(10));
      again.prove(again.offer(await again.upload(await archive(bytes(10, 2)), "i")).id);
      expect(kept(again)).toEqual([2, 1]);
    });
  });
});

describe("the storage", () => {
  interface Told {
    storage: { id: string; since: string; backups: number; newestBackup: { id: number } | null };
  }
  const told = async (path: string) => ((await (await ask(path)).json()) as Told).storage;

  it("is known by a mark that outlives the object, and that an emptied one has not", async () => {
    await anew();
    expect((await chat("remember me")).status).toBe(200);
    expect((await ask("/api/instance/backups", { method: "POST" })).status).toBe(200);
    const before = await told("/api/health");
    expect(before).toMatchObject({ backups: 1, newestBackup: { id: 1 } });
    await crash();
    expect(await told("/api/health")).toEqual(before);
    expect(await told("/api/instance/status")).toEqual(before);
    await anew();
    const emptied = await told("/api/health");
    expect(emptied).toMatchObject({ backups: 0, newestBackup: null });
    expect(emptied.id).not.toBe(before.id);
  });
});
