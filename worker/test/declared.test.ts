// SPDX-License-Identifier: Apache-2.0
/** A Worker whose channels are declared: its routes, and behind them its instance. What becomes of a message there, channels.test.ts knows. */
import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { hex } from "../src/base/digests.ts";
import type { Incoming } from "../src/channels/channel.ts";
import { proofOf, TELEGRAM_PROOF } from "../src/channels/platforms/telegram.ts";
import { hmacKey } from "../src/channels/signatures.ts";
import type { Env } from "../src/config/settings.ts";
import entry from "../src/index.ts";
import { HermesInstance } from "../src/instance/instance.ts";
import { askWith, env, refusal, TOKEN, until } from "./helpers.ts";

const BOT = "4242:AAstand-in_token_0123456789abcdefghij";
const SECRET = "a secret of the sender's";
const bytes = (text: string) => new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>;

/** Settings with these webhooks, and a bot that lets strangers ask. */
const declared = (hooks: Record<string, object> = {}) => ({
  HERMES_CHANNELS: JSON.stringify({
    telegram: { token: BOT, allow: ["77"], pairing: true },
    hooks: Object.fromEntries(
      Object.entries(hooks).map(([name, hook]) => [name, { secrets: [SECRET], ...hook }]),
    ),
  }),
  HERMES_BOTS: '{"telegram":"4242","webhook":"worker"}',
  HERMES_PUBLIC_URL: "https://hermes.example.com",
});

interface Deployed {
  ask(path: string, init?: RequestInit): Promise<Response>;
  /** What Telegram was asked. */
  asked: { method: string; body: Record<string, unknown> }[];
  view(): Promise<Record<string, Record<string, unknown>>>;
}

let rooms = 0;

/** A Worker and its instance, of the same settings. */
function deployed(hooks: Record<string, object>, work: (deployed: Deployed) => Promise<void>): Promise<void> {
  return runInDurableObject(env.PLAIN.getByName(`declared ${rooms++}`), async (_, state) => {
    const asked: Deployed["asked"] = [];
    const CHANNELS = {
      fetch: async (url: string, init: RequestInit) => {
        const method = url.slice(url.lastIndexOf("/") + 1);
        asked.push({ method, body: JSON.parse(String(init.body)) as Record<string, unknown> });
        const result = { message_id: asked.length, username: "the_bot", url: "" };
        return Response.json({ ok: true, result });
      },
    };
    const own = { ...env, ...declared(hooks), CHANNELS } as unknown as Env;
    const instance = new HermesInstance(state, own);
    const configured = { ...own, INSTANCE: { getByName: () => instance } } as unknown as Env;
    const ask = (path: string, init: RequestInit = {}) => {
      const headers = new Headers(init.headers);
      if (!path.startsWith("/channels") && !path.startsWith("/hooks"))
        headers.set("authorization", `Bearer ${TOKEN}`);
      const request = new Request(`http://worker${path}`, { ...init, headers });
      const fetch = entry.fetch as unknown as (...all: unknown[]) => Promise<Response>;
      return fetch(request, configured, createExecutionContext());
    };
    const view = async () => {
      const { channels } = (await (await ask("/api/instance/channels")).json()) as {
        channels: Record<string, Record<string, unknown>>;
      };
      return channels;
    };
    await work({ ask, asked, view });
  });
}

const message = (text: string, user: number) => ({
  update_id: user,
  message: {
    message_id: user + 100,
    from: { id: user, first_name: "Ann" },
    chat: { id: user, type: "private" },
    text,
  },
});

const telegram = async ({ ask }: Deployed, update: object) => {
  const headers = { [TELEGRAM_PROOF]: await proofOf(BOT) };
  const answer = await ask("/channels/telegram", { method: "POST", headers, body: JSON.stringify(update) });
  expect(answer.status).toBe(200);
};

const post = (body: unknown) => ({ method: "POST", body: JSON.stringify(body) });

const hmacOf = async (text: string, secret = SECRET) =>
  crypto.subtle.sign("HMAC", await hmacKey(bytes(secret)), bytes(text));

