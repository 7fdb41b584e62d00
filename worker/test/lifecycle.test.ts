// SPDX-License-Identifier: Apache-2.0

import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it, vi } from "vitest";
import { hex } from "../src/base/digests.ts";
import { ApiError } from "../src/base/errors.ts";
import { type Lasting, over } from "../src/base/lasting.ts";
import { Log, Redactor } from "../src/base/log.ts";
import { settingsOf } from "../src/config/settings.ts";
import { ChatTurns, TURN_HEADERS } from "../src/instance/chat-turns.ts";
import { DashboardProxy, PROXY_HEADERS } from "../src/instance/dashboard-proxy.ts";
import { DashboardSockets } from "../src/instance/dashboard-sockets.ts";
import { clientGone } from "../src/instance/leases.ts";
import { Lifecycle } from "../src/instance/lifecycle.ts";
import type { InstanceRecord } from "../src/instance/record.ts";
import { EngineError } from "../src/sandbox/sandbox.ts";
import { DamagedGeneration, Vault } from "../src/state/vault.ts";
import { env } from "./helpers.ts";
import { backupOf, ManualTime, MemorySandbox, settled } from "./stand-ins/sandbox.ts";

interface World {
  sandbox: MemorySandbox;
  time: ManualTime;
  vault: Vault;
  storage: DurableObjectStorage;
  life: Lifecycle;
  turns: ChatTurns;
  /** When the alarm is set for. */
  alarm: () => number | null;
  /** Lets time pass, and the alarm ring when it is due. */
  pass: (ms: number) => Promise<void>;
  /** A new object over the same storage, perhaps with other variables. */
  reborn: (forged?: Partial<InstanceRecord>, change?: Record<string, unknown>) => Lifecycle;
  turn: (text: string) => Promise<void>;
  /** Begins a turn, which goes on until it is left. */
  sit: () => Promise<{ leave: () => Promise<void> }>;
}

/** An agent that is declared to have these parts; its archive holds their names. */
async function declared(parts: Record<string, string>): Promise<Record<string, string>> {
  const archive = hex(await crypto.subtle.digest("SHA-256", archiveOf(parts)));
  return { HERMES_AGENT: JSON.stringify({ format: 1, archive, parts }) };
}

function archiveOf(parts: Readonly<Record<string, string>>): ArrayBuffer {
  return new TextEncoder().encode(JSON.stringify(parts)).buffer as ArrayBuffer;
}

/** Restores that end like this. */
function fails(sandbox: MemorySandbox, exitCode: number, stderr: string): void {
  sandbox.commands["restore"] = () => ({ exitCode, stderr });
}

function throws(sandbox: MemorySandbox, error: Error): void {
  sandbox.commands["restore"] = () => Promise.reject(error);
}

function dies(sandbox: MemorySandbox, exitCode: number): object {
  sandbox.die(exitCode);
  return {};
}

/** A command that nobody answers. */
function never(sandbox: MemorySandbox, command: string): void {
  sandbox.commands[command] = () => new Promise(() => undefined);
}

let rooms = 0;

/** A lifecycle with a sandbox in memory and a clock that stands still. */
function world(work: (world: World) => Promise<void>, change: Record<string, unknown> = {}): Promise<void> {
  return runInDurableObject(env.PLAIN.getByName(`life ${rooms++}`), async (_, state) => {
    const sandbox = new MemorySandbox();
    const time = new ManualTime();
    let settings = settingsOf({ ...env, ...change });
    const log = new Log(new Redactor());
    let kept: InstanceRecord | undefined;
    let alarm: number | null = null;
    const vault = new Vault(state.storage, time);
    const born = () =>
      new Lifecycle({
        settings,
        agentArchive: async () => archiveOf(settings.agent.parts),
        sandbox,
        vault,
        time,
        log,
        store: {
          get: () => structuredClone(kept),
          put: (record) => {
            kept = structuredClone(record);
          },
        },
        setAlarm: (at) => {
          alarm = at;
        },
        hold: () => undefined,
      });
    const w: World = {
      sandbox,
      time,
      vault,
      storage: state.storage,
      life: born(),
      turns: undefined as unknown as ChatTurns,
      alarm: () => alarm,
      pass: async (ms) => {
        const end = time.now() + ms;
        while (alarm !== null && alarm <= end) {
          await time.pass(Math.max(0, alarm - time.now()));
          alarm = null;
          const ringing = w.life.onAlarm();
          await time.pass(0);
          await ringing;
        }
        await time.pass(end - time.now());
      },
      reborn: (forged = {}, other = {}) => {
        if (kept !== undefined) Object.assign(kept, forged);
        settings = settingsOf({ ...env, ...change, ...other });
        w.life = born();
        return w.life;
      },
      sit: async () => {
        const end = Promise.withResolvers<void>();
        const turn = async () => ({ value: null, end: end.promise });
        const begun = await w.life.arrive(true, () => w.life.withSeat("turn", true, turn));
        const leave = () => {
          end.resolve();
          return begun.end.then(() => undefined);
        };
        return { leave };
      },
      turn: async (text) => {
        const { leave } = await w.sit();
        sandbox.state += text;
        await leave();
      },
    };
    w.turns = new ChatTurns({
      lifecycle: w.life,
      time,
      log,
      drainTimeout: settings.drainTimeout,
      finishesAlone: settings.finishesAlone,
    });
    await work(w);
  });
}

describe("booting", () => {
  it("fails with the reason and the log, pauses longer each time, and tries again", () =>
    world(async ({ sandbox, life, pass, time }) => {
      const go = sandbox.commands["go"];
      sandbox.commands["go"] = () => {
        sandbox.die(7);
        return {};
      };
      const boot = async () => {
        const error = life.wake("test").catch((why: unknown) => why);
        await time.pass(500);
        return (await error) as { code: string; message: string; retryAfter: number };
      };
      const first = await boot();
      expect(first).toMatchObject({ code: "boot_failed" });
      expect(first.message).toMatch(/exit code 7.*the log/s);
      expect(await boot()).toMatchObject({ code: "boot_failed" });
      expect(sandbox.starts).toHaveLength(1);
      await pass(1000);
      await boot();
      expect(sandbox.starts).toHaveLength(2);
      await pass(1000);
      await boot();
      expect(sandbox.starts).toHaveLength(2);
      await pass(1000);
      sandbox.commands["go"] = go as never;
      await boot();
      expect(life.record).toMatchObject({ state: "awake", bootFailures: 0, lastError: null });
    }));

  it("is tried at once when the clock was set back during the pause after one that failed", () =>
    world(async ({ sandbox, reborn, turn, pass, time }) => {
      const go = sandbox.commands["go"];
      sandbox.commands["go"] = () => ({ exitCode: 1, stderr: "not now" });
      for (let times = 0; times < 3; times++) {
        await expect(turn("a")).rejects.toMatchObject({ code: "go_failed" });
        await pass(times < 2 ? 4000 : 0);
      }
      sandbox.commands["go"] = go as never;
      time.jump(-7 * 3600_000);
      await pass(20 * 60_000);
      const life = reborn();
      await turn("b");
      expect(life.record).toMatchObject({ state: "awake", bootFailures: 0 });
    }));

  it("does not wait for a Hermes that never gets ready", () =>
    world(async ({ sandbox, life, time }) => {
      sandbox.healthy = false;
      const error = life.wake("test").catch((why: unknown) => why);
      await time.pass(100_000);
      expect(await error).toMatchObject({
        code: "boot_failed",
        message: expect.stringContaining("within 90 s"),
      });
      expect(sandbox.running).toBeNull();
      expect(time.timers).toBe(0);
    }));

  it("removes what runs there but is not ours", () =>
    world(async ({ sandbox, life }) => {
      await sandbox.start({ env: { HERMES_BOOT_ID: "ghost" }, labels: {}, enableInternet: true });
      await life.wake("test");
      expect(sandbox.destroys).toBe(1);
      expect(sandbox.running?.boot).toBe(life.record.bootId);
    }));

  it("falls back to the generation before a damaged one, and says so", () =>
    world(async ({ sandbox, life, vault, storage, turn }) => {
      await turn("one");
      await life.save("a");
      await turn(" two");
      await life.sleep();
      expect(vault.good().map((generation) => generation.id)).toEqual([2, 1]);
      storage.sql.exec("UPDATE chunks SET data = zeroblob(length(data)) WHERE generation = 2");
      await life.wake("test");
      expect(sandbox.state).toBe("one");
      expect(life.record.restored).toMatchObject({
        backup: 1,
        passedOver: [expect.stringContaining("backup 2")],
      });
      expect(vault.list().map((generation) => generation.state)).toEqual(["damaged", "good"]);
    }));

  it("puts the sign-ins of today back between the state and the start, whatever the state brought", () =>
    world(async ({ sandbox, life, storage, turn }) => {
      await turn("one");
      await life.sleep();
      const order: string[] = [];
      for (const name of ["restore", "restore-sign-ins", "go"]) {
        const command = sandbox.commands[name] ?? (() => ({}));
        sandbox.commands[name] = (stdin, words) => {
          order.push(name);
          return command(stdin, words);
        };
      }
      const kept = { format: 1, boot: "b", digest: "d", sha256: "0".repeat(64), bytes: 0 };
      const row = new TextEncoder().encode(`${JSON.stringify(kept)}\n`);
      storage.sql.exec("INSERT INTO sign_ins (n, data) VALUES (0, ?)", row);
      await life.wake("test");
      expect(order).toEqual(["restore", "restore-sign-ins", "go"]);
    }));

  it("falls back when the sandbox finds the archive damaged", () =>
    world(async ({ sandbox, life, vault, turn }) => {
      await turn("one");
      await life.save("a");
      await turn(" two");
      await life.sleep();
      const restore = sandbox.commands["restore"];
      sandbox.commands["restore"] = (stdin, words) =>
        stdin.endsWith("two")
          ? { exitCode: 71, stderr: "state.db: malformed" }
          : (restore?.(stdin, words) ?? {});
      await life.wake("test");
      expect(life.record.restored?.passedOver[0]).toContain("malformed");
      expect(vault.list()[0]).toMatchObject({ state: "damaged", note: "state.db: malformed" });
    }));

  it("stops instead of starting empty when no generation is good", () =>
    world(async ({ sandbox, life, storage, turn, time }) => {
      await turn("one");
      await life.sleep();
      storage.sql.exec("DELETE FROM chunks");
      const error = life.wake("test").catch((why: unknown) => why);
      await time.pass(1000);
      expect(await error).toMatchObject({ code: "no_good_backup" });
      expect(sandbox.running).toBeNull();
    }));

  it("blames no generation for a full disk", () =>
    world(async ({ sandbox, life, vault, turn, time }) => {
      await turn("one");
      await life.sleep();
      sandbox.commands["restore"] = () => ({ exitCode: 73, stderr: "The disk is full." });
      const error = life.wake("test").catch((why: unknown) => why);
      await time.pass(1000);
      expect(await error).toMatchObject({
        code: "restore_failed",
        message: expect.stringContaining("The disk is full"),
      });
      expect(vault.good()).toHaveLength(1);
    }));
});

