// SPDX-License-Identifier: Apache-2.0
import { beforeAll, describe, expect, it } from "vitest";
import origins from "../../tests/standins/origins.json";
import { type Env, settingsOf } from "../src/config/settings.ts";
import { authorize } from "../src/gate/auth.ts";
import { BODY_LIMIT, gathered, readBody, soon, steady } from "../src/gate/request-body.ts";
import { anew, ask, askBare, askWith, chat, env, machine, refusal, TOKEN, until, woken } from "./helpers.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

beforeAll(anew);

const nobody = () => Promise.reject(new Error("there is nothing to ask about"));

describe("who may come in", () => {
  it.each([
    ["no header", {}, 401, "missing_token"],
    ["another scheme", { authorization: `Basic ${TOKEN}` }, 401, "missing_token"],
    ["an empty token", { authorization: "Bearer " }, 401, "missing_token"],
    ["a wrong token", { authorization: "Bearer wrong" }, 401, "wrong_token"],
    ["a longer token", { authorization: `Bearer ${TOKEN}x` }, 401, "wrong_token"],
    ["the token in a cookie", { cookie: `hw_token=${TOKEN}` }, 401, "missing_token"],
  ])("refuses %s", async (_, headers, status, code) => {
    const answer = await askBare("/api/health", { headers: headers as Record<string, string> });
    const id = answer.headers.get("x-request-id");
    expect(id).toMatch(/^[0-9a-f-]{36}$/);
    expect(answer.status).toBe(status);
    const message = expect.stringContaining("token");
    expect(await answer.json()).toEqual({
      error: { message, type: "invalid_request_error", param: null, code, request_id: id },
    });
  });

  it("lets the token in, whatever the scheme's case", async () => {
    for (const scheme of ["Bearer", "bearer"]) {
      const answer = await askBare("/api/health", { headers: { authorization: `${scheme} ${TOKEN}` } });
      expect(answer.status).toBe(200);
      await answer.body?.cancel();
    }
  });

  it("serves nobody without a token, unless that was asked for", async () => {
    const settings = settingsOf({ ...env, API_TOKEN: null } as unknown as Env);
    await expect(authorize(new Headers(), settings, nobody)).rejects.toMatchObject({
      status: 503,
      code: "no_token",
    });
    const all = { ...env, API_TOKEN: null, HERMES_ALLOW_UNAUTHENTICATED: "true" };
    const open = settingsOf(all as unknown as Env);
    await authorize(new Headers(), open, nobody);
    for (const host of ["127.0.0.1:8787", "localhost", "[::1]:8787", "hermes.example"])
      await authorize(new Headers({ host }), open, nobody);
    // A page of evil.example that its owner led here is of the same origin to its browser.
    for (const host of [
      "evil.example:8787",
      "127.0.0.1.evil.example",
      "localhost.evil.example",
      "[::1].evil",
    ])
      await expect(authorize(new Headers({ host }), open, nobody)).rejects.toMatchObject({
        code: "wrong_host",
      });
    // To Cloudflare no name leads that is not the deployment's own.
    const there = settingsOf({ ...all, HERMES_PLATFORM: "cloudflare" } as unknown as Env);
    await authorize(new Headers({ host: "hermes.elsewhere.example" }), there, nobody);
  });
});

