// SPDX-License-Identifier: Apache-2.0
import { createExecutionContext, runInDurableObject, waitOnExecutionContext } from "cloudflare:test";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import refusals from "../../tests/standins/refusals.json";
import { ownFileOf, ownMessageOf } from "../src/channels/gate.ts";
import type { Env } from "../src/config/settings.ts";
import { Providers } from "../src/providers/outbound.ts";
import { judged, whyRefused } from "../src/providers/refusals.ts";
import { anew, ask, askProviders, chat, crash, env, instance, machine, said, until } from "./helpers.ts";

type Refused = (typeof refusals)[number];

const ADDRESS = "http://127.0.0.1:8799";
let capability = "";

beforeAll(async () => {
  await anew();
  await said(await chat("wake up"));
  const go = (await machine.look()).goes[0] as { env: Record<string, string> };
  capability = go.env["ANTHROPIC_API_KEY"] ?? "";
});

beforeEach(() => machine.provider(null));

/** A call as Hermes makes it. */
function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (!headers.has("authorization") && !headers.has("x-api-key"))
    headers.set("authorization", `Bearer ${capability}`);
  return askProviders(`${ADDRESS}${path}`, { method: "POST", body: "{}", ...init, headers });
}

async function refused(answer: Promise<Response>): Promise<{ status: number; text: string }> {
  const got = await answer;
  return { status: got.status, text: await got.text() };
}

/** The entrypoint with another configuration. */
async function callWith(
  change: Record<string, unknown>,
  path: string,
  init: RequestInit = {},
): Promise<Response> {
  const context = createExecutionContext();
  const headers = new Headers(init.headers);
  headers.set("authorization", `Bearer ${capability}`);
  const entrypoint = new Providers(context, { ...env, ...change } as Env);
  const answer = await entrypoint.fetch(
    new Request(`${ADDRESS}${path}`, { method: "POST", body: "{}", ...init, headers }),
  );
  const copy = new Response(await answer.arrayBuffer(), answer);
  await waitOnExecutionContext(context);
  return copy;
}

const lastCall = async () => (await machine.look()).provider.at(-1);

