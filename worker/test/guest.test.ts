// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { Guest, type GuestParts } from "../src/guest.ts";
import { Log, Redactor } from "../src/log.ts";
import type { Vault } from "../src/vault.ts";
import { ManualTime, MemorySandbox } from "./stand-ins/sandbox.ts";

/** A guest whose Hermes answers like this. */
async function guest(answer: (url: string) => Response): Promise<Guest> {
  const sandbox = new MemorySandbox();
  await sandbox.start({ env: { HERMES_BOOT_ID: "b" }, labels: {}, enableInternet: true });
  sandbox.commands["go"]?.("", []);
  sandbox.answer = answer;
  const parts: GuestParts = {
    sandbox,
    vault: {} as Vault,
    time: new ManualTime(),
    log: new Log(new Redactor()),
  };
  return new Guest(parts, "b", { gatewayKey: "k", capability: "c", dashboardToken: "d" }, () => true);
}

const queues = (background_queues: unknown) => () =>
  Response.json({ readiness: { checks: { background_queues } } });

describe("work in Hermes' own queues", () => {
  it("is the sum of all queues, whatever else is told beside their depths", async () => {
    const told = queues({ runs: 2, delegations: 1, finished: 0, status: "ok", oldest: null });
    expect(await (await guest(told)).background()).toBe(3);
  });

  it.each([
    ["Hermes refuses", () => new Response(null, { status: 401 })],
    ["its answer is no JSON", () => new Response("<html>")],
    ["it tells nothing of queues", () => Response.json({ readiness: {} })],
    ["it tells nothing at all", () => Response.json({})],
    ["the queues have no depths", queues({ status: "ok" })],
  ])("counts as none when %s: a Hermes that cannot tell must be able to sleep", async (_, answer) => {
    expect(await (await guest(answer)).background()).toBe(0);
  });
});
