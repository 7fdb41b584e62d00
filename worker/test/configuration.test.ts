// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { configurationOf, differenceOf, type Restart, startOf } from "../src/config/configuration.ts";
import { INVENTORY } from "../src/config/settings.generated.ts";
import { SECRETS, settingsOf, VARIABLES } from "../src/config/settings.ts";
import { env } from "./helpers.ts";
import { RESTARTS } from "./restarts.generated.ts";

const BASE = {
  HERMES_DEFAULT_MODEL: "openai/a",
  HERMES_MODELS: '["custom/b"]',
  HERMES_PROVIDER_BASE_URL: "http://127.0.0.1:1/v1",
  OPENAI_API_KEY: "one",
  HERMES_ENV: "{}",
};

interface Row {
  /** Another value. */
  to: string;
  /** What a running Hermes has to be restarted for it: what only the Worker reads takes effect with the Worker. */
  restart: Restart;
  /** What is set beside it, before and after. */
  beside?: Record<string, string>;
}

const worker = (to: string, beside: Record<string, string> = {}): Row => ({ to, restart: "nothing", beside });
const hermes = (to: string, beside: Record<string, string> = {}): Row => ({ to, restart: "hermes", beside });
const sandbox = (to: string): Row => ({ to, restart: "sandbox" });
const DIRECT = { HERMES_PROVIDER_KEYS: "environment" };
const ACCESS = {
  HERMES_ACCESS_TEAM_DOMAIN: "a.cloudflareaccess.com",
  HERMES_ACCESS_AUDIENCES: "aaaaaaaaaaaaaaaaaaaaaaaa",
};

/** An agent of which one part is declared. */
const agent = (part: string) => JSON.stringify({ archive: "a".repeat(64), parts: { [part]: "1" } });

/** Each variable of the Worker, and each secret. */
const ROWS: Record<string, Row[]> = {
  HERMES_NAME: [worker("other")],
  WORKER_VERSION: [worker("v2")],
  HERMES_VERSION: [worker("0.20.0")],
  HERMES_IMAGE: [sandbox("image-2")],
  HERMES_IMAGE_REFERENCE: [worker("v2")],
  HERMES_PLATFORM: [worker("cloudflare")],
  HERMES_ENGINE: [hermes("docker")],
  HERMES_DEFAULT_MODEL: [hermes("openai/c"), hermes("anthropic/d")],
  HERMES_MODELS: [hermes('["custom/c"]'), hermes("[]")],
  HERMES_PROVIDER_BASE_URL: [worker("http://127.0.0.1:2/v1"), hermes("http://127.0.0.1:2/v1", DIRECT)],
  HERMES_CONTEXT_LENGTH: [
    worker("65536"),
    hermes("65536", { HERMES_DEFAULT_MODEL: "custom/a" }),
    hermes("65536", { HERMES_DEFAULT_MODEL: "rehearsal/rehearsal" }),
    hermes("65536", { HERMES_MODELS: "[]" }),
  ],
  HERMES_SLEEP_AFTER: [worker("1h")],
  HERMES_DRAIN_TIMEOUT: [hermes("5s")],
  HERMES_TOKEN_OVERLAP: [worker("5m")],
  HERMES_ON_DISCONNECT: [worker("finish")],
  HERMES_HOST_TOOLS: [hermes("true")],
  HERMES_LAZY_INSTALLS: [hermes("true")],
  HERMES_INSTANCE_TYPE: [sandbox("standard-2")],
  HERMES_LOCATION: [worker("enam")],
  HERMES_ALLOW_UNAUTHENTICATED: [worker("true")],
  HERMES_CORS_ORIGINS: [worker("https://a.example")],
  HERMES_DASHBOARD: [worker("off: because")],
  HERMES_AGENT: [
    ...["hermes_config", "hermes_mcp_servers"].map((part) => hermes(agent(part))),
    ...["hermes_soul", "hermes_skills", "hermes_cron_jobs", "hermes_memories", "hermes_take_over"].map(
      (part): Row => ({ to: agent(part), restart: "content" }),
    ),
  ],
  HERMES_DASHBOARD_HOSTNAME: [worker("a.example")],
  HERMES_DASHBOARD_ORIGIN: [worker("https://a.example")],
  HERMES_DASHBOARD_IDLE: [worker("2h")],
  HERMES_ACCESS_TEAM_DOMAIN: [worker("b.cloudflareaccess.com", ACCESS)],
  HERMES_ACCESS_AUDIENCES: [worker("bbbbbbbbbbbbbbbbbbbbbbbb", ACCESS)],
  HERMES_PROVIDER_KEYS: [hermes("environment")],
  HERMES_AI_GATEWAY: [worker("https://gateway.example/a/b")],
  HERMES_EGRESS: [sandbox("providers"), worker("a.example", { HERMES_EGRESS: "providers" })],
  PROVIDERS_ADDRESS: [hermes("http://127.0.0.1:9999")],
  HERMES_ENV: [hermes('{"A":"b"}')],
  HERMES_SECRETS: [hermes('{"A":"b"}')],
  HERMES_BOTS: [hermes('{"telegram":"4242"}')],
  HERMES_CHANNELS: [
    worker(`{"telegram":{"token":"4242:${"x".repeat(35)}","allow":["77"]}}`),
    worker('{"email":{"address":"hermes@example.com","allow":["ann@example.net"]}}'),
  ],
  HERMES_PUBLIC_URL: [worker("https://a.example")],
  HERMES_TELEGRAM_API_URL: [worker("https://a.example")],
  API_TOKEN: [worker("another-token-of-sixteen")],
  API_TOKEN_PREVIOUS: [worker("another-token-of-sixteen")],
  ANTHROPIC_API_KEY: [worker("two")],
  OPENROUTER_API_KEY: [worker("two")],
  OPENAI_API_KEY: [worker("two"), hermes("two", DIRECT)],
  CUSTOM_API_KEY: [worker("two"), hermes("two", DIRECT)],
  AI_GATEWAY_TOKEN: [worker("two")],
  BROWSER_URL: [hermes("wss://browser.example/?token=a")],
  GATEWAY_TOKEN: [hermes("another-token-of-32-characters..")],
};

it("has a row for every variable and every secret", () => {
  expect(Object.keys(ROWS).sort()).toEqual([...new Set([...VARIABLES, ...SECRETS])].sort());
});

it("restarts what the catalogue of settings says, which the documentation shows", () => {
  const told = Object.keys(INVENTORY).map((name) => {
    const restarts = ROWS[name]?.map((row) => row.restart) ?? [];
    const most = ["sandbox", "hermes"].find((one) => restarts.includes(one as never));
    return [name.toLowerCase(), most] as const;
  });
  const said = told.map(([name]) => [name, RESTARTS[name]] as const);
  expect(told).toEqual(said);
});

describe.each(Object.entries(ROWS))("a change of %s", (name, rows) => {
  it.each(rows)("to $to restarts: $restart", async ({ to, restart, beside }) => {
    const before = { ...env, ...BASE, ...beside };
    const running = settingsOf(before);
    const wanted = settingsOf({ ...before, [name]: to });
    const found = await differenceOf(wanted, await configurationOf(running), startOf(running));
    expect(found.restart).toBe(restart);
    expect(found.because.length > 0).toBe(restart !== "nothing");
    // And back: what is taken away is a change as well.
    const back = await differenceOf(running, await configurationOf(wanted), startOf(wanted));
    expect(back.restart).toBe(restart);
  });
});
