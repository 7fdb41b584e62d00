// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { beforeEach, describe, expect, it } from "vitest";
import { digestOf } from "../src/base/digests.ts";
import { INACTIVITY_LIMIT } from "../src/sandbox/sandbox.ts";
import { anew, ask, chat, crash, instance, machine, refusal, said, until } from "./helpers.ts";

beforeEach(anew);

const state = async () =>
  (await (await ask("/api/instance/status")).json()) as Record<string, unknown> & {
    backups: { count: number };
  };
const post = async (what: string) => {
  const answer = await ask(`/api/instance/${what}`, { method: "POST" });
  // An answer nobody reads would keep the object busy.
  return new Response(await answer.arrayBuffer(), answer);
};

describe("a chat", () => {
  it("boots Hermes, restores empty, and answers", async () => {
    expect(await said(await chat("hello", "s"))).toBe("hello");
    const seen = await machine.look();
    expect(seen).toMatchObject({ starts: 1, restores: [{ empty: true }] });
    expect(seen.labels).toHaveProperty("boot");
    expect(await state()).toMatchObject({
      state: "awake",
      whyAwake: "/v1/chat/completions",
      gateway: "running",
      lastSave: null,
      running: { lastMonth: 0 },
      instanceType: null,
    });
  });

  it("is one boot for fifty at once", async () => {
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, n) => chat(`m${n}`, `s${n}`).then(said)),
    );
    expect(answers).toEqual(Array.from({ length: 50 }, (_, n) => `m${n}`));
    expect((await machine.look()).starts).toBe(1);
  });

  it("says which model spoke: the one asked for when it is configured, else the default", async () => {
    const ask = async (model: string) => {
      const answer = await chat("x", undefined, { model });
      await answer.body?.cancel();
      return answer.headers.get("x-hermes-model");
    };
    expect(await ask("openai/gpt-5-mini")).toBe("openai/gpt-5-mini");
    expect(await ask("gpt-4o")).toBe("anthropic/claude-sonnet-4-5");
  });

  it("passes a stream through chunk by chunk", async () => {
    const answer = await chat("abc", "s", { stream: true });
    expect(answer.headers.get("content-type")).toBe("text/event-stream");
    const text = await answer.text();
    expect(text.match(/^data: /gm)).toHaveLength(4);
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
  });

  it("keeps credentials and origins to itself, both ways", async () => {
    const answer = await ask("/v1/chat/completions", {
      method: "POST",
      headers: {
        origin: "https://evil.example",
        cookie: "hw_token=x",
        "cf-connecting-ip": "1.2.3.4",
        "x-forwarded-for": "1.2.3.4",
        "x-hermes-worker-model": "forged",
        "x-custom": "kept",
      },
      body: JSON.stringify({ messages: [{ role: "user", content: "x" }] }),
    });
    expect(answer.headers.get("server")).toBeNull();
    expect(answer.headers.get("x-hermes-extra")).toBe("kept");
    expect(answer.headers.get("x-hermes-model")).toBe("anthropic/claude-sonnet-4-5");
    await answer.body?.cancel();
    const headers = (await machine.look()).hermes.at(-1)?.headers ?? {};
    for (const name of ["origin", "cookie", "cf-connecting-ip", "x-forwarded-for", "x-hermes-worker-model"])
      expect(headers).not.toHaveProperty(name);
    expect(headers["x-custom"]).toBe("kept");
    expect(headers["authorization"]).not.toContain("correct-horse");
    expect(headers["x-request-id"]).toBe(answer.headers.get("x-request-id"));
  });

  it("passes other parts of the API untouched", async () => {
    const answer = await ask("/v1/responses/abc?after=3");
    expect(await answer.json()).toMatchObject({ path: "/v1/responses/abc?after=3" });
  });

  it("serves the turns of one session in order, and sessions side by side", async () => {
    await post("wake");
    await machine.set({ hold: true });
    const one: Promise<Response>[] = [];
    for (const [text, stream] of [
      ["a", false],
      ["b", false],
      ["c", true],
    ] as const) {
      one.push(chat(text, "one", { stream }));
      // Only what has arrived has an order.
      await until(async () => (await state())["requestsInFlight"] === one.length);
    }
    const two = chat("x", "two");
    await until(async () => (await machine.look()).busiest === 2);
    await machine.release();
    expect(await said(await (one[0] as Promise<Response>))).toBe("a");
    expect(await said(await (one[1] as Promise<Response>))).toBe("a | b");
    await (await (one[2] as Promise<Response>)).text();
    expect(await said(await two)).toBe("x");
    expect((await machine.look()).busiest).toBe(2);
    expect(await said(await chat("d", "one"))).toBe("a | b | c | d");
  });

  it("waits for a Hermes that restarts in place, and asks it again under one key", async () => {
    await post("wake");
    await machine.set({ draining: 2, cut: 1 });
    expect(await said(await chat("hello", "s"))).toBe("hello");
    const { starts, hermes } = await machine.look();
    expect(starts).toBe(1);
    const turns = hermes.filter(({ path }) => path === "/v1/chat/completions");
    expect(turns.length).toBeGreaterThan(2);
    expect(new Set(turns.map(({ headers }) => headers["idempotency-key"])).size).toBe(1);
  });

  it("boots again when the sandbox died, with the last saved state", async () => {
    await said(await chat("one", "s"));
    await post("backups");
    await machine.kill(137);
    await until(async () => (await state())["state"] === "asleep");
    expect(await state()).toMatchObject({ lastExit: { exitCode: 137 } });
    expect(await said(await chat("two", "s"))).toBe("one | two");
    expect((await machine.look()).restores.map((one) => one.empty)).toEqual([true, false]);
  });
});