describe("restoring", () => {
  /** Three saves, of which the newest is "one two three", and a Hermes that sleeps. */
  async function three({ life, turn }: World): Promise<void> {
    await turn("one");
    await life.save("a");
    await turn(" two");
    await life.save("b");
    await turn(" three");
    await life.sleep();
  }
  const woken = async ({ life, time }: World) => {
    const waking = life.wake("test").catch((why: unknown) => why);
    await time.pass(600_000);
    return (await waking) as { code: string } | undefined;
  };

  it.each<[string, (w: World) => void]>([
    ["no memory", ({ sandbox }) => fails(sandbox, 74, "There is not enough memory.")],
    ["a disk that errs", ({ sandbox }) => fails(sandbox, 1, "Input/output error: state.db.")],
    ["a killed command", ({ sandbox }) => fails(sandbox, 137, "")],
    ["an exit code that got lost", ({ sandbox }) => fails(sandbox, -1, "")],
    ["a cut connection", ({ sandbox }) => throws(sandbox, new Error("Network connection lost."))],
    ["a command that is never answered", ({ sandbox }) => never(sandbox, "restore")],
    [
      "a vault that cannot be read",
      ({ vault }) => {
        vault.verify = () => Promise.reject(new Error("disk I/O error: SQLITE_IOERR"));
      },
    ],
    [
      "a vault that cannot be read to its end",
      ({ vault, sandbox }) => {
        const broken = () => Promise.reject(new Error("disk I/O error: SQLITE_IOERR"));
        const verify = vault.verify.bind(vault);
        sandbox.commands["restore"] = () => {
          vault.verify = broken;
          return { exitCode: 70, stderr: "The archive is damaged: 99 bytes are missing." };
        };
        vault.verify = verify;
      },
    ],
  ])("blames no generation for %s, and a second try judges again", (_, spoil) =>
    world(async (w) => {
      const { sandbox, vault, life, pass } = w;
      await three(w);
      const restore = sandbox.commands["restore"];
      spoil(w);
      expect((await woken(w))?.code).not.toBe("no_good_backup");
      expect(life.record.state).toBe("asleep");
      expect(vault.list().map(({ state }) => state)).toEqual(["good", "good", "good"]);
      sandbox.commands["restore"] = restore as never;
      delete (vault as Partial<Vault>).verify;
      await pass(60_000);
      await woken(w);
      expect(sandbox.state).toBe("one two three");
    }),
  );

  it("passes over what the sandbox finds damaged once and again, and nothing else", () =>
    world(async (w) => {
      const { sandbox, vault } = w;
      await three(w);
      const restore = sandbox.commands["restore"];
      let calls = 0;
      sandbox.commands["restore"] = (stdin, words) =>
        calls++ === 0
          ? { exitCode: 71, stderr: "disk I/O error" }
          : (restore?.(stdin, words) as Record<string, never>);
      await woken(w);
      expect(sandbox.state).toBe("one two three");
      expect(vault.good()).toHaveLength(3);
    }));

  it("says that no backup is good for as long as that is so, and not for ever", () =>
    world(async (w) => {
      const { sandbox, vault, life, pass } = w;
      await three(w);
      const restore = sandbox.commands["restore"];
      fails(sandbox, 71, "state.db: disk I/O error");
      expect(await woken(w)).toMatchObject({ code: "no_good_backup" });
      await pass(60_000);
      expect(await woken(w)).toMatchObject({ code: "no_good_backup" });
      sandbox.commands["restore"] = restore as never;
      await pass(60_000);
      await woken(w);
      expect(sandbox.state).toBe("one two three");
      expect(life.record.restored).toMatchObject({ backup: 3 });
      expect(vault.list()[0]).toMatchObject({ state: "good", note: null });
    }));

  it.each([
    ["finds bad", { exitCode: 71, stderr: "state.db is malformed." }],
    ["has in place", {}],
  ])("is done by its own boot alone: what one that was lost %s changes nothing", (_, done) =>
    world(async (w) => {
      const { sandbox, vault, life, pass, time, turn } = w;
      await three(w);
      const restore = sandbox.commands["restore"];
      const late = Promise.withResolvers<void>();
      sandbox.commands["restore"] = () => late.promise.then(() => done);
      const lost = life.wake("test").catch((why: unknown) => why);
      await time.pass(500);
      sandbox.die(137);
      await time.pass(1000);
      sandbox.commands["restore"] = restore as never;
      await lost;
      await pass(10_000);
      await turn(" four");
      await life.sleep();
      await life.wake("test");
      const { restored, bootId } = life.record;
      expect(restored).toEqual({ backup: 4, snapshot: null, passedOver: [] });
      late.resolve();
      await time.pass(1000);
      expect(vault.list().map(({ state }) => state)).toEqual(["good", "good", "good"]);
      expect(life.record).toMatchObject({ state: "awake", restored, bootId });
    }),
  );
});

describe("a backup that is brought", () => {
  const brought = async ({ life, time }: World, state: string, change: object = {}) => {
    const putting = life.putBack(await backupOf(state, change)).catch((why: unknown) => why);
    await time.pass(1_200_000);
    return (await putting) as { code?: string; id?: number; message?: string };
  };
  /** Three saves, the newest of them "one two three". */
  async function three({ life, turn }: World): Promise<void> {
    await turn("one");
    await life.save("a");
    await turn(" two");
    await life.save("b");
    await turn(" three");
    await life.save("c");
  }
  /** Misbehaves with the backups that are bad. */
  function withBad(sandbox: MemorySandbox, command: string, does: () => Answer): void {
    const right = sandbox.commands[command];
    sandbox.commands[command] = (stdin, words) => {
      const isBad =
        command === "go" || command === "answer" ? sandbox.state.startsWith("bad") : /\nbad/.test(stdin);
      return isBad ? does() : (right?.(stdin, words) ?? {});
    };
  }
  type Answer = ReturnType<NonNullable<MemorySandbox["commands"][string]>>;

  it.each<[string, (sandbox: MemorySandbox) => void]>([
    ["is damaged", (it) => withBad(it, "restore", () => ({ exitCode: 70, stderr: "It is damaged." }))],
    ["is too large", (it) => withBad(it, "restore", () => ({ exitCode: 72, stderr: "It is too large." }))],
    [
      "cannot be unpacked",
      (it) => withBad(it, "restore", () => ({ exitCode: 1, stderr: "File name too long." })),
    ],
    ["eats all memory", (it) => withBad(it, "restore", () => ({ exitCode: 74, stderr: "No memory." }))],
    ["is never unpacked", (it) => withBad(it, "restore", () => new Promise(() => undefined))],
    ["kills its sandbox", (it) => withBad(it, "restore", () => dies(it, 137))],
    ["Hermes does not start with", (it) => withBad(it, "go", () => ({ exitCode: 1, stderr: "No Hermes." }))],
    ["Hermes dies of", (it) => withBad(it, "go", () => dies(it, 1))],
  ])("and %s pushes out nothing, however many come", (_, spoil) =>
    world(async (w) => {
      const { sandbox, life, vault } = w;
      await three(w);
      await life.sleep();
      const kept = vault.list();
      spoil(sandbox);
      for (let n = 1; n <= 4; n++) {
        expect(await brought(w, `bad ${n}`)).toMatchObject({
          code: "backup_not_restored",
          status: 422,
          message: expect.not.stringContaining("no reason was told"),
        });
        expect(sandbox.state).toBe("one two three");
        expect(vault.list()).toEqual(kept);
      }
      expect(await life.sleep()).toMatchObject({ unchanged: true });
      await life.wake("test");
      expect(sandbox.state).toBe("one two three");
    }),
  );

  it("is shown to the sandbox before anything is stopped", () =>
    world(async (w) => {
      const { sandbox, storage, life, vault } = w;
      await three(w);
      withBad(sandbox, "check", () => ({ exitCode: 70, stderr: "A name in it is too long." }));
      expect(await brought(w, "bad")).toMatchObject({
        code: "bad_backup",
        message: expect.stringContaining("A name in it is too long"),
      });
      expect(sandbox.destroys).toBe(0);
      expect(life.record.state).toBe("awake");
      expect(vault.list().map(({ id }) => id)).toEqual([3, 2, 1]);
      expect([...storage.sql.exec("SELECT DISTINCT generation FROM chunks")]).toHaveLength(3);
    }));

  it("cuts neither a turn nor a job that Hermes is at", () =>
    world(async (w) => {
      const { sandbox, life, time, vault } = w;
      await three(w);
      const { leave } = await w.sit();
      sandbox.cronRunning = 1;
      const putting = life.putBack(await backupOf("another"));
      await time.pass(1000);
      expect(sandbox.destroys).toBe(0);
      sandbox.state += " and a turn";
      await leave();
      await time.pass(1000);
      expect(sandbox.destroys).toBe(0);
      sandbox.state += " and a job";
      sandbox.cronRunning = 0;
      await time.pass(10_000);
      await putting;
      expect(sandbox.state).toBe("another");
      const before = vault.good()[1]?.id ?? 0;
      expect(await new Response(vault.read(before)).text()).toMatch(/ and a turn and a job$/);
    }));

  it("need not wait for the next attempt with one that Hermes does not start with", () =>
    world(async (w) => {
      const { sandbox, life, turn } = w;
      await turn("bad");
      await life.sleep();
      withBad(sandbox, "go", () => ({ exitCode: 1, stderr: "No Hermes." }));
      await expect(life.wake("test")).rejects.toThrow("did not start");
      await expect(life.wake("test")).rejects.toThrow("next attempt");
      expect(await life.putBack(await backupOf("another"))).toMatchObject({ state: "good" });
      expect(sandbox.state).toBe("another");
    }));

  it("and has the bytes of one that is kept is told as not restored when it is not", () =>
    world(async (w) => {
      const { sandbox, life, turn } = w;
      await three(w);
      await turn(" four");
      await life.sleep();
      const restore = sandbox.commands["restore"];
      sandbox.commands["restore"] = (stdin, words) =>
        /\none two three$/.test(stdin)
          ? { exitCode: 70, stderr: "It is damaged." }
          : (restore?.(stdin, words) ?? {});
      expect(await brought(w, "one two three")).toMatchObject({ code: "backup_not_restored" });
      expect(sandbox.state).toBe("one two three four");
    }));

  it.each([
    ["no state.db", "x", { databases: ["kanban.db"] }],
    ["nothing at all", "", { files: 0, databases: [] }],
  ])("with %s is refused", (_, state, change) =>
    world(async (w) => {
      await three(w);
      expect(await brought(w, state, change)).toMatchObject({ code: "bad_backup", status: 400 });
      expect(w.sandbox.destroys).toBe(0);
    }),
  );

  it("counts once Hermes has run with it, as the newest, and the state from before is behind it", () =>
    world(async (w) => {
      const { sandbox, life, vault, turn } = w;
      await three(w);
      await turn(" and more");
      expect(await brought(w, "another")).toMatchObject({ id: 5, state: "good" });
      expect(sandbox.state).toBe("another");
      expect(vault.list().map(({ id }) => id)).toEqual([5, 4, 3]);
      await life.sleep();
      await life.wake("test");
      expect(sandbox.state).toBe("another");
    }));

  it("is forgotten when the boot with it could not even begin", () =>
    world(async (w) => {
      const { sandbox, life } = w;
      await three(w);
      await life.sleep();
      const start = sandbox.start.bind(sandbox);
      const gone = { status: 503, code: "engine_unavailable", message: "No engine." };
      sandbox.start = () => Promise.reject(new ApiError(gone));
      expect(await brought(w, "another")).toMatchObject({ code: "engine_unavailable" });
      sandbox.start = start;
      await life.wake("test");
      expect(sandbox.state).toBe("one two three");
    }));

  it("does not replace what Hermes did with it when the object died before it knew of that", () =>
    world(async (w) => {
      const { sandbox, life, vault, reborn } = w;
      await three(w);
      await life.sleep();
      const offered = vault.offer(await vault.upload(await backupOf("another"), "image-1"));
      vault.prove = () => new Promise<never>(() => undefined) as never;
      await life.wake("restore");
      delete (vault as Partial<Vault>).prove;
      const other = reborn();
      await other.wake("again");
      sandbox.state += " and more";
      await other.save("request");
      expect(vault.offered).toBeNull();
      await other.restart(false);
      expect(sandbox.state).toBe("another and more");
      expect(vault.good()[0]?.id).toBeGreaterThan(offered.id);
    }));

  it("comes alone", () =>
    world(async (w) => {
      await three(w);
      const slow = new ReadableStream<Uint8Array>({}, { highWaterMark: 0 });
      void w.life.putBack(slow).catch(() => undefined);
      await expect(w.life.putBack(await backupOf("another"))).rejects.toMatchObject({ code: "busy" });
      // Whoever chats need not wait for it.
      await w.turn(" four");
      expect(w.sandbox.state).toBe("one two three four");
    }));
});