describe("routes", () => {
  it("describes itself to everyone", async () => {
    const answer = await askBare("/");
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ name: "test", api: "/v1" });
  });

  it.each([
    "//",
    "//api/health",
    "/%2e/",
    "/API/health",
    "/api/%68ealth",
    "/.",
    "/v1",
    "/v1/models",
    "/index.html",
    "/api",
  ])("wants the token for %s", async (path) => {
    const answer = await askBare(path.startsWith("//") ? `/.${path}` : path);
    // Only what the URL parser itself makes "/" of is the public page.
    if (new URL(`http://worker${path}`).pathname === "/") expect(answer.status).toBe(200);
    else expect(answer.status).toBe(401);
    await answer.body?.cancel();
  });

  it.each([
    "/API/health",
    "/api/nothing",
    "/v1",
    "/v1/",
    "/v1/a//b",
    "/v1/%2e%2e%2fapi",
    "/v1/a%2fb",
    "/V1/models",
    "/v1/..%5cx",
  ])("knows no %s even with the token", async (path) => {
    expect(await refusal(await ask(path))).toMatchObject({ status: 404, code: "not_found" });
  });

  it("answers health without waking anything", async () => {
    const answer = await ask("/api/health");
    expect(await answer.json()).toMatchObject({
      status: "ok",
      worker: { name: "test", version: "v1", platform: "workerd", engine: "process" },
      instance: { state: "asleep", bootId: null, image: null },
      hermes: { version: "0.19.0", gateway: null },
      image: "image-1",
      confined: null,
      models: {
        default: "anthropic/claude-sonnet-4-5",
        further: ["openai/gpt-5-mini", "rehearsal/rehearsal"],
      },
    });
    expect(await woken()).toBe(false);
  });
});

describe("settings in force", () => {
  const preview = async (variables: Record<string, string>, secrets: string[] = []) =>
    (
      await ask("/api/instance/preview", { method: "POST", body: JSON.stringify({ variables, secrets }) })
    ).json();

  it("of a Worker that has others than its object are told apart, secrets among them", async () => {
    const inStep = async (change: Record<string, string>) => {
      const answer = await askWith(change, "/api/health", { authorization: `Bearer ${TOKEN}` });
      return (await answer.json<{ instance: { inStep: boolean } }>()).instance.inStep;
    };
    expect(await inStep({})).toBe(true);
    expect(await inStep({ HERMES_SLEEP_AFTER: "1h" })).toBe(false);
    expect(await inStep({ ANTHROPIC_API_KEY: "another" })).toBe(false);
  });

  it("are told by health, and previewed for others, without waking anything", async () => {
    expect(await preview({ HERMES_ENV: '{"A":"b"}' })).toEqual({
      restart: "nothing",
      because: [],
      starting: false,
    });
    expect(await woken()).toBe(false);
    await chat("hello");
    expect(await (await ask("/api/health")).json()).toMatchObject({
      instance: {
        version: "v1",
        inStep: true,
        configuration: { current: true, differs: [], restart: "nothing" },
      },
    });
    expect(await preview({ HERMES_ENV: '{"A":"b"}' })).toEqual({
      restart: "hermes",
      because: ["hermes_env"],
      starting: false,
    });
    expect(await preview({}, ["HERMES_SECRETS"])).toMatchObject({
      restart: "hermes",
      because: ["hermes_secrets"],
    });
    expect(await preview({ HERMES_SLEEP_AFTER: "1h" }, ["ANTHROPIC_API_KEY", "API_TOKEN"])).toMatchObject({
      restart: "nothing",
      because: [],
    });
    const refreshed = await (await ask("/api/instance/refresh", { method: "POST" })).json();
    expect(refreshed).toMatchObject({ restarted: "nothing", state: "awake" });
    await anew();
  });

  it.each(["", "{}", '{"variables":{},"secrets":["PATH"]}', '{"variables":{"a":1},"secrets":[]}'])(
    "refuses to preview %j",
    async (body) => {
      const answer = await ask("/api/instance/preview", { method: "POST", body });
      expect(await refusal(answer)).toMatchObject({ status: 400, code: "bad_changes" });
    },
  );

  it("refuses to preview what the Worker could not run with", async () => {
    const body = JSON.stringify({ variables: { HERMES_SLEEP_AFTER: "soon" }, secrets: [] });
    const answer = await ask("/api/instance/preview", { method: "POST", body });
    expect(await refusal(answer)).toMatchObject({ status: 503, code: "bad_configuration" });
  });
});

