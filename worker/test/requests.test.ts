// SPDX-License-Identifier: Apache-2.0
import { beforeEach, describe, expect, it, vi } from "vitest";
import { anew, askWith, TOKEN } from "./helpers.ts";

beforeEach(anew);

/** What the Worker logs while something is done, as text and as the lines about requests. */
async function logged(work: () => Promise<void>) {
  const kinds = (["log", "warn", "error"] as const).map((kind) => vi.spyOn(console, kind));
  try {
    await work();
    const lines = () => kinds.flatMap(({ mock }) => mock.calls.map(([line]) => String(line)));
    await vi.waitFor(() => expect(lines().join()).toContain('"event":"request"'));
    const parsed = lines().map((line) => JSON.parse(line) as Record<string, unknown>);
    return { text: lines().join("\n"), requests: parsed.filter(({ event }) => event === "request") };
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
});
