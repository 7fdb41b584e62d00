// SPDX-License-Identifier: Apache-2.0
/** The way of one request to Hermes and back, beside a life that goes as it should. */
import { describe, expect, it } from "vitest";
import { Log, Redactor } from "../src/base/log.ts";
import { ChatTurns, TURN_HEADERS } from "../src/instance/chat-turns.ts";
import type { Lifecycle } from "../src/instance/lifecycle.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const CHAT = "/v1/chat/completions";

/** Hermes, as it answers. */
function world(answer: (calls: number) => Response | Promise<Response>, more: object = {}) {
  const time = new ManualTime();
  const seen = { calls: 0 };
  const lifecycle = {
    isAsleep: false,
    isHeldBack: false,
    arrive: (_: boolean, work: () => Promise<unknown>) => work(),
    withSeat: (_: string, __: boolean, turn: (at: object) => Promise<unknown>) =>
      turn({ keys: { gatewayKey: "k" }, bootId: "b" }),
    port: { fetch: async () => answer(++seen.calls) },
    refused: async () => false,
    findWay: async () => undefined,
    stay: () => undefined,
    ...more,
  };
  const turns = (finishesAlone = false) =>
    new ChatTurns({
      lifecycle: lifecycle as unknown as Lifecycle,
      time,
      log: new Log(new Redactor()),
      drainTimeout: 60_000,
      finishesAlone,
    });
  const ask = async (path: string, headers: Record<string, string> = {}) => {
    const request = new Request(`http://hermes${path}`, { method: "POST", body: "{}", headers });
    const { value } = await turns().serve(request, new AbortController().signal);
    return value;
  };
  return { time, seen, lifecycle, turns, ask };
}

describe("an answer of Hermes", () => {
  it.each([
    ["short and whole", () => new Response("ok", { headers: { "content-length": "2" } }), 200, "ok"],
    ["empty", () => new Response(null, { status: 204 }), 204, ""],
    ["without a body", () => new Response(null), 200, ""],
  ])("that is %s goes out as it is", async (_, answer, status, text) => {
    const out = await world(answer).ask("/v1/runs");
    expect([out.status, await out.text()]).toEqual([status, text]);
  });

  it.each([
    ["nothing", null, "hermes_failed"],
    ["words", "no room", "hermes_failed"],
    ["another reason than a restart", '{"error":{"code":"overloaded"}}', "hermes_failed"],
  ])("that refuses with %s is told, and Hermes is not asked again", async (_, body, code) => {
    const { ask, seen } = world(() => new Response(body, { status: 503 }));
    const out = await ask("/v1/runs");
    expect(out.status).toBe(503);
    expect(await out.json()).toMatchObject({ error: { code } });
    expect(seen.calls).toBe(1);
  });

  it("that comes while a new version is held back for has its own status, however late", async () => {
    const late = Promise.withResolvers<Response>();
    const { ask, time } = world(() => late.promise, { isHeldBack: true });
    const answer = ask(CHAT, { [TURN_HEADERS.stream]: "1" });
    await time.pass(15_000);
    late.resolve(new Response("{}", { status: 400 }));
    await time.pass(2000);
    const out = await answer;
    expect([out.status, out.headers.get("x-hermes-worker-waiting")]).toEqual([400, null]);
  });
});

describe("a turn that goes on alone", () => {
  const headers = { "content-type": "text/event-stream" };

  it("is read to its end for whom has left, and broken off for who is still there when Hermes breaks off", async () => {
    const hermes = new TransformStream<Uint8Array, Uint8Array>();
    const writer = hermes.writable.getWriter();
    const { turns } = world(() => new Response(hermes.readable, { headers }));
    const client = new AbortController();
    const request = new Request(`http://hermes${CHAT}`, { method: "POST", body: "{}" });
    const { value, end } = await turns(true).serve(request, client.signal);
    const reader = value.body?.getReader();
    void writer.write(new TextEncoder().encode("data: one\n\n"));
    expect(new TextDecoder().decode((await reader?.read())?.value)).toContain("one");
    client.abort(new Error("left"));
    await expect(reader?.read()).rejects.toThrow();
    // Nobody takes it, and it is read all the same.
    await writer.write(new TextEncoder().encode("data: two\n\n"));
    await writer.close();
    await end;
    const broken = new ReadableStream<Uint8Array>({ pull: (to) => to.error(new Error("broke off")) });
    const again = await world(() => new Response(broken, { headers }))
      .turns(true)
      .serve(
        new Request(`http://hermes${CHAT}`, { method: "POST", body: "{}" }),
        new AbortController().signal,
      );
    await expect(again.value.text()).rejects.toThrow("broke off");
  });
});
