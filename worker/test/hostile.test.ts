// SPDX-License-Identifier: Apache-2.0
/** Whatever is sent without a credential: it ends at the gate. And whatever is sent with one: nothing of ours goes on. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { innerHeaders, outerHeaders } from "../src/base/headers.ts";
import { addressOf, FailedAttempts, Quiet } from "../src/gate/failed-attempts.ts";
import { anew, ask, askBare, askDashboard, machine, TOKEN, woken } from "./helpers.ts";

const RUNS = { numRuns: 300 };

/** Pieces of paths that have fooled gates. */
const piece = fc.oneof(
  fc.constantFrom(
    ...[
      "/",
      "//",
      "/.",
      "/..",
      "\\",
      "%2e",
      "%2E%2e",
      "%2f",
      "%5c",
      ";",
      "?",
      "#",
      "%00",
      "%0d%0a",
      "@",
      ":",
    ],
    ...[
      "v1",
      "V1",
      "api",
      "health",
      "login",
      "auth",
      "gate",
      "assets",
      "models",
      "chat",
      "completions",
      "ws",
    ],
    ...["http://worker/", "hermes.example", "instance", "wake", "\u2215", "．", "ı", " "],
  ),
  fc.string({ maxLength: 6, unit: "grapheme" }),
);
const path = fc.array(piece, { minLength: 1, maxLength: 8 }).map((parts) => `/${parts.join("")}`);
const method = fc.constantFrom("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND");

const name = fc.oneof(
  fc.constantFrom(
    ...[
      "authorization",
      "Authorization",
      "cookie",
      "x-api-key",
      "x-hermes-worker-by",
      "x-hermes-worker-session",
    ],
    ...[
      "x-hermes-session-token",
      "x-http-method-override",
      "x-original-url",
      "x-rewrite-url",
      "x-forwarded-host",
    ],
    ...["cf-access-jwt-assertion", "forwarded", "upgrade", "host", "proxy-authorization", "connection"],
  ),
  fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/),
);
const value = fc.oneof(
  fc.constantFrom(
    ...[
      "Bearer",
      "Bearer ",
      "Bearer x",
      "Bearer null",
      "Bearer undefined",
      "bearer  ",
      "Basic eDp5",
      "person",
      "1",
    ],
    ...[
      "/v1/models",
      "worker",
      "websocket",
      "hw_token=x",
      "__Host-hermes-test=x",
      "127.0.0.1",
      "keep-alive, cookie",
    ],
  ),
  fc.stringMatching(/^[\x21-\x7e]{0,40}$/),
);
const headers = fc.array(fc.tuple(name, value), { maxLength: 6 });

/** A request, unless its parts make none. */
function request(
  base: string,
  at: string,
  verb: string,
  fields: [string, string][],
): [string, RequestInit] | null {
  try {
    const init = { method: verb, headers: fields as [string, string][], redirect: "manual" } as const;
    return [new URL(base + at).pathname && at, new Request(base + at, init) && init];
  } catch {
    return null;
  }
}

beforeAll(anew);

describe("without a credential", () => {
  it("no path, method or header reaches the sandbox or wakes it", async () => {
    await fc.assert(
      fc.asyncProperty(path, method, headers, fc.boolean(), async (at, verb, fields, toDashboard) => {
        const made = request(toDashboard ? "https://hermes.example" : "http://worker", at, verb, fields);
        if (made === null) return;
        const answer = await (toDashboard ? askDashboard(...made) : askBare(...made));
        await answer.body?.cancel();
        const isPublic = toDashboard ? /^\/login$/ : /^\/$/;
        const { pathname } = new URL(`http://worker${at}`);
        const expected = isPublic.test(pathname) ? [200, 303, 400, 401, 403, 429] : [303, 401, 403, 429];
        expect(expected).toContain(answer.status);
        if (answer.status === 303) expect(answer.headers.get("location")).toMatch(/^\/login\?next=%2F/);
      }),
      RUNS,
    );
    expect(await woken()).toBe(false);
  }, 60_000);
});

describe("with the token", () => {
  it("no path reaches anything in the sandbox but /v1, as it was sent", async () => {
    await (await ask("/api/instance/wake", { method: "POST" })).body?.cancel();
    await fc.assert(
      fc.asyncProperty(path, async (at) => {
        const made = request("http://worker", at, "GET", []);
        if (made === null || new URL(`http://worker${at}`).pathname.startsWith("/api/")) return;
        const before = (await machine.look()).hermes.length;
        await (await ask(...made)).body?.cancel();
        for (const seen of (await machine.look()).hermes.slice(before))
          expect(seen.path).toMatch(/^\/v1\/[A-Za-z0-9_][A-Za-z0-9_./:@~-]*(?:\?.*)?$/);
      }),
      { numRuns: 60 },
    );
  }, 60_000);

  it("no credential or internal header of ours goes on, however it is dressed up", async () => {
    const secret = "canary-0123456789abcdef";
    await fc.assert(
      fc.asyncProperty(headers, async (fields) => {
        const before = (await machine.look()).hermes.length;
        const sent = new Headers();
        for (const [key, text] of fields) {
          if (/^(?:upgrade|host|connection|content-length|transfer-encoding)$/i.test(key)) continue;
          sent.append(key, /^(?:x-hermes-worker|cookie|proxy-|cf-|x-forwarded)/i.test(key) ? secret : text);
        }
        sent.set("authorization", `Bearer ${TOKEN}`);
        sent.set("cookie", secret);
        await (await ask("/v1/skills", { headers: sent })).body?.cancel();
        const [seen] = (await machine.look()).hermes.slice(before);
        const text = JSON.stringify(seen?.headers);
        expect(text).not.toContain(TOKEN);
        expect(text).not.toContain(secret);
      }),
      { numRuns: 40 },
    );
  }, 60_000);
});

