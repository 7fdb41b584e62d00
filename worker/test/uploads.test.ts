// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { beforeEach, describe, expect, it } from "vitest";
import { digestOf, hex } from "../src/base/digests.ts";
import { Uploads } from "../src/state/uploads.ts";
import { anew, ask, chat, crash, env, instance, machine, refusal, said } from "./helpers.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const post = (path: string) => ask(`/api/instance/${path}`, { method: "POST" });
const sha256 = async (bytes: Uint8Array) => hex(await crypto.subtle.digest("SHA-256", bytes.slice()));
const OTHER = "0".repeat(64);
const OF_AN_X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

interface Cut {
  id: string;
  parts: Uint8Array[];
  at: string;
}

/** The newest backup, cut into so many parts. */
async function cut(count: number): Promise<Cut> {
  const { backups } = (await (await ask("/api/instance/backups")).json()) as { backups: { id: number }[] };
  const whole = new Uint8Array(await (await ask(`/api/instance/backups/${backups[0]?.id}`)).arrayBuffer());
  const size = Math.ceil(whole.byteLength / count);
  const parts = Array.from({ length: count }, (_, n) => whole.slice(n * size, (n + 1) * size));
  const id = await sha256(whole);
  return { id, parts, at: `/api/instance/backups/uploads/${id}` };
}

async function send({ parts, at }: Cut, n: number, body = parts[n] as Uint8Array): Promise<Response> {
  const query = `parts=${parts.length}&sha256=${await sha256(parts[n] as Uint8Array)}`;
  return ask(`${at}/${n}?${query}`, { method: "PUT", body: body.slice() });
}

async function missing({ parts, at }: Cut): Promise<number[]> {
  return ((await (await ask(`${at}?parts=${parts.length}`)).json()) as { missing: number[] }).missing;
}

/** Rows that are kept of uploads. */
const kept = () =>
  runInDurableObject(instance(), (_, { storage }) =>
    ["uploads", "upload_parts", "upload_rows"].map(
      (table) => [...storage.sql.exec(`SELECT COUNT(*) AS n FROM ${table}`)][0]?.["n"],
    ),
  );

describe("a backup in parts", () => {
  beforeEach(anew);

  async function remembered(): Promise<Cut> {
    await said(await chat("old", "s"));
    await post("backups");
    const whole = await cut(3);
    await said(await chat("new", "s"));
    return whole;
  }

  it("is put back once all of them are there, in whichever order they came, and leaves nothing", async () => {
    const backup = await remembered();
    expect(await missing(backup)).toEqual([0, 1, 2]);
    expect(await (await send(backup, 2)).json()).toEqual({ missing: [0, 1] });
    expect(await refusal(await ask(backup.at, { method: "POST" }))).toMatchObject({
      status: 409,
      code: "upload_incomplete",
    });
    for (const n of [0, 2, 1]) expect((await send(backup, n)).status).toBe(200);
    expect(await missing(backup)).toEqual([]);
    const answer = await ask(backup.at, { method: "POST" });
    expect(await answer.json()).toMatchObject({ state: "awake", backup: { reason: "upload" } });
    expect(await said(await chat("again", "s"))).toBe("old | again");
    expect(await kept()).toEqual([0, 0, 0]);
  });

  it("goes on after the object was started over, with what was not whole", async () => {
    const backup = await remembered();
    await send(backup, 1);
    const half = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(backup.parts[0]?.slice(0, 5) as Uint8Array),
    });
    const query = `parts=3&sha256=${OTHER}`;
    const cutOff = ask(`${backup.at}/0?${query}`, { method: "PUT", body: half });
    await scheduler.wait(50);
    await crash();
    expect((await cutOff).status).toBe(503);
    expect(await missing(backup)).toEqual([0, 2]);
    expect((await kept())[1]).toBe(1);
    for (const n of [0, 2]) await send(backup, n);
    expect((await ask(backup.at, { method: "POST" })).status).toBe(200);
    expect(await said(await chat("again", "s"))).toBe("old | again");
  });

  it("does not count a part of other bytes, and stops nothing for it", async () => {
    const backup = await remembered();
    const flipped = (backup.parts[0] as Uint8Array).map((byte) => byte ^ 1);
    expect(await refusal(await send(backup, 0, flipped))).toMatchObject({ status: 400, code: "bad_part" });
    expect(await refusal(await send(backup, 0, new Uint8Array(0)))).toMatchObject({ code: "bad_part" });
    expect(await missing(backup)).toEqual([0, 1, 2]);
    expect((await kept()).slice(1)).toEqual([0, 0]);
    expect((await machine.look()).destroys).toBe(0);
  });

  it("is forgotten when it is found to be no backup", async () => {
    await remembered();
    const garbage = new TextEncoder().encode("no backup");
    const id = await sha256(garbage);
    const false_ = { id, parts: [garbage], at: `/api/instance/backups/uploads/${id}` };
    await send(false_, 0);
    expect(await refusal(await ask(false_.at, { method: "POST" }))).toMatchObject({ code: "bad_backup" });
    expect(await missing(false_)).toEqual([0]);
    expect(await kept()).toEqual([0, 0, 0]);
  });

  it.each(["0", "0?parts=0", "0?parts=65", "0?parts=two", "2?parts=2", "0?parts=2&sha256=short"])(
    "is announced with sense, or nothing of it is begun: %s",
    async (part) => {
      const sum = part.includes("sha256") ? "" : `${part.includes("?") ? "&" : "?"}sha256=${OF_AN_X}`;
      const answer = await ask(`/api/instance/backups/uploads/${OTHER}/${part}${sum}`, {
        method: "PUT",
        body: "x",
      });
      expect(await refusal(answer)).toMatchObject({ status: 400, code: "bad_part" });
      expect(await kept()).toEqual([0, 0, 0]);
    },
  );
});

