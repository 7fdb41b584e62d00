// SPDX-License-Identifier: Apache-2.0
/** Clients as they are: what they poll, how they spell things, what they send that is not well. */
import { beforeEach, describe, expect, it } from "vitest";
import { isStream, sessionOf } from "../src/gate/hermes-api.ts";
import { readJson } from "../src/gate/request-json.ts";
import { anew, ask, chat, machine, refusal, said, woken } from "./helpers.ts";

beforeEach(anew);

const send = (body: BodyInit, headers: Record<string, string> = {}, path = "/v1/chat/completions") =>
  ask(path, { method: "POST", headers, body });
const HI = { messages: [{ role: "user", content: "hi" }] };

describe("what clients and monitors poll", () => {
  it("is answered without waking Hermes, and in the same way when it is awake", async () => {
    const models = async () => {
      const { data } = (await (await ask("/v1/models")).json()) as { data: { id: string; root: string }[] };
      return data.map(({ id, root }) => [id, root]);
    };
    const polled = async () => ({
      models: await models(),
      one: await (await ask("/v1/models/openai%2Fgpt-5-mini")).json<{ id: string; object: string }>(),
      none: await refusal(await ask("/v1/models/nobody")),
      head: (await ask("/v1/models", { method: "HEAD" })).status,
      options: (await ask("/v1/chat/completions", { method: "OPTIONS" })).headers.get("allow"),
    });
    const asleep = await polled();
    expect(asleep).toMatchObject({
      models: [
        ["hermes-agent", "hermes-agent"],
        ["openai/gpt-5-mini", "gpt-5-mini"],
        ["rehearsal/rehearsal", "rehearsal"],
      ],
      one: { id: "openai/gpt-5-mini", object: "model" },
      none: { status: 404, code: "model_not_found" },
      head: 200,
      options: "POST, OPTIONS",
    });
    const health = await (await ask("/v1/health")).json();
    expect(health).toEqual({ status: "ok", platform: "hermes-agent", version: "0.19.0", state: "asleep" });
    expect(await woken()).toBe(false);
    await (await chat("hi")).body?.cancel();
    const { created, ...one } = asleep.one as { id: string; object: string; created?: number };
    expect(await polled()).toMatchObject({ ...asleep, one });
    const passed = (await machine.look()).hermes.map(({ method, path }) => `${method} ${path}`);
    expect(passed).toEqual(["GET /v1/models", "POST /v1/chat/completions"]);
  });

  it.each([
    ["GET", "/v1/v1/models", 404, "one /v1 too many"],
    ["GET", "/models", 404, "has to end in /v1"],
    ["POST", "/chat/completions", 404, "has to end in /v1"],
    ["POST", "/v1/chat/completions/", 404, "Hermes has no such path"],
    ["POST", "/v1/embeddings", 404, "It has /v1/models"],
    ["GET", "/v1/files", 404, "Hermes has no such path"],
    ["GET", "/api/tags", 404, "no such path here"],
    ["OPTIONS", "/v1/nothing", 404, "Hermes has no such path"],
    ["GET", "/v1/chat/completions", 405, "only POST"],
    ["PUT", "/v1/responses/x", 405, "only GET, DELETE"],
    ["POST", "/v1/models", 405, "only GET, HEAD"],
    ["GET", "/v1/runs/run_0/events", 404, "Hermes is asleep"],
    ["POST", "/v1/runs/run_0/stop", 404, "Hermes is asleep"],
  ])("is refused without waking Hermes: %s %s", async (method, path, status, message) => {
    const answer = await ask(path, { method });
    expect(await refusal(answer)).toMatchObject({ status, message: expect.stringContaining(message) });
    if (status === 405) expect(answer.headers.get("allow")).toBe(message.replace("only ", ""));
    expect(await woken()).toBe(false);
  });

  it("is refused without waking Hermes: HEAD of what only Hermes knows", async () => {
    for (const path of ["/v1/skills", "/v1/chat/completions", "/v1/responses/x"])
      expect((await ask(path, { method: "HEAD" })).status).toBe(405);
    expect(await woken()).toBe(false);
  });
});