describe("a Hermes that is still starting", () => {
  it("has no log and tells nothing of itself yet, and says so", async () => {
    await machine.set({ commandFails: { status: { exitCode: 69, message: "Not yet." } } });
    const talk = chat("hello");
    await until(async () => {
      const { starting } = (await (await ask("/api/instance/status")).json()) as { starting: unknown };
      return starting !== null;
    });
    expect(await (await ask("/api/instance/logs")).json()).toMatchObject({
      starting: { why: "the sandbox is starting" },
      processes: [],
      log: [],
    });
    expect(await refusal(await ask("/api/instance/agent"))).toMatchObject({
      status: 409,
      code: "starting",
      message: "Hermes is still starting; what it has is not known yet.",
    });
    await machine.set({ commandFails: {} });
    expect((await talk).status).toBe(200);
    expect(await (await ask("/api/instance/logs")).json()).toMatchObject({
      starting: null,
      log: ["first line", expect.anything()],
    });
    await anew();
  });
});

describe("what is declared of the agent", () => {
  const told = async (answer: Response) => (await answer.json()) as Record<string, unknown>;

  it("is told without waking anybody, and there is no archive of nothing", async () => {
    expect(await told(await ask("/api/instance/agent"))).toMatchObject({
      declared: { archive: "", parts: {} },
      running: null,
    });
    expect((await ask("/api/instance/agent/archive")).status).toBe(204);
    expect(await woken()).toBe(false);
  });

  it("is told by the Hermes that runs, without the secrets that its words quote", async () => {
    await chat("hello");
    await machine.set({ tells: { skills: ["notes"], error: "401 for sk-ant-the-real-key-0123456789" } });
    expect(await told(await ask("/api/instance/agent"))).toMatchObject({
      running: {
        skills: ["notes"],
        jobs: [{ name: "morning", enabled: true, next: "2027-01-01T07:00:00+00:00" }],
        servers: [{ name: "issues", status: "failed", error: "401 for [redacted]", tools: [] }],
        environment: ["HOME", "PATH"],
        packages: {
          python: { pandas: "2.2.3" },
          debian: {
            jq: { version: "1.6", other: ["usr/bin/jq"], gone: ["usr/bin/jq"] },
            git: { version: "2.39", other: [], gone: [] },
          },
        },
        laid: [],
        kept: [],
      },
    });
    await machine.set({ tells: { skills: ["notes"], error: null } });
    expect(await told(await ask("/api/instance/agent"))).toMatchObject({
      running: { skills: ["notes"], servers: [], environment: null, packages: null },
    });
    await machine.set({ tells: null });
    expect(await refusal(await ask("/api/instance/agent"))).toMatchObject({ status: 503, code: "not_told" });
    await anew();
  });

  it("has to be beside the code that names it", async () => {
    const change = { HERMES_AGENT: JSON.stringify({ archive: "a".repeat(64), parts: {} }) };
    const answer = await askWith(change, "/api/instance/agent/archive", { authorization: `Bearer ${TOKEN}` });
    expect(await refusal(answer)).toMatchObject({ status: 503, code: "bad_configuration" });
  });
});

