// SPDX-License-Identifier: Apache-2.0
/** Every route by every credential. */
import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { digestOf, hex } from "../src/base/digests.ts";
import { sign } from "../src/base/session-cookie.ts";
import { rawPath } from "../src/gate/requests.ts";
import entry, { Dashboard, Providers } from "../src/index.ts";
import { CREDENTIAL } from "../src/instance/leases.ts";
import { Team } from "./access.ts";
import { anew, askWith, crash, env, instance, machine, woken } from "./helpers.ts";

const OLD = "the-old-token-of-the-table";
const NEW = "the-new-token-of-the-table";
const ROTATED = { API_TOKEN: NEW, API_TOKEN_PREVIOUS: OLD };
const HOST = "hermes.example";
const WEEK = 7 * 24 * 3600_000;
const team = await Team.create();

/** What a request carries, by what it is called. */
type Credential = () => Promise<Record<string, string>> | Record<string, string>;

const bearer = (token: string) => () => ({ authorization: `Bearer ${token}` });
const assertion = (order: Parameters<Team["token"]>[0]) => async () => ({
  "cf-access-jwt-assertion": await team.token(order),
});
const cookie = (value: string) => ({ cookie: `__Host-hermes-test=${value}` });
const opened = () =>
  runInDurableObject(instance(), async (it) => it.openDashboardSession(hex(await digestOf(NEW))));
const signingKey = () => runInDurableObject(instance(), (it) => it.dashboardKey());

const BAD: Record<string, Credential> = {
  none: () => ({}),
  "a wrong token": bearer("wrong"),
  "a prefix of the token": bearer(NEW.slice(0, -1)),
  "another scheme": () => ({ authorization: `Basic ${btoa(`x:${NEW}`)}` }),
  "the token in the query's place": () => ({ "x-api-key": NEW }),
  "the token as a cookie": () => ({ cookie: `__Host-hermes-test=${NEW}; token=${NEW}` }),
  "a forged cookie": () => cookie(`${"0".repeat(32)}.${Date.now() + 60_000}.${"A".repeat(43)}`),
  "a cookie signed with another key": async () => {
    const ticket = { id: "0".repeat(32), expires: Date.now() + 60_000 };
    return cookie(await sign(ticket, new Uint8Array(32).buffer));
  },
  "a signed cookie of no session": async () => {
    const ticket = { id: "0".repeat(32), expires: Date.now() + 60_000 };
    return cookie(await sign(ticket, await signingKey()));
  },
  "a cookie with another expiry": async () => {
    const [id = "", expires = "", mac = ""] = (await opened()).cookie.split(".");
    return cookie(`${id}.${Number(expires) + 1}.${mac}`);
  },
  "an expired cookie": async () => {
    const { id } = await opened();
    return cookie(await sign({ id, expires: Date.now() - 1 }, await signingKey()));
  },
  "a cookie whose session has expired": async () => {
    const { cookie: value } = await opened();
    await runInDurableObject(instance(), (_, { storage }) => {
      storage.sql.exec("UPDATE dashboard_sessions SET expires = expires - ?", WEEK + 1);
    });
    return cookie(value);
  },
  "a revoked cookie": async () => {
    const { cookie: value } = await opened();
    await runInDurableObject(instance(), (it) => it.revokeDashboardSessions("x"));
    return cookie(value);
  },
  "a signed out cookie": async () => {
    const { cookie: value, id } = await opened();
    await runInDurableObject(instance(), (it) => it.endDashboardSession(id));
    return cookie(value);
  },
  "Access of another issuer": assertion({ issuer: "https://other.cloudflareaccess.example" }),
  "Access for another audience": assertion({ audience: ["audience-three"] }),
  "Access, expired": assertion({ expiresIn: -60 }),
  "Access, signed by a stranger": assertion({ stranger: true }),
  "Access, unsigned": () => ({
    "cf-access-jwt-assertion": `${btoa('{"alg":"none"}')}.${btoa('{"email":"a@b"}')}.`.replaceAll("=", ""),
  }),
  "Access, no token at all": () => ({ "cf-access-jwt-assertion": "x" }),
  "Access by its user's header alone": () => ({ "cf-access-authenticated-user-email": "alice@team.example" }),
  "the instance's own headers": () => ({ "x-hermes-worker-by": "person", "x-hermes-worker-session": "x" }),
};