describe("what passes", () => {
  it("adds the key to a call of this boot and streams the answer", async () => {
    const answer = await call("/anthropic/v1/messages?beta=true", {
      headers: {
        authorization: `Bearer ${capability}`,
        "x-api-key": capability,
        "anthropic-version": "2023-06-01",
        cookie: "a=b",
        "cf-ray": "1",
      },
      body: '{"model":"claude-sonnet-4-5"}',
    });
    expect(await answer.text()).toBe("data: one\n\ndata: two\n\n");
    const seen = await lastCall();
    expect(seen?.url).toBe("https://api.anthropic.com/v1/messages?beta=true");
    expect(seen?.body).toBe('{"model":"claude-sonnet-4-5"}');
    expect(seen?.headers).toMatchObject({
      "x-api-key": "sk-ant-the-real-key-0123456789",
      "anthropic-version": "2023-06-01",
      "accept-encoding": "identity",
    });
    for (const name of ["authorization", "cookie", "cf-ray"]) expect(seen?.headers).not.toHaveProperty(name);
  });

  it("uses a bearer for the others, and their own paths", async () => {
    await callWith({ OPENAI_API_KEY: "sk-openai-real" }, "/openai/v1/responses");
    expect(await lastCall()).toMatchObject({
      url: "https://api.openai.com/v1/responses",
      headers: { authorization: "Bearer sk-openai-real" },
    });
    const router = { HERMES_MODELS: '["openrouter/a/b"]', OPENROUTER_API_KEY: "sk-or-real" };
    await callWith(router, "/openrouter/v1/chat/completions");
    expect(await lastCall()).toMatchObject({
      url: "https://openrouter.ai/api/v1/chat/completions",
      headers: { authorization: "Bearer sk-or-real" },
    });
  });

  it("leads through the AI Gateway: each provider by its own path, signed in when there is a token", async () => {
    const gateway = {
      HERMES_AI_GATEWAY: "https://gateway.ai.cloudflare.com/v1/acc/gw",
      HERMES_MODELS: '["openai/gpt-5-mini", "openrouter/a/b"]',
      OPENAI_API_KEY: "sk-openai-real",
    };
    const ways = {
      "/anthropic/v1/messages": "/anthropic/v1/messages",
      "/openai/v1/responses": "/openai/responses",
    };
    for (const [inner, outer] of Object.entries(ways)) {
      await callWith(gateway, inner);
      const seen = await lastCall();
      expect(seen?.url).toBe(`${gateway.HERMES_AI_GATEWAY}${outer}`);
      expect(seen?.headers).not.toHaveProperty("cf-aig-authorization");
    }
    // The gateway holds OpenRouter's key: we need none.
    await callWith({ ...gateway, AI_GATEWAY_TOKEN: "aig-real" }, "/openrouter/v1/chat/completions");
    const seen = await lastCall();
    expect(seen).toMatchObject({
      url: `${gateway.HERMES_AI_GATEWAY}/openrouter/chat/completions`,
      headers: { "cf-aig-authorization": "Bearer aig-real" },
    });
    expect(seen?.headers).not.toHaveProperty("authorization");
  });

  it("sends the gateway's token to nobody else", async () => {
    const own = {
      HERMES_AI_GATEWAY: "https://gateway.ai.cloudflare.com/v1/acc/gw",
      HERMES_PROVIDER_BASE_URL: "https://proxy.example",
      AI_GATEWAY_TOKEN: "aig-real",
    };
    await callWith(own, "/anthropic/v1/messages");
    expect((await lastCall())?.headers).not.toHaveProperty("cf-aig-authorization");
  });

  it("serves the providers of this deployment's models only", async () => {
    const answer = await callWith({ OPENROUTER_API_KEY: "sk-or" }, "/openrouter/v1/chat/completions");
    expect(answer.status).toBe(404);
  });

  it("sends the default model's provider to a base URL of one's own, with its path", async () => {
    await callWith(
      { HERMES_PROVIDER_BASE_URL: "https://gateway.example/v1/acc/anthropic/" },
      "/anthropic/v1/messages",
    );
    expect((await lastCall())?.url).toBe("https://gateway.example/v1/acc/anthropic/v1/messages");
  });

  it("needs no key for a custom provider, on this machine too", async () => {
    const custom = {
      HERMES_DEFAULT_MODEL: "custom/llama",
      HERMES_PROVIDER_BASE_URL: "http://127.0.0.1:11434/v1",
    };
    await callWith(custom, "/custom/v1/chat/completions");
    const seen = await lastCall();
    expect(seen?.url).toBe("http://127.0.0.1:11434/v1/chat/completions");
    expect(seen?.headers).not.toHaveProperty("authorization");
    const lost = await callWith({ ...custom, PROVIDER: undefined }, "/custom/v1/chat/completions");
    expect(lost.status).toBe(502);
    expect(await lost.text()).toContain("PROVIDER");
  });
});

describe("what Hermes sends on its own account", () => {
  const message = { name: "0123456789abcdef", platform: "telegram", chat: "77", text: "rain" };

  it("is taken with the capability of this boot alone, and only when it is a message", async () => {
    const body = JSON.stringify(message);
    const wrong = { authorization: "Bearer wrong" };
    expect((await refused(call("/channels/send", { body, headers: wrong }))).text).toContain(
      "bad_capability",
    );
    expect((await refused(call("/channels/send", { body: "{}" }))).text).toContain("bad_message");
    expect((await call("/channels/send", { method: "GET", body: null })).status).toBe(404);
    // With it the instance is asked, which has no such channel here.
    expect((await refused(call("/channels/send", { body }))).text).toContain("no_channel");
    const { text: _, ...place } = message;
    const file = (told: object, more: object = {}) =>
      refused(
        call("/channels/send", {
          body: "the bytes",
          headers: { "x-hermes-file": encodeURIComponent(JSON.stringify(told)), ...more },
        }),
      );
    const told = { ...place, thread: null, kind: "image", called: "ä.png", mime: "image/png" };
    expect((await file(told)).text).toContain("no_channel");
    expect((await file(told, wrong)).text).toContain("bad_capability");
    expect((await file({ ...told, mime: "image/png\nx: y" })).text).toContain("bad_message");
    expect((await file({ ...told, name: "x" })).text).toContain("bad_message");
  });
});