describe("a wait", () => {
  const orders: Record<string, (w: World) => Promise<unknown>> = {
    sleep: ({ life }) => life.sleep(),
    restart: ({ life }) => life.restart(false),
    force: ({ life }) => life.restart(true),
    gateway: ({ life }) => life.restartGateway(),
    stop: ({ life }) => life.stopGateway(),
    save: ({ life }) => life.save("request"),
    wake: async ({ life, sandbox }) => {
      sandbox.die(1);
      await settled();
      await life.wake("test");
    },
  };
  const calls = ["inspect", "start", "destroy", "setInactivityTimeout", "snapshotContainer"] as const;
  const commands = ["status", "restore", "go", "save", "restart-gateway", "stop-gateway"];
  const all = [...calls, ...commands].flatMap((what) => Object.keys(orders).map((order) => [what, order]));

  it.each(all)("for %s ends although it is never answered, when the order is: %s", (what = "", order = "") =>
    world(async (w) => {
      const { sandbox, life, turn, pass, time } = w;
      await turn("a");
      await life.save("before");
      const right = what in sandbox.commands ? sandbox.commands[what] : sandbox[what as "inspect"];
      if (what in sandbox.commands) never(sandbox, what);
      else sandbox[what as "inspect"] = () => new Promise(() => undefined);
      const ordered = orders[order]?.(w).catch((error: unknown) => error);
      await time.pass(1_800_000);
      await ordered;
      if (what in sandbox.commands) sandbox.commands[what] = right as never;
      else sandbox[what as "inspect"] = right as never;
      await pass(300_000);
      const chat = turn(" b");
      await time.pass(60_000);
      await chat;
      expect(sandbox.state).toBe("a b");
      expect(time.timers).toBe(0);
    }),
  );
});

describe("saving", () => {
  it("follows a turn's end by 5 s, the first one's by 60 s at most", () =>
    world(async ({ life, turn, pass, vault }) => {
      await turn("a");
      await pass(4900);
      expect(vault.list()).toHaveLength(0);
      await pass(200);
      expect(vault.list()).toHaveLength(1);
      expect(life.record.firstUnsaved).toBeNull();
      for (let n = 0; n < 14; n++) {
        await turn("b");
        await pass(4500);
      }
      expect(vault.list()).toHaveLength(2);
    }));

  it("follows the end of a turn that was saved while it lasted", () =>
    world(async ({ sit, sandbox, life, pass, vault }) => {
      const { leave } = await sit();
      sandbox.state = "begun";
      await life.save("request");
      sandbox.state = "begun and done";
      await leave();
      await pass(5100);
      const newest = vault.good()[0]?.id ?? 0;
      expect(await new Response(vault.read(newest)).text()).toMatch(/\nbegun and done$/);
    }));

  it("happens every 10 min of one long turn", () =>
    world(async ({ sit, sandbox, pass, vault }) => {
      const { leave } = await sit();
      for (let n = 0; n < 3; n++) {
        sandbox.state += "x";
        await pass(600_000);
      }
      expect(vault.list().length).toBeGreaterThanOrEqual(2);
      await leave();
    }));

  it("is one at a time; who asks meanwhile shares the next", () =>
    world(async ({ life, sandbox, turn }) => {
      await turn("a");
      const gate = Promise.withResolvers<void>();
      let saves = 0;
      sandbox.commands["save"] = async (_, words) => {
        if (saves++ === 0) await gate.promise;
        return sandbox.archive(words[words.indexOf("--unless") + 1]);
      };
      const asked = [life.save("1"), life.save("2"), life.save("3")];
      await settled();
      expect(saves).toBe(1);
      sandbox.state += "b";
      gate.resolve();
      const done = await Promise.all(asked);
      expect(saves).toBe(2);
      expect(done[1]).toBe(done[2]);
      // And so whenever one asks again.
      const running = life.save("4");
      sandbox.state += "c";
      const next = life.save("5");
      await Promise.all([running, next]);
      expect(saves).toBe(4);
    }));

  it("keeps a turn that ended during it for the next", () =>
    world(async ({ life, sandbox, turn, vault, pass }) => {
      await turn("a");
      const gate = Promise.withResolvers<void>();
      const save = sandbox.commands["save"];
      sandbox.commands["save"] = async () => {
        const archive = await sandbox.archive();
        await gate.promise;
        sandbox.commands["save"] = save as never;
        return archive;
      };
      const saving = life.save("1");
      await settled();
      await turn("b");
      gate.resolve();
      await saving;
      expect(life.record.firstUnsaved).not.toBeNull();
      await pass(6000);
      expect(await new Response(vault.read(vault.good()[0]?.id ?? 0)).text()).toMatch(/\nab$/);
    }));

  it("that fails for too long raises the alarm, until one is through", () =>
    world(async ({ life, sandbox, turn, pass, time }) => {
      const save = sandbox.commands["save"];
      const error = vi.spyOn(console, "error");
      const alarms = () => error.mock.calls.filter(([line]) => String(line).includes("state_at_risk")).length;
      sandbox.commands["save"] = () => ({ exitCode: 73, stderr: "The disk is full." });
      await turn("a");
      const since = time.now();
      await pass(800_000);
      expect(life.risk).toBeNull();
      expect(alarms()).toBe(0);
      await turn("b");
      await pass(500_000);
      expect(life.risk).toEqual({ since, why: expect.stringContaining("The disk is full") });
      // Every five minutes, however often a save fails meanwhile.
      expect(alarms()).toBe(2);
      sandbox.commands["save"] = save as never;
      await pass(300_000);
      expect(life.risk).toBeNull();
      error.mockRestore();
    }));

  it("that is never done raises it, too", () =>
    world(async ({ life, sandbox, turn, time }) => {
      await turn("a");
      sandbox.commands["save"] = () => new Promise(() => undefined);
      const saving = life.save("request").catch((why: unknown) => why);
      await time.pass(1_000_000);
      expect(await saving).toMatchObject({ code: "sandbox_silent" });
      expect(life.risk?.why).toContain("sandbox save");
    }));

  it("comes soon although the clock is set back, and what was saved is not taken for unsaved", () =>
    world(async ({ life, time, turn, pass, vault }) => {
      await turn("a");
      time.jump(-3600_000);
      await life.onAlarm();
      await pass(61_000);
      expect(await new Response(vault.read(vault.good()[0]?.id ?? 0)).text()).toMatch(/\na$/);
      time.jump(-3600_000);
      await life.onAlarm();
      expect(life.risk).toBeNull();
    }));

  it("comes soon although the clock was set back during a pause that was for something else", () =>
    world(async ({ life, sandbox, time, turn, pass, vault }) => {
      await turn("a");
      await pass(6000);
      // Whether it may sleep is not told, and asked again in a while.
      const { status } = sandbox.commands;
      sandbox.commands["status"] = () => ({ exitCode: 1, stderr: "not now" });
      await pass(4 * 3600_000);
      expect(life.record.notBefore).toBeGreaterThan(time.now());
      sandbox.commands["status"] = status as never;
      time.jump(-24 * 3600_000);
      await turn("b");
      await pass(61_000);
      expect(await new Response(vault.read(vault.good()[0]?.id ?? 0)).text()).toMatch(/\nab$/);
    }));

  it("is tried again after a failure, with pauses, and the trouble is told", () =>
    world(async ({ life, sandbox, turn, pass, vault }) => {
      const save = sandbox.commands["save"];
      sandbox.commands["save"] = () => ({ exitCode: 71, stderr: "state.db is malformed." });
      await turn("a");
      await pass(6000);
      expect(life.record.lastSaveError).toMatchObject({
        code: "save_failed",
        message: expect.stringContaining("malformed"),
      });
      sandbox.commands["save"] = save as never;
      await pass(6000);
      expect(vault.list()).toHaveLength(1);
      expect(life.record).toMatchObject({ lastSaveError: null, saveFailures: 0 });
    }));

  it("tells a full disk, and an engine that ran no command, as what they are", () =>
    world(async ({ life, sandbox, turn }) => {
      await turn("a");
      sandbox.commands["save"] = () => ({ exitCode: 73, stderr: "The disk is full." });
      await expect(life.save("request")).rejects.toMatchObject({ status: 503, code: "disk_full" });
      expect(life.record.lastSaveError).toMatchObject({ code: "disk_full" });
      sandbox.commands["save"] = () => ({ exitCode: 255, stdout: "OCI runtime exec failed: no space\n" });
      await expect(life.save("request")).rejects.toMatchObject({
        status: 503,
        code: "save_failed",
        message: expect.stringContaining("OCI runtime exec failed"),
      });
    }));

  it("does not trust 'unchanged' over a damaged generation", () =>
    world(async ({ life, storage, turn, vault }) => {
      await turn("a");
      await life.save("1");
      storage.sql.exec("DELETE FROM chunks");
      const again = await life.save("2");
      expect(again?.unchanged).toBe(false);
      expect(vault.list().map((generation) => generation.state)).toEqual(["good", "damaged"]);
    }));

  it("reads a save back before a sleep, and replaces a damaged one", () =>
    world(async ({ life, sandbox, storage, turn, vault }) => {
      await turn("a");
      await life.save("1");
      storage.sql.exec("UPDATE chunks SET data = zeroblob(length(data))");
      await life.sleep();
      expect(vault.list().map((generation) => generation.state)).toEqual(["good", "damaged"]);
      await life.wake("test");
      expect(sandbox.state).toBe("a");
    }));

  it.each<[string, (id: number) => Error, string[]]>([
    ["is damaged twice", (id) => new DamagedGeneration(id, "the disk lies"), ["good", "damaged"]],
    ["cannot be read at this moment", () => new Error("disk I/O error"), ["good"]],
  ])("that %s when it is read back ends nothing", (_, why, states) =>
    world(async ({ life, sandbox, turn, vault }) => {
      await turn("a");
      vault.verify = (id) => Promise.reject(why(id));
      await expect(life.sleep()).rejects.toThrow(/disk/);
      expect(sandbox).toMatchObject({ destroys: 0, state: "a" });
      expect(life.record.state).toBe("awake");
      expect(vault.list().map(({ state }) => state)).toEqual(states);
    }),
  );

  it("remembers over a crash of the object that a turn is unsaved", () =>
    world(async ({ sit, reborn, pass, vault, sandbox }) => {
      await sit();
      sandbox.state += "a";
      const other = reborn();
      await other.wake("again");
      expect(sandbox.starts).toHaveLength(1);
      await pass(61_000);
      expect(vault.list()).toHaveLength(1);
    }));
});

