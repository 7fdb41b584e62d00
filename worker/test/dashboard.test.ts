// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { beforeEach, describe, expect, it } from "vitest";
import { sign } from "../src/base/session-cookie.ts";
import {
  anew,
  ask,
  askDashboard,
  askDashboardSocket,
  askWith,
  instance,
  machine,
  TOKEN,
  until,
  woken,
} from "./helpers.ts";

const ORIGIN = "https://hermes.example";
const page = { accept: "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "none" };

beforeEach(anew);

/** Signs in and returns the session's cookie. */
async function signIn(): Promise<string> {
  const answer = await submit({ token: TOKEN, next: "/sessions" });
  expect(answer.status).toBe(303);
  return cookieOf(answer);
}

function submit(fields: Record<string, string>, headers: Record<string, string> = {}): Promise<Response> {
  return askDashboard("/login", {
    method: "POST",
    body: new URLSearchParams(fields),
    headers: { origin: ORIGIN, ...headers },
  });
}

function cookieOf(answer: Response): string {
  return answer.headers.getSetCookie()[0]?.split(";")[0] ?? "";
}

async function wake(): Promise<void> {
  expect((await ask("/api/instance/wake", { method: "POST" })).status).toBe(200);
}

async function socket(headers: Record<string, string>, path = "/api/ws?ticket=cookie"): Promise<Response> {
  return askDashboard(path, { headers: { upgrade: "websocket", ...headers } });
}

/** The next thing that a socket says, or the code and reason of its end. */
function next(ws: WebSocket): Promise<string | ArrayBuffer | { code: number; reason: string }> {
  return new Promise((resolve) => {
    ws.addEventListener("message", ({ data }) => resolve(data as string), { once: true });
    ws.addEventListener("close", ({ code, reason }) => resolve({ code, reason }), { once: true });
  });
}

async function open(cookie: string): Promise<WebSocket> {
  const { webSocket } = await socket({ cookie, origin: ORIGIN });
  if (webSocket === null) throw new Error("no socket");
  webSocket.accept();
  return webSocket;
}

/** How much is open. */
function held(): Promise<number> {
  return runInDurableObject(instance(), (it) => it.held);
}

describe("signing in", () => {
  it("leads a browser to a page without scripts, and a program to an error it understands", async () => {
    const led = await askDashboard("/sessions?x=1", { headers: page });
    expect(led.status).toBe(303);
    expect(led.headers.get("location")).toBe("/login?next=%2Fsessions%3Fx%3D1");
    const form = await askDashboard("/login?next=%2Fsessions", { headers: page });
    expect(form.status).toBe(200);
    const policy = form.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("script-src");
    expect(form.headers.get("cache-control")).toBe("no-store");
    const text = await form.text();
    expect(text).not.toContain("<script");
    expect(text).toContain('value="/sessions"');
    expect(text).toContain('<label for="token">');
    const refused = await askDashboard("/api/status", { headers: { referer: `${ORIGIN}/chat?a=1` } });
    expect(refused.status).toBe(401);
    expect(await refused.json()).toMatchObject({
      error: "unauthenticated",
      login_url: "/login?next=%2Fchat%3Fa%3D1",
    });
  });

  it("trades the token for a cookie that holds none of it", async () => {
    const answer = await submit({ token: TOKEN, next: "/sessions" });
    expect(answer.headers.get("location")).toBe("/sessions");
    const [cookie = ""] = answer.headers.getSetCookie();
    expect(cookie).toMatch(/^__Host-hermes-test=[0-9a-f]{32}\.\d+\.[\w-]{43};/);
    for (const word of ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"]) expect(cookie).toContain(word);
    expect(cookie).not.toContain(TOKEN);
    const lasts = Number(/Max-Age=(\d+)/.exec(cookie)?.[1]);
    expect(lasts).toBeGreaterThan(7 * 86_400 - 60);
    expect(lasts).toBeLessThanOrEqual(7 * 86_400);
    const me = await askDashboard("/api/auth/me", { headers: { cookie: cookieOf(answer) } });
    expect(await me.json()).toMatchObject({ user_id: "owner", display_name: "test" });
  });

  it("does without Secure on plain loopback, where not every browser would take it", async () => {
    const url = "http://127.0.0.1:9787";
    const answer = await askDashboardSocket(`${url}/login`, {
      method: "POST",
      body: new URLSearchParams({ token: TOKEN }),
      headers: { origin: url, host: "127.0.0.1:9787" },
    });
    const [cookie = ""] = answer.headers.getSetCookie();
    expect(cookie).toMatch(/^hermes-test=/);
    expect(cookie).not.toContain("Secure");
    expect(cookie).toContain("HttpOnly");
  });

  it("is taken through a proxy that names the port, or hides the host when its origin is named", async () => {
    const seen = async (base: string, origin: string, named: string, host?: string) => {
      const change = { HERMES_DASHBOARD_HOSTNAME: new URL(base).hostname, HERMES_DASHBOARD_ORIGIN: named };
      const headers = { origin, ...(host === undefined ? {} : { host }) };
      const form = { method: "POST", body: new URLSearchParams({ token: TOKEN }) };
      const answer = await askWith(change, "/login", headers, form, base);
      const [set = ""] = answer.headers.getSetCookie();
      if (answer.status !== 303) return [answer.status];
      const cookie = cookieOf(answer);
      const me = await askWith(change, "/api/auth/me", { cookie }, {}, base);
      const ws = await askWith(change, "/api/ws", { cookie, ...headers, upgrade: "websocket" }, {}, base);
      ws.webSocket?.accept();
      ws.webSocket?.close();
      const out = await askWith(change, "/auth/logout", { cookie, ...headers }, { method: "POST" }, base);
      expect(cookieOf(out)).toBe(`${cookie.split("=")[0]}=`);
      return [set.startsWith("__Host-") && set.includes("Secure"), me.status, ws.status];
    };
    await wake();
    const [inside, outside] = ["http://127.0.0.1:9787", "https://dash.example"];
    expect(await seen(inside, outside, "")).toEqual([403]);
    expect(await seen(inside, outside, outside)).toEqual([true, 200, 101]);
    expect(await seen(inside, inside, outside)).toEqual([false, 200, 101]);
    expect(await seen(inside, "https://evil.example", outside)).toEqual([403]);
    expect(await seen(inside, "http://dash.example", outside)).toEqual([403]);
    expect(await seen(ORIGIN, ORIGIN, "", "hermes.example:443")).toEqual([true, 200, 101]);
    expect(await seen("http://nas.lan:8080", "http://nas.lan:8080", "http://nas.lan:8080")).toEqual([
      false,
      200,
      101,
    ]);
  });

  it("says that no token is configured, whatever is sent", async () => {
    const form = { method: "POST", body: new URLSearchParams({ token: TOKEN }) };
    for (const change of [{ API_TOKEN: null }, { API_TOKEN: null, API_TOKEN_PREVIOUS: TOKEN }]) {
      const answer = await askWith(change, "/login", { origin: ORIGIN }, form, ORIGIN);
      expect(answer.status).toBe(503);
      expect(answer.headers.getSetCookie()).toEqual([]);
      expect(await answer.text()).toContain("No API token is configured");
    }
  });

  it("is not asked for again of who is signed in", async () => {
    const cookie = await signIn();
    const answer = await askDashboard("/login?next=%2Fsessions", { headers: { ...page, cookie } });
    expect([answer.status, answer.headers.get("location")]).toEqual([303, "/sessions"]);
  });

  it("is told to wait when it failed too often, in the page and its header", async () => {
    const there = { HERMES_PLATFORM: "cloudflare" };
    const headers = { origin: ORIGIN, "cf-connecting-ip": "203.0.113.9" };
    const body = { method: "POST", body: new URLSearchParams({ token: "wrong" }) };
    let answer = new Response();
    // On a slow machine some are forgiven meanwhile.
    for (let time = 0; time < 60 && answer.status !== 429; time++) {
      await answer.body?.cancel();
      answer = await askWith(there, "/login", headers, body, ORIGIN);
    }
    expect(answer.status).toBe(429);
    expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await answer.text()).toContain("Too many wrong credentials");
  });

  it("says what is wrong with a wrong token, in the page", async () => {
    const answer = await submit({ token: "wrong", next: "/" });
    expect(answer.status).toBe(401);
    expect(answer.headers.getSetCookie()).toEqual([]);
    expect(await answer.text()).toMatch(/role="alert"[^>]*>This API token is not valid here/);
  });

  it.each([
    ["another site", { origin: "https://evil.example" }],
    ["a hidden origin", { origin: "null" }],
    ["another port", { origin: `${ORIGIN}:8443` }],
  ])("takes no form from %s", async (_, headers) => {
    expect((await submit({ token: TOKEN }, headers)).status).toBe(403);
  });

  it("takes no form that a browser marks as foreign though it hides where from", async () => {
    const answer = await askDashboard("/login", {
      method: "POST",
      body: new URLSearchParams({ token: TOKEN }),
      headers: { "sec-fetch-site": "cross-site" },
    });
    expect(answer.status).toBe(403);
  });

  it.each([
    "//evil.example/x",
    "/\\evil.example",
    "https://evil.example/x",
    "javascript:alert(1)",
    "/login?next=/login",
    "/auth/logout",
  ])("leads nobody to %s", async (target) => {
    const { headers } = await submit({ token: TOKEN, next: target });
    expect(headers.get("location")).toMatch(/^\/(?:x|evil\.example)?$/);
  });

  it("takes the cookie that some have set by hand, once, for a session", async () => {
    const answer = await askDashboard("/chat?a=1", { headers: { ...page, cookie: `hw_token=${TOKEN}` } });
    expect(answer.status).toBe(303);
    expect(answer.headers.get("location")).toBe("/chat?a=1");
    const cookies = answer.headers.getSetCookie();
    expect(cookies.find((one) => one.startsWith("hw_token="))).toMatch(/^hw_token=; Max-Age=0/);
    const session = cookies.find((one) => one.startsWith("__Host-"))?.split(";")[0] ?? "";
    expect((await askDashboard("/api/auth/me", { headers: { cookie: session } })).status).toBe(200);
  });

  it.each([
    ["a wrong one", "/", { ...page, cookie: "hw_token=wrong" }, "GET", 303],
    ["what a page loads", "/api/status", { cookie: `hw_token=${TOKEN}` }, "GET", 401],
    ["a change", "/api/config", { cookie: `hw_token=${TOKEN}`, origin: ORIGIN }, "PUT", 401],
    [
      "a socket",
      "/api/ws",
      { cookie: `hw_token=${TOKEN}`, origin: ORIGIN, upgrade: "websocket" },
      "GET",
      401,
    ],
  ])("does not take that cookie for %s", async (_, path, headers, method, status) => {
    const answer = await askDashboard(path, {
      method,
      headers: headers as unknown as Record<string, string>,
    });
    expect(answer.status).toBe(status);
    expect(answer.headers.getSetCookie().join()).not.toContain("__Host-");
    if (status === 303) expect(answer.headers.get("location")).toMatch(/^\/login/);
  });
});

describe("sessions", () => {
  it("end when somebody signs out, with the sockets they opened", async () => {
    const [cookie, other] = [await signIn(), await signIn()];
    await wake();
    const [ws, otherWs] = [await open(cookie), await open(other)];
    const ended = next(ws);
    const out = await askDashboard("/auth/logout", { method: "POST", headers: { cookie, origin: ORIGIN } });
    expect(out.status).toBe(303);
    expect(out.headers.getSetCookie()[0]).toContain("Max-Age=0");
    expect(await ended).toMatchObject({ code: 4401 });
    await until(async () => (await held()) === 1);
    expect((await askDashboard("/api/auth/me", { headers: { cookie } })).status).toBe(401);
    expect((await askDashboard("/api/auth/me", { headers: { cookie: other } })).status).toBe(200);
    otherWs.send("still here");
    expect(await next(otherWs)).toBe("still here");
  });

  it("leave room for others at once, though their sockets ignore the end", async () => {
    const cookie = await signIn();
    await wake();
    const sockets = await Promise.all(Array.from({ length: 100 }, () => open(cookie)));
    await ask("/api/dashboard/sessions/revoke", { method: "POST" });
    expect(await held(), "with the revocation itself").toBe(0);
    await scheduler.wait(1001);
    const fresh = await signIn();
    expect((await socket({ cookie: fresh, origin: ORIGIN })).status).toBe(101);
    expect(sockets).toHaveLength(100);
  });

  it("end with what they have open when their time is up, or when newer ones need the room", async () => {
    const [cookie, old] = [await signIn(), await signIn()];
    await wake();
    await runInDurableObject(instance(), (_, { storage }) => {
      const oldest = "(SELECT digest FROM dashboard_sessions ORDER BY expires LIMIT 1)";
      const soon = Date.now() + 300;
      storage.sql.exec(`UPDATE dashboard_sessions SET expires = ? WHERE digest = ${oldest}`, soon);
    });
    const ended = next(await open(cookie));
    expect(await ended).toMatchObject({ code: 4401 });
    const pushedOut = next(await open(old));
    await runInDurableObject(instance(), async (it) => {
      for (let at = 0; at < 100; at++) await it.openDashboardSession("x");
    });
    expect(await pushedOut).toMatchObject({ code: 4401 });
  });

  it("end when they are asked for and the object still opens what they wanted", async () => {
    const cookie = await signIn();
    const waiting = askDashboard("/api/config", {
      method: "PUT",
      body: "{}",
      headers: { cookie, origin: ORIGIN },
    });
    await until(async () => (await held()) === 1);
    await ask("/api/dashboard/sessions/revoke", { method: "POST" });
    expect((await waiting).status).toBe(401);
    await wake();
    expect((await machine.look()).dashboard).toEqual([]);
  });

  it("are over where another token than theirs is configured, or none", async () => {
    const cookie = await signIn();
    const me = (change: Record<string, string | null>) =>
      askWith(change, "/api/auth/me", { cookie }, {}, ORIGIN).then(({ status }) => status);
    expect(await me({})).toBe(200);
    expect(await me({ API_TOKEN: "a-token-that-was-set-anew" })).toBe(401);
    expect(await me({ API_TOKEN: null })).toBe(503);
  });

  it("end all at once when they are revoked, and new ones work at once", async () => {
    const cookie = await signIn();
    await signIn();
    const oldKey = await runInDurableObject(instance(), (it) => it.dashboardKey());
    const revoked = await ask("/api/dashboard/sessions/revoke", { method: "POST" });
    expect(await revoked.json()).toEqual({ revoked: 2 });
    expect((await askDashboard("/api/auth/me", { headers: { cookie } })).status).toBe(401);
    await scheduler.wait(1001);
    const fresh = await signIn();
    expect((await askDashboard("/api/auth/me", { headers: { cookie: fresh } })).status).toBe(200);
    // Whoever knows the key of before signs in vain, even for a session that is open.
    const [id = "", expires = ""] = fresh.slice(fresh.indexOf("=") + 1).split(".");
    const forged = `__Host-hermes-test=${await sign({ id, expires: Number(expires) }, oldKey)}`;
    expect((await askDashboard("/api/auth/me", { headers: { cookie: forged } })).status).toBe(401);
  });

  it("end with the API token that opened them", async () => {
    const rotated = { API_TOKEN: "the-token-that-comes-after", API_TOKEN_PREVIOUS: TOKEN };
    const cookie = await signIn();
    await askWith(rotated, "/api/health", { authorization: `Bearer ${rotated.API_TOKEN}` });
    expect((await askDashboard("/api/auth/me", { headers: { cookie } })).status).toBe(200);
    await runInDurableObject(instance(), (_, { storage }) => {
      for (const [key] of [...storage.kv.list({ prefix: "token-refused-from:" })]) storage.kv.put(key, 1);
    });
    expect((await askDashboard("/api/auth/me", { headers: { cookie } })).status).toBe(401);
  });

  it("are not more than a person needs", async () => {
    await runInDurableObject(instance(), async (it, { storage }) => {
      for (let at = 0; at < 120; at++) await it.openDashboardSession("x");
      expect(storage.sql.exec("SELECT count(*) AS n FROM dashboard_sessions").one()["n"]).toBe(100);
    });
  });
});

describe("the way to Hermes' dashboard", () => {
  it("shows a page that goes on by itself while Hermes wakes, then the dashboard without its token", async () => {
    const cookie = await signIn();
    await machine.set({ holdGo: true });
    const waiting = await askDashboard("/sessions", { headers: { ...page, cookie } });
    expect(waiting.status).toBe(503);
    expect(waiting.headers.get("refresh")).toBe("1;url=/sessions");
    expect(waiting.headers.get("retry-after")).toBe("1");
    expect(await waiting.text()).toContain("is waking up");
    await machine.release();
    // Nobody waits for it any more, and the boot goes on.
    let answer = waiting;
    await until(async () => {
      answer = await askDashboard("/sessions", { headers: { ...page, cookie } });
      return answer.status !== 503;
    });
    expect(answer.status).toBe(200);
    const { goes, dashboardStarts, starts, dashboard } = await machine.look();
    // Whoever saw the waiting page asked for nothing else.
    expect(dashboard).toHaveLength(1);
    const token = (goes[0] as { env: Record<string, string> }).env["HERMES_DASHBOARD_SESSION_TOKEN"] ?? "";
    expect(token).toHaveLength(64);
    const html = await answer.text();
    expect(html).toContain("window.__HERMES_AUTH_REQUIRED__=true");
    expect(html).not.toContain(token);
    expect(html).not.toContain("SESSION_TOKEN");
    expect({ dashboardStarts, starts }).toEqual({ dashboardStarts: 1, starts: 1 });
  });

  it("passes requests on with Hermes' credentials instead of ours, and answers without what names the stack", async () => {
    const cookie = await signIn();
    const answer = await askDashboard("/api/config?a=b", {
      method: "PUT",
      body: "{}",
      headers: {
        cookie: `${cookie}; other=1`,
        origin: ORIGIN,
        referer: ORIGIN,
        "x-forwarded-for": "1.2.3.4",
      },
    });
    expect(await answer.json()).toEqual({ path: "/api/config?a=b", bytes: 2 });
    for (const name of ["server", "set-cookie", "x-hermes-worker-refusal", "x-hermes-worker-boot-cause"])
      expect(answer.headers.get(name)).toBeNull();
    const { headers } = (await machine.look()).dashboard[0] ?? { headers: {} };
    for (const name of ["cookie", "origin", "referer", "authorization", "x-forwarded-for"])
      expect(headers).not.toHaveProperty(name);
    expect(Object.keys(headers).filter((name) => name.startsWith("x-hermes-worker"))).toEqual([]);
  });

  it("lets Hermes forbid more, but not speak for the gate", async () => {
    const cookie = await signIn();
    await wake();
    const { headers } = await askDashboard("/api/strict", { headers: { cookie } });
    const policy = headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'self'");
    expect(policy).toContain("frame-ancestors 'self'");
    for (const name of [
      "clear-site-data",
      "www-authenticate",
      "service-worker-allowed",
      "timing-allow-origin",
    ])
      expect(headers.get(name)).toBeNull();
  });

  it("takes uploads up to 100 MB", async () => {
    await wake();
    const limit = 100 * 1024 * 1024;
    const upload = (length: number) =>
      askWith(
        {},
        "/api/files",
        { authorization: `Bearer ${TOKEN}`, "content-length": String(length) },
        { method: "PUT", body: "x" },
        ORIGIN,
      );
    expect((await upload(limit)).status).toBe(200);
    expect((await upload(limit + 1)).status).toBe(413);
  });

  it("says in a page why a page cannot be shown", async () => {
    const cookie = await signIn();
    await machine.set({ commandFails: { dashboard: { exitCode: 69, message: "It has no room." } } });
    await wake();
    const answer = await askDashboard("/sessions", { headers: { ...page, cookie } });
    expect(answer.status).toBeGreaterThanOrEqual(500);
    const text = await answer.text();
    expect(text).toContain('role="alert"');
    expect(text).toContain("cannot be shown");
    await machine.set({ commandFails: {} });
    // A start that failed is no start: the next one who asks has it tried again.
    expect((await askDashboard("/sessions", { headers: { ...page, cookie } })).status).toBe(200);
  });

  it("takes no socket where Hermes has none, and says so", async () => {
    const cookie = await signIn();
    await wake();
    const said = async (status: number) => {
      const headers = { "x-stand-in-no-socket": "1" };
      await machine.set({ dashboardSays: { status, headers, body: "no" } });
      const answer = await socket({ cookie, origin: ORIGIN });
      expect(await answer.json()).toMatchObject({ code: "no_websocket" });
      return answer.status;
    };
    expect([await said(403), await said(200)]).toEqual([403, 502]);
  });

  it("leaves events uncompressed, a strong etag weak, and an empty answer empty", async () => {
    const cookie = await signIn();
    await wake();
    const get = async (status: number, headers: Record<string, string>, body: string | null) => {
      await machine.set({ dashboardSays: { status, headers, body } });
      return askDashboard("/api/x", { headers: { cookie, "accept-encoding": "gzip" } });
    };
    const long = "x".repeat(5000);
    const events = await get(200, { "content-type": "text/event-stream" }, long);
    expect(events.headers.get("content-encoding")).toBeNull();
    expect(await events.text()).toBe(long);
    const json = { "content-type": "application/json" };
    const weak = await get(200, { ...json, etag: 'W/"1"' }, long);
    expect([weak.headers.get("etag"), weak.headers.get("content-encoding")]).toEqual(['W/"1"', "gzip"]);
    expect(await weak.text()).toBe(long);
    const bare = await get(200, json, long);
    expect(bare.headers.get("etag")).toBeNull();
    expect(await bare.text()).toBe(long);
    const none = await get(204, {}, null);
    expect([none.status, none.body]).toEqual([204, null]);
  });

  it("names no inner address in redirects", async () => {
    const cookie = await signIn();
    await wake();
    const { headers, status } = await askDashboard("/api/moved", { headers: { cookie } });
    expect(status).toBe(307);
    expect(headers.get("location")).toBe("/api/there");
  });

  it("lets assets be kept and compresses them", async () => {
    const cookie = await signIn();
    await wake();
    const get = (path: string) => askDashboard(path, { headers: { cookie, "accept-encoding": "gzip, br" } });
    const hashed = await get("/assets/index-DE8KfxAS.js");
    expect(hashed.headers.get("cache-control")).toBe("private, max-age=31536000, immutable");
    expect(hashed.headers.get("content-encoding")).toBe("gzip");
    expect(hashed.headers.get("etag")).toBe('W/"1"');
    expect(await hashed.text()).toBe("x".repeat(5000));
    const plain = await get("/assets/plain.js");
    expect(plain.headers.get("cache-control")).toBe("private, max-age=3600");
    await plain.body?.cancel();
  });

  it("passes frames of sockets both ways, and how they end", async () => {
    const cookie = await signIn();
    await wake();
    const ws = await open(cookie);
    ws.send("hello");
    expect(await next(ws)).toBe("hello");
    ws.binaryType = "arraybuffer";
    ws.send(new Uint8Array([1, 2, 3]));
    expect(new Uint8Array((await next(ws)) as ArrayBuffer)).toEqual(new Uint8Array([1, 2, 3]));
    ws.send("bye");
    expect(await next(ws)).toEqual({ code: 4000, reason: "as you wish" });
  });

  it("speaks the protocol that Hermes chose", async () => {
    const cookie = await signIn();
    await wake();
    const answer = await socket({ cookie, origin: ORIGIN, "sec-websocket-protocol": "chat" });
    expect([answer.status, answer.headers.get("sec-websocket-protocol")]).toEqual([101, "chat"]);
    answer.webSocket?.accept();
    answer.webSocket?.close();
  });

  it("has a limit of open sockets, and room again when some are closed", async () => {
    const cookie = await signIn();
    await wake();
    const sockets = await Promise.all(Array.from({ length: 100 }, () => open(cookie)));
    expect((await socket({ cookie, origin: ORIGIN })).status).toBe(503);
    for (const ws of sockets) ws.close();
    await until(async () => (await socket({ cookie, origin: ORIGIN })).status === 101);
  });

  it.each([
    ["without a credential", { origin: ORIGIN }, 401],
    ["from another site", { origin: "https://evil.example" }, 403],
  ])("opens no socket %s", async (_, headers, status) => {
    await wake();
    const cookie = status === 403 ? await signIn() : "";
    const answer = await socket({ ...(headers as Record<string, string>), cookie });
    expect(answer.status).toBe(status);
    expect(answer.webSocket).toBeNull();
    expect((await machine.look()).dashboard).toEqual([]);
  });

  it("says why there is none where it is off", async () => {
    const off = { HERMES_DASHBOARD: "off: The sandbox cannot be confined here." };
    const answer = await askWith(
      off,
      "/",
      { authorization: `Bearer ${TOKEN}` },
      {},
      "https://hermes.example",
    );
    expect(answer.status).toBe(404);
    expect(await answer.json()).toMatchObject({
      code: "dashboard_off",
      detail: expect.stringContaining("confined here"),
    });
  });
});

describe("what keeps Hermes awake", () => {
  const lastActivity = async () =>
    Date.parse(((await (await ask("/api/instance/status")).json()) as { lastActivity: string }).lastActivity);

  it("is not a page that polls or reconnects: asleep, it is told to say so", async () => {
    const cookie = await signIn();
    const poll = await askDashboard("/api/status", { headers: { cookie, referer: `${ORIGIN}/chat` } });
    expect(poll.status).toBe(401);
    expect(await poll.json()).toMatchObject({ code: "asleep", login_url: "/gate/asleep?next=%2Fchat" });
    expect((await socket({ cookie, origin: ORIGIN })).status).toBe(401);
    const shown = await askDashboard("/gate/asleep?next=%2Fchat", { headers: { ...page, cookie } });
    expect(await shown.text()).toContain('href="/chat"');
    const linked = await askDashboard("/chat", {
      headers: { ...page, cookie, "sec-fetch-site": "cross-site" },
    });
    expect(await linked.text()).toContain("is asleep");
    expect(await woken()).toBe(false);
  });

  it("is not a page that polls: awake, it is answered and not counted", async () => {
    const cookie = await signIn();
    await wake();
    const before = await lastActivity();
    await scheduler.wait(5);
    expect((await askDashboard("/api/status", { headers: { cookie } })).status).toBe(200);
    const ws = await open(cookie);
    expect(await lastActivity()).toBe(before);
    ws.send("a person types");
    await next(ws);
    expect(await lastActivity()).toBeGreaterThan(before);
    const status = (await (await ask("/api/instance/status")).json()) as Record<string, unknown>;
    expect(status["unsavedSince"]).not.toBeNull();
    expect(status["requestsInFlight"]).toBe(0);
    ws.close();
  });
});