describe("what is kept of uploads", () => {
  let rooms = 0;
  const part = async (upload: string, n: number, content: string) => ({
    upload,
    parts: 2,
    n,
    sha256: hex(await digestOf(content)),
  });
  const streamOf = (content: string) => new Response(content).body as ReadableStream<Uint8Array>;
  const [one, two] = ["1".repeat(64), "2".repeat(64)];

  function withUploads(work: (uploads: Uploads, time: ManualTime) => Promise<void>): Promise<void> {
    const time = new ManualTime();
    return runInDurableObject(env.PLAIN.getByName(`uploads ${rooms++}`), (_, { storage }) =>
      work(new Uploads(storage, time, 100, 60_000), time),
    );
  }

  /** Parts and rows of parts that are kept. */
  function rows({ storage }: Uploads): unknown[] {
    const count = (table: string) => [...storage.sql.exec(`SELECT COUNT(*) AS n FROM ${table}`)][0]?.["n"];
    return [count("upload_parts"), count("upload_rows")];
  }

  it("is one of them; it gives way to another when nothing comes any more", async () => {
    await withUploads(async (uploads, time) => {
      await uploads.take(await part(one, 0, "a"), streamOf("a"));
      await expect(uploads.take(await part(two, 0, "b"), streamOf("b"))).rejects.toMatchObject({
        code: "busy",
      });
      time.jump(600_001);
      expect(await uploads.take(await part(two, 0, "b"), streamOf("b"))).toEqual([1]);
      expect(uploads.missing(one, 2)).toEqual([0, 1]);
      expect(rows(uploads)).toEqual([1, 1]);
    });
  });

  it("is under way for as long as one part takes, and gives way though the clock was set back", async () => {
    await withUploads(async (uploads, time) => {
      const slow = new ReadableStream<Uint8Array>(
        {
          pull(controller) {
            time.jump(900_000);
            controller.enqueue(new TextEncoder().encode("a"));
            controller.close();
          },
        },
        { highWaterMark: 0 },
      );
      await uploads.take(await part(one, 0, "a"), slow);
      await expect(uploads.take(await part(two, 0, "b"), streamOf("b"))).rejects.toMatchObject({
        code: "busy",
      });
      time.jump(-3600_000);
      expect(await uploads.take(await part(two, 0, "b"), streamOf("b"))).toEqual([1]);
    });
  });

  it("is of one cut: in another number of parts it begins anew", async () => {
    await withUploads(async (uploads) => {
      await uploads.take(await part(one, 0, "a"), streamOf("a"));
      expect(uploads.missing(one, 3)).toEqual([0, 1, 2]);
      await uploads.take({ ...(await part(one, 1, "b")), parts: 3 }, streamOf("b"));
      expect(uploads.missing(one, 3)).toEqual([0, 2]);
      expect(() => uploads.read(one)).toThrow("0, 2");
    });
  });

  it("is no more than a day old", async () => {
    await withUploads(async (uploads, time) => {
      await uploads.take(await part(one, 0, "a"), streamOf("a"));
      time.jump(23 * 3600_000);
      expect(new Uploads(uploads.storage, time).missing(one, 2)).toEqual([1]);
      time.jump(3600_001);
      expect(new Uploads(uploads.storage, time).missing(one, 2)).toEqual([0, 1]);
    });
  });

  it("is no larger than a backup, all parts together", async () => {
    await withUploads(async (uploads) => {
      const half = "x".repeat(40_000);
      await uploads.take(await part(one, 0, half), streamOf(half));
      await expect(uploads.take(await part(one, 1, half), streamOf(half))).rejects.toMatchObject({
        status: 507,
        code: "state_too_large",
      });
      expect(uploads.missing(one, 2)).toEqual([1]);
    });
  });

  it("has parts that are not too large, and reads no further in one that is", async () => {
    await withUploads(async (uploads) => {
      let read = 0;
      let left: unknown = null;
      const endless = new ReadableStream<Uint8Array>(
        {
          pull: (controller) => controller.enqueue(new Uint8Array(50_000).fill(++read)),
          cancel: (why) => {
            left = why;
          },
        },
        { highWaterMark: 0 },
      );
      const refused = { status: 413, code: "part_too_large" };
      await expect(uploads.take(await part(one, 0, "a"), endless)).rejects.toMatchObject(refused);
      expect(read).toBeLessThan(5);
      expect(left).toMatchObject(refused);
      expect(rows(uploads)).toEqual([0, 0]);
    });
  });

  it("counts a part that came twice once, in how large it is, too", async () => {
    await withUploads(async (uploads) => {
      const [most, rest] = ["x".repeat(40_000), "y".repeat(20_000)];
      for (let again = 0; again < 3; again++)
        expect(await uploads.take(await part(one, 0, most), streamOf(most))).toEqual([1]);
      expect(rows(uploads)).toEqual([1, 1]);
      expect(await uploads.take(await part(one, 1, rest), streamOf(rest))).toEqual([]);
    });
  });

  it("has each part in its place, whichever came last", async () => {
    await withUploads(async (uploads) => {
      await uploads.take(await part(one, 0, "a"), streamOf("a"));
      await uploads.take(await part(one, 0, "a"), streamOf("a"));
      await uploads.take(await part(one, 1, "b"), streamOf("b"));
      expect(await new Response(uploads.read(one)).text()).toBe("ab");
    });
  });
});