describe("bodies that are not well", () => {
  it.each<[string, BodyInit, number, string]>([
    ["nothing", "", 400, "no body"],
    ["no JSON", "messages=hi", 400, "no JSON"],
    ["a list", "[]", 400, "JSON object"],
    ["null", "null", 400, "JSON object"],
    ["a text", '"hi"', 400, "JSON object"],
    ["no messages", "{}", 400, "messages must be a list"],
    ["messages that are none", '{"messages":["hi"]}', 400, "messages[0] must be an object"],
    ["one message", '{"messages":{"role":"user","content":"hi"}}', 400, "messages must be a list"],
    [
      "a role that is none",
      '{"messages":[{"role":["user"],"content":"x"}]}',
      400,
      "messages[0].role must be",
    ],
    ["a model that is none", '{"model":[],"messages":[{"role":"user","content":"x"}]}', 400, "model must be"],
    ["a number that is none", '{"temperature":NaN}', 400, "no JSON"],
    ["a cut one", '{"messages":[{"role":"user"', 400, "no JSON: Expected"],
    ["one that is too deep", `{"messages":${"[".repeat(5e5)}${"]".repeat(5e5)}}`, 400, "deeper than"],
    ["Latin letters that claim to be UTF-8", Uint8Array.of(0x22, 0xe9, 0x22), 400, "no text in utf-8"],
  ])("are refused without waking Hermes: %s", async (_, body, status, message) => {
    const answer = await send(body);
    const { error } = await answer.json<{ error: Record<string, unknown> }>();
    expect([answer.status, error["type"]]).toEqual([status, "invalid_request_error"]);
    expect(error["message"]).toContain(message);
    const param = /^(\S+) must/.exec(message)?.[1] ?? null;
    expect(error["param"]).toBe(param);
    expect(await woken()).toBe(false);
  });

  it.each(["/v1/responses", "/v1/runs"])("are refused without waking Hermes: by %s", async (path) => {
    for (const [body, param] of [
      ["{}", "input"],
      ['{"input":7}', "input"],
      ['{"input":"x","previous_response_id":{}}', "previous_response_id"],
    ] as const) {
      const { error } = await (await send(body, {}, path)).json<{ error: Record<string, unknown> }>();
      expect(error).toMatchObject({ code: "invalid_body", param });
    }
    expect(await woken()).toBe(false);
  });

  it("are refused in an encoding that nobody can undo, or not in the one they claim", async () => {
    const body = JSON.stringify(HI);
    const status = async (coding: string) =>
      (await refusal(await send(body, { "content-encoding": coding }))).status;
    expect([await status("zstd"), await status("gzip")]).toEqual([415, 400]);
    const bomb = await packed(new Uint8Array(11 * 1024 * 1024));
    expect(await refusal(await send(bomb, { "content-encoding": "gzip" }))).toMatchObject({
      status: 413,
      code: "body_too_large",
    });
    const other = { "content-type": "application/json; charset=klingon" };
    expect(await refusal(await send(body, other))).toMatchObject({ status: 400, code: "bad_charset" });
    expect(await woken()).toBe(false);
  });

  it.each<[string, () => BodyInit | Promise<BodyInit>, Record<string, string>]>([
    ["with a mark before", () => `\ufeff${JSON.stringify(HI)}`, {}],
    ["in UTF-16", () => utf16(`\ufeff${JSON.stringify(HI)}`), {}],
    ["in Latin", () => JSON.stringify(HI), { "content-type": "application/json; charset=iso-8859-1" }],
    ["packed", () => packed(JSON.stringify(HI)), { "content-encoding": "gzip" }],
    ["as a form", () => JSON.stringify(HI), { "content-type": "application/x-www-form-urlencoded" }],
    ["with a key twice", () => '{"messages":[],"messages":[{"role":"user","content":"hi"}]}', {}],
  ])("are made well: %s", async (_, body, headers) => {
    expect(await said(await send(await body(), headers))).toBe("hi");
    const seen = (await machine.look()).hermes.at(-1);
    expect(JSON.parse(seen?.body ?? "")).toEqual(HI);
    expect(seen?.headers["content-type"]).toBe("application/json");
    expect(seen?.headers["content-encoding"]).toBeUndefined();
  });

  it("are given to Hermes in bytes of UTF-8, without a mark; those that are so already as they came", async () => {
    const text = '{ "messages": [{"role": "user", "content": "h\u00e9"}] }';
    const utf8 = new TextEncoder().encode(text);
    const latin = Uint8Array.from('{"messages":[{"role":"user"}],"user":"\u00e9"}', (letter) =>
      letter.charCodeAt(0),
    );
    const read = async (body: BodyInit, charset: string) => {
      const headers = { "content-type": `application/json${charset}` };
      const request = new Request("http://worker", { method: "POST", body, headers });
      return new Uint8Array((await readJson(request, "/v1/chat/completions")).body ?? new ArrayBuffer(0));
    };
    expect(await read(utf8, "")).toEqual(utf8);
    expect(await read(utf8, '; charset="UTF-8"')).toEqual(utf8);
    const same = JSON.stringify(JSON.parse(text));
    for (const marked of [`\ufeff${text}`, utf16(`\ufeff${text}`)]) {
      const given = await read(marked, "");
      expect([...given.slice(0, 1)]).toEqual([0x7b]);
      expect(JSON.stringify(JSON.parse(new TextDecoder().decode(given)))).toBe(same);
    }
    const given = await read(latin, "; charset=iso-8859-1");
    expect(
      JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(given)),
    ).toMatchObject({
      user: "\u00e9",
    });
  });

  it("are made well where a character was cut in half, and nowhere else", async () => {
    const say = (content: string) =>
      `{ "messages": [{"role": "user", "content": "${content}"}], "seed": 1e3 }`;
    const read = async (text: string) => {
      const request = new Request("http://worker", { method: "POST", body: text });
      return new TextDecoder().decode((await readJson(request, "/v1/chat/completions")).body ?? undefined);
    };
    expect(await read(say("a\\ud83d"))).toBe(say("a\\ufffd"));
    expect(await read(say("\\uDE00b\\ud83d\\ud83d\\ude00"))).toBe(say("\\ufffdb\\ufffd\\ud83d\\ude00"));
    for (const whole of ["\\ud83d\\ude00", "\\\\ud83d", "😀", "\\u00e9"])
      expect(await read(say(whole))).toBe(say(whole));
    expect(await said(await send(say("half \\ud83d")))).toBe("half \ufffd");
  });
});

