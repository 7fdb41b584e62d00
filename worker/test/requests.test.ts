// SPDX-License-Identifier: Apache-2.0
import { beforeEach, describe, expect, it, vi } from "vitest";
import { anew, askDashboard, askWith, TOKEN } from "./helpers.ts";

beforeEach(anew);

/** What the Worker logs while something is done, as text, as lines, and as those about requests: so many, at least. */
async function logged(work: () => Promise<void>, least = 1) {
  const kinds = (["log", "warn", "error"] as const).map((kind) => vi.spyOn(console, kind));
  try {
    await work();
    const lines = () => kinds.flatMap(({ mock }) => mock.calls.map(([line]) => String(line)));
    const parsed = () => lines().map((line) => JSON.parse(line) as Record<string, unknown>);
    const requests = () => parsed().filter(({ event }) => event === "request");
    await vi.waitFor(() => expect(requests().length).toBeGreaterThanOrEqual(least));
    return { text: lines().join("\n"), lines: parsed(), requests: requests() };
  } finally {
    for (const kind of kinds) kind.mockRestore();
  }
}

describe("the log", () => {
  const chat = (token: string) =>
    askWith(
      {},
      "/v1/chat/completions?key=in-the-query",
      { authorization: `Bearer ${token}`, "x-note": "in-a-header" },
      { method: "POST", body: JSON.stringify({ messages: [{ role: "user", content: "in-the-body" }] }) },
    );

  it.each([
    ["an answer, and what Hermes was woken for", TOKEN, 200, { boot_cause: "/v1/chat/completions" }],
    ["a refusal", "a-wrong-token-of-somebody", 401, {}],
  ])("has a line for %s, with no query, no body and no secret", async (_, token, status, more) => {
    let id: string | null = null;
    const { text, requests } = await logged(async () => {
      const answer = await chat(token);
      expect(answer.status).toBe(status);
      id = answer.headers.get("x-request-id");
      await answer.text();
    });
    expect(requests).toEqual([
      {
        time: expect.stringMatching(/^\d{4}-.*Z$/),
        level: "info",
        event: "request",
        request_id: id,
        method: "POST",
        route: "/v1/chat/completions",
        status,
        ms: expect.any(Number),
        ...more,
      },
    ]);
    for (const private_ of [token, "in-the-query", "in-the-body", "in-a-header"])
      expect(text).not.toContain(private_);
  });

  it("knows by its id what the Worker answers itself, too", async () => {
    let id: string | null = "none";
    const { requests } = await logged(async () => {
      id = (await askWith({}, "/", {})).headers.get("x-request-id");
    });
    expect(requests).toMatchObject([{ request_id: id, route: "/", status: 200 }]);
  });

  /** A call with a token, to a Worker that is configured otherwise. */
  const health = async (token: string | null, change: Record<string, unknown> = {}) => {
    const headers = {
      "cf-connecting-ip": "198.51.100.9",
      ...(token && { authorization: `Bearer ${token}` }),
    };
    const there = { HERMES_PLATFORM: "cloudflare", ...change } as Record<string, string>;
    const answer = await askWith(there, "/api/health", headers, {}, "https://worker");
    await answer.body?.cancel();
    return answer.status;
  };

  it("says why for what fails on our side, and for nothing else", async () => {
    const torn = { getByName: () => ({ tokenUsed: () => Promise.reject(new Error("torn down")) }) };
    const { lines } = await logged(async () => {
      expect(await health(TOKEN, { INSTANCE: torn })).toBe(503);
      expect(await health(TOKEN, { API_TOKEN: null })).toBe(503);
      expect(await health("a-wrong-token-of-somebody")).toBe(401);
    }, 3);
    expect(lines.filter(({ event }) => event === "refused")).toMatchObject([
      { level: "error", code: "instance_unavailable", why: "Error: torn down" },
      { level: "error", code: "no_token", why: expect.stringContaining("token") },
    ]);
  });

  it("takes a page that polls while Hermes sleeps for no failure", async () => {
    const { lines } = await logged(async () => {
      const answer = await askDashboard("/api/status", { headers: { authorization: `Bearer ${TOKEN}` } });
      expect(await answer.json()).toMatchObject({ code: "asleep" });
    });
    expect(lines.filter(({ level }) => level === "error")).toEqual([]);
  });

  it("keeps a flood of strangers short, tells how much it left out, and hides nothing of whoever is let in", async () => {
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 3600_000);
    try {
      const times = async (many: number, call: () => Promise<number>) => {
        for (let n = 0; n < many; n++) await call();
      };
      const { lines, requests } = await logged(async () => {
        await times(40, () => health(null));
        await times(20, () => health(TOKEN, { API_TOKEN: null }));
        await times(25, () => health("a-wrong-token-of-somebody"));
        await times(35, () => health(TOKEN));
      }, 100);
      const of = (wanted: number) => requests.filter(({ status }) => status === wanted).length;
      // A failure of ours has two lines; whoever is told to wait has none.
      expect([of(401), of(503), of(429), of(200)]).toEqual([30 + 20, 15, 0, 35]);
      expect(lines.filter(({ event }) => event === "refused")).toHaveLength(15);
      const leftOut = lines.filter(({ event }) => event === "requests_not_logged");
      expect(leftOut.map(({ number }) => number)).toEqual([10, 5]);
    } finally {
      clock.mockRestore();
    }
  });
});
