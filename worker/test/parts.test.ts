// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { errorResponse, inShape } from "../src/base/errors.ts";
import { outerHeaders } from "../src/base/headers.ts";
import { Redactor } from "../src/base/log.ts";
import { eventsOf, lastLine, Tail } from "../src/base/streams.ts";
import { buildGo } from "../src/config/hermes-config.ts";
import { type Env, settingsOf } from "../src/config/settings.ts";
import { inForce } from "../src/sandbox/in-force.ts";
import { ProcessSandbox } from "../src/sandbox/process-engine.ts";
import { run } from "../src/sandbox/run.ts";
import { env } from "./helpers.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const KEYS = { gatewayKey: "g".repeat(64), capability: "c".repeat(64), dashboardToken: "d".repeat(64) };

describe("Hermes' configuration", () => {
  const go = (change: Record<string, unknown>) => buildGo(settingsOf({ ...env, ...change }), KEYS);

  it("seals the provider: Hermes sees our address and this boot's capability, never a key", () => {
    const given = {
      OPENAI_API_KEY: "sk-openai-real",
      AI_GATEWAY_TOKEN: "aig-real",
      API_TOKEN_PREVIOUS: "the-token-of-before",
    };
    const text = JSON.stringify(go(given));
    const { secrets } = settingsOf({ ...env, ...given } as Env);
    expect(Object.keys(secrets)).toHaveLength(5);
    for (const secret of Object.values(secrets)) expect(text).not.toContain(secret);
    const { config, env: variables } = go({});
    expect(config).toMatchObject({
      model: {
        provider: "anthropic",
        default: "claude-sonnet-4-5",
        base_url: "http://127.0.0.1:8799/anthropic",
      },
      gateway: { api_server: { max_concurrent_runs: 0 } },
      security: { tirith_enabled: false },
      agent: { restart_drain_timeout: 2 },
    });
    expect(variables).toMatchObject({
      API_SERVER_KEY: KEYS.gatewayKey,
      ANTHROPIC_API_KEY: KEYS.capability,
      OPENAI_API_KEY: KEYS.capability,
    });
    expect(variables).not.toHaveProperty("OPENROUTER_API_KEY");
  });

  it("routes the further models by their whole id, each in its provider's protocol", () => {
    const { config } = go({
      HERMES_MODELS: '["openai/gpt-5-mini", "openrouter/a/b", "rehearsal/rehearsal"]',
    });
    expect(config).toMatchObject({
      platforms: {
        api_server: {
          extra: {
            model_routes: {
              "openai/gpt-5-mini": { model: "gpt-5-mini", provider: "custom:sealed-openai" },
              "openrouter/a/b": { model: "a/b", provider: "custom:sealed-openrouter" },
            },
          },
        },
      },
      providers: {
        "sealed-anthropic": { api_mode: "anthropic_messages" },
        "sealed-openai": { api_mode: "codex_responses", base_url: "http://127.0.0.1:8799/openai/v1" },
        "sealed-openrouter": { api_mode: "chat_completions" },
      },
    });
  });

  it("speaks Chat Completions to an OpenAI-compatible endpoint of one's own", () => {
    const own = { HERMES_DEFAULT_MODEL: "openai/x", HERMES_PROVIDER_BASE_URL: "https://proxy.example/v1" };
    expect(go(own).config).toMatchObject({ model: { provider: "openai-api", api_mode: "chat_completions" } });
  });

  it("gives tools that touch the host only where that is contained or wanted", () => {
    const { config } = go({});
    expect((config["agent"] as { disabled_toolsets: string[] }).disabled_toolsets.sort()).toEqual(
      "browser code_execution computer_use delegation file terminal vision".split(" "),
    );
    expect(config["kanban"]).toEqual({ dispatch_in_gateway: false });
    for (const change of [{ HERMES_HOST_TOOLS: "true" }, { HERMES_ENGINE: "docker" }]) {
      expect(go(change).config["agent"]).not.toHaveProperty("disabled_toolsets");
      expect(go(change).config).not.toHaveProperty("kanban");
    }
  });

  it("lets Hermes fetch packages only when the owner says so", () => {
    expect(go({}).env).toMatchObject({ HERMES_LAZY_INSTALLS: "false" });
    expect(go({ HERMES_LAZY_INSTALLS: "true" }).env).toMatchObject({ HERMES_LAZY_INSTALLS: "true" });
  });

  it("hands out the keys themselves only when the owner says so, and then to those who use them", () => {
    const direct = {
      HERMES_PROVIDER_KEYS: "environment",
      HERMES_MODELS: '["openai/gpt-5-mini", "rehearsal/rehearsal"]',
      ANTHROPIC_API_KEY: "sk-ant-real",
      OPENAI_API_KEY: "sk-openai-real",
      OPENROUTER_API_KEY: "sk-or-unused",
    };
    const { config, env: variables } = go(direct);
    expect(variables).toMatchObject({
      ANTHROPIC_API_KEY: "sk-ant-real",
      ANTHROPIC_BASE_URL: "https://api.anthropic.com",
      OPENAI_API_KEY: "sk-openai-real",
    });
    expect(JSON.stringify(variables)).not.toContain("sk-or-unused");
    expect(JSON.stringify(config)).not.toContain("-real");
    expect(config).toMatchObject({
      providers: {
        "sealed-openai": { base_url: "https://api.openai.com/v1", key_env: "OPENAI_API_KEY" },
        "sealed-rehearsal": { base_url: "http://127.0.0.1:8799/rehearsal/v1" },
      },
    });
    expect(JSON.stringify(go({ ...direct, HERMES_PROVIDER_KEYS: "sealed" }))).not.toContain("-real");
  });

  it("bounds how long Hermes waits for a provider that is silent, and not for a server of the owner's own", () => {
    const patience = (more: Record<string, string>) => go(more).env["HERMES_STREAM_READ_TIMEOUT"];
    expect(patience({})).toBe("600");
    const own = {
      HERMES_DEFAULT_MODEL: "custom/llama3",
      HERMES_PROVIDER_BASE_URL: "http://127.0.0.1:11434/v1",
    };
    expect(patience(own)).toBeUndefined();
    expect(patience({ ...own, HERMES_PROVIDER_BASE_URL: "https://models.example/v1" })).toBe("600");
    expect(patience({ HERMES_PROVIDER_KEYS: "environment" })).toBeUndefined();
    expect(patience({ HERMES_ENV: JSON.stringify({ HERMES_STREAM_READ_TIMEOUT: "60" }) })).toBe("60");
  });

  it("lets no setting of the owner replace our keys", () => {
    const hostile = { API_SERVER_KEY: "mine", ANTHROPIC_API_KEY: "mine", TELEGRAM_BOT_TOKEN: "kept" };
    expect(go({ HERMES_ENV: JSON.stringify(hostile) }).env).toMatchObject({
      API_SERVER_KEY: KEYS.gatewayKey,
      ANTHROPIC_API_KEY: KEYS.capability,
      TELEGRAM_BOT_TOKEN: "kept",
    });
  });
});