describe("what Hermes refuses", () => {
  it.each([
    [404, "text/plain", "404: Not Found", { code: "not_found", message: "404: Not Found" }],
    [405, "text/plain", "405: Method Not Allowed", { code: "method_not_allowed" }],
    [
      500,
      "text/plain",
      "500 Internal Server Error\n\nServer got itself in trouble",
      { code: "hermes_failed" },
    ],
    [403, "text/plain", "", { message: "Hermes refused this with 403." }],
    [400, "application/json", '{"error":"Job not found"}', { code: null, message: "Job not found" }],
    [
      502,
      "application/json",
      '{"error":{"message":"no","type":"server_error","code":"agent_incomplete","hermes":{"failed":true}}}',
      { message: "no", type: "server_error", code: "agent_incomplete", hermes: { failed: true } },
    ],
  ])("with %s has OpenAI's shape", async (status, type, body, error) => {
    await machine.set({ says: { status, type, body } });
    const answer = await chat("hi");
    expect(answer.status).toBe(status);
    expect(answer.headers.get("content-type")).toBe("application/json");
    const id = answer.headers.get("x-request-id");
    const whole = { type: expect.any(String), param: null, request_id: id, ...error };
    expect(await answer.json()).toEqual({
      error: { message: expect.any(String), code: expect.anything(), ...whole },
    });
  });
});

describe("a stream", () => {
  it("is what Hermes takes for one", async () => {
    for (const value of [true, 1, 2, 0.5, "true", " True ", "1", "yes", "ON"])
      expect(isStream(value)).toBe(true);
    for (const value of [false, 0, null, undefined, "false", "0", "no", "off", "", "ja", [], {}, [1]])
      expect(isStream(value)).toBe(false);
  });

  it("belongs to the session that Hermes derives", async () => {
    const of = (...messages: object[]) => sessionOf({ messages });
    const user = { role: "user", content: "hi" };
    // hashlib.sha256(b"\nhi"), and of "be brief\nand kind\nhi"
    const system = ["be brief", "and kind"].map((content) => ({ role: "system", content }));
    expect(await of(user)).toBe("api-25f140a6575bf25c");
    expect(await of({ role: "user", content: [{ type: "text", text: "hi" }] })).toBe("api-25f140a6575bf25c");
    expect(await of(...system, user, { role: "user", content: "more" })).toBe("api-729fd8fa828b0f10");
    expect(await of({ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] })).toBeNull();
    expect(await of({ role: "user", content: ["hi"] })).toBe("api-25f140a6575bf25c");
    expect(await of({ role: "user", content: [null] })).toBeNull();
    expect(await of({ role: "assistant", content: "hi" })).toBeNull();
  });
});

async function packed(what: BodyInit): Promise<ArrayBuffer> {
  const plain = new Response(what).body as ReadableStream<Uint8Array>;
  return new Response(plain.pipeThrough(new CompressionStream("gzip"))).arrayBuffer();
}

function utf16(text: string): Uint8Array {
  return Uint8Array.from(
    [...text].flatMap((letter) => [letter.charCodeAt(0) & 255, letter.charCodeAt(0) >> 8]),
  );
}