describe("a file that Hermes sends on its own account", () => {
  const told = { name: "name-of-it", platform: "telegram", chat: "77", kind: "image", called: "a", mime: "" };
  const headers = (size: string | null, of: unknown = told) =>
    new Headers({
      "x-hermes-file": encodeURIComponent(JSON.stringify(of)),
      ...(size === null ? {} : { "content-length": size }),
    });

  it("is read with its length, and of a kind that nobody knows is a document", () => {
    expect(ownFileOf(headers("3"))).toMatchObject({ kind: "photo", size: 3, thread: null });
    expect(ownFileOf(headers("3", { ...told, kind: "hologram" }))).toMatchObject({ kind: "document" });
  });

  it.each([
    ["is empty", () => headers("0"), "bad_message"],
    ["has no length", () => headers(null), "bad_message"],
    ["has a length that is none", () => headers("x"), "bad_message"],
    ["is told nothing of", () => new Headers({ "content-length": "3" }), "bad_message"],
    ["is larger than any platform takes", () => headers("999999999"), "body_too_large"],
  ])("is refused when it %s", (_, made, code) => {
    expect(() => ownFileOf(made())).toThrow(expect.objectContaining({ code }));
  });

  it("is no message without a body", () => {
    expect(() => ownMessageOf(null)).toThrow(expect.objectContaining({ code: "bad_message" }));
  });
});

describe("a boot that is over", () => {
  const held = () => runInDurableObject(instance(), (it) => it.held);
  const events = { status: 200, headers: { "content-type": "text/event-stream" }, body: "data: more\n\n" };
  const boot = async () => {
    await said(await chat("wake up"));
    const go = (await machine.look()).goes.at(-1) as { env: Record<string, string> };
    capability = go.env["ANTHROPIC_API_KEY"] ?? "";
  };

  it("has nothing asked any more: its capability is refused at once, and again while another boot runs", async () => {
    await boot();
    expect((await call("/anthropic/v1/messages")).status).toBe(200);
    await ask("/api/instance/sleep", { method: "POST" });
    const before = (await machine.look()).provider.length;
    expect((await call("/anthropic/v1/messages")).status).toBe(401);
    const old = capability;
    await boot();
    const authorization = `Bearer ${old}`;
    expect((await call("/anthropic/v1/messages", { headers: { authorization } })).status).toBe(401);
    expect((await machine.look()).provider.length - before).toBe(0);
    expect((await call("/anthropic/v1/messages")).status).toBe(200);
  });

  it("takes what it has open with it, and what came to its end is forgotten", async () => {
    await boot();
    for (let at = 0; at < 5; at++) await (await call("/anthropic/v1/messages")).text();
    await until(async () => (await held()) === 0);
    await machine.provider({ ...events, endless: true });
    const left = await call("/anthropic/v1/messages");
    await left.body?.cancel();
    await until(async () => (await held()) === 0);
    const reader = (await call("/anthropic/v1/messages")).body?.getReader();
    expect((await reader?.read())?.done).toBe(false);
    expect(await held()).toBe(1);
    await ask("/api/instance/sleep", { method: "POST" });
    const end = async () => {
      while (!(await reader?.read())?.done);
    };
    await expect(end()).rejects.toThrow();
    expect(await held()).toBe(0);
    await boot();
  });

  it("is not over because the object was started over", async () => {
    await machine.provider({ ...events, endless: true });
    const reader = (await call("/anthropic/v1/messages")).body?.getReader();
    await reader?.read();
    await crash();
    for (let at = 0; at < 20; at++) expect((await reader?.read())?.done).toBe(false);
    await until(async () => (await held()) === 1);
    await reader?.cancel();
  });
});