/** Who is let in where. */
const GOOD: Record<string, { api: boolean; dashboard: boolean; credential: Credential }> = {
  "the new token": { api: true, dashboard: true, credential: bearer(NEW) },
  "the old token in the overlap": { api: true, dashboard: true, credential: bearer(OLD) },
  "a session": { api: false, dashboard: true, credential: async () => cookie((await opened()).cookie) },
  Access: { api: false, dashboard: true, credential: assertion({}) },
  "Access with several audiences": {
    api: false,
    dashboard: true,
    credential: assertion({ audience: ["audience-three", "audience-one"] }),
  },
  "a session beside a bad Access": {
    api: false,
    dashboard: true,
    credential: async () => ({ ...cookie((await opened()).cookie), "cf-access-jwt-assertion": "x" }),
  },
};

interface Route {
  method: string;
  path: string;
  /** Status for whoever is let in. */
  ok: number;
  upgrade?: true;
}

const API: Route[] = [
  { method: "GET", path: "/api/health", ok: 200 },
  { method: "GET", path: "/metrics", ok: 200 },
  { method: "POST", path: "/api/secrets/proof", ok: 400 },
  { method: "GET", path: "/api/instance/status", ok: 200 },
  { method: "GET", path: "/api/instance/agent", ok: 200 },
  { method: "GET", path: "/api/instance/agent/archive", ok: 204 },
  { method: "POST", path: "/api/instance/wake", ok: 200 },
  { method: "POST", path: "/api/instance/sleep", ok: 200 },
  { method: "POST", path: "/api/instance/restart", ok: 200 },
  { method: "POST", path: "/api/instance/restart-gateway", ok: 200 },
  { method: "POST", path: "/api/instance/stop", ok: 200 },
  { method: "POST", path: "/api/instance/refresh", ok: 200 },
  { method: "POST", path: "/api/instance/preview", ok: 400 },
  { method: "GET", path: "/api/instance/logs", ok: 200 },
  { method: "GET", path: "/api/instance/backups", ok: 200 },
  { method: "POST", path: "/api/instance/backups", ok: 200 },
  { method: "PUT", path: "/api/instance/backups", ok: 400 },
  { method: "GET", path: "/api/instance/backups/999", ok: 404 },
  { method: "GET", path: `/api/instance/backups/uploads/${"0".repeat(64)}?parts=1`, ok: 200 },
  { method: "PUT", path: `/api/instance/backups/uploads/${"0".repeat(64)}/0`, ok: 400 },
  { method: "POST", path: `/api/instance/backups/uploads/${"0".repeat(64)}`, ok: 409 },
  { method: "POST", path: "/api/dashboard/sessions/revoke", ok: 200 },
  { method: "GET", path: "/v1/models", ok: 200 },
  { method: "GET", path: "/v1/capabilities", ok: 200 },
  { method: "POST", path: "/v1/runs", ok: 400 },
  { method: "DELETE", path: "/v1/responses/x", ok: 200 },
  { method: "GET", path: "/api/nothing", ok: 404 },
  { method: "OPTIONS", path: "/v1/models", ok: 204 },
  { method: "POST", path: "/api/instance/hold", ok: 200 },
];

const DASHBOARD: Route[] = [
  { method: "GET", path: "/api/auth/me", ok: 200 },
  { method: "POST", path: "/api/auth/ws-ticket", ok: 200 },
  { method: "GET", path: "/gate/asleep", ok: 200 },
  { method: "GET", path: "/assets/index-DE8KfxAS.js", ok: 200 },
  { method: "GET", path: "/api/sessions", ok: 200 },
  { method: "PUT", path: "/api/config", ok: 200 },
  { method: "GET", path: "/api/ws", ok: 101, upgrade: true },
  { method: "GET", path: "/v1/models", ok: 200 },
  { method: "GET", path: "/login/x", ok: 200 },
];

beforeAll(async () => {
  const headers = { "content-type": "application/json" };
  await anew();
  await machine.provider({ status: 200, headers, body: team.certs });
});

/** A request under a rotation; each from an address of its own, so that none is refused for the others. */
let address = 0;
async function send(route: Route, host: string, credential: Record<string, string>): Promise<number> {
  const headers: Record<string, string> = {
    ...credential,
    "cf-connecting-ip": `198.18.0.${address++ % 250}`,
  };
  if (route.upgrade) Object.assign(headers, { upgrade: "websocket", origin: `https://${host}` });
  const configured = { ...ROTATED, HERMES_PLATFORM: "cloudflare" };
  const answer = await askWith(configured, route.path, headers, { method: route.method }, `https://${host}`);
  await answer.body?.cancel();
  answer.webSocket?.accept();
  answer.webSocket?.close();
  return answer.status;
}