describe("apps in browsers", () => {
  const APP = "https://app.example";
  const LISTED = { HERMES_CORS_ORIGINS: `https://other.example, ${APP}` };
  const listed = (path: string, headers: Record<string, string>, init: RequestInit = {}, base?: string) =>
    askWith(LISTED, path, { origin: APP, ...headers }, init, base);
  const preflight = { "access-control-request-method": "POST" };

  it("of a listed origin may ask beforehand, without a token and without waking anything", async () => {
    const wanted = "authorization,content-type,x-hermes-session-id,idempotency-key";
    const headers = { ...preflight, "access-control-request-headers": wanted };
    const answer = await listed("/v1/chat/completions", headers, { method: "OPTIONS" });
    expect(answer.status).toBe(204);
    expect(answer.headers.get("access-control-allow-origin")).toBe(APP);
    expect(answer.headers.get("access-control-allow-methods")).toContain("POST");
    for (const name of wanted.split(","))
      expect(answer.headers.get("access-control-allow-headers")).toContain(name);
    expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
    expect(answer.headers.get("vary")?.toLowerCase()).toContain("origin");
    expect(await woken()).toBe(false);
  });

  it("can read answers and refusals, and the headers that are meant for them", async () => {
    const authorization = `Bearer ${TOKEN}`;
    for (const [headers, status] of [
      [{ authorization }, 200],
      [{}, 401],
    ] as const) {
      const answer = await listed("/api/health", headers);
      expect(answer.status).toBe(status);
      expect(answer.headers.get("access-control-allow-origin")).toBe(APP);
      const exposed = answer.headers.get("access-control-expose-headers");
      for (const name of ["x-request-id", "x-hermes-session-id", "x-hermes-model", "retry-after"])
        expect(exposed).toContain(name);
      await answer.body?.cancel();
    }
  });

  it.each(["https://evil.example", "https://app.example.evil", "http://app.example", "null"])(
    "of %s get neither",
    async (origin) => {
      const asked = await listed("/v1/models", { origin, ...preflight }, { method: "OPTIONS" });
      expect(asked.status).toBe(401);
      const answer = await listed("/api/health", { origin, authorization: `Bearer ${TOKEN}` });
      for (const one of [asked, answer]) {
        expect(one.headers.get("access-control-allow-origin")).toBeNull();
        await one.body?.cancel();
      }
    },
  );

  it.each(origins.good)("may have the origin %s", async (origin) => {
    const headers = { origin, authorization: `Bearer ${TOKEN}` };
    const answer = await askWith(
      { HERMES_CORS_ORIGINS: `https://x.example,${origin}` },
      "/v1/models",
      headers,
    );
    expect(answer.status).toBe(200);
    expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
    await answer.body?.cancel();
  });

  it.each(origins.bad)("cannot have the origin %s", (origin) => {
    expect(() => settingsOf({ ...env, HERMES_CORS_ORIGINS: origin })).toThrow(/HERMES_CORS_ORIGINS/);
  });

  it("must have an origin of their own where no token keeps anybody out", () => {
    const open = { API_TOKEN: null, HERMES_ALLOW_UNAUTHENTICATED: "true" };
    for (const origin of ["null", "file://"])
      expect(() => settingsOf({ ...env, ...open, HERMES_CORS_ORIGINS: origin } as unknown as Env)).toThrow(
        /no token keeps them out/,
      );
  });

  it("must be listed where no token keeps anybody out", async () => {
    const open = { API_TOKEN: null, HERMES_ALLOW_UNAUTHENTICATED: "true", HERMES_CORS_ORIGINS: APP };
    const from = (origin: string) => askWith(open, "/api/health", { host: "localhost", origin });
    expect(await refusal(await from("https://evil.example"))).toMatchObject({
      status: 403,
      code: "wrong_origin",
    });
    const answer = await from(APP);
    expect(answer.status).toBe(200);
    await answer.body?.cancel();
  });

  it("are not let into the dashboard, listed or not", async () => {
    const asked = await listed("/api/sessions", preflight, { method: "OPTIONS" }, "https://hermes.example");
    expect(asked.headers.get("access-control-allow-origin")).toBeNull();
    await asked.body?.cancel();
  });
});

describe("the proof of secrets", () => {
  it("proves what is set and nothing else", async () => {
    const nonce = "0f".repeat(32);
    const answer = await ask("/api/secrets/proof", { method: "POST", body: JSON.stringify({ nonce }) });
    const { proofs } = (await answer.json()) as { proofs: Record<string, string> };
    expect(Object.keys(proofs).sort()).toEqual(["ANTHROPIC_API_KEY", "API_TOKEN"]);
    expect(proofs["API_TOKEN"]).toBe(await hmac(TOKEN, nonce));
  });

  it.each(["", "{}", '{"nonce":"short"}', `{"nonce":"${"F".repeat(64)}"}`])("refuses %s", async (body) => {
    const answer = await ask("/api/secrets/proof", { method: "POST", body });
    expect(await refusal(answer)).toMatchObject({ status: 400, code: "bad_nonce" });
  });
});