describe("what does not", () => {
  it.each([
    ["no capability", { authorization: "" }],
    ["a wrong capability", { authorization: "Bearer wrong" }],
    ["the API token", { authorization: "Bearer correct-horse-battery-staple" }],
  ])("refuses %s", async (_, headers) => {
    const answer = await refused(
      call("/anthropic/v1/messages", { headers: headers as Record<string, string> }),
    );
    expect(answer.status).toBe(401);
    expect(JSON.parse(answer.text)).toMatchObject({ type: "error", error: { type: "authentication_error" } });
  });

  it.each(["localhost:8799", "evil.example", "127.0.0.1", "127.0.0.1:8787"])(
    "refuses the host %s",
    async (host) => {
      const before = (await machine.look()).provider.length;
      const answer = await askProviders(`http://${host}/anthropic/v1/messages`, {
        method: "POST",
        body: "{}",
        headers: { authorization: `Bearer ${capability}` },
      });
      expect(answer.status).toBe(403);
      await answer.body?.cancel();
      expect((await machine.look()).provider.length).toBe(before);
    },
  );

  it("refuses a page's origin, even with the capability", async () => {
    const answer = await refused(
      call("/anthropic/v1/messages", { headers: { "x-api-key": capability, origin: "null" } }),
    );
    expect(answer.status).toBe(403);
  });

  it.each([
    "//evil.example/v1/messages",
    "/anthropic//evil.example",
    "/anthropic/v1//messages",
    "/anthropic/v1/messages/",
    "/anthropic/v1/messages/../../admin",
    "/anthropic/v1/%2e%2e/messages",
    "/anthropic/v1%2fmessages",
    "/anthropic/\\evil.example/v1/messages",
    "/anthropic/http://evil.example/",
    "/Anthropic/v1/messages",
    "/anthropic/v1/complete",
    "/anthropic/v1/organizations",
    "/openai/v1/files",
    "/openrouter/v1/credits",
    "/nobody/v1/chat/completions",
    "/anthropic",
    "/",
    "/v1/messages",
  ])("refuses the path %s", async (path) => {
    const before = (await machine.look()).provider.length;
    const answer = await refused(call(path));
    expect(answer.status).toBe(404);
    expect((await machine.look()).provider.length).toBe(before);
  });

  it.each(["GET", "PUT", "DELETE", "PATCH"])("refuses %s on a path for POST", async (method) => {
    const answer = await refused(call("/anthropic/v1/messages", { method, body: null }));
    expect(answer.status).toBe(404);
  });

  it("does not follow a redirect, and does not hand it on", async () => {
    await machine.provider({ status: 302, headers: { location: "https://evil.example/" }, body: "" });
    const answer = await refused(call("/anthropic/v1/messages"));
    expect(answer.status).toBe(502);
    expect(answer.text).not.toContain("evil.example");
    expect(answer.text).toContain("HERMES_PROVIDER_BASE_URL");
  });
});

describe("what a provider answers", () => {
  it("may be nothing", async () => {
    await machine.provider({ status: 204, headers: {}, body: "" });
    const answer = await call("/anthropic/v1/messages");
    expect([answer.status, await answer.text()]).toEqual([204, ""]);
  });

  it("is judged by its status alone when it says nothing", async () => {
    const { answer, why } = judged(new Response(null, { status: 401 }));
    expect([answer.status, await why]).toEqual([401, "key"]);
  });

  it("is led elsewhere by the gateway, which is to be mended then", async () => {
    await machine.provider({ status: 302, headers: { location: "https://evil.example/" }, body: "" });
    const gateway = { HERMES_AI_GATEWAY: "https://gateway.ai.cloudflare.com/v1/acc/gw" };
    const answer = await callWith(gateway, "/anthropic/v1/messages");
    expect(await answer.text()).toContain("Mend HERMES_AI_GATEWAY.");
  });

  it("is asked for on this machine only where there is a way", async () => {
    const own = { HERMES_PROVIDER_BASE_URL: "http://127.0.0.1:11434/v1", PROVIDER: undefined };
    const answer = await callWith(own, "/anthropic/v1/messages");
    expect([answer.status, await answer.text()]).toEqual([
      502,
      expect.stringContaining("no way to this machine"),
    ]);
  });

  it("is not asked for by a Worker that cannot be configured", async () => {
    const answer = await callWith({ INSTANCE: undefined }, "/openai/v1/responses");
    expect([answer.status, ((await answer.json()) as { error: object }).error]).toEqual([
      502,
      expect.objectContaining({ code: "providers_failed" }),
    ]);
  });

  it("is not laid to another provider that serves", async () => {
    await machine.provider({ status: 401, headers: {}, body: "no" });
    await refused(call("/anthropic/v1/messages"));
    const trouble = async () =>
      (await (await ask("/api/instance/status")).json<{ lastProviderError: object | null }>())
        .lastProviderError;
    await until(async () => (await trouble()) !== null);
    await runInDurableObject(instance(), (it) => it.providerServed("openai"));
    expect(await trouble()).not.toBeNull();
    await runInDurableObject(instance(), (it) => it.providerServed("anthropic"));
    expect(await trouble()).toBeNull();
  });
});