describe("sleeping", () => {
  const HOUR = 3600_000;

  it("comes after the idle time, with the state saved, and leaves no timer", () =>
    world(async ({ life, sandbox, turn, pass, alarm, vault }) => {
      await turn("a");
      await pass(4 * HOUR + 1000);
      expect(life.record.state).toBe("asleep");
      expect(sandbox.running).toBeNull();
      expect(vault.list()).toHaveLength(1);
      expect(alarm()).toBeNull();
      await life.wake("test");
      expect(sandbox.state).toBe("a");
    }));

  it("waits for a person of whom no request tells", () =>
    world(async ({ life, turn, pass }) => {
      await turn("a");
      await pass(3 * HOUR);
      life.touch();
      await pass(3 * HOUR);
      expect(life.record.state).toBe("awake");
      await pass(2 * HOUR);
      expect(life.record.state).toBe("asleep");
    }));

  it("keeps what Hermes did by itself while nobody asked", () =>
    world(async ({ life, sandbox, turn, pass }) => {
      await turn("a");
      await pass(HOUR);
      sandbox.state += " and a job";
      await pass(4 * HOUR);
      expect(life.record.state).toBe("asleep");
      await life.wake("test");
      expect(sandbox.state).toBe("a and a job");
    }));

  it("ends what is counted as running, from the start of the boot", () =>
    world(async ({ life, turn, pass }) => {
      await turn("a");
      expect(life.record.runningSince).not.toBeNull();
      await pass(5 * HOUR);
      const counted = life.record.meter.month;
      expect(counted).toBeGreaterThanOrEqual(4 * HOUR);
      expect(counted).toBeLessThan(5 * HOUR);
      await pass(5 * HOUR);
      expect(life.record).toMatchObject({ runningSince: null, meter: { month: counted } });
    }));

  it("is put off by activity", () =>
    world(async ({ life, turn, pass }) => {
      await turn("a");
      await pass(3 * HOUR);
      await turn("b");
      await pass(3 * HOUR);
      expect(life.record.state).toBe("awake");
    }));

  it("is counted from the end of an answer, not from its beginning", () =>
    world(async ({ life, sit, pass }) => {
      const { leave } = await sit();
      await pass(3 * HOUR);
      await leave();
      await pass(3 * HOUR);
      expect(life.record.state).toBe("awake");
      await pass(HOUR);
      expect(life.record.state).toBe("asleep");
    }));

  it("is called off by a request that comes while it saves", () =>
    world(async ({ life, sandbox, turn, pass, time }) => {
      await turn("a");
      await pass(10_000);
      await time.pass(4 * HOUR);
      const gate = Promise.withResolvers<void>();
      const save = sandbox.commands["save"];
      sandbox.commands["save"] = async (stdin, words) => {
        await gate.promise;
        return save?.(stdin, words) ?? {};
      };
      const ringing = life.onAlarm();
      await settled();
      expect(life.record.state).toBe("saving");
      await turn("b");
      gate.resolve();
      await ringing;
      expect(life.record.state).toBe("awake");
      expect(sandbox.running).not.toBeNull();
    }));

  it("keeps Hermes' appointments", () =>
    world(async ({ life, sandbox, turn, pass, time, alarm }) => {
      await turn("a");
      const job = time.now() + 10 * HOUR;
      sandbox.nextCron = job / 1000;
      await pass(4 * HOUR + 1000);
      expect(life.record.state).toBe("asleep");
      expect(alarm()).toBe(job);
      sandbox.cronRunning = 1;
      await pass(job - time.now() + 100);
      expect(life.record).toMatchObject({ state: "awake", whyAwake: "cron" });
      await pass(300_000);
      expect(life.record.state).toBe("awake");
      sandbox.cronRunning = 0;
      sandbox.nextCron = null;
      await pass(60_000);
      expect(life.record.state).toBe("asleep");
      expect(sandbox.starts).toHaveLength(2);
    }));

  it("waits for a job that is due soon", () =>
    world(async ({ life, sandbox, turn, pass, time }) => {
      await turn("a");
      sandbox.nextCron = (time.now() + 4 * HOUR + 30_000) / 1000;
      await pass(4 * HOUR + 20_000);
      expect(life.record.state).toBe("awake");
      sandbox.nextCron = null;
      await pass(120_000);
      expect(life.record.state).toBe("asleep");
    }));

  it("does not happen over a failing save", () =>
    world(async ({ life, sandbox, turn, pass }) => {
      await turn("a");
      sandbox.commands["save"] = () => ({ exitCode: 73, stderr: "The disk is full." });
      await pass(5 * HOUR);
      expect(life.record).toMatchObject({ state: "awake", lastSaveError: { code: "disk_full" } });
      await expect(life.sleep()).rejects.toMatchObject({ code: "disk_full" });
      expect(sandbox.running).not.toBeNull();
    }));
});

describe("holding back", () => {
  const served = (life: Lifecycle) => {
    let isServed = false;
    const turn = async () => ({ value: null, end: Promise.resolve() });
    void life
      .arrive(true, () => life.withSeat("turn", true, turn))
      .then(() => {
        isServed = true;
      });
    return () => isServed;
  };

  it("goes on for as long as a slow upload asks for it, and ends by itself when nobody does", () =>
    world(async ({ life, time }) => {
      await life.wake("test");
      const hold = await life.hold();
      const isServed = served(life);
      for (let round = 0; round < 20; round++) {
        await time.pass(29_000);
        expect(isServed()).toBe(false);
        expect(life.holdOn(hold)).toBe(true);
      }
      await time.pass(29_000);
      expect(isServed()).toBe(false);
      await time.pass(1000);
      expect(isServed()).toBe(true);
      expect(life.holdOn(hold), "it is over").toBe(false);
      expect(time.timers).toBe(0);
    }));

  it("is not gone on with by an object that was started over, nor by another name", () =>
    world(async ({ life, time, reborn }) => {
      await life.wake("test");
      const hold = await life.hold();
      expect(life.holdOn("another")).toBe(false);
      const next = reborn();
      expect(next.holdOn(hold)).toBe(false);
      await next.reattach();
      const isServed = served(next);
      await time.pass(0);
      expect(isServed()).toBe(true);
    }));
});

