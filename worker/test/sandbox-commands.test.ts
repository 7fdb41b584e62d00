// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { Log, Redactor } from "../src/base/log.ts";
import { BoundedSandbox } from "../src/sandbox/bounded.ts";
import { type CommandsParts, SandboxCommands } from "../src/sandbox/commands.ts";
import type { Vault } from "../src/state/vault.ts";
import { ManualTime, MemorySandbox } from "./stand-ins/sandbox.ts";

/** Commands for a sandbox whose Hermes answers like this. */
async function commands(
  answer: (url: string) => Response,
  sandbox: MemorySandbox = new MemorySandbox(),
): Promise<SandboxCommands> {
  await sandbox.start({ env: { HERMES_BOOT_ID: "b" }, labels: {}, enableInternet: true });
  await sandbox.commands["go"]?.("", []);
  sandbox.answer = answer;
  const time = new ManualTime();
  const parts: CommandsParts = {
    sandbox: BoundedSandbox.of(sandbox, time),
    vault: {} as Vault,
    time,
    log: new Log(new Redactor()),
  };
  return new SandboxCommands(
    parts,
    "b",
    { gatewayKey: "k", capability: "c", dashboardToken: "d" },
    () => true,
  );
}

const queues = (background_queues: unknown) => () =>
  Response.json({ readiness: { checks: { background_queues } } });

describe("work in Hermes' own queues", () => {
  it("is the sum of all queues, whatever else is told beside their depths", async () => {
    const told = queues({ runs: 2, delegations: 1, finished: 0, status: "ok", oldest: null });
    expect(await (await commands(told)).background()).toBe(3);
  });

  it.each([
    ["Hermes refuses", () => new Response(null, { status: 401 })],
    ["its answer is no JSON", () => new Response("<html>")],
    ["it tells nothing of queues", () => Response.json({ readiness: {} })],
    ["it tells nothing at all", () => Response.json({})],
    ["the queues have no depths", queues({ status: "ok" })],
  ])("counts as none when %s: a Hermes that cannot tell must be able to sleep", async (_, answer) => {
    expect(await (await commands(answer)).background()).toBe(0);
  });
});

describe("a command that fails", () => {
  const failing = async (name: string, exitCode: number, stderr: string) => {
    const sandbox = new MemorySandbox();
    sandbox.commands[name] = () => ({ exitCode, stderr });
    return commands(() => new Response(null, { status: 500 }), sandbox);
  };

  it("as the dashboard that must not run is told apart from one that does not come up", async () => {
    const refused = (await failing("dashboard", 77, "It cannot be confined.")).dashboard(false);
    await expect(refused).rejects.toMatchObject({ status: 503, code: "dashboard_refused" });
    const failed = (await failing("dashboard", 70, "")).dashboard(true);
    await expect(failed).rejects.toMatchObject({ code: "dashboard_failed" });
    const other = (await failing("stop-gateway", 77, "")).stopGateway(1);
    await expect(other).rejects.toMatchObject({ code: "stop_gateway_failed" });
  });

  it("is told by its exit code where it says nothing, and what it prints where that is no JSON", async () => {
    const mute = await failing("stop-gateway", 70, "");
    await expect(mute.stopGateway(1)).rejects.toMatchObject({
      message: "'sandbox stop-gateway' failed: exit code 70",
    });
  });

  it("at looking again at what was declared is a declaration that failed", async () => {
    const it = await failing("declare", 0, "");
    const input = {} as Parameters<SandboxCommands["declare"]>[0];
    await it.declare(input, false);
    await expect(it.declare(input, true)).rejects.toMatchObject({
      code: "declare_failed",
      message: expect.stringContaining("Hermes answered 500."),
    });
  });
});

describe("a backup that is to be judged before anything is stopped", () => {
  const judged = async (done: { exitCode: number; stderr: string }) => {
    const sandbox = new MemorySandbox();
    const seen: string[] = [];
    sandbox.commands["check"] = (stdin) => {
      seen.push(stdin);
      return done;
    };
    const upload = new Response("the archive").body;
    if (upload === null) throw new TypeError("a response has a body");
    const verdict = (await commands(() => new Response(), sandbox)).check(upload);
    return { seen, verdict };
  };

  it("is handed to the sandbox whole", async () => {
    const { seen, verdict } = await judged({ exitCode: 0, stderr: "" });
    await verdict;
    expect(seen).toEqual(["the archive"]);
  });

  it("is refused in the sandbox's words when its bytes prove that it cannot be restored", async () => {
    const { verdict } = await judged({
      exitCode: 70,
      stderr: "The archive cannot be used: a name is too long.",
    });
    await expect(verdict).rejects.toMatchObject({
      status: 400,
      code: "bad_backup",
      message: expect.stringContaining("a name is too long"),
    });
  });

  it.each([73, 74, 75, 137])(
    "is no bad backup when the sandbox cannot tell (exit code %d)",
    async (exitCode) => {
      const { verdict } = await judged({ exitCode, stderr: "out of memory" });
      await expect(verdict).rejects.toMatchObject({
        status: 503,
        message: expect.stringContaining("out of memory"),
      });
    },
  );
});