describe("keys to mend", () => {
  const trouble = async () =>
    (
      (await (await ask("/api/instance/status")).json()) as {
        lastProviderError: Record<string, unknown> | null;
      }
    ).lastProviderError;

  it("names the variable of a key that is not set, in the provider's own error format", async () => {
    const answer = await refused(call("/openai/v1/responses"));
    expect(answer.status).toBe(401);
    expect(JSON.parse(answer.text)).toMatchObject({ error: { code: "invalid_api_key" } });
    expect(answer.text).toContain("OPENAI_API_KEY");
    await until(async () => (await trouble())?.["variable"] === "OPENAI_API_KEY");
  });

  it("hands a refusal on and remembers which variable to mend", async () => {
    const body = '{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}';
    await machine.provider({ status: 401, headers: { "content-type": "application/json" }, body });
    const answer = await refused(call("/anthropic/v1/messages"));
    expect(answer).toEqual({ status: 401, text: body });
    await until(async () => (await trouble())?.["variable"] === "ANTHROPIC_API_KEY");
    expect(await trouble()).toMatchObject({ provider: "anthropic", status: 401, why: "key" });
  });

  it("hands a refusal for the place on whole, and does not lay it to the key", async () => {
    const [{ status, body }] = refusals.filter(({ what }) => what.startsWith("Anthropic")) as [Refused];
    const long = body.replace(/\}$/, `,"more":"${"x".repeat(100_000)}"}`);
    for (const text of [body, long]) {
      await machine.provider({ status, headers: { "content-type": "application/json" }, body: text });
      expect(await refused(call("/anthropic/v1/messages"))).toEqual({ status, text });
    }
    await until(async () => (await trouble())?.["why"] === "region");
    expect(await trouble()).toMatchObject({ provider: "anthropic", status: 403 });
  });

  it("forgets a refusal once that provider serves, and not when another does", async () => {
    await machine.provider({ status: 401, headers: {}, body: "{}" });
    await refused(call("/anthropic/v1/messages"));
    await until(async () => (await trouble())?.["status"] === 401);
    await machine.provider(null);
    await (await call("/rehearsal/v1/chat/completions", { body: '{"messages":[]}' })).text();
    expect(await trouble()).toMatchObject({ provider: "anthropic" });
    expect(await (await call("/anthropic/v1/messages")).text()).toContain("two");
    await until(async () => (await trouble()) === null);
  });

  it.each(refusals)("judges $what: $why", ({ status, body, why }) => {
    expect(whyRefused(status, body)).toBe(why);
  });
});