describe("the engine's wire", () => {
  const time = new ManualTime();
  const sandbox = (engine: (request: Request) => Response | Promise<Response>) =>
    new ProcessSandbox(
      {
        fetch: async (url: string, init?: RequestInit) => engine(new Request(url, init)),
      } as unknown as Fetcher,
      env.LOOPBACK as Fetcher,
      undefined,
      time,
    );
  const frame = (type: number, text: string) => {
    const payload = new TextEncoder().encode(text);
    const head = new Uint8Array([type, 0, 0, 0, payload.byteLength]);
    return [...head, ...payload];
  };
  const answer = (...parts: number[][]) => sandbox(() => new Response(new Uint8Array(parts.flat())));

  it("takes frames apart", async () => {
    const whole = answer(
      frame(0, "12"),
      frame(1, "out"),
      frame(2, "warning\nthe reason\n"),
      frame(1, "put"),
      frame(3, "5"),
    );
    expect(await run(whole, ["x"], { limit: null })).toEqual({
      exitCode: 5,
      stdout: "output",
      why: "the reason",
    });
  });

  it.each([
    ["without an exit code", [frame(0, "1"), frame(1, "out")]],
    ["in the middle of a head", [frame(0, "1"), [1, 0, 0]]],
    ["in the middle of output", [frame(0, "1"), [1, 0, 0, 0, 9, 65]]],
    ["in the middle of a warning", [frame(0, "1"), [2, 0, 0, 0, 9, 65]]],
    ["in an unknown frame", [frame(9, "?")]],
  ])("fails when the stream ends %s", async (_, parts) => {
    await expect(run(answer(...parts), ["x"], { limit: null })).rejects.toThrow();
  });

  it("reads no faster than its reader", async () => {
    let sent = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent++;
        controller.enqueue(new Uint8Array([...new Uint8Array([1, 0, 0, 0, 1]), 65]));
      },
    });
    const process = await sandbox(() => new Response(endless)).exec(["x"]);
    const reader = process.stdout.getReader();
    await reader.read();
    await scheduler.wait(5);
    expect(sent).toBeLessThan(5);
    await reader.cancel();
    await expect(process.exitCode).rejects.toThrow("cut off");
  });

  it("waits a few seconds for the socket, then names the engine", async () => {
    let calls = 0;
    const missing = sandbox(() => {
      calls++;
      throw new Error("No such file or directory");
    });
    const told = missing.inspect().catch((error: unknown) => error);
    await time.pass(6000);
    expect(await told).toMatchObject({ status: 503, code: "engine_unavailable" });
    expect(calls).toBeGreaterThan(5);
  });

  it("hands the engine's own refusals on", async () => {
    const refuses = sandbox(() =>
      Response.json({ error: { code: "disk_full", message: "full" } }, { status: 507 }),
    );
    await expect(refuses.inspect()).rejects.toMatchObject({
      status: 507,
      code: "disk_full",
      message: "full",
    });
  });
});