describe("a sleep that is ordered", () => {
  it("cuts no turn that outlasts the wait for it, unless it is forced", () =>
    world(async ({ sandbox, life, time, sit }) => {
      const { leave } = await sit();
      const refused = life.sleep().catch((why: unknown) => why);
      await time.pass(3000);
      expect(await refused).toMatchObject({ status: 409, code: "busy" });
      expect(sandbox).toMatchObject({ destroys: 0 });
      const forced = life.sleep(true);
      await time.pass(3000);
      await forced;
      expect(sandbox.running).toBeNull();
      await leave();
    }));
});

describe("a restart", () => {
  it("cuts no turn that outlasts the wait for it, unless it is forced", () =>
    world(async ({ sandbox, life, time, sit }) => {
      const { leave } = await sit();
      const refused = life.restart(false).catch((why: unknown) => why);
      await time.pass(3000);
      expect(await refused).toMatchObject({ status: 409, code: "busy" });
      expect(life.record.state).toBe("awake");
      expect(sandbox).toMatchObject({ destroys: 0 });
      const forced = life.restart(true);
      await time.pass(3000);
      await forced;
      expect(sandbox.starts).toHaveLength(2);
      await leave();
    }));

  it("loses nothing that cannot be saved, unless it is forced", () =>
    world(async ({ sandbox, life, turn }) => {
      await turn("a");
      await life.save("request");
      await turn(" and more");
      const { save } = sandbox.commands;
      sandbox.commands["save"] = () => ({ exitCode: 73, stderr: "The disk is full." });
      await expect(life.restart(false)).rejects.toMatchObject({ code: "disk_full" });
      expect(sandbox).toMatchObject({ destroys: 0, state: "a and more" });
      await life.restart(true);
      if (save !== undefined) sandbox.commands["save"] = save;
      expect(sandbox).toMatchObject({ destroys: 1, state: "a" });
    }));

  it("need not wait for the next attempt", () =>
    world(async ({ sandbox, life, turn }) => {
      await turn("a");
      await life.sleep();
      const { go } = sandbox.commands;
      sandbox.commands["go"] = () => ({ exitCode: 1, stderr: "No Hermes." });
      await expect(life.wake("test")).rejects.toThrow("did not start");
      if (go !== undefined) sandbox.commands["go"] = go;
      await expect(life.wake("test")).rejects.toThrow("next attempt");
      await life.restart(false);
      expect(life.record.state).toBe("awake");
    }));
});

describe("snapshots", () => {
  /** Lets the sandbox take snapshots and start from them. */
  function snapshots(sandbox: MemorySandbox) {
    const kept = new Map<string, string>();
    sandbox.snapshotContainer = async () => {
      const id = `snap-${kept.size + 1}`;
      kept.set(id, sandbox.state);
      return { id, size: 1 };
    };
    const start = sandbox.start.bind(sandbox);
    sandbox.start = async (options) => {
      const { containerSnapshot } = options;
      if (containerSnapshot !== undefined && !kept.has(containerSnapshot.id))
        throw new EngineError(404, "snapshot_not_found", "There is no such snapshot.");
      await start(options);
      sandbox.state = kept.get(containerSnapshot?.id ?? "") ?? "";
    };
    const restore = sandbox.commands["restore"];
    sandbox.commands["restore"] = (stdin, words) =>
      words.includes("--keep") ? {} : (restore?.(stdin, words) ?? {});
    return kept;
  }
  const gone = (kept: Map<string, string>) => {
    kept.clear();
    return {};
  };
  const starts = (sandbox: MemorySandbox) =>
    sandbox.starts.map((one) => one.containerSnapshot?.id ?? one.image);

  it("are taken before a sleep and preferred at the next wake", () =>
    world(async ({ sandbox, life, turn }) => {
      snapshots(sandbox);
      await turn("a");
      await life.sleep();
      await life.wake("test");
      expect(starts(sandbox)).toEqual(["image-1", "snap-1"]);
      expect(sandbox.state).toBe("a");
      expect(life.record.restored).toEqual({ backup: 1, snapshot: "snap-1", passedOver: [] });
      expect(life.record.snapshot).toMatchObject({ image: "image-1", depth: 1 });
      await life.sleep();
      expect(life.record.snapshot).toMatchObject({ id: "snap-2", depth: 2 });
    }));

  it("are not used when something came while they were taken", () =>
    world(async ({ sandbox, life, turn, pass, time }) => {
      snapshots(sandbox);
      await turn("a");
      await pass(10_000);
      await time.pass(4 * 3600_000);
      const taken = Promise.withResolvers<{ id: string; size: number }>();
      sandbox.snapshotContainer = () => taken.promise;
      const ringing = life.onAlarm();
      await settled();
      await turn("b");
      taken.resolve({ id: "snap-1", size: 1 });
      await ringing;
      expect(life.record).toMatchObject({ state: "awake", snapshot: null });
    }));

  it.each<[string, (kept: Map<string, string>, w: World) => Partial<InstanceRecord>, RegExp]>([
    ["is gone", gone, /no such snapshot/],
    ["is of another image", (_, w) => changed(w, { image: "other" }), /another image/],
    ["is older than the newest backup", (_, w) => changed(w, { digest: "x" }), /later state/],
    ["lies on too many others", (_, w) => changed(w, { depth: 51 }), /lie on each other/],
    ["is about to expire", (_, w) => changed(w, { renewed: w.time.now() - 30 * 24 * 3600_000 }), /29 days/],
  ])("are passed over when the newest %s, and the vault serves", (_, spoil, why) =>
    world(async (w) => {
      const kept = snapshots(w.sandbox);
      await w.turn("a");
      await w.life.sleep();
      const life = w.reborn(spoil(kept, w));
      await life.wake("test");
      expect(starts(w.sandbox).at(-1)).toBe("image-1");
      expect(w.sandbox.state).toBe("a");
      expect(life.record.restored).toMatchObject({
        snapshot: null,
        passedOver: [expect.stringMatching(why)],
      });
      expect(life.record.snapshot).toBeNull();
    }),
  );

  it("serve for a backup that is put back and has the same state", () =>
    world(async ({ sandbox, vault, life, turn }) => {
      snapshots(sandbox);
      await turn("a");
      await life.sleep();
      const kept = await new Response(vault.read(1)).arrayBuffer();
      expect(await life.putBack(new Response(kept).body as ReadableStream<Uint8Array>)).toMatchObject({
        id: 2,
      });
      expect(sandbox.state).toBe("a");
      expect(life.record.restored).toEqual({ backup: 2, snapshot: "snap-1", passedOver: [] });
    }));

  it("hold back nothing where the platform refuses them", () =>
    world(async ({ sandbox, life, turn }) => {
      await turn("a");
      await life.sleep();
      expect(life.record).toMatchObject({ state: "asleep", snapshot: null, lastError: null });
      expect(life.record.snapshotNote).toMatch(/no snapshots here/);
      await life.wake("test");
      expect(starts(sandbox)).toEqual(["image-1", "image-1"]);
    }));

  it("hold back nothing where the platform answers without one", () =>
    world(async ({ sandbox, life, turn }) => {
      sandbox.snapshotContainer = () => Promise.resolve({} as never);
      await turn("a");
      await life.sleep();
      expect(life.record).toMatchObject({ state: "asleep", snapshot: null });
    }));

  it("bring a restart what lies outside of what is saved", () =>
    world(async ({ sandbox, life, turn }) => {
      snapshots(sandbox);
      await turn("a");
      await life.restart(false);
      expect(starts(sandbox)).toEqual(["image-1", "snap-1"]);
    }));

  it.each(["that sleeps", "that is awake"])("are left behind by a forced restart of one %s", (which) =>
    world(async ({ sandbox, life, turn }) => {
      snapshots(sandbox);
      await turn("a");
      if (which === "that sleeps") await life.sleep();
      await life.restart(true);
      expect(starts(sandbox)).toEqual(["image-1", "image-1"]);
      expect(sandbox.state).toBe("a");
    }),
  );

  it("hold alone what could not be saved, when it is put to sleep by force", () =>
    world(async ({ sandbox, life, turn }) => {
      snapshots(sandbox);
      await turn("a");
      await life.save("request");
      await turn(" and more");
      const save = sandbox.commands["save"];
      sandbox.commands["save"] = () => ({ exitCode: 73, stderr: "The disk is full." });
      await expect(life.sleep()).rejects.toMatchObject({ code: "disk_full" });
      expect(life.record.state).toBe("awake");
      // Of a Hermes that still writes it would be half of this and half of that.
      sandbox.commands["stop-gateway"] = () => {
        sandbox.state += ", all of it";
        return {};
      };
      expect(await life.sleep(true)).toBeNull();
      expect(life.record.state).toBe("asleep");
      if (save !== undefined) sandbox.commands["save"] = save;
      await life.wake("test");
      expect(starts(sandbox).at(-1)).not.toBe("image-1");
      expect(sandbox.state).toBe("a and more, all of it");
      await life.save("request");
    }));

  it("are none of a state that was never saved, when it is put to sleep by force", () =>
    world(async ({ sandbox, life, turn }) => {
      snapshots(sandbox);
      await turn("a");
      sandbox.commands["save"] = () => ({ exitCode: 73, stderr: "The disk is full." });
      expect(await life.sleep(true)).toBeNull();
      expect(life.record).toMatchObject({ state: "asleep", snapshot: null });
    }));

  it("that are not to be had leave the last save, when it is put to sleep by force", () =>
    world(async ({ sandbox, life, turn }) => {
      await turn("a");
      await life.save("request");
      await turn(" and more");
      const save = sandbox.commands["save"];
      sandbox.commands["save"] = () => ({ exitCode: 73, stderr: "The disk is full." });
      await life.sleep(true);
      if (save !== undefined) sandbox.commands["save"] = save;
      await life.wake("test");
      expect(sandbox.state).toBe("a");
    }));

  function changed(w: World, change: object): Partial<InstanceRecord> {
    const { snapshot } = w.life.record;
    return snapshot === null ? {} : { snapshot: { ...snapshot, ...change } };
  }
});