describe("the rehearsal", () => {
  const turns = [
    { role: "system", content: "be kind" },
    { role: "user", content: "A" },
    { role: "assistant", content: "..." },
    { role: "user", content: [{ type: "text", text: "B" }] },
  ];
  const text = 'Rehearsal model here; no provider was called. Turn 2. You said: "B". You began with: "A".';

  it("says what it was told", async () => {
    const answer = await call("/rehearsal/v1/chat/completions", {
      body: JSON.stringify({ messages: turns }),
    });
    const body = (await answer.json()) as { choices: object[]; usage: { total_tokens: number } };
    expect(body.choices[0]).toMatchObject({ message: { content: text }, finish_reason: "stop" });
    expect(body.usage.total_tokens).toBeGreaterThan(10);
  });

  it("streams it in chunks, with usage when asked", async () => {
    const body = JSON.stringify({ messages: turns, stream: true, stream_options: { include_usage: true } });
    const stream = await (await call("/rehearsal/v1/chat/completions", { body })).text();
    const events = stream
      .trim()
      .split("\n\n")
      .map((event) => event.slice("data: ".length));
    expect(events.pop()).toBe("[DONE]");
    const chunks = events.map(
      (event) => JSON.parse(event) as { choices: { delta: { content?: string } }[]; usage?: object },
    );
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe(text);
    expect(chunks.at(-1)).toHaveProperty("usage");
    expect(chunks.length).toBeGreaterThan(10);
  });

  it("calls the tool that it was told to, each call by an id of its own", async () => {
    const order = { role: "user", content: 'call look {"at": "it"}' };
    const tools = [{ type: "function", function: { name: "look" } }];
    const said = async (messages: object[]) => {
      const body = JSON.stringify({ messages, tools });
      const answer = await (await call("/rehearsal/v1/chat/completions", { body })).json();
      return (answer as { choices: [{ message: { content: string; tool_calls: { id: string }[] } }] })
        .choices[0].message;
    };
    const first = await said([order]);
    expect(first.tool_calls).toMatchObject([{ function: { name: "look", arguments: '{"at": "it"}' } }]);
    const id = first.tool_calls[0]?.id;
    const turn = [order, first, { role: "tool", tool_call_id: id, content: "a cat" }];
    expect((await said(turn)).content).toBe("The tool answered: a cat");
    const second = await said([...turn, { role: "assistant", content: "a cat" }, order]);
    expect(second.tool_calls[0]?.id).not.toBe(id);
  });

  const rehearsed = async (body: object) => {
    const answer = await call("/rehearsal/v1/chat/completions", { body: JSON.stringify(body) });
    return (await answer.json()) as { choices: [{ message: { content: string } }] };
  };
  const content = async (body: object) => (await rehearsed(body)).choices[0].message.content;

  it("streams the call of a tool whole, and counts only when asked", async () => {
    const tools = [{ type: "function", function: { name: "look" } }];
    const messages = [{ role: "user", content: 'call look {"at": "it"}' }];
    const body = JSON.stringify({ messages, tools, stream: true });
    const text = await (await call("/rehearsal/v1/chat/completions", { body })).text();
    expect(text).toContain('"name":"look"');
    expect(text).toContain('"finish_reason":"tool_calls"');
    expect(text).not.toContain('"usage"');
  });

  it("says which tools are offered when another one is called for", async () => {
    const messages = [{ role: "user", content: "call jump {}" }];
    const tools = [{ type: "function", function: { name: "look" } }, { type: "other" }];
    expect(await content({ messages, tools })).toBe("No tool jump is offered, but: look, .");
  });

  it("shows the beginning of what is long, and nothing of what says nothing", async () => {
    const long = await content({ messages: [{ role: "user", content: "x".repeat(600) }] });
    expect(long).toContain(`"${"x".repeat(500)}..."`);
    const parts = [{ type: "image_url" }, { type: "text", text: "seen" }];
    expect(await content({ messages: [{ role: "user", content: parts }] })).toContain('You said: "seen"');
    const [system, nothing] = [turns[0], { role: "user", content: null }];
    for (const messages of [[system], [nothing]])
      expect(await content({ messages })).toContain('You said: ""');
  });

  it("lists itself, and refuses what is no chat", async () => {
    expect(await (await call("/rehearsal/v1/models", { method: "GET", body: null })).json()).toMatchObject({
      data: [{ id: "rehearsal" }],
    });
    expect((await refused(call("/rehearsal/v1/chat/completions", { body: "[]" }))).status).toBe(400);
    expect((await refused(call("/rehearsal/v1/other"))).status).toBe(404);
  });
});
