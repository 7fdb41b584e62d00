// SPDX-License-Identifier: Apache-2.0
import { createExecutionContext } from "cloudflare:test";
import { beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import type { Env } from "../src/config/settings.ts";
import { Egress } from "../src/providers/egress.ts";
import { anew, env, machine } from "./helpers.ts";

beforeAll(anew);
beforeEach(() => machine.provider(null));

/** A call of the container, with some hosts allowed. */
function reach(url: string, allowed: string, accept = "*/*"): Promise<Response> {
  const entrypoint = new Egress(createExecutionContext(), { ...env, HERMES_EGRESS: allowed } as Env);
  return entrypoint.fetch(new Request(url, { headers: { Accept: accept } }));
}

describe("what a container may reach", () => {
  it.each([
    ["https://wiki.example/simple/", "wiki.example"],
    ["http://wiki.example/simple/", "github.com,wiki.example"],
    ["https://Wiki.Example./simple/", "wiki.example"],
    ["https://files.wikihosted.example/a", ".wikihosted.example"],
  ])("%s is let through by %s", async (url, allowed) => {
    const answer = await reach(url, allowed);
    expect(answer.status).toBe(200);
    await answer.body?.cancel();
    expect(new URL((await machine.look()).provider.at(-1)?.url ?? "").hostname).toMatch(/wiki/);
  });

  it.each([
    ["https://evil.example/?key=1", "providers"],
    ["https://evil.example/", "wiki.example"],
    ["https://wiki.example.evil.example/", "wiki.example"],
    ["https://notwiki.example/", "wiki.example"],
    ["https://sub.wiki.example/", "wiki.example"],
    ["https://wikihosted.example/", ".wikihosted.example"],
    ["http://127.0.0.1/", "wiki.example"],
  ])("%s is not, by %s; the log says which host", async (url, allowed) => {
    const log = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    const before = (await machine.look()).provider.length;
    const answer = await reach(url, allowed);
    expect(answer.status).toBe(403);
    expect(await answer.text()).toContain("hermes_egress");
    expect((await machine.look()).provider.length).toBe(before);
    const lines = log.mock.calls.map(([line]) => JSON.stringify(line));
    expect(
      lines.some((line) => line.includes("egress_blocked") && line.includes(new URL(url).hostname)),
    ).toBe(true);
    expect(lines.join()).not.toContain("key=1");
    log.mockRestore();
  });

  it("a program is told in JSON, and a browser by a page", async () => {
    const program = await reach("https://evil.example/", "providers");
    expect(await program.json()).toHaveProperty("error.code", "egress_blocked");
    const browser = await reach(
      "https://evil.example/",
      "providers",
      "text/html,application/xhtml+xml,*/*;q=0.8",
    );
    expect(browser.status).toBe(403);
    expect(browser.headers.get("Content-Type")).toMatch(/^text\/html/);
    expect(await browser.text()).toContain(
      "<h1>This sandbox may not reach evil.example. Its owner allows hosts by hermes_egress.</h1>",
    );
  });
});