describe("appointments", () => {
  const HOUR = 3600_000;

  it("survive the death of the sandbox", () =>
    world(async ({ sandbox, life, turn, pass, time }) => {
      await turn("a");
      sandbox.nextCron = (time.now() + HOUR) / 1000;
      await pass(10_000);
      sandbox.die(137);
      await settled();
      expect(life.record).toMatchObject({ state: "asleep", nextCron: sandbox.nextCron * 1000 });
      await pass(HOUR);
      expect(life.record).toMatchObject({ state: "awake", whyAwake: "cron" });
    }));

  it("are due again when the sandbox dies at them", () =>
    world(async ({ sandbox, turn, pass, time }) => {
      await turn("a");
      sandbox.cronRunning = 1;
      sandbox.nextCron = (time.now() + 10 * HOUR) / 1000;
      await pass(10_000);
      sandbox.die(137);
      await settled();
      sandbox.cronRunning = 0;
      await pass(120_000);
      expect(sandbox.starts).toHaveLength(2);
    }));

  it("are kept although a boot for them was cut off", () =>
    world(async ({ sandbox, turn, pass, time, life, reborn }) => {
      await turn("a");
      sandbox.nextCron = (time.now() + 10 * HOUR) / 1000;
      await pass(5 * HOUR);
      expect(life.record.state).toBe("asleep");
      await reborn({ state: "booting", bootId: "cut", wakeAt: sandbox.nextCron * 1000 }).reattach();
      await pass(5 * HOUR + 100);
      expect(sandbox.starts).toHaveLength(2);
    }));

  it("keep Hermes awake for as long as ever once somebody asks it then", () =>
    world(async ({ sandbox, life, turn, pass, time }) => {
      await turn("a");
      sandbox.nextCron = (time.now() + 10 * HOUR) / 1000;
      await pass(5 * HOUR);
      expect(life.record.state).toBe("asleep");
      await pass(5 * HOUR + 1000);
      expect(life.record).toMatchObject({ state: "awake", whyAwake: "cron" });
      sandbox.nextCron = null;
      await turn(" and a question");
      await pass(HOUR);
      expect(life.record.state).toBe("awake");
      await pass(4 * HOUR);
      expect(life.record.state).toBe("asleep");
    }));

  it("have their results saved while Hermes stays awake", () =>
    world(async ({ sandbox, turn, pass, time, vault }) => {
      await turn("a");
      sandbox.nextCron = (time.now() + HOUR) / 1000;
      await pass(HOUR - 1000);
      expect(vault.list()).toHaveLength(1);
      sandbox.state += " and what the job did";
      sandbox.nextCron = null;
      await pass(70_000);
      expect(vault.list()).toHaveLength(2);
    }));

  it.each(["sleep", "restart"] as const)("under way come to their end before a %s", (order) =>
    world(async ({ sandbox, turn, pass, life, vault }) => {
      await turn("a");
      sandbox.cronRunning = 1;
      const done = order === "sleep" ? life.sleep() : life.restart(false);
      await pass(1500);
      expect(sandbox.destroys).toBe(0);
      sandbox.state += " and what the job did";
      sandbox.cronRunning = 0;
      await pass(1500);
      await done;
      expect(sandbox.destroys).toBe(1);
      expect(await new Response(vault.read(vault.good()[0]?.id ?? 0)).text()).toMatch(/what the job did$/);
    }),
  );

  it("that do not end are cut off after a while", () =>
    world(async ({ sandbox, turn, pass, life }) => {
      await turn("a");
      sandbox.cronRunning = 1;
      const done = life.sleep();
      await pass(120_000);
      await done;
      expect(sandbox.destroys).toBeGreaterThan(0);
    }));

  it("that failed are told soon, while it sleeps too, and without a secret", () =>
    world(async ({ sandbox, turn, pass, time, life }) => {
      await turn("a");
      sandbox.nextCron = (time.now() + HOUR) / 1000;
      await pass(HOUR);
      sandbox.jobError = { at: 1000, name: "tea", id: "j1", error: `HTTP 401 for ${life.capability}` };
      await pass(120_000);
      const told = { at: 1_000_000, job: "tea", id: "j1", message: "HTTP 401 for [redacted]" };
      expect(life.record.lastJobError).toEqual(told);
      await life.sleep();
      expect(life.record).toMatchObject({ state: "asleep", lastJobError: told });
      sandbox.jobError = null;
      await life.wake("turn");
      await life.sleep();
      expect(life.record.lastJobError).toBeNull();
    }));
});

describe("finding it again", () => {
  it("takes up what was booting when the object died", () =>
    world(async ({ sandbox, life, turn, reborn }) => {
      await turn("a");
      await life.save("x");
      const other = reborn({ state: "booting" });
      expect(other.mustReattach).toBe(true);
      await other.wake("again");
      expect(sandbox.destroys).toBe(0);
      expect(sandbox.starts).toHaveLength(1);
      expect(sandbox.state).toBe("a");
    }));

  it("gives up what was booting from another image when the object died", () =>
    world(async ({ sandbox, life, turn, reborn }) => {
      await turn("a");
      await life.save("x");
      sandbox.state = "half of it restored";
      await reborn({ state: "booting", image: "image-0" }).wake("again");
      expect(sandbox.destroys).toBe(1);
      expect(sandbox.starts).toHaveLength(2);
      expect(sandbox.state).toBe("a");
    }));

  it.each<[string, (sandbox: MemorySandbox) => void, number]>([
    ["is gone", (it) => Object.assign(it, { running: null }), 0],
    ["is another's", (it) => Object.assign(it.running ?? {}, { boot: "another" }), 1],
  ])("boots anew at once when what runs there %s", (_, becomes, destroys) =>
    world(async ({ sandbox, life, turn, reborn, time }) => {
      await turn("a");
      await life.save("x");
      becomes(sandbox);
      const other = reborn();
      await other.wake("again");
      expect(sandbox).toMatchObject({ destroys, state: "a" });
      expect(sandbox.starts).toHaveLength(2);
      expect(other.record).toMatchObject({ learnedLate: time.now(), lastExit: { exitCode: null } });
    }),
  );

  it("goes on with what has no label, as a container of Cloudflare's, and sees it die", () =>
    world(async ({ sandbox, life, turn, reborn }) => {
      await turn("a");
      await life.save("x");
      const inspect = sandbox.inspect.bind(sandbox);
      sandbox.inspect = async () => ({ ...(await inspect()), labels: null });
      const timeouts = vi.spyOn(sandbox, "setInactivityTimeout");
      const other = reborn();
      await other.wake("again");
      expect(sandbox).toMatchObject({ destroys: 0, state: "a" });
      // What the platform knew of it is gone with the object.
      expect(timeouts).toHaveBeenCalledOnce();
      sandbox.die(137);
      await settled();
      expect(other.record.state).toBe("asleep");
    }));

  it("goes on with what was stopping when the object died: nothing of it was saved yet", () =>
    world(async ({ sandbox, turn, reborn }) => {
      await turn("a");
      await reborn({ state: "stopping" }).wake("again");
      expect(sandbox).toMatchObject({ destroys: 0, state: "a" });
    }));

  it("saves what it can of a Hermes that no longer answers, then boots anew", () =>
    world(async ({ sandbox, turn, reborn, time }) => {
      await turn("a");
      sandbox.healthy = false;
      const other = reborn();
      const woken = other.wake("again");
      await time.pass(31_000);
      sandbox.healthy = true;
      await time.pass(10_000);
      await woken;
      expect(sandbox.starts).toHaveLength(2);
      expect(sandbox.state).toBe("a");
    }));

  it("stops it before that, so that nothing ends behind the last save", () =>
    world(async ({ sandbox, turn, reborn, time }) => {
      await turn("a");
      sandbox.healthy = false;
      sandbox.commands["stop-gateway"] = () => {
        sandbox.state += " and its last words";
        return {};
      };
      const woken = reborn().wake("again");
      await time.pass(31_000);
      sandbox.healthy = true;
      await time.pass(10_000);
      await woken;
      expect(sandbox.state).toBe("a and its last words");
    }));

  it("tries to save that for some seconds, for what hinders it may pass", () =>
    world(async ({ sandbox, turn, reborn, time }) => {
      await turn("a");
      sandbox.healthy = false;
      const { save } = sandbox.commands;
      const passes = time.now() + 33_000;
      sandbox.commands["save"] = (...asked) =>
        time.now() < passes ? { exitCode: 73, stderr: "The disk is full." } : (save?.(...asked) ?? {});
      const woken = reborn().wake("again");
      await time.pass(31_000);
      sandbox.healthy = true;
      await time.pass(10_000);
      await woken;
      expect(sandbox.starts).toHaveLength(2);
      expect(sandbox.state).toBe("a");
    }));
});

/** The signal of somebody who does not leave. */
const staying = () => new AbortController().signal;
const served = async (answer: Promise<Lasting<Response>>) => (await answer).value;

