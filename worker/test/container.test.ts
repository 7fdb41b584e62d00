// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it, vi } from "vitest";
import type { Time } from "../src/base/time.ts";
import { type ContainerParts, ContainerSandbox } from "../src/sandbox/container.ts";
import { run } from "../src/sandbox/run.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

/** STAND-IN for `ctx.container`: only what a test gives it works. */
function container(parts: Partial<Record<keyof Container | "inspect", unknown>>): Container {
  return {
    running: true,
    interceptOutboundHttp: async () => undefined,
    monitor: () => new Promise(() => undefined),
    setInactivityTimeout: async () => undefined,
    ...parts,
  } as unknown as Container;
}

function sandbox(given: Container, more: Partial<ContainerParts> = {}, time?: Time): ContainerSandbox {
  const parts = {
    container: given,
    providers: {} as Fetcher,
    providersHost: "198.51.100.1",
    egress: null,
    instance: "standard-1",
    local: false,
    reference: "",
    env: { SANDBOX_BIND: "127.0.0.1" },
    heal: async () => undefined,
    ...more,
  };
  return new ContainerSandbox(parts, time);
}

const bytes = (text: string) => new TextEncoder().encode(text);
const START = { image: "i", env: { HERMES_BOOT_ID: "b" }, labels: { boot: "b" }, enableInternet: true };

describe("a container's start", () => {
  it("lays the detour of model calls first, every time, and keeps neighbours out", async () => {
    const calls: unknown[] = [];
    const it = sandbox(
      container({
        running: false,
        interceptOutboundHttp: async (host: string) => void calls.push(host),
        start: (options: unknown) => void calls.push(options),
      }),
    );
    await it.start({ ...START, labels: { boot: "b", name: `${"n".repeat(63)}äö` } });
    expect(calls).toEqual([
      "198.51.100.1",
      {
        image: "i",
        instance: "standard-1",
        enableInternet: true,
        env: { SANDBOX_BIND: "127.0.0.1", HERMES_BOOT_ID: "b" },
        labels: { boot: "b", name: "n".repeat(63) },
      },
    ]);
  });

  it("leads all other calls away after those of the models, when not every host is allowed", async () => {
    const calls: unknown[] = [];
    const providers = {} as Fetcher;
    const egress = {} as Fetcher;
    const note = (name: string) => async (host: unknown, to?: unknown) =>
      void calls.push(to === undefined ? [name, host] : [name, host, to]);
    const it = sandbox(
      container({
        interceptOutboundHttp: note("http"),
        interceptAllOutboundHttp: note("all"),
        interceptOutboundHttps: note("https"),
      }),
      { providers, egress },
    );
    await it.inspect();
    expect(calls).toEqual([
      ["http", "198.51.100.1", providers],
      ["all", egress],
      ["https", "*", egress],
    ]);
  });

  it("on this machine is through before anything else is asked, and keeps nothing alive beyond the object", async () => {
    const inspect = vi.fn(async () => null);
    const setInactivityTimeout = vi.fn(async () => undefined);
    const given = container({ running: false, start: () => undefined, inspect, setInactivityTimeout });
    const it = sandbox(given, { local: true });
    await it.start(START);
    await it.setInactivityTimeout(1);
    expect(inspect).toHaveBeenCalledOnce();
    expect(setInactivityTimeout).not.toHaveBeenCalled();
  });

  it("is told by the watch alone when it fails", async () => {
    const monitor = () => Promise.reject(new Error("Container failed to start"));
    await expect(sandbox(container({ monitor })).monitor()).rejects.toMatchObject({ code: "start_failed" });
  });

  it("is told of its image by the name that the place has for it, be it written in another way", async () => {
    const digest = "sha256:1";
    const started = async (images: object | undefined, reference: string, image?: string) => {
      const seen: unknown[] = [];
      const start = (startup: { image: string }) => seen.push(startup.image);
      const options = {
        env: {},
        labels: {},
        enableInternet: true,
        ...(image === undefined ? {} : { image }),
      };
      const parts = { reference, local: false };
      await sandbox(container({ start, ...(images === undefined ? {} : { images }) }), parts).start(options);
      return seen[0];
    };
    expect(await started({ hermes: `account/name@${digest}` }, `name@${digest}`)).toBe(
      `account/name@${digest}`,
    );
    expect(await started({ hermes: "account/name@sha256:0" }, `name@${digest}`)).toBe(`name@${digest}`);
    expect(await started(undefined, `name@${digest}`)).toBe(`name@${digest}`);
    expect(await started(undefined, "", "given")).toBe("given");
    expect(await started(undefined, "")).toBe("");
  });

  it("blames no image where none can be missing, and tells the exit code that stands in words alone", async () => {
    const fails = (words: string) => ({ monitor: () => Promise.reject(new Error(words)) });
    const there = (words: string) => sandbox(container(fails(words)), { local: false });
    const failed = there("Container failed to start").monitor();
    await expect(failed).rejects.toMatchObject({ message: "the container failed to start." });
    const ended = there("Container exited with unexpected exit code: 137").monitor();
    expect(await ended).toMatchObject({ exitCode: 137 });
  });

  it("heals a broken way to the engine, and says what is wrong when that does not help", async () => {
    const heal = vi.fn(async () => undefined);
    const broken = { interceptOutboundHttp: () => Promise.reject(new Error("Network connection lost.")) };
    const it = sandbox(container(broken), { heal });
    await expect(it.inspect()).rejects.toMatchObject({ code: "engine_unavailable", status: 503 });
    expect(heal).toHaveBeenCalledOnce();
  });
});