describe("bodies", () => {
  it("refuses what Hermes would refuse for its size, before waking it", async () => {
    const body = new Uint8Array(10 * 1024 * 1024 + 1);
    const sized = await ask("/v1/chat/completions", { method: "POST", body });
    expect(await refusal(sized)).toMatchObject({ status: 413, code: "body_too_large" });
    const streamed = new Response(body).body ?? undefined;
    const chunked = await ask("/v1/responses", { method: "POST", body: streamed ?? null });
    expect(await refusal(chunked)).toMatchObject({ status: 413, code: "body_too_large" });
    expect(await woken()).toBe(false);
  });

  it.each([
    ["a stranger's is left at its limit", 1, 2],
    ["an owner's is read to 64 MB, so that its client sees the answer", BODY_LIMIT / 2 ** 20, 65],
  ])("that are too large: %s", async (_, limit, read) => {
    let sent = 0;
    const endless = new ReadableStream<Uint8Array>(
      { pull: (stream) => stream.enqueue(new Uint8Array(sent++ < 100 ? 2 ** 20 : 0)) },
      { highWaterMark: 0 },
    );
    const error = await gathered(endless, limit * 2 ** 20).catch((caught: unknown) => caught);
    expect([error, sent]).toEqual([expect.objectContaining({ code: "body_too_large" }), read]);
  });

  it("waits for a stranger's form, but not for long", async () => {
    const time = new ManualTime();
    const dribbled = soon(new Promise(() => undefined), time).catch((error: unknown) => error);
    await time.pass(10_000);
    expect(await dribbled).toMatchObject({ status: 408, code: "too_slow" });
    expect(await soon(Promise.resolve(null), time)).toBeNull();
    expect(time.timers).toBe(0);
  });
});

describe("settings", () => {
  it.each([
    ["HERMES_DEFAULT_MODEL", "gpt-5"],
    ["HERMES_DEFAULT_MODEL", "mistral/large"],
    ["HERMES_MODELS", '["nobody/x"]'],
    ["HERMES_MODELS", "[1"],
    ["HERMES_SLEEP_AFTER", "7h"],
    ["HERMES_SLEEP_AFTER", "soon"],
    ["HERMES_PROVIDER_BASE_URL", "ftp://x"],
    ["HERMES_PROVIDER_BASE_URL", "https://user:secret@x"],
    ["HERMES_HOST_TOOLS", "yes"],
    ["PROVIDERS_ADDRESS", ""],
    ["HERMES_ENV", '{"A B":"c"}'],
    ["HERMES_SECRETS", '["x"]'],
  ])("names %s when it is %s", (name, value) => {
    expect(() => settingsOf({ ...env, [name]: value } as Env)).toThrow(new RegExp(name));
  });

  it("reads durations, models and unset secrets", () => {
    const settings = settingsOf({
      ...env,
      HERMES_SLEEP_AFTER: "90",
      HERMES_DEFAULT_MODEL: "openrouter/anthropic/claude-sonnet-4.5",
      OPENAI_API_KEY: null,
    } as unknown as Env);
    expect(settings.sleepAfter).toBe(90_000);
    expect(settings.defaultModel).toMatchObject({
      provider: "openrouter",
      name: "anthropic/claude-sonnet-4.5",
    });
    expect(settings.secrets).not.toHaveProperty("OPENAI_API_KEY");
  });
});

async function hmac(value: string, message: string): Promise<string> {
  const encoder = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(value), algorithm, false, ["sign"]);
  const bytes = new Uint8Array(await crypto.subtle.sign("HMAC", key, encoder.encode(message)));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