describe("a seat at Hermes", () => {
  const page = (impatient = false) =>
    new Request("http://hermes/sessions", {
      headers: { [PROXY_HEADERS.by]: "person", ...(impatient ? { [PROXY_HEADERS.impatient]: "1" } : {}) },
    });
  const chat = (stream: boolean) =>
    new Request("http://hermes/v1/chat/completions", {
      method: "POST",
      headers: stream ? { [TURN_HEADERS.stream]: "1" } : {},
      body: "{}",
    });
  const refused = () => Promise.reject(new Error("connection refused"));
  const broken = (type: string) => () =>
    new Response(
      new ReadableStream({ pull: (controller) => controller.error(new Error("Network connection lost.")) }),
      { headers: { "content-type": type } },
    );

  it.each<[string, (w: World, proxy: DashboardProxy) => Promise<Response>, World["sandbox"]["answer"]]>([
    ["a dashboard that is not reached", (_, proxy) => served(proxy.serve(page(), staying())), refused],
    ["a page that breaks off", (_, proxy) => served(proxy.serve(page(), staying())), broken("text/html")],
    ["a file that breaks off", (_, proxy) => served(proxy.serve(page(), staying())), broken("image/png")],
    ["a page that nobody waits for", (_, proxy) => served(proxy.serve(page(true), staying())), refused],
    ["a Hermes that is not reached", ({ turns }) => served(turns.serve(chat(false), staying())), refused],
    [
      "an answer that breaks off",
      ({ turns }) => served(turns.serve(chat(false), staying())),
      broken("application/json"),
    ],
    [
      "a stream that breaks off",
      ({ turns }) => served(turns.serve(chat(true), staying())),
      broken("text/event-stream"),
    ],
  ])("is given back after %s", (_, ask, answer) =>
    world(async (w) => {
      const { life, sandbox, time } = w;
      sandbox.commands["dashboard"] = () => ({});
      sandbox.answer = answer;
      const log = new Log(new Redactor());
      const sockets = new DashboardSockets({ time, fetchEnd: async (id) => sockets.end(id) });
      const proxy: DashboardProxy = new DashboardProxy({
        lifecycle: life,
        time,
        log,
        idle: 3600_000,
        sockets,
      });
      await life.wake("test");
      const asked = ask(w, proxy)
        .then((response) => response.text())
        .catch(() => undefined);
      await time.pass(120_000);
      await asked;
      await time.pass(0);
      expect(life.inFlight).toBe(0);
      const asleep = life.sleep();
      await time.pass(60_000);
      expect(await asleep).not.toBeNull();
      expect(life.record.state).toBe("asleep");
    }),
  );
});

describe("a stream that has to wait", () => {
  const request = () =>
    new Request("http://hermes/v1/chat/completions", {
      method: "POST",
      headers: { "x-request-id": "r1", "x-hermes-worker-stream": "1", "x-hermes-worker-model": "m" },
      body: "{}",
    });
  const stream = () => new Response("data: hello\n\n", { headers: { "content-type": "text/event-stream" } });

  it("keeps status and headers for as long as a client can bear", () =>
    world(async ({ turns, sandbox, time }) => {
      sandbox.answer = stream;
      sandbox.healthy = false;
      const answer = served(turns.serve(request(), staying()));
      await time.pass(9000);
      sandbox.healthy = true;
      await time.pass(500);
      expect(await (await answer).text()).toBe("data: hello\n\n");
    }));

  it("gets comments from then on, and then the answer", () =>
    world(async ({ turns, sandbox, time }) => {
      sandbox.answer = stream;
      sandbox.healthy = false;
      const serving = served(turns.serve(request(), staying()));
      await time.pass(10_500);
      const answer = await serving;
      expect(answer.headers.get("x-hermes-model")).toBe("m");
      const text = answer.text();
      await time.pass(11_000);
      sandbox.healthy = true;
      await time.pass(500);
      expect(await text).toMatch(/^(?:: [^\n]+\n\n){3}data: hello\n\n$/);
    }));

  it("says nothing that a new version would cut while it is held back for one, and not for ever", () =>
    world(async ({ turns, life, sandbox, time, sit }) => {
      sandbox.answer = stream;
      await life.wake("test");
      const { leave } = await sit();
      const holding = life.hold();
      let answered = false;
      const serving = served(turns.serve(request(), staying())).finally(() => {
        answered = true;
      });
      // Both while those before it come to their end, and while the upload goes on.
      await time.pass(1500);
      await leave();
      const hold = await holding;
      for (let round = 0; round < 2; round++) {
        await time.pass(25_000);
        expect(answered, "it has not begun").toBe(false);
        expect(life.holdOn(hold)).toBe(true);
      }
      await time.pass(25_000);
      expect(answered).toBe(true);
      const answer = await serving;
      expect(answer.status).toBe(200);
      await answer.body?.cancel();
    }));

  it("tells its session before Hermes does, and what else Hermes tells later as comments", () =>
    world(async ({ turns, sandbox, time }) => {
      const headers = {
        "content-type": "text/event-stream",
        "x-hermes-session-id": "s",
        "x-hermes-late": "1",
      };
      sandbox.answer = () => new Response("data: hello\n\n", { headers });
      sandbox.healthy = false;
      const asked = request();
      asked.headers.set(TURN_HEADERS.session, "s");
      asked.headers.set("x-hermes-session-key", "k");
      const serving = served(turns.serve(asked, staying()));
      await time.pass(10_500);
      const answer = await serving;
      expect(answer.headers.get("x-hermes-session-id")).toBe("s");
      expect(answer.headers.get("x-hermes-session-key")).toBe("k");
      sandbox.healthy = true;
      const text = answer.text();
      await time.pass(6000);
      expect(await text).toMatch(/\n\n: x-hermes-late: 1\n\ndata: hello\n\n$/);
    }));

  it("gets the reason as an event when the boot fails after all", () =>
    world(async ({ turns, sandbox, time }) => {
      sandbox.healthy = false;
      const serving = served(turns.serve(request(), staying()));
      await time.pass(10_500);
      const text = (await serving).text();
      await time.pass(90_000);
      expect(await text).toMatch(
        /data: \{"error":\{.*"code":"boot_failed".*"request_id":"r1"\}\}\n\ndata: \[DONE\]\n\n$/,
      );
    }));

  /** A stream that has its first comments, and then an answer of Hermes. */
  const commented = async ({ turns, sandbox, time }: World, signal: AbortSignal, answer: () => Response) => {
    sandbox.answer = answer;
    sandbox.healthy = false;
    const serving = served(turns.serve(request(), signal));
    await time.pass(10_500);
    const reader = ((await serving).body as ReadableStream<Uint8Array>).getReader();
    await reader.read();
    const rest = (async () => {
      while (!(await reader.read()).done);
    })();
    rest.catch(() => undefined);
    return { rest };
  };
  const events = (pull: (controller: ReadableStreamDefaultController<Uint8Array>) => void | Promise<void>) =>
    new Response(new ReadableStream({ pull }), { headers: { "content-type": "text/event-stream" } });

  it("breaks off when Hermes breaks off, though comments came before", () =>
    world(async (w) => {
      const broken = () => events((controller) => controller.error(new Error("Network connection lost.")));
      const { rest } = await commented(w, staying(), broken);
      w.sandbox.healthy = true;
      await w.time.pass(6000);
      await expect(rest).rejects.toThrow();
      expect(w.life.inFlight).toBe(0);
    }));

  it.each(["comments", "words"])("breaks off among %s for whoever may not listen any more", (when) =>
    world(async (w) => {
      const over = new AbortController();
      const word = new TextEncoder().encode("data: x\n\n");
      const endless = () =>
        events(async (controller) => {
          await scheduler.wait(1);
          controller.enqueue(word);
        });
      const { rest } = await commented(w, over.signal, endless);
      if (when === "words") {
        w.sandbox.healthy = true;
        await w.time.pass(6000);
      }
      over.abort(new Error("over"));
      await expect(rest).rejects.toThrow();
    }),
  );
});

describe("a client that leaves during the boot", () => {
  it.each(["stop", "finish"])("has no turn begun for it, where turns %s", (HERMES_ON_DISCONNECT) =>
    world(
      async ({ turns, sandbox, time, life }) => {
        let asked = 0;
        sandbox.answer = () => {
          asked++;
          return Response.json({});
        };
        sandbox.healthy = false;
        const client = new AbortController();
        const body = { method: "POST", body: "{}" };
        const request = new Request("http://hermes/v1/chat/completions", body);
        const answer = turns.serve(request, client.signal).catch((error: unknown) => error);
        await time.pass(1000);
        client.abort(clientGone());
        sandbox.healthy = true;
        await time.pass(5000);
        expect(await answer).toMatchObject({ code: "client_gone" });
        expect(life.record.state).toBe("awake");
        expect(asked).toBe(0);
      },
      { HERMES_ON_DISCONNECT },
    ),
  );
});