describe("what goes wrong", () => {
  it("names the reason, the exit code and the log when Hermes does not start, and pauses", async () => {
    await machine.set({ dieAtGo: 7, logTail: "line\nImportError: no module named x" });
    const first = await refusal(await chat("x"));
    expect(first).toMatchObject({ status: 503, code: "boot_failed" });
    expect(first.message).toMatch(/exit code 7.*ImportError/s);
    const second = await chat("x");
    expect(Number(second.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await refusal(second)).toMatchObject({ status: 503, code: "boot_failed" });
    expect((await machine.look()).starts).toBe(1);
    expect(await state()).toMatchObject({ state: "asleep", lastError: { code: "boot_failed" } });
  });

  it("names a missing image and a full disk", async () => {
    await machine.set({ startFails: { status: 507, code: "disk_full", message: "no space left on /x" } });
    expect(await refusal(await chat("x"))).toMatchObject({ status: 503, code: "disk_full" });
  });
});

describe("operating it", () => {
  it("wakes, stops Hermes alone, and starts it again with the next chat", async () => {
    expect(await (await post("wake")).json()).toMatchObject({ state: "awake" });
    await said(await chat("one", "s"));
    await post("stop");
    expect(await state()).toMatchObject({ state: "awake", gateway: null });
    expect(await said(await chat("two", "s"))).toBe("one | two");
    expect(await machine.look()).toMatchObject({ starts: 1, gatewayRestarts: 1 });
  });

  it("saves before it stops Hermes alone, and does not stop over a state that could not be saved", async () => {
    await said(await chat("one", "s"));
    await machine.set({ commandFails: { save: { exitCode: 71, message: "state.db is malformed." } } });
    expect(await refusal(await post("stop"))).toMatchObject({ status: 503, code: "save_failed" });
    expect(await state()).toMatchObject({ gateway: "running", backups: { count: 0 } });
    await machine.set({ commandFails: {} });
    expect((await post("stop")).status).toBe(200);
    expect(await state()).toMatchObject({ gateway: null, backups: { count: 1 } });
  });

  it("gives each boot keys of its own", async () => {
    await post("wake");
    await post("restart");
    const keysOf = ({ env }: { env: Record<string, string> }) => [
      env["API_SERVER_KEY"],
      env["HERMES_PROVIDER_CAPABILITY"],
      env["HERMES_DASHBOARD_SESSION_TOKEN"],
    ];
    const keys = ((await machine.look()).goes as { env: Record<string, string> }[]).flatMap(keysOf);
    expect(new Set(keys).size).toBe(6);
    for (const key of keys) expect(key).toMatch(/^[0-9a-f]{64}$/);
  });

  it("restarts with the state carried over", async () => {
    await said(await chat("one", "s"));
    const before = (await state())["bootId"];
    expect((await post("restart")).status).toBe(200);
    expect((await state())["bootId"]).not.toBe(before);
    expect(await said(await chat("two", "s"))).toBe("one | two");
    expect(await machine.look()).toMatchObject({ starts: 2 });
  });

  it("does not restart over a state that could not be saved, unless forced", async () => {
    await said(await chat("one", "s"));
    await machine.set({ commandFails: { save: { exitCode: 73, message: "No space left on the disk." } } });
    const refused = await post("restart");
    expect(refused.status).toBeGreaterThanOrEqual(500);
    expect(await refusal(refused)).toMatchObject({ code: "disk_full" });
    expect(await state()).toMatchObject({ state: "awake" });
    expect(await said(await chat("two", "s"))).toBe("one | two");
    expect((await post("restart?force=true")).status).toBe(200);
    await machine.set({ commandFails: {} });
    expect(await said(await chat("three", "s"))).toBe("three");
  });

  it("restarts Hermes alone under the same boot", async () => {
    await said(await chat("one", "s"));
    const before = (await state())["bootId"];
    expect((await post("restart-gateway")).status).toBe(200);
    expect((await state())["bootId"]).toBe(before);
    const look = await machine.look();
    expect(look).toMatchObject({ starts: 1, gatewayRestarts: 1 });
    const keys = (look.goes as { env: Record<string, string> }[]).map((go) => go.env["API_SERVER_KEY"]);
    expect(new Set(keys).size, "a restarted Hermes has a new gateway key").toBe(2);
    expect(await said(await chat("two", "s"))).toBe("one | two");
  });

  it("cuts no turn for a new version: what is under way ends, what comes waits and is sent again", async () => {
    await post("wake");
    await machine.set({ hold: true });
    const first = chat("one", "s");
    await until(async () => (await machine.look()).busiest === 1);
    let isHeld = false;
    const held = post("hold").finally(() => {
      isHeld = true;
    });
    await until(async () => (await state())["state"] === "stopping");
    const second = chat("two", "s");
    await until(async () => (await state())["requestsInFlight"] === 2);
    expect(isHeld, "the first was waited for").toBe(false);
    await machine.release();
    expect(await said(await first)).toBe("one");
    expect((await held).status).toBe(200);
    expect((await machine.look()).busiest, "the second was held back").toBe(1);
    await crash();
    expect(await said(await second)).toBe("one | two");
  });

  it("is one stream for who was told to wait, though the object is started over meanwhile", async () => {
    await post("wake");
    await machine.set({ draining: Number.MAX_SAFE_INTEGER });
    const answer = await chat("one", "s", { stream: true });
    expect([...answer.headers.keys()].filter((name) => name.startsWith("x-hermes-worker-"))).toEqual([]);
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader?.read())?.value ?? "";
    expect(text).toMatch(/^: /);
    await crash();
    await machine.set({ draining: 0 });
    for (let read = await reader?.read(); read !== undefined && !read.done; read = await reader?.read())
      text += read.value;
    expect(text.match(/^data: /gm)).toHaveLength(4);
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    const turns = (await machine.look()).hermes.filter(({ path }) => path === "/v1/chat/completions");
    expect(new Set(turns.map(({ headers }) => headers["idempotency-key"])).size).toBe(1);
  });

  it("holds nothing back when a turn does not end", async () => {
    await post("wake");
    await machine.set({ hold: true });
    const slow = chat("one", "s");
    await until(async () => (await machine.look()).busiest === 1);
    expect(await refusal(await post("hold"))).toMatchObject({ status: 409, code: "busy" });
    await machine.release();
    expect(await said(await slow)).toBe("one");
  });

  it("keeps the gateway key when Hermes could not be restarted", async () => {
    await said(await chat("one", "s"));
    await machine.set({ commandFails: { "restart-gateway": { exitCode: 1, message: "Not now." } } });
    expect((await post("restart-gateway")).status).toBeGreaterThanOrEqual(500);
    await machine.set({ commandFails: {} });
    expect(await said(await chat("two", "s"))).toBe("one | two");
  });

  it("sleeps with a verified save and remembers", async () => {
    await said(await chat("one", "s"));
    const slept = (await (await post("sleep")).json()) as { state: string; backup: { bytes: number } };
    expect(slept).toMatchObject({ state: "asleep", backup: { state: "good" } });
    expect(await machine.look()).toMatchObject({ running: false });
    expect(await said(await chat("two", "s"))).toBe("one | two");
    expect(await state()).toMatchObject({ restored: { backup: 1, passedOver: [] } });
  });

  it("refuses to sleep over a turn that does not end", async () => {
    await post("wake");
    await machine.set({ hold: true });
    const slow = chat("one", "s");
    await until(async () => (await machine.look()).busiest === 1);
    expect(await refusal(await post("sleep"))).toMatchObject({ status: 409, code: "busy" });
    await machine.release();
    expect(await said(await slow)).toBe("one");
  });

  it("finds a running sandbox again after the object was restarted", async () => {
    await said(await chat("one", "s"));
    await crash();
    expect(await said(await chat("two", "s"))).toBe("one | two");
    // The platform's own limit went with the object that had set it.
    expect(await machine.look()).toMatchObject({
      starts: 1,
      inactivity: [INACTIVITY_LIMIT, INACTIVITY_LIMIT],
    });
    await machine.kill(1);
    await until(async () => (await state())["state"] === "asleep");
  });

  it("takes nobody else's sandbox for its own", async () => {
    await said(await chat("one", "s"));
    await post("backups");
    await runInDurableObject(instance(), (_, storage) => {
      const record = storage.storage.kv.get<Record<string, unknown>>("memory");
      storage.storage.kv.put("memory", { ...record, bootId: "another" });
    });
    await crash();
    expect(await said(await chat("two", "s"))).toBe("one | two");
    expect(await machine.look()).toMatchObject({ starts: 2 });
  });

  it("saves a turn when the alarm comes, and only when something changed", async () => {
    await said(await chat("one", "s"));
    await until(async () => (await state())["unsavedSince"] !== null);
    await runInDurableObject(instance(), (_, storage) => {
      const record = storage.storage.kv.get<Record<string, unknown>>("memory");
      storage.storage.kv.put("memory", { ...record, firstUnsaved: 1, lastUnsaved: 1 });
    });
    await crash();
    await chat("two", "s").then(said);
    // Overdue, so the alarm rings by itself.
    await until(async () => (await state())["backups"]["count"] > 0);
    await post("backups");
    const again = (await (await post("backups")).json()) as {
      unchanged: boolean;
    };
    expect(again.unchanged).toBe(true);
  });

  it("lists backups and hands one out", async () => {
    for (const text of ["a", "b", "c", "d", "e"]) {
      await said(await chat(text, "s"));
      expect((await post("backups")).status).toBe(200);
    }
    const { backups } = (await (await ask("/api/instance/backups")).json()) as { backups: { id: number }[] };
    expect(backups.map((backup) => backup.id)).toEqual([5, 4, 3]);
    const file = await (await ask("/api/instance/backups/5")).text();
    expect(file).toContain('"format":1');
    expect(await refusal(await ask("/api/instance/backups/99"))).toMatchObject({ code: "no_such_backup" });
  });

  it("puts a backup back that was kept elsewhere, and saves what was there before", async () => {
    await said(await chat("old", "s"));
    await post("backups");
    const kept = await (await ask("/api/instance/backups/1")).arrayBuffer();
    await said(await chat("new", "s"));
    const answer = await ask("/api/instance/backups", { method: "PUT", body: kept });
    expect(await answer.json()).toMatchObject({ state: "awake", backup: { id: 3, reason: "upload" } });
    expect(await said(await chat("again", "s"))).toBe("old | again");
    const before = await (await ask("/api/instance/backups/2")).arrayBuffer();
    expect((await ask("/api/instance/backups", { method: "PUT", body: before })).status).toBe(200);
    expect(await said(await chat("again", "s"))).toBe("old | new | again");
  });

  it("refuses an upload that is no whole backup, and stops nothing for it", async () => {
    await said(await chat("one", "s"));
    await post("backups");
    const kept = await (await ask("/api/instance/backups/1")).arrayBuffer();
    const flipped = new Uint8Array(kept.slice());
    flipped[flipped.length - 1] = (flipped.at(-1) as number) ^ 1;
    for (const body of ["", "garbage", "null\n", kept.slice(0, -1), flipped]) {
      const answer = await ask("/api/instance/backups", { method: "PUT", body });
      expect(await refusal(answer)).toMatchObject({ status: 400 });
    }
    expect((await machine.look()).destroys).toBe(0);
    expect(await said(await chat("two", "s"))).toBe("one | two");
  });

  it("says so when Hermes cannot be given the backup, and goes on with the state from before", async () => {
    await said(await chat("one", "s"));
    await post("backups");
    await post("sleep");
    const body = await archiveOf("whole, but nothing that Hermes wrote");
    const lost = await ask("/api/instance/backups", { method: "PUT", body });
    expect(await refusal(lost)).toMatchObject({ status: 422, code: "backup_not_restored" });
    expect(await said(await chat("two", "s"))).toBe("one | two");
  });

  it("shows logs without secrets", async () => {
    await post("wake");
    const text = await (await ask("/api/instance/logs")).text();
    expect(text).toContain("first line");
    expect(text).not.toContain("sk-abcdefghijklmnop");
    const key =
      ((await machine.look()).goes[0] as { env: Record<string, string> }).env["API_SERVER_KEY"] ?? "";
    expect(key).toHaveLength(64);
    expect(text).not.toContain(key);
    const followed = await (await ask("/api/instance/logs?follow")).text();
    expect(followed).toContain("first line");
    expect(followed).not.toContain(key);
  });

  it("tells what runs by its own word, asked once a boot", async () => {
    const told = async () => {
      const { hermesVersion, sqlite } = await state();
      return { hermesVersion, sqlite };
    };
    const unknown = { hermesVersion: null, sqlite: null };
    const fails = { commandFails: { status: { exitCode: 69, message: "Not now." } } };
    expect(await told()).toEqual(unknown);
    await post("wake");
    await machine.set(fails);
    expect(await told()).toEqual(unknown);
    await machine.set({ commandFails: {} });
    expect(await told()).toEqual({ hermesVersion: "0.19.0", sqlite: "3.50.4" });
    await machine.set(fails);
    expect(await told()).toEqual({ hermesVersion: "0.19.0", sqlite: "3.50.4" });
    // Of a sandbox that does not say how it is the log can be had all the same.
    expect(await (await ask("/api/instance/logs")).json()).toMatchObject({
      sandbox: null,
      processes: [],
      log: ["first line", expect.anything()],
    });
  });

  it("of a Hermes that sleeps has the state that was saved, and the log of its end", async () => {
    expect(await (await post("sleep")).json()).not.toHaveProperty("backup");
    expect(await (await post("backups")).json()).toEqual({ backup: null, unchanged: true });
    expect(await (await ask("/api/instance/logs")).json()).toMatchObject({ processes: [], log: [] });
    await said(await chat("one", "s"));
    expect(await (await post("sleep")).json()).toMatchObject({ state: "asleep", backup: { id: 1 } });
    expect(await (await post("backups")).json()).toMatchObject({ backup: { id: 1 }, unchanged: true });
    await machine.set({ dieAtGo: 71, logTail: "one\nno such model\n" });
    expect((await post("wake")).status).toBe(503);
    expect(await (await ask("/api/instance/logs")).json()).toMatchObject({ log: ["one", "no such model"] });
  });

  it("holds back for as long as it is asked to again, by whoever began", async () => {
    await post("wake");
    const { hold } = (await (await post("hold")).json()) as { hold: string };
    expect(await (await post(`hold?again=${hold}`)).json()).toEqual({ held: true, hold });
    expect(await (await post("hold?again=another")).json()).toMatchObject({ held: false });
  });

  it("tells of a state that shrank, and since when", async () => {
    const health = async () =>
      ((await (await ask("/api/health")).json()) as { stateShrank: object | null }).stateShrank;
    await machine.set({ ballast: 200_000 });
    await said(await chat("one", "s"));
    await post("backups");
    expect(await health()).toBeNull();
    await machine.set({ ballast: 0 });
    await said(await chat("two", "s"));
    await post("backups");
    expect(await health()).toMatchObject({
      since: expect.stringMatching(/^20/),
      before: { backup: 1, bytes: expect.any(Number) },
    });
  });

  it("tells of a state that is at risk, without the secrets of its reason", async () => {
    await said(await chat("one", "s"));
    const message = "No space for sk-abcdefghijklmnop.";
    await machine.set({ commandFails: { save: { exitCode: 73, message } } });
    await post("backups");
    await runInDurableObject(instance(), (_, storage) => {
      const record = storage.storage.kv.get("memory") as object;
      storage.storage.kv.put("memory", { ...record, firstUnsaved: 1, lastUnsaved: 1 });
    });
    await crash();
    const told = await (await ask("/api/health")).text();
    expect(JSON.parse(told)).toMatchObject({ stateAtRisk: { why: expect.stringContaining("No space") } });
    expect(told).not.toContain("sk-abcdefghijklmnop");
  });

  it("serves who says nothing of what let them in, as the release before did", async () => {
    await post("wake");
    const answer = await instance().fetch("http://instance/v1/models");
    expect(answer.status).toBe(200);
    await answer.body?.cancel();
  });

  it("carries a large state through rows and back", async () => {
    await machine.set({ ballast: 5_000_000 });
    await said(await chat("one", "s"));
    await post("sleep");
    expect(await said(await chat("two", "s"))).toBe("one | two");
    expect((await machine.look()).restores.at(-1)?.bytes).toBeGreaterThan(5_000_000);
  });
});

/** A backup that is whole, of any content. */
async function archiveOf(content: string): Promise<string> {
  const bytes = new Uint8Array(await digestOf(content));
  const digest = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const manifest = { format: 1, boot: "b", digest, sha256: digest, bytes: content.length };
  return `${JSON.stringify(manifest)}\n${content}`;
}