describe("header lists", () => {
  it("let nothing private through in either direction, whatever else is there", () => {
    fc.assert(
      fc.property(headers, (fields) => {
        const all = new Headers(fields.filter(([key]) => key !== "host"));
        for (const key of [
          "authorization",
          "cookie",
          "origin",
          "cf-ray",
          "x-forwarded-for",
          "x-hermes-worker-by",
        ])
          all.set(key, "secret");
        for (const key of ["server", "set-cookie", "x-powered-by", "access-control-allow-origin", "via"])
          all.set(key, "secret");
        const inner = innerHeaders(all);
        const outer = outerHeaders(all);
        expect([inner.get("authorization"), inner.get("cookie"), inner.get("cf-ray")]).toEqual([
          null,
          null,
          null,
        ]);
        expect([inner.get("x-hermes-worker-by"), outer.get("x-hermes-worker-by")]).toEqual([null, null]);
        expect([outer.get("server"), outer.get("set-cookie"), outer.get("via")]).toEqual([null, null, null]);
        // What is read is trimmed, and so is what is set: a list that ends with nothing loses its last space.
        for (const [key, text] of inner) expect(all.get(key)?.trim()).toBe(text.trim());
      }),
      RUNS,
    );
  });
});

describe("a header's other spelling", () => {
  it("is private where the usual one is: there are servers that take one for the other", () => {
    const spelt = fc.constantFrom("authorization", "x_hermes_worker_by", "X-Hermes_Session-Token", "cf_ray");
    const more = fc.constantFrom("x_forwarded_for", "x_hermes_worker_credential", "proxy_authorization");
    fc.assert(
      fc.property(fc.oneof(spelt, more), (key) => {
        expect([...innerHeaders(new Headers({ [key]: "secret" }))]).toEqual([]);
      }),
      RUNS,
    );
    expect(outerHeaders(new Headers({ set_cookie: "a=b", x_kept: "1" })).get("x_kept")).toBe("1");
    expect(outerHeaders(new Headers({ set_cookie: "a=b" })).get("set_cookie")).toBeNull();
  });
});

describe("lines about strangers", () => {
  it("are bounded for each kind, and say how many were left out", () => {
    const quiet = new Quiet();
    const flood = Array.from({ length: 1000 }, () => quiet.take("missing_token", 0));
    expect(flood.filter((dropped) => dropped === 0)).toHaveLength(30);
    expect(flood.at(-1)).toBeNull();
    expect(quiet.take("wrong_origin", 0)).toBe(970);
    expect(quiet.take("wrong_origin", 0)).toBe(0);
    expect(quiet.take("missing_token", 4999)).toBeNull();
    expect(quiet.take("missing_token", 5000)).toBe(1);
  });
});

describe("failed attempts", () => {
  it("take a bounded memory, however many addresses there are", () => {
    const attempts = new FailedAttempts();
    for (let at = 0; at < 20_000; at++) attempts.fail(`10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`, at);
    expect(attempts.size).toBe(4096);
  });

  it("are forgiven with time", () => {
    const attempts = new FailedAttempts();
    for (let at = 0; at < 20; at++) expect(attempts.fail("a", 0)).toBe(0);
    expect(attempts.fail("a", 0)).toBeGreaterThan(0);
    expect(attempts.fail("a", 15_001)).toBe(0);
    expect(attempts.fail("b", 0)).toBe(0);
  });

  it("are counted by IPv4 address, and by the /64 of IPv6, however it is written", () => {
    expect(addressOf("198.51.100.7")).toBe("198.51.100.7");
    expect(addressOf("::ffff:198.51.100.7")).toBe("198.51.100.7");
    expect(addressOf("::1")).toBe("0:0:0:0::/64");
    expect(addressOf("2001:DB8:0001::5")).toBe("2001:db8:1:0::/64");
    const group = fc.integer({ min: 0, max: 0xffff }).map((n) => n.toString(16));
    fc.assert(
      fc.property(
        fc.array(group, { minLength: 8, maxLength: 8 }),
        fc.array(group, { minLength: 4 }),
        (one, more) => {
          const other = [...one.slice(0, 4), ...more.slice(0, 4)]
            .map((text) => text.padStart(4, "0"))
            .join(":");
          expect(addressOf(other)).toBe(addressOf(one.join(":")));
        },
      ),
    );
  });
});