describe("a streamed chat", () => {
  it("is known by the session that Hermes will give it, where its beginning tells that", async () => {
    const given: (string | null)[] = [];
    const fetch = async (_: string, init: RequestInit) => {
      given.push(new Headers(init.headers).get("x-hermes-worker-session"));
      return new Response("{}");
    };
    const INSTANCE = {
      getByName: () => ({ fetch, tokenUsed: async () => ({ current: null, previous: null }) }),
    };
    const say = async (content: unknown, headers: Record<string, string> = {}) => {
      const body = JSON.stringify({ stream: true, messages: [{ role: "user", content }] });
      const change = { INSTANCE } as unknown as Record<string, string>;
      const named = { authorization: `Bearer ${TOKEN}`, ...headers };
      await (await askWith(change, "/v1/chat/completions", named, { method: "POST", body })).text();
      return given.at(-1);
    };
    const derived = await say("hello");
    expect(derived).toMatch(/^api-[0-9a-f]{16}$/);
    expect(await say([{ type: "text", text: "hello" }])).toBe(derived);
    expect(await say("hello", { "x-hermes-session-id": " mine " })).toBe("mine");
    expect(await say([{ type: "image_url", image_url: { url: "data:," } }])).toBeNull();
    expect(await say(null)).toMatch(/^api-/);
  });
});

describe("a body that breaks", () => {
  const upload = (body: ReadableStream<Uint8Array>) =>
    new Request("http://worker/", { method: "PUT", body, duplex: "half" } as RequestInit);

  it("is told as the sender's fault", async () => {
    const broken = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.error(new Error("bad chunk")),
    });
    await expect(readBody(upload(broken))).rejects.toMatchObject({ status: 400, code: "body_broken" });
  });

  it("or stalls is given up, and what sends it is told so", async () => {
    let why: unknown = null;
    const silent = new ReadableStream<Uint8Array>({
      cancel: (reason) => {
        why = reason ?? "cancelled";
      },
    });
    const stream = steady(upload(silent), 20);
    await expect(new Response(stream).text()).rejects.toMatchObject({
      message: "The upload sent nothing for 0.02 s and was given up; nothing was changed.",
    });
    expect(why).not.toBeNull();
  });

  it("is let go of with whoever wanted it", async () => {
    let isLetGo = false;
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(1)),
      cancel: () => {
        isLetGo = true;
      },
    });
    await steady(upload(endless)).cancel("not wanted");
    expect(isLetGo).toBe(true);
  });
});

describe("a configuration", () => {
  const problem = (change: Record<string, unknown>) => {
    try {
      return settingsOf({ ...env, ...change } as Env).dashboardOff;
    } catch (error) {
      return (error as Error).message;
    }
  };

  it.each([
    [{ HERMES_ACCESS_AUDIENCES: "" }, "HERMES_ACCESS_TEAM_DOMAIN is set, but not HERMES_ACCESS_AUDIENCES"],
    [{ HERMES_ACCESS_TEAM_DOMAIN: "" }, "HERMES_ACCESS_AUDIENCES is set, but not HERMES_ACCESS_TEAM_DOMAIN"],
    [{ HERMES_MODELS: '["custom/one"]' }, "HERMES_PROVIDER_BASE_URL must be set to use the provider custom"],
    [{ HERMES_DASHBOARD: "off" }, "It is switched off."],
    [{ HERMES_DASHBOARD: "off: for now" }, "for now"],
  ])("that says %j is answered with: %s", (change, sentence) => {
    expect(problem(change)).toContain(sentence);
  });

  it("without Access has none", () => {
    const none = { ...env, HERMES_ACCESS_AUDIENCES: "", HERMES_ACCESS_TEAM_DOMAIN: "" };
    expect(settingsOf(none as Env).access).toBeNull();
  });
});