describe("a stranger", () => {
  it("is given a code, let in by it, and shown out again", () =>
    deployed({}, async (world) => {
      const { ask, asked, view } = world;
      await telegram(world, message("hello", 5));
      await until(async () => asked.some(({ method }) => method === "sendMessage"));
      const sent = asked.find(({ method }) => method === "sendMessage")?.body;
      expect(sent?.["chat_id"]).toBe("5");
      const code = /[A-Z0-9]{8}/.exec(String(sent?.["text"]))?.[0] ?? "";
      const { telegram: before } = await view();
      expect(before).toMatchObject({ paired: [], asking: [{ user: "5", name: "Ann" }] });
      // A code is good for an hour.
      const [asking] = (before?.["asking"] ?? []) as { until: string }[];
      expect(Date.parse(asking?.until ?? "")).toBeGreaterThan(Date.now());
      const wrong = await ask("/api/instance/channels/pair", post({ code: "ABCDEFGH" }));
      expect(await refusal(wrong)).toMatchObject({ status: 404, code: "no_such_code" });
      for (const body of [{}, { code: 7 }, "x"])
        expect(await refusal(await ask("/api/instance/channels/pair", post(body)))).toMatchObject({
          code: "no_such_code",
        });
      const let_in = await ask("/api/instance/channels/pair", post({ code }));
      expect(await let_in.json()).toEqual({ channel: "telegram", user: "5", name: "Ann" });
      expect((await view())["telegram"]).toMatchObject({ paired: [{ user: "5" }], asking: [] });
      const out = (user: string) =>
        ask(`/api/instance/channels/unpair?channel=telegram&user=${user}`, { method: "POST" });
      expect(await (await out("6")).json()).toEqual({ removed: false });
      expect(await (await out("5")).json()).toEqual({ removed: true });
      expect(await (await ask("/api/instance/channels/unpair", { method: "POST" })).json()).toEqual({
        removed: false,
      });
      expect((await view())["telegram"]).toMatchObject({ paired: [] });
    }));

  it("who has nothing for a bot in a group is not told on to the instance", () =>
    deployed({}, async (world) => {
      await telegram(world, { update_id: 9, poll: {} });
      expect(world.asked).toEqual([]);
    }));
});

describe("a call of a platform that proves nothing", () => {
  it("is refused", () =>
    deployed({}, async ({ ask }) => {
      const answer = await ask("/channels/telegram", post(message("hello", 77)));
      expect(await refusal(answer)).toMatchObject({ status: 401, code: "bad_signature" });
    }));
});

describe("a call of a platform without a body", () => {
  it("tells nothing", () =>
    deployed({}, async ({ ask }) => {
      const headers = { [TELEGRAM_PROOF]: await proofOf(BOT) };
      const answer = await ask("/channels/telegram", { method: "POST", headers });
      expect(await refusal(answer)).toMatchObject({ status: 400, code: "bad_update" });
    }));
});

describe("an instance on Cloudflare", () => {
  it("tells the size of its sandbox, which has none elsewhere", async () => {
    const sizeOf = (change: object) =>
      runInDurableObject(env.PLAIN.getByName(`declared ${rooms++}`), async (_, state) => {
        const instance = new HermesInstance(state, { ...env, ...change } as Env);
        return ((await (await instance.status("x")).json()) as { instanceType: string | null }).instanceType;
      });
    const there = { HERMES_PLATFORM: "cloudflare", HERMES_ENGINE: "cloudflare" };
    expect(await sizeOf({ ...there, HERMES_INSTANCE_TYPE: "standard-2" })).toBe("standard-2");
    expect(await sizeOf({ HERMES_INSTANCE_TYPE: "standard-2" })).toBeNull();
  });
});

describe("platforms", () => {
  it("are told where to send, by a look nothing, and no more when it is over", () =>
    deployed({ ci: { kind: "github" } }, async ({ ask, asked, view }) => {
      expect((await view())["telegram"]).toMatchObject({ receives: "webhook", lastIn: null, lastOut: null });
      const address = "https://hermes.example.com";
      const look = await ask("/api/instance/channels/register", post({ address, look: true }));
      expect(await look.json()).toMatchObject({ registered: { telegram: expect.anything() }, refused: {} });
      expect(asked.map(({ method }) => method)).not.toContain("setWebhook");
      await ask("/api/instance/channels/register", post({ address }));
      expect(asked.find(({ method }) => method === "setWebhook")?.body).toMatchObject({
        url: `${address}/channels/telegram`,
      });
      const over = await ask("/api/instance/channels/unregister?name=telegram", { method: "POST" });
      expect(await over.json()).toEqual({ refused: {} });
      expect(asked.at(-1)?.method).toBe("deleteWebhook");
      const asks = asked.length;
      expect(await (await ask("/api/instance/channels/unregister", { method: "POST" })).json()).toEqual({
        refused: {},
      });
      expect(asked).toHaveLength(asks);
      expect(await (await ask("/api/instance/channels/retry", { method: "POST" })).json()).toEqual({
        retried: 0,
      });
    }));
});