describe.each(Object.entries(BAD))("with %s", (_, credential) => {
  it("nobody gets in anywhere, and nothing is woken", async () => {
    for (const route of API)
      expect([route.path, await send(route, "worker", await credential())]).toEqual([route.path, 401]);
    for (const route of DASHBOARD) {
      const status = await send(route, HOST, await credential());
      expect([route.path, [401, 403].includes(status)]).toEqual([route.path, true]);
    }
    expect(await woken()).toBe(false);
  });
});

describe.each(Object.entries(GOOD))("with %s", (_, { api, dashboard, credential }) => {
  beforeEach(async () => {
    await send({ method: "POST", path: "/api/instance/wake", ok: 200 }, "worker", await bearer(NEW)());
  });

  it.each(API)("$method $path", async (route) => {
    expect(await send(route, "worker", await credential())).toBe(api ? route.ok : 401);
    // What holds turns back ends with the object.
    if (route.path.endsWith("/hold")) await crash();
  });

  it.each(DASHBOARD)("$method $path of the dashboard", async (route) => {
    expect(await send(route, HOST, await credential())).toBe(dashboard ? route.ok : 401);
  });
});

describe("Access whose keys cannot be had", () => {
  it("is told apart from a bad token, and not counted against anybody", async () => {
    await machine.provider({ status: 500, headers: {}, body: "no keys" });
    const elsewhere = { ...ROTATED, HERMES_ACCESS_TEAM_DOMAIN: "silent.cloudflareaccess.example" };
    const token = await team.token({ issuer: "https://silent.cloudflareaccess.example" });
    for (let at = 0; at < 25; at++) {
      const headers = { "cf-access-jwt-assertion": token, "cf-connecting-ip": "198.18.1.1" };
      const answer = await askWith(elsewhere, "/api/auth/me", headers, {}, `https://${HOST}`);
      expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([
        503,
        "access_unreachable",
      ]);
    }
    await machine.provider({
      status: 200,
      headers: { "content-type": "application/json" },
      body: team.certs,
    });
  });
});

describe("a visitor whom Access lets in", () => {
  const there = { ...ROTATED, HERMES_PLATFORM: "cloudflare" };
  const visit = async (path: string, order: Parameters<Team["token"]>[0], init: RequestInit = {}) => {
    const headers = { "cf-access-jwt-assertion": await team.token(order), origin: `https://${HOST}` };
    return askWith(there, path, headers, init, `https://${HOST}`);
  };

  it.each([
    [{}, "alice@team.example"],
    [{ email: "", common_name: "a service" }, "a service"],
    [{ email: "", sub: "7335d417" }, "7335d417"],
    [{ email: "" }, "a visitor"],
  ])("with the claims %j is %s", async (claims, name) => {
    const me = await visit("/api/auth/me", { claims, expiresIn: 60 });
    const told = (await me.json()) as { expires_at: number };
    expect(told).toMatchObject({ user_id: name, email: name, provider: "Cloudflare Access" });
    expect(told.expires_at).toBeLessThanOrEqual(Math.ceil(Date.now() / 1000) + 60);
  });

  it("whose claims are of another shape is none", async () => {
    expect((await visit("/api/auth/me", { claims: { email: 7 } })).status).toBe(403);
  });

  it("is signed out by Access, which would let them in again at once", async () => {
    const answer = await visit("/auth/logout", {}, { method: "POST" });
    expect([answer.status, answer.headers.get("location")]).toEqual([303, "/cdn-cgi/access/logout"]);
  });

  it("with the token is signed out as everybody is", async () => {
    const headers = { authorization: `Bearer ${NEW}`, origin: `https://${HOST}` };
    const answer = await askWith(there, "/auth/logout", headers, { method: "POST" }, `https://${HOST}`);
    expect([answer.status, answer.headers.get("location")]).toEqual([303, "/login"]);
  });

  it("is told apart from a bad one where Access publishes no keys", async () => {
    await machine.provider({ status: 200, headers: { "content-type": "application/json" }, body: "{}" });
    const garbled = { ...there, HERMES_ACCESS_TEAM_DOMAIN: "garbled.cloudflareaccess.example" };
    const token = await team.token({ issuer: "https://garbled.cloudflareaccess.example" });
    const headers = { "cf-access-jwt-assertion": token };
    const answer = await askWith(garbled, "/api/auth/me", headers, {}, `https://${HOST}`);
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([
      503,
      "access_unreachable",
    ]);
  });
});