describe("a container that is found running", () => {
  it("gets its detour back once", async () => {
    const lay = vi.fn(async () => undefined);
    const it = sandbox(container({ interceptOutboundHttp: lay }));
    expect(await it.inspect()).toMatchObject({ running: true, labels: null });
    await it.inspect();
    expect(lay).toHaveBeenCalledOnce();
  });

  it.each([
    ["an end with 0", async () => undefined, { exitCode: 0 }],
    [
      "an exit code",
      () => Promise.reject(Object.assign(new Error("x"), { exitCode: 137 })),
      { exitCode: 137 },
    ],
  ])("is watched: %s", async (_, monitor, exit) => {
    expect(await sandbox(container({ monitor })).monitor()).toMatchObject(exit);
  });

  it("is not believed to have ended when the watch is cut", async () => {
    const monitor = () => Promise.reject(new Error("Network connection lost."));
    await expect(sandbox(container({ monitor })).monitor()).rejects.toThrow("Network connection lost.");
  });
});

describe("a command in a container", () => {
  function process(chunks: string[], exitCode: number, more: object = {}) {
    let read = 0;
    const seen = { killed: 0, drained: false };
    const exit = Promise.withResolvers<number>();
    const stdout = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          const chunk = chunks[read++];
          if (chunk !== undefined) return controller.enqueue(bytes(chunk));
          seen.drained = true;
          exit.resolve(exitCode);
          controller.close();
        },
      },
      { highWaterMark: 0 },
    );
    const kill = () => void seen.killed++;
    return { seen, process: { stdout, stderr: null, exitCode: exit.promise, kill, ...more } };
  }

  it("runs to its end", async () => {
    const { process: it } = process(["a", "b"], 3);
    const result = await run(sandbox(container({ exec: async () => it })), ["x"], { limit: null });
    expect(result).toMatchObject({ stdout: "ab", exitCode: 3 });
  });

  it("is killed and read to its end when nobody wants it any more", async () => {
    const { seen, process: it } = process(["a", "b", "c"], 137);
    const { stdout } = await sandbox(container({ exec: async () => it })).exec(["x"]);
    const reader = stdout.getReader();
    await reader.read();
    await reader.cancel();
    await vi.waitFor(() => expect(seen).toEqual({ killed: 1, drained: true }));
  });

  it("is killed by its signal", async () => {
    const { seen, process: it } = process(["a"], 137);
    const stop = new AbortController();
    await sandbox(container({ exec: async () => it })).exec(["x"], { signal: stop.signal });
    stop.abort();
    expect(seen.killed).toBe(1);
  });

  it("is cut off when its container ended and its output does not", async () => {
    const time = new ManualTime();
    const end = Promise.withResolvers<void>();
    const { process: it } = process(["a"], 0, { exitCode: new Promise(() => undefined) });
    const held = new ReadableStream<Uint8Array>({}, { highWaterMark: 0 });
    const given = container({ exec: async () => ({ ...it, stdout: held }), monitor: () => end.promise });
    const mine = sandbox(given, {}, time);
    void mine.monitor();
    const running = run(mine, ["x"], { limit: null }).catch((error: unknown) => error);
    end.resolve();
    await time.pass(2000);
    expect(String(await running)).toMatch(/cut off/);
  });

  it("is refused when nothing runs", async () => {
    await expect(sandbox(container({ running: false })).exec(["x"])).rejects.toMatchObject({ status: 409 });
  });
});

describe("a call that never comes back", () => {
  const never = () => new Promise<never>(() => undefined);

  it.each([
    ["exec", (it: ContainerSandbox) => it.exec(["x"])],
    ["destroy", (it: ContainerSandbox) => it.destroy()],
    ["interceptOutboundHttp", (it: ContainerSandbox) => it.inspect()],
  ])("makes the object start over instead of holding up all others: %s", async (name, call) => {
    const time = new ManualTime();
    const heal = vi.fn(async () => undefined);
    const error = call(sandbox(container({ [name]: never }), { heal, local: true }, time)).catch(
      (why: unknown) => why,
    );
    await time.pass(19_000);
    expect(heal).not.toHaveBeenCalled();
    await time.pass(2000);
    expect(heal).toHaveBeenCalledOnce();
    expect(await error).toMatchObject({ code: "engine_unavailable" });
  });

  it("is waited for longer while the disk is copied", async () => {
    const time = new ManualTime();
    const heal = vi.fn(async () => undefined);
    const it = sandbox(container({ snapshotContainer: never, exec: never }), { heal }, time);
    void it.snapshotContainer({});
    void it.exec(["x"]).catch(() => undefined);
    await time.pass(100_000);
    expect(heal).not.toHaveBeenCalled();
  });

  it("ends a boot that never got further, and is got rid of once that was said", async () => {
    const time = new ManualTime();
    const heal = vi.fn(async () => undefined);
    const destroy = vi.fn(never);
    const given = { start: () => undefined, inspect: async () => null, monitor: never, exec: never, destroy };
    const it = sandbox(container(given), { heal, local: true }, time);
    const started = it.start(START);
    await time.pass(1000);
    await started;
    const over = it.monitor().catch((why: unknown) => why);
    const first = it.exec(["x"]).catch((why: unknown) => why);
    await time.pass(11_000);
    expect(await Promise.all([over, first])).toMatchObject([{ status: 409 }, { status: 409 }]);
    await it.destroy();
    expect(heal).not.toHaveBeenCalled();
    await time.pass(1000);
    expect(heal).toHaveBeenCalledOnce();
    expect(destroy).not.toHaveBeenCalled();
  });
});