describe("an engine that answers out of turn", () => {
  const engine = (answer: () => Response) =>
    new ProcessSandbox({ fetch: async () => answer() } as unknown as Fetcher, env.LOOPBACK as Fetcher);

  it("is told by its status when it gives no reason, and by a sentence when it gives no output", async () => {
    const silent = engine(() => new Response("<html>", { status: 500 }));
    await expect(silent.inspect()).rejects.toMatchObject({
      status: 500,
      code: "http_500",
      message: "The engine answered 500.",
    });
    const empty = engine(() => new Response(null));
    await expect(empty.exec(["x"])).rejects.toMatchObject({ status: 502, code: "bad_answer" });
  });

  it("is not asked again by who gave up meanwhile", async () => {
    let calls = 0;
    const gone = new AbortController();
    const fetch = async () => {
      calls++;
      gone.abort(new Error("gave up"));
      throw new Error("No such file or directory");
    };
    const sandbox = new ProcessSandbox({ fetch } as unknown as Fetcher, env.LOOPBACK as Fetcher);
    await expect(sandbox.exec(["x"], { signal: gone.signal })).rejects.toThrow("No such file");
    expect(calls).toBe(1);
  });
});

describe("what Hermes tells of itself", () => {
  it("may leave out when a job is next, why a server is not there, and all that an older one cannot tell", () => {
    const jobs = [{ name: "morning", enabled: false }];
    const older = inForce([{ data: [{ name: "skill" }] }, { jobs }, null]);
    expect(older).toEqual({
      skills: ["skill"],
      jobs: [{ name: "morning", enabled: false, next: null }],
      servers: [],
      environment: null,
      packages: null,
    });
    const server = { name: "issues", status: "connected", tools: ["list"] };
    const own = { mcp_servers: [server], environment: ["HOME"] };
    expect(inForce([{ data: [] }, { jobs: [] }, own])).toMatchObject({
      servers: [{ ...server, error: null }],
      environment: ["HOME"],
      packages: null,
    });
  });
});