describe("where nobody has to show anything", () => {
  const open = { API_TOKEN: "", HERMES_ALLOW_UNAUTHENTICATED: "true" };

  it("everybody is let in everywhere, and is nobody in particular", async () => {
    const me = await askWith(open, "/api/auth/me", {}, {}, `https://${HOST}`);
    expect(await me.json()).toMatchObject({ user_id: "owner", provider: "no token", expires_at: null });
    const health = await askWith(open, "/api/health", {});
    expect(await health.json()).toMatchObject({ status: "ok", token: null });
    for (const [path, base] of [
      ["/v1/capabilities", "http://worker"],
      ["/api/sessions", `https://${HOST}`],
    ] as const) {
      const answer = await askWith(open, path, { "sec-fetch-mode": "navigate" }, {}, base);
      expect(answer.status).not.toBe(401);
      await answer.body?.cancel();
    }
  });

  it("a session of before does not count, and does not harm", async () => {
    const headers = cookie((await opened()).cookie);
    const me = await askWith(open, "/api/auth/me", headers, {}, `https://${HOST}`);
    expect(me.status).toBe(401);
  });
});

describe("a request that makes no address", () => {
  const strange = { url: "http://[strange", headers: new Headers() } as Request;

  it("is answered before anything looks at it", async () => {
    const context = createExecutionContext();
    const fetch = entry.fetch as unknown as (...all: unknown[]) => Promise<Response>;
    for (const answer of [
      await fetch(strange, env, context),
      await new Dashboard(context, env).fetch(strange),
    ]) {
      expect(answer.status).toBe(400);
      expect(await answer.json()).toMatchObject({ error: { code: "bad_address" } });
    }
  });

  it("has no path that any route knows", () => {
    expect(rawPath({ url: "*" } as Request)).toBe("*");
    expect(rawPath({ url: "http://worker" } as Request)).toBe("/");
  });

  it("and a tunnel is closed, wherever it is asked for", async () => {
    let closed = 0;
    const socket = { close: async () => void closed++ } as unknown as Socket;
    const context = createExecutionContext();
    await (entry.connect as unknown as (socket: Socket) => Promise<void>)(socket);
    await new Dashboard(context, env).connect(socket);
    await new Providers(context, env).connect(socket);
    expect(closed).toBe(3);
  });
});

describe("a configuration that cannot be read", () => {
  it.each(["http://worker", `https://${HOST}`])("is told at %s", async (base) => {
    const answer = await askWith({ HERMES_SLEEP_AFTER: "soon" }, "/api/auth/me", {}, {}, base);
    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({
      error: { code: "bad_configuration", message: expect.stringContaining("HERMES_SLEEP_AFTER") },
    });
  });

  it("without a name for the dashboard has none there", async () => {
    for (const name of [null, ""]) {
      const change = { HERMES_DASHBOARD_HOSTNAME: name };
      const answer = await askWith(change, "/login", {}, {}, `https://${HOST}`);
      expect(await answer.json()).toMatchObject({ error: { code: "missing_token" } });
    }
  });
});

describe("after the overlap", () => {
  it("the old token is as good as none", async () => {
    // Its end begins with the first use of the new one.
    expect(await send({ method: "GET", path: "/api/health", ok: 200 }, "worker", bearer(NEW)())).toBe(200);
    await runInDurableObject(instance(), (_, { storage }) => {
      for (const [key] of [...storage.kv.list({ prefix: "token-refused-from:" })]) storage.kv.put(key, 1);
    });
    for (const route of API) expect(await send(route, "worker", await bearer(OLD)())).toBe(401);
    for (const route of DASHBOARD) expect(await send(route, HOST, await bearer(OLD)())).toBe(401);
  });
});