describe("settings in force", () => {
  const went = (sandbox: MemorySandbox) => sandbox.running?.input.env ?? {};

  it("gives Hermes today's settings before the next turn reaches it, and restarts nothing else", () =>
    world(async ({ sandbox, turn, reborn, life }) => {
      await turn("one");
      expect(went(sandbox)["COLOUR"]).toBeUndefined();
      const { bootId } = life.record;
      const other = reborn({}, { HERMES_ENV: '{"COLOUR":"blue"}' });
      await other.reattach();
      expect(other.difference).toMatchObject({ restart: "hermes", hermes: true, because: ["hermes_env"] });
      const colour = await other.withSeat("turn", true, async () => over(went(sandbox)["COLOUR"]));
      expect(colour.value).toBe("blue");
      expect(other.record.bootId).toBe(bootId);
      expect([sandbox.starts.length, other.difference]).toMatchObject([
        1,
        { restart: "nothing", because: [] },
      ]);
    }));

  it("takes a value away again", () =>
    world(
      async ({ sandbox, turn, reborn }) => {
        await turn("one");
        expect(went(sandbox)["COLOUR"]).toBe("blue");
        const other = reborn({}, { HERMES_SECRETS: "{}" });
        await other.reattach();
        expect(other.difference?.because).toEqual(["hermes_secrets"]);
        expect(await other.refresh()).toBe("hermes");
        expect(went(sandbox)["COLOUR"]).toBeUndefined();
      },
      { HERMES_SECRETS: '{"COLOUR":"blue"}' },
    ));

  it.each([
    ["hermes_egress", { HERMES_EGRESS: "providers" }],
    ["hermes_instance_type", { HERMES_INSTANCE_TYPE: "standard-2" }],
    ["a new image", { HERMES_IMAGE: "another" }],
  ])("brings %s by a new sandbox, with the state of the old one", (variable, change) =>
    world(async ({ sandbox, turn, reborn }) => {
      await turn("one");
      const other = reborn({}, change);
      await other.reattach();
      expect(other.difference).toEqual({
        restart: "sandbox",
        hermes: false,
        content: false,
        because: [variable],
      });
      expect(await other.refresh()).toBe("sandbox");
      expect(sandbox.starts.length).toBe(2);
      expect(sandbox.starts[1]?.enableInternet).toBe(!("HERMES_EGRESS" in change));
      expect(sandbox.state).toBe("one");
      expect(other.difference?.restart).toBe("nothing");
    }),
  );

  it.each([
    { HERMES_SLEEP_AFTER: "1h" },
    { HERMES_CORS_ORIGINS: "https://a.example" },
    { ANTHROPIC_API_KEY: "x" },
  ])("leaves Hermes alone for %o, which is the Worker's", (change) =>
    world(async ({ turn, reborn, sandbox }) => {
      await turn("one");
      const other = reborn({}, change);
      await other.reattach();
      const before = sandbox.running?.input;
      expect([await other.refresh(), sandbox.running?.input]).toEqual(["nothing", before]);
    }),
  );

  it("tells a key apart that Hermes itself holds", () =>
    world(
      async ({ turn, reborn }) => {
        await turn("one");
        const other = reborn({}, { ANTHROPIC_API_KEY: "another" });
        await other.reattach();
        expect(other.difference).toMatchObject({ restart: "hermes", because: ["anthropic_api_key"] });
      },
      { HERMES_PROVIDER_KEYS: "environment", HERMES_DEFAULT_MODEL: "anthropic/m", ANTHROPIC_API_KEY: "one" },
    ));

  it.each(["hermes_soul", "hermes_skills", "hermes_cron_jobs", "hermes_memories", "hermes_take_over"])(
    "lays %s beside the running Hermes",
    (variable) =>
      world(async ({ turn, reborn, sandbox, sit }) => {
        await turn("one");
        const before = sandbox.running?.input;
        const other = reborn({}, await declared({ [variable]: "1" }));
        await other.reattach();
        const because = [variable];
        expect(other.difference).toEqual({ restart: "content", hermes: false, content: true, because });
        // Who works with it goes on.
        expect(other.isReady).toBe(true);
        const { leave } = await sit();
        const asked: string[] = [];
        sandbox.answer = (url) => {
          asked.push(new URL(url).pathname);
          return Response.json({});
        };
        expect(await other.refresh()).toBe("content");
        expect(asked).toEqual(["/sandbox/look-again"]);
        await leave();
        const content = btoa(JSON.stringify({ [variable]: "1" }));
        expect(sandbox.running?.input).toMatchObject({ agent: { content }, env: before?.env });
        expect([sandbox.starts.length, other.difference?.restart]).toEqual([1, "nothing"]);
        expect(other.record.firstUnsaved).not.toBeNull();
        // And away again, as a new object sees it.
        const last = reborn({}, { HERMES_AGENT: "{}" });
        await last.reattach();
        expect([await last.refresh(), sandbox.running?.input.agent]).toEqual([
          "content",
          { archive: "", content: "" },
        ]);
      }),
  );

  it.each(["hermes_config", "hermes_mcp_servers"])("restarts Hermes for %s, with all content", (variable) =>
    world(async ({ turn, reborn, sandbox }) => {
      await turn("one");
      const other = reborn({}, await declared({ [variable]: "1", hermes_soul: "1" }));
      await other.reattach();
      expect(other.difference).toMatchObject({ restart: "hermes", because: [variable, "hermes_soul"] });
      const stopped: string[] = [];
      sandbox.commands["declare"] = () => {
        stopped.push("declare");
        return {};
      };
      expect([await other.refresh(), other.difference?.restart]).toEqual(["hermes", "nothing"]);
      expect([stopped, sandbox.running?.input.agent?.content]).toEqual([[], expect.stringMatching(/./)]);
    }),
  );

  it("gives a Hermes that wakes what is declared, and does not wake it for that", () =>
    world(async ({ turn, life, reborn, sandbox }) => {
      await turn("one");
      await life.sleep();
      const other = reborn({}, await declared({ hermes_soul: "1" }));
      expect([await other.refresh(), sandbox.starts.length]).toEqual(["nothing", 1]);
      await other.wake("test");
      expect(sandbox.running?.input.agent?.content).toBe(btoa('{"hermes_soul":"1"}'));
      expect(other.difference?.restart).toBe("nothing");
    }));

  it("says which item could not be laid, and goes on without it", () =>
    world(async ({ turn, reborn, sandbox }) => {
      await turn("one");
      const other = reborn({}, await declared({ hermes_skills: "1" }));
      await other.reattach();
      sandbox.commands["declare"] = () => ({ exitCode: 1, stderr: "skills/a: no room.\n" });
      await expect(other.refresh()).rejects.toThrow("skills/a: no room.");
      expect([other.difference?.restart, other.isReady]).toEqual(["content", true]);
    }));

  it("starts nothing with another archive than the one that was deployed", () =>
    world(
      async ({ life, sandbox }) => {
        await expect(life.wake("test")).rejects.toThrow("HERMES_AGENT");
        expect(sandbox.running).toBeNull();
      },
      { HERMES_AGENT: JSON.stringify({ format: 1, archive: "0".repeat(64), parts: {} }) },
    ));

  it("does not wake a sleeping Hermes, which wakes with them", () =>
    world(async ({ turn, life, reborn, sandbox }) => {
      await turn("one");
      await life.sleep();
      const other = reborn({}, { HERMES_ENV: '{"COLOUR":"blue"}' });
      expect([other.difference, await other.refresh(), sandbox.starts.length]).toEqual([null, "nothing", 1]);
      await other.wake("test");
      expect(went(sandbox)["COLOUR"]).toBe("blue");
    }));

  it("does not start a Hermes that was stopped, which starts with them", () =>
    world(async ({ turn, life, reborn, sandbox }) => {
      await turn("one");
      await life.stopGateway();
      const other = reborn({}, { HERMES_ENV: '{"COLOUR":"blue"}' });
      await other.reattach();
      expect([await other.refresh(), other.record.gatewayStopped]).toEqual(["nothing", true]);
      await other.wake("test");
      expect(went(sandbox)["COLOUR"]).toBe("blue");
    }));

  it("takes a Hermes that does not tell what it has for one of before", () =>
    world(async ({ turn, reborn, sandbox }) => {
      await turn("one");
      if (sandbox.running !== null) delete sandbox.running.input.configuration;
      const other = reborn();
      await other.reattach();
      expect(other.difference).toMatchObject({
        restart: "hermes",
        because: ["it does not tell what it has"],
      });
      expect(await other.refresh()).toBe("hermes");
      expect(other.difference?.restart).toBe("nothing");
    }));

  it("says so when Hermes does not come up with them, and tries again", () =>
    world(async ({ turn, reborn, sandbox }) => {
      await turn("one");
      const other = reborn({}, { HERMES_ENV: '{"COLOUR":"blue"}' });
      await other.reattach();
      const restart = sandbox.commands["restart-gateway"];
      sandbox.commands["restart-gateway"] = () => ({ exitCode: 1, stderr: "It does not start.\n" });
      await expect(other.refresh()).rejects.toThrow("It does not start.");
      expect(other.difference?.restart).toBe("hermes");
      sandbox.commands["restart-gateway"] = restart as NonNullable<typeof restart>;
      await other.wake("test");
      expect(went(sandbox)["COLOUR"]).toBe("blue");
    }));

  it("makes each key between Worker and Hermes of the owner's token, which Hermes never has", () => {
    const token = "the-owner-keeps-this-to-themselves";
    const seen: (string | undefined)[] = [];
    const text = new TextEncoder();
    const hmac = { name: "HMAC", hash: "SHA-256" };
    const look = async ({ sandbox, life }: World) => {
      expect(JSON.stringify(sandbox.running?.input)).not.toContain(token);
      const start = life.record.keys?.gatewayStart ?? "";
      seen.push(went(sandbox)["API_SERVER_KEY"]);
      const key = await crypto.subtle.importKey("raw", text.encode(token), hmac, false, ["sign"]);
      const made = await crypto.subtle.sign("HMAC", key, text.encode(start));
      expect(seen.at(-1)).toBe(hex(made));
    };
    return world(
      async (all) => {
        await all.turn("one");
        await look(all);
        await all.life.restartGateway();
        await look(all);
        await all.life.sleep();
        await all.turn("two");
        await look(all);
        expect(new Set(seen).size, "another one for each start").toBe(3);
      },
      { GATEWAY_TOKEN: token },
    );
  });

  it("previews what other settings would restart", () =>
    world(async ({ turn, life }) => {
      await turn("one");
      const preview = async (change: Record<string, unknown>) =>
        (await life.differenceFrom(settingsOf({ ...env, ...change })))?.difference ?? null;
      expect(await preview({})).toMatchObject({ restart: "nothing" });
      expect(await preview({ HERMES_HOST_TOOLS: "true" })).toMatchObject({ because: ["hermes_host_tools"] });
      expect(await preview({ HERMES_EGRESS: "providers" })).toMatchObject({ restart: "sandbox" });
      await life.sleep();
      expect(await preview({ HERMES_EGRESS: "providers" })).toBeNull();
    }));
});

describe("a Hermes that runs and cannot be reached", () => {
  const ask = (turns: ChatTurns) =>
    turns.serve(
      new Request("http://hermes/v1/skills", { headers: { [TURN_HEADERS.requestId]: "r" } }),
      new AbortController().signal,
    );

  it("is saved and started anew, and answers who asked", async () => {
    await world(async (w) => {
      await w.turn("remember this");
      const { destroy } = w.sandbox;
      w.sandbox.destroy = async () => {
        await destroy.call(w.sandbox);
        w.sandbox.healthy = true;
      };
      w.sandbox.healthy = false;
      const answers = [ask(w.turns), ask(w.turns)];
      await w.pass(30_000);
      for (const answer of await Promise.all(answers)) expect(await answer.value.text()).toBe("answer");
      expect(w.sandbox.starts).toHaveLength(2);
      expect(w.sandbox.state).toBe("remember this");
    });
  });

  it("is left alone while the sandbox starts it again", async () => {
    await world(async (w) => {
      await w.turn("remember this");
      const { status } = w.sandbox.commands;
      w.sandbox.commands["status"] = () => ({ stdout: JSON.stringify({ state: "waiting" }) });
      w.sandbox.healthy = false;
      const answer = ask(w.turns);
      await w.pass(30_000);
      w.sandbox.healthy = true;
      if (status !== undefined) w.sandbox.commands["status"] = status;
      await w.pass(2000);
      expect(await (await answer).value.text()).toBe("answer");
      expect(w.sandbox.starts).toHaveLength(1);
    });
  });
});