describe("an error", () => {
  it("that nobody expected is told without its words, which may hold anything", async () => {
    const answer = errorResponse(new Error("the key sk-1234"), "id-1");
    expect(answer.status).toBe(500);
    const text = await answer.text();
    expect(JSON.parse(text)).toMatchObject({ error: { code: "internal_error", request_id: "id-1" } });
    expect(text).not.toContain("sk-1234");
  });

  it.each([
    ['{"error":{"message":"no"}}', { message: "no", code: null }],
    ['{"error":"no"}', { message: "no", code: null }],
    ['{"error":{"words":"no"}}', { message: '{"error":{"words":"no"}}', code: "hermes_refused" }],
    ["", { message: "Hermes refused this with 400.", code: "hermes_refused" }],
  ])("of Hermes that says %s is in OpenAI's shape", (text, error) => {
    expect(inShape(text, 400, "id-1")).toMatchObject({ error: { ...error, request_id: "id-1" } });
  });
});

describe("a redirect to where Hermes knows itself", () => {
  it.each([
    ["http://127.0.0.1:8642", "/"],
    ["http://localhost:8642/a?b", "/a?b"],
    ["https://elsewhere.example/a", "https://elsewhere.example/a"],
  ])("%s is to %s outside", (location, outside) => {
    expect(outerHeaders(new Headers({ location })).get("location")).toBe(outside);
  });
});

describe("a stream of events", () => {
  it("of an answer that is none is one event", async () => {
    for (const answer of [new Response(null), new Response("no\r\nway", { status: 503 })]) {
      const said = answer.status === 503 ? "no way" : "";
      expect(await new Response(await eventsOf(answer)).text()).toBe(`data: ${said}\n\ndata: [DONE]\n\n`);
    }
  });

  it("keeps the end of what is too long, in whole pieces", () => {
    const tail = new Tail(4);
    for (const piece of ["ab", "cd", "ef"]) tail.push(new TextEncoder().encode(piece));
    expect(tail.text()).toBe("cdef");
    expect(new Tail(4).text()).toBe("");
  });

  it.each([
    ["one\n two \n\n", "two"],
    ["one", "one"],
    [" \n", ""],
    ["", ""],
  ])("of lines %j has %j for its last that says something", (text, last) => {
    expect(lastLine(text)).toBe(last);
  });
});

describe("the redactor", () => {
  it("takes a secret that is no whole text, and hides it", () => {
    const cut = "secret\ud83d";
    expect(new Redactor([cut]).clean(`a ${cut} b`)).toBe("a [redacted] b");
  });

  it("hides what it was told and what looks like a key", () => {
    const redactor = new Redactor(["hunter2-hunter2", "abc"]);
    const clean = redactor.clean(
      "abc hunter2-hunter2 sk-ant-api03-abcdefghijkl Authorization: Bearer abcdefghij",
    );
    expect(clean).toBe("abc [redacted] [redacted] Authorization: [redacted]");
  });

  it("hides it in JSON and in a URL, line by line, and the longer of two that begin alike", () => {
    const quoted = 'quo"ted\\back/slash+';
    const pem = "-----BEGIN-----\nfirst-line-of-it\r\nsecond-line-of-it";
    const redactor = new Redactor(["common", "common-and-more", quoted, pem]);
    const logged = JSON.stringify({ quoted, url: encodeURIComponent(quoted), pem, both: "common-and-more" });
    const clean = redactor.clean(`${logged}\nfirst-line-of-it\n  second-line-of-it`);
    for (const rest of ["quo", "back", "slash", "line-of-it", "and-more"])
      expect(clean.replaceAll("quoted", "")).not.toContain(rest);
  });

  it("hides a secret that is cut in two by chunks", async () => {
    const stream = new Response("a hunter2-hun").body as ReadableStream<Uint8Array>;
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    void writer.write(new TextEncoder().encode("a hunter2-hun"));
    void writer.write(new TextEncoder().encode("ter2 b\nrest")).then(() => writer.close());
    await stream.cancel();
    expect(await new Response(readable.pipeThrough(new Redactor(["hunter2-hunter2"]).stream())).text()).toBe(
      "a [redacted] b\nrest",
    );
  });
});
