// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { streamOf } from "../src/base/streams.ts";
import { BoundedSandbox } from "../src/sandbox/bounded.ts";
import type { Sandbox, SandboxProcess } from "../src/sandbox/sandbox.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const never = () => new Promise<never>(() => undefined);
const silent = { status: 503, code: "sandbox_silent" };

/** A sandbox of which nothing ever comes but what is given, and what has come of a call once its time is over. */
function world(given: Partial<Sandbox> = {}) {
  const time = new ManualTime();
  const nothing = {
    startPatience: 20_000,
    inspect: never,
    start: never,
    exec: never,
    destroy: never,
    setInactivityTimeout: never,
    snapshotContainer: never,
  };
  const sandbox = BoundedSandbox.of({ ...nothing, ...given } as unknown as Sandbox, time);
  const outcome = async (call: Promise<unknown>) => {
    const settled = call.catch((error: unknown) => error);
    await time.pass(200_000);
    return Promise.race([settled, Promise.resolve("still waiting")]);
  };
  return { sandbox, time, outcome };
}

const process = (change: Partial<SandboxProcess>): SandboxProcess => ({
  stdout: streamOf("output"),
  stderr: Promise.resolve(""),
  exitCode: Promise.resolve(0),
  ...change,
});

describe("a sandbox that says nothing", () => {
  it.each<[string, (sandbox: BoundedSandbox) => Promise<unknown>]>([
    ["inspect", (it) => it.inspect()],
    ["start", (it) => it.start({ env: {}, labels: {}, enableInternet: true })],
    ["destroy", (it) => it.destroy()],
    ["setInactivityTimeout", (it) => it.setInactivityTimeout(1)],
    ["snapshotContainer", (it) => it.snapshotContainer({})],
    ["exec", (it) => it.exec(["x"], { limit: 60_000 })],
    ["exec of what goes on", (it) => it.exec(["x"], { limit: null })],
  ])("is not waited for without end: %s", async (_, call) => {
    const { sandbox, time, outcome } = world();
    expect(await outcome(call(sandbox))).toMatchObject(silent);
    expect(time.timers).toBe(0);
  });

  it.each<[string, Partial<SandboxProcess>, (it: SandboxProcess) => Promise<unknown>]>([
    ["output", { stdout: new ReadableStream() }, (it) => new Response(it.stdout).text()],
    ["last words", { stderr: never() }, (it) => it.stderr],
    ["exit code", { exitCode: never() }, (it) => it.exitCode],
  ])("in the middle of a command is not waited for without end: its %s", async (_, change, wait) => {
    let signal: AbortSignal | undefined;
    const exec: Sandbox["exec"] = async (__, options) => {
      signal = options?.signal;
      return process(change);
    };
    const { sandbox, outcome } = world({ exec });
    const begun = await sandbox.exec(["sandbox", "save"], { limit: 60_000 });
    expect(await outcome(wait(begun))).toMatchObject({
      ...silent,
      message: expect.stringContaining("'sandbox save' within 60 s"),
    });
    expect(signal?.aborted).toBe(true);
  });

  it("leaves no timer behind when it speaks in time", async () => {
    const { sandbox, time } = world({ exec: async () => process({}) });
    const begun = await sandbox.exec(["x"], { limit: 60_000 });
    expect(await new Response(begun.stdout).text()).toBe("output");
    await time.pass(0);
    expect(time.timers).toBe(0);
  });
});