describe("too many wrong credentials", () => {
  const wrong = (ip: string, token = "wrong") =>
    askWith(
      { ...ROTATED, HERMES_PLATFORM: "cloudflare" },
      "/api/health",
      { authorization: `Bearer ${token}`, "cf-connecting-ip": ip },
      {},
      "https://worker",
    );

  it("are answered with 429 for that address, while a right one passes from there and from elsewhere", async () => {
    const statuses: number[] = [];
    for (let at = 0; at < 25; at++) statuses.push((await wrong(`2001:db8:1:2::${at.toString(16)}`)).status);
    expect(statuses.slice(0, 20)).toEqual(Array(20).fill(401));
    expect(statuses.slice(-4)).toEqual(Array(4).fill(429));
    const limited = await wrong("2001:db8:1:2:ffff::1");
    expect(Number(limited.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await limited.json()).toMatchObject({ error: { code: "too_many_attempts" } });
    expect((await wrong("2001:db8:1:2::7", NEW)).status).toBe(200);
    expect((await wrong("2001:db8:1:3::7")).status).toBe(401);
  });
});

describe("the instance", () => {
  it.each([
    ["key x", 401],
    ["session x", 401],
    ["access 1", 401],
    ["", 401],
    ["anyone", 200],
  ])("answers what was let in by '%s' with %s", async (credential, status) => {
    const headers = { [CREDENTIAL]: credential };
    expect((await instance().fetch("http://instance/v1/models", { headers })).status).toBe(status);
  });
});

describe("public routes", () => {
  it.each([
    ["worker", "GET", "/", 200],
    ["worker", "HEAD", "/", 200],
    ["worker", "POST", "/", 401],
    [HOST, "GET", "/login", 200],
    [HOST, "POST", "/login", 401],
    [HOST, "GET", "/", 401],
    ["worker", "GET", "/api/identity", 400],
    ["worker", "POST", "/api/identity", 401],
    ["worker", "GET", "/api/identity/x", 401],
    [HOST, "GET", "/api/identity", 400],
    [HOST, "POST", "/api/identity", 401],
  ])("%s %s %s are these and no others", async (host, method, path, status) => {
    expect(await send({ method, path, ok: 200 }, host, {})).toBe(status);
  });
});

describe("who answers here", () => {
  const nonce = "a1".repeat(32);
  const proof = async (token: string, text: string) => {
    const encode = (value: string) => new TextEncoder().encode(value);
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    const key = await crypto.subtle.importKey("raw", encode(token), algorithm, false, ["sign"]);
    return hex(await crypto.subtle.sign("HMAC", key, encode(text)));
  };
  const proved = async (origin: string, asked = "", env: Record<string, string> = ROTATED) => {
    const configured = { ...env, HERMES_PLATFORM: "cloudflare" };
    const headers = { "x-hermes-asked": asked };
    const answer = await askWith(configured, `/api/identity?nonce=${nonce}`, headers, {}, origin);
    return [answer.status, ((await answer.json()) as { proofs?: string[] }).proofs] as const;
  };

  it.each([
    ["worker.acme.workers.dev", NEW],
    ["worker.acme.workers.dev", OLD],
    [HOST, NEW],
  ])("is proved at %s, for this address alone", async (host, token) => {
    const asked = await proof(token, `asked ${host} ${nonce}`);
    const expected = [200, [await proof(token, `${host} ${nonce}`)]];
    expect(await proved(`https://${host}`, asked)).toEqual(expected);
    expect(await proved(`https://${host}:8443`, asked)).toEqual(expected);
    expect(await proved("https://elsewhere.acme.workers.dev", asked)).toEqual([401, undefined]);
  });

  it("is proved where no token was replaced", async () => {
    const alone = { API_TOKEN: NEW };
    const asked = await proof(NEW, `asked worker ${nonce}`);
    expect((await proved("https://worker", asked, alone))[0]).toBe(200);
    expect((await proved("https://worker", "x", alone))[0]).toBe(401);
    const bare = await askWith(alone, `/api/identity?nonce=${nonce}`, {});
    expect(bare.status).toBe(401);
  });

  it("is proved to nobody who does not hold a token, for that could be guessed by", async () => {
    for (const asked of ["", "x", await proof("another", `asked worker ${nonce}`), await proof(NEW, nonce)])
      expect(await proved("https://worker", asked)).toEqual([401, undefined]);
    const own = await proof(NEW, `asked worker ${"b2".repeat(32)}`);
    expect(await proved("https://worker", own)).toEqual([401, undefined]);
  });

  it("tells nothing without a token, and wakes nobody", async () => {
    await anew();
    const open = { HERMES_ALLOW_UNAUTHENTICATED: "true", API_TOKEN: "" };
    expect(await proved("https://worker", "", open)).toEqual([200, []]);
    expect((await proved("https://worker", "", { API_TOKEN: "" }))[0]).toBe(503);
    expect(await woken()).toBe(false);
  });
});