describe("a webhook", () => {
  const told = { event_type: "push", id: "evt_1", n: 1 };
  const body = JSON.stringify(told);
  const now = () => String(Math.floor(Date.now() / 1000));

  it("has its text sent to the chat, once however often it is delivered", () =>
    deployed(
      {
        ci: { kind: "gitlab", chat: { platform: "telegram", id: "77" }, deliverOnly: true, prompt: "n {n}" },
      },
      async ({ ask, asked, view }) => {
        const headers = { "x-gitlab-token": SECRET, "x-gitlab-event": "Push Hook", "idempotency-key": "k1" };
        const deliver = async () => (await ask("/hooks/ci", { method: "POST", headers, body })).json();
        expect(await deliver()).toEqual({ status: "new" });
        expect(await deliver()).toEqual({ status: "known" });
        await until(async () => asked.length > 0);
        expect(asked).toMatchObject([{ method: "sendMessage", body: { chat_id: "77", text: "n 1" } }]);
        expect(Date.parse(String((await view())["hooks/ci"]?.["lastIn"]))).toBeGreaterThan(0);
        expect(Date.parse(String((await view())["telegram"]?.["lastOut"]))).toBeGreaterThan(0);
      },
    ));

  /** The message that the instance is given, or what the sender is answered; `is` what the instance says of it. */
  async function delivered(hook: object, headers: Record<string, string>, sent = body, is = "new") {
    const given: Incoming[] = [];
    const instance = {
      hook: async (_: string, one: Incoming) => {
        given.push(one);
        return is;
      },
    };
    const change = { ...declared({ ci: hook }), INSTANCE: { getByName: () => instance } };
    const init = { method: "POST", body: sent };
    const answer = await askWith(change as unknown as Record<string, string>, "/hooks/ci", headers, init);
    const { status, error } = (await answer.json()) as { status?: string; error?: { code: string } };
    return { answer, said: status ?? error?.code, message: given[0] };
  }

  const SIGNED: [string, () => Promise<Record<string, string>>][] = [
    ["github", async () => ({ "x-hub-signature-256": `sha256=${hex(await hmacOf(body))}` })],
    ["gitlab", async () => ({ "x-gitlab-token": SECRET })],
    [
      "stripe",
      async () => {
        const at = now();
        const good = hex(await hmacOf(`${at}.${body}`));
        return { "stripe-signature": `t=${at}, v1=nonsense, v1=${"0".repeat(64)}, v1=${good}, v0=, x` };
      },
    ],
    [
      "svix",
      async () => {
        const at = now();
        const good = new Uint8Array(await hmacOf(`msg_1.${at}.${body}`));
        const signature = `v2,x v1,short v1,${btoa(String.fromCharCode(...good))}`;
        return { "svix-id": "msg_1", "svix-timestamp": at, "svix-signature": signature };
      },
    ],
    [
      "hmac",
      async () => {
        const at = now();
        return { "x-webhook-timestamp": at, "x-webhook-signature-v2": hex(await hmacOf(`${at}.${body}`)) };
      },
    ],
  ];

  it.each(SIGNED)("of %s is taken with its signature, and never with another body", async (kind, sign) => {
    const headers = await sign();
    const { said, message } = await delivered({ kind }, headers);
    expect(said).toBe("new");
    expect(message?.event.text).toContain('"n": 1');
    const forged = await delivered({ kind }, headers, JSON.stringify({ ...told, n: 2 }));
    // GitLab sends its secret, and signs nothing.
    expect([forged.said, forged.message === undefined]).toEqual(
      kind === "gitlab" ? ["new", false] : ["bad_signature", true],
    );
  });

  it.each([
    ["github", { "x-hub-signature-256": "sha1=00" }],
    ["gitlab", { "x-gitlab-token": "" }],
    ["gitlab", { "x-gitlab-token": "another" }],
    ["stripe", { "stripe-signature": "" }],
    ["stripe", { "stripe-signature": "v1=00" }],
    ["svix", { "webhook-signature": "v1,x" }],
    ["svix", { "svix-id": "m", "svix-signature": "v1,x" }],
    ["hmac", { "x-webhook-signature-v2": "0".repeat(64) }],
    ["hmac", { "x-webhook-signature-v2": "short" }],
  ])("of %s is refused with %j", async (kind, headers) => {
    const { answer, said, message } = await delivered({ kind }, headers as unknown as Record<string, string>);
    expect([answer.status, said, message]).toEqual([401, "bad_signature", undefined]);
  });

  it.each(["stripe", "svix", "hmac"])("of %s is refused when it was signed long ago", async (kind) => {
    const at = String(Math.floor(Date.now() / 1000) - 301);
    const [signature, ofSvix] = [await hmacOf(`${at}.${body}`), await hmacOf(`m.${at}.${body}`)];
    const headers = {
      "stripe-signature": `t=${at},v1=${hex(signature)}`,
      ...{ "x-webhook-timestamp": at, "x-webhook-signature-v2": hex(signature) },
      ...{ "svix-id": "m", "svix-timestamp": at },
      "svix-signature": `v1,${btoa(String.fromCharCode(...new Uint8Array(ofSvix)))}`,
    };
    expect((await delivered({ kind }, headers)).said).toBe("bad_signature");
  });

  it("is known by the name that its sender signed, else by what was signed", async () => {
    const idOf = async (kind: string, headers: Record<string, string>, sent = body) =>
      (await delivered({ kind }, headers, sent)).message?.id;
    const stripe = async (sent: string) => {
      const at = now();
      return idOf("stripe", { "stripe-signature": `t=${at},v1=${hex(await hmacOf(`${at}.${sent}`))}` }, sent);
    };
    expect(await stripe(body)).toBe("evt_1");
    expect(await stripe('{"id":7,"type":"x"}')).toMatch(/^[0-9a-f]{64}$/);
    const gitlab = { "x-gitlab-token": SECRET };
    expect(await idOf("gitlab", { ...gitlab, "idempotency-key": "k" })).toBe("k");
    expect(await idOf("gitlab", gitlab)).toMatch(/^[0-9a-f]{64}$/);
    const svix = async (prefix: string) => {
      const at = now();
      const made = btoa(String.fromCharCode(...new Uint8Array(await hmacOf(`msg_1.${at}.${body}`))));
      const of = { id: "msg_1", timestamp: at, signature: `v1,${made}` };
      return idOf(
        "svix",
        Object.fromEntries(Object.entries(of).map(([name, value]) => [`${prefix}-${name}`, value])),
      );
    };
    expect([await svix("svix"), await svix("webhook")]).toEqual(["msg_1", "msg_1"]);
    // The same words at another time are another delivery.
    const hmac = async (at: number) =>
      idOf("hmac", {
        "x-webhook-timestamp": String(at),
        "x-webhook-signature-v2": hex(await hmacOf(`${at}.${body}`)),
      });
    const second = Math.floor(Date.now() / 1000);
    expect(await hmac(second)).not.toBe(await hmac(second - 1));
  });

  it("of an event that is not wanted does not reach the instance", async () => {
    const gitlab = (events: string[], headers: object) =>
      delivered({ kind: "gitlab", events }, { "x-gitlab-token": SECRET, ...headers });
    const other = await gitlab(["Push Hook"], { "x-gitlab-event": "Tag Push Hook" });
    expect([other.answer.status, other.said, other.message]).toEqual([200, "not wanted", undefined]);
    expect((await gitlab(["Push Hook"], {})).said).toBe("not wanted");
    expect((await gitlab(["Push Hook"], { "x-gitlab-event": "Push Hook" })).said).toBe("new");
    const typed = async (sent: string) => {
      const headers = { "x-webhook-timestamp": now(), "x-webhook-signature-v2": "" };
      headers["x-webhook-signature-v2"] = hex(await hmacOf(`${headers["x-webhook-timestamp"]}.${sent}`));
      return (await delivered({ kind: "hmac", events: ["made"] }, headers, sent)).said;
    };
    expect([await typed('{"type":"made"}'), await typed("{}"), await typed("7")]).toEqual([
      "new",
      "not wanted",
      "not wanted",
    ]);
  });

  it("is to be sent again later while too much waits", async () => {
    const { answer, said } = await delivered({ kind: "gitlab" }, { "x-gitlab-token": SECRET }, body, "full");
    expect([answer.status, said, answer.headers.get("retry-after")]).toEqual([503, "channel_full", "60"]);
  });

  it.each([
    ["-500", "group", "webhook"],
    ["C0123", "group", "webhook"],
    ["77", "dm", "77"],
  ])("for the chat %s is a message of a %s", async (id, type, user) => {
    const chat = { platform: "telegram", id };
    const { message } = await delivered({ kind: "gitlab", chat }, { "x-gitlab-token": SECRET });
    expect(message?.event.source).toMatchObject({ chat_id: id, chat_type: type, user_id: user });
  });

  it("without a body is no JSON", async () => {
    expect((await delivered({ kind: "gitlab" }, { "x-gitlab-token": SECRET }, "")).said).toBe("bad_update");
  });
});
