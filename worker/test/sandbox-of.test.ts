// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import type { Env, Settings } from "../src/config/settings.ts";
import { sandboxOf } from "../src/instance/sandbox-of.ts";
import { CLOUD_START, LOCAL_START } from "../src/sandbox/sandbox.ts";

const START = { image: "i", env: {}, labels: {}, enableInternet: true };
const CA = "/etc/cloudflare/certs/cloudflare-containers-ca.crt";

/** What a container is started with, by an object of these settings. */
async function startOf(more: object): Promise<Record<string, unknown>> {
  const seen: Record<string, unknown>[] = [];
  const lays = async () => undefined;
  const container = {
    running: false,
    start: (options: Record<string, unknown>) => void seen.push(options),
    interceptOutboundHttp: lays,
    interceptAllOutboundHttp: lays,
    interceptOutboundHttps: lays,
    setInactivityTimeout: lays,
    inspect: async () => null,
    monitor: () => new Promise(() => undefined),
  };
  const exports = { Providers: () => ({}), Egress: () => ({}) };
  await sandboxOf(object({ container, exports }), {} as Env, settings(more)).start(START);
  return seen[0] ?? {};
}

function object(parts: object): DurableObjectState {
  return parts as unknown as DurableObjectState;
}

function settings(more: object): Settings {
  return {
    platform: "cloudflare",
    engine: "",
    egress: "open",
    instanceType: "basic",
    imageReference: "",
    providersAddress: "http://198.51.100.1",
    drainTimeout: 60_000,
    ...more,
  } as unknown as Settings;
}

describe("the sandbox that an instance has", () => {
  it("listens to itself alone beside Docker's other containers, and is given no time that nobody waits for", async () => {
    const { env } = await startOf({ platform: "workerd", engine: "docker" });
    expect(env).toEqual({ SANDBOX_BIND: "127.0.0.1" });
  });

  it("may go on for as long as a drain on Cloudflare, whose host is gone after a quarter of an hour", async () => {
    expect((await startOf({}))["env"]).toEqual({ SANDBOX_TERM_PATIENCE: "60" });
    expect((await startOf({ drainTimeout: 3_600_000 }))["env"]).toEqual({ SANDBOX_TERM_PATIENCE: "840" });
  });

  it("knows the authority of its ways out where these are looked at", async () => {
    const { env } = await startOf({ egress: "hosts", drainTimeout: 1000 });
    expect(env).toEqual({ SANDBOX_EXTRA_CA: CA, SANDBOX_TERM_PATIENCE: "1" });
  });

  it("is given the time that its place takes to start", () => {
    const wires = { ENGINE: {}, LOOPBACK: {} } as unknown as Env;
    const there = sandboxOf(object({}), wires, settings({}));
    const here = sandboxOf(object({}), wires, settings({ platform: "workerd" }));
    expect([there.startPatience, here.startPatience]).toEqual([CLOUD_START, LOCAL_START]);
  });

  it("refuses all that is asked of it, by its reason, as long as Cloudflare has no container", async () => {
    const sandbox = sandboxOf(object({}), {} as Env, settings({}));
    const asked: Promise<unknown>[] = [
      sandbox.inspect(),
      sandbox.start(START),
      sandbox.exec(["x"]),
      sandbox.getTcpPort(1).fetch("http://x/"),
      sandbox.signal(15),
      sandbox.monitor(),
      sandbox.setInactivityTimeout(1),
      sandbox.snapshotContainer({}),
    ];
    for (const call of asked) await expect(call).rejects.toMatchObject({ status: 503, code: "no_container" });
    // There is nothing to be got rid of.
    await sandbox.destroy();
  });

  it("starts its object over when the way to its engine is broken, and not again at once", async () => {
    const kept = new Map<string, unknown>();
    const aborted: string[] = [];
    const broken = () => Promise.reject(new Error("Network connection lost."));
    const container = { running: true, interceptOutboundHttp: broken, inspect: broken };
    const exports = { Providers: () => ({}), Egress: () => ({}) };
    const kv = {
      get: (name: string) => kept.get(name),
      put: (name: string, at: unknown) => kept.set(name, at),
    };
    const storage = { kv, sync: async () => undefined };
    const ctx = object({ container, exports, storage, abort: (why: string) => aborted.push(why) });
    const look = () => sandboxOf(ctx, {} as Env, settings({ engine: "docker" })).inspect();
    await expect(look()).rejects.toMatchObject({ code: "engine_unavailable" });
    expect(aborted).toHaveLength(1);
    await expect(look()).rejects.toMatchObject({ code: "engine_unavailable" });
    expect(aborted).toHaveLength(1);
    for (const name of kept.keys()) kept.set(name, 0);
    await expect(look()).rejects.toMatchObject({ code: "engine_unavailable" });
    expect(aborted).toHaveLength(2);
  });

  it("is refused in words where the configuration gives none", () => {
    const none = () => sandboxOf(object({}), {} as Env, settings({ platform: "workerd" }));
    expect(none).toThrow("There is neither a container nor an engine");
  });
});
