// SPDX-License-Identifier: Apache-2.0
/**
 * Hermes' dashboard behind the gate: on a hostname of its own, or on a second socket. Whoever signs in gets a
 * session; what passes goes to the instance. Hermes' page takes this for its own gated mode: it asks
 * `/api/auth/me`, reconnects by `/api/auth/ws-ticket`, and signs out at `/auth/logout`.
 */
import { WorkerEntrypoint } from "cloudflare:workers";
import { type Context, Hono } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { ApiError, errorResponse } from "../base/errors.ts";
import { innerHeaders, mayHaveBody } from "../base/headers.ts";
import { verify } from "../base/session-cookie.ts";
import type { Env, Settings } from "../config/settings.ts";
import { authorize, authorizeToken, bearerOf, servesEveryone, tokenDigests } from "../gate/auth.ts";
import { askInstance } from "../gate/instance-stub.ts";
import { once, readBody, soon } from "../gate/request-body.ts";
import {
  accompany,
  addressed,
  type Base,
  countFailure,
  endTunnel,
  isUpgrade,
  noteFailure,
  unwrap,
} from "../gate/requests.ts";
import { IDENTITY, identify } from "../gate/secret-proof.ts";
import { TURN_HEADERS } from "../instance/chat-turns.ts";
import { ASLEEP, PROXY_HEADERS, WAKING } from "../instance/dashboard-proxy.ts";
import type { Opened } from "../instance/dashboard-sessions.ts";
import type { HermesInstance } from "../instance/instance.ts";
import { CREDENTIAL, type Credential } from "../instance/leases.ts";
import { ACCESS_HEADER, ACCESS_SIGN_OUT, visitorOf } from "./cloudflare-access.ts";
import { asleepPage, problemPage, signInPage, waitingPage } from "./pages.ts";

/** Who was let in. */
type Caller =
  | { by: "session"; id: string; expires: number }
  | { by: "access"; name: string; expires: number }
  | { by: "token"; digest: string }
  | { by: "anyone" };

interface Desk extends Base {
  Variables: Base["Variables"] & { caller: Caller };
}

type DeskContext = Context<Desk>;
type Stub = DurableObjectStub<HermesInstance>;

/** A cookie that some people have set by hand, with the API token; traded for a session. */
const OLD_COOKIE = "hw_token";
/** Largest sign-in form, and largest upload, in bytes; the latter is the platform's own limit. */
const FORM_LIMIT = 16 * 1024;
const UPLOAD_LIMIT = 100 * 1024 * 1024;
/** How long the key that signs the cookies is believed, and a wrong signature not asked about again, in ms. */
const KEY_BELIEVED = 60_000;
const KEY_DOUBTED = 1000;
/** Names with a digest in them never change; the rest is asked for again after an hour. */
const HASHED_ASSET = /^\/assets\/[\w.-]+-[\w-]{8}\.\w{2,5}$/;
const ASSET = /^\/(?:assets|fonts|fonts-terminal|ds-assets|favicon\.ico)/;
const COMPRESSIBLE = /^(?:text\/|application\/(?:javascript|json|manifest\+json|xml)|image\/svg\+xml)/;

const desk = new Hono<Desk>();

desk.use(accompany);
desk.use(async (c, next) => {
  refuseForeign(c.req.raw, c.var.settings);
  await next();
});

desk.get("/login", async (c) => {
  const next = inside(c.req.query("next"));
  const caller = await callerOf(c).catch(() => null);
  if (caller !== null) return c.redirect(next, 303);
  return signInPage(c.var.settings.name, next, null);
});

desk.post("/login", async (c) => {
  const form = new URLSearchParams(
    new TextDecoder().decode((await soon(readBody(c.req.raw, FORM_LIMIT))) ?? undefined),
  );
  const next = inside(form.get("next") ?? undefined);
  try {
    const token = (form.get("token") ?? "").trim();
    const { digest } = await authorizeToken(token, c.var.settings, (use) =>
      hermes(c, (it) => it.tokenUsed(use)),
    );
    await openSession(c, digest);
    c.set("isLetIn", true);
  } catch (error) {
    const refusal = noteFailure(c, countFailure(c.req.raw, c.var.settings, error));
    const { status, retryAfter } = refusal;
    const shown = await signInPage(c.var.settings.name, next, refusal.message, { status });
    if (retryAfter !== undefined) shown.headers.set("retry-after", String(retryAfter));
    return shown;
  }
  return c.redirect(next, 303);
});

desk.get(IDENTITY, identify);

desk.use(async (c, next) => {
  const caller = await callerOf(c);
  c.set("caller", caller ?? (await tradeOldCookie(c)));
  if (caller === null) {
    // The page is loaded again with what it got for its old cookie.
    c.res = c.redirect(inside(c.req.url), 303);
    return;
  }
  c.set("isLetIn", true);
  mustBeOn(c.var.settings);
  await next();
});

desk.post("/auth/logout", async (c) => {
  const { caller } = c.var;
  if (caller.by === "session") await hermes(c, (it) => it.endDashboardSession(caller.id));
  deleteCookie(c, cookieName(c), cookieOptions(c));
  return c.redirect(caller.by === "access" ? ACCESS_SIGN_OUT : "/login", 303);
});

desk.get("/api/auth/me", (c) => {
  const { caller, settings } = c.var;
  const name = caller.by === "access" ? caller.name : "owner";
  return c.json(
    {
      user_id: name,
      email: caller.by === "access" ? caller.name : "",
      display_name: caller.by === "access" ? caller.name : settings.name,
      org_id: "",
      provider: { access: "Cloudflare Access", session: "API token", token: "API token", anyone: "no token" }[
        caller.by
      ],
      expires_at: "expires" in caller ? Math.floor(caller.expires / 1000) : null,
    },
    { headers: { "cache-control": "no-store" } },
  );
});

// The cookie that lets this request in lets the socket in as well; Hermes' page wants a ticket all the same.
desk.post("/api/auth/ws-ticket", (c) => c.json({ ticket: "cookie", ttl_seconds: 30 }));

desk.get("/gate/asleep", (c) => asleepPage(c.var.settings.name, inside(c.req.query("next"))));

desk.all("*", async (c) => {
  const request = c.req.raw;
  const headers = innerHeaders(request.headers);
  headers.set(TURN_HEADERS.requestId, c.var.requestId);
  headers.set(PROXY_HEADERS.by, isPerson(request) ? "person" : "page");
  headers.set(CREDENTIAL, credentialOf(c.var.caller));
  if (isNavigation(request)) headers.set(PROXY_HEADERS.impatient, "1");
  if (isUpgrade(request)) headers.set("upgrade", "websocket");
  checkSize(request);
  const { method, signal } = request;
  // What says that nothing follows has a body all the same, and the runtime sends none with a GET.
  const body = request.body === null || !mayHaveBody(method) ? () => null : once(request.body);
  const init = { method, headers, signal, redirect: "manual" } as const;
  const answer = unwrap(c, await hermes(c, (it) => it.fetch(request.url, { ...init, body: body() })));
  if (answer.status === 101) return answer;
  const refusal = answer.headers.get(PROXY_HEADERS.refusal);
  if (refusal !== null) return refused(c, answer, refusal);
  return dressed(request, answer);
});

desk.onError((error, c) => {
  if (c.var.settings === undefined) return errorResponse(noteFailure(c, error), c.var.requestId);
  const refusal = noteFailure(c, countFailure(c.req.raw, c.var.settings, error));
  if (refusal.status === 401 && isNavigation(c.req.raw))
    return c.redirect(`/login?next=${encodeURIComponent(inside(c.req.url))}`, 303);
  return tell(c, refusal);
});

/** The dashboard's socket, where it has one of its own. */
export class Dashboard extends WorkerEntrypoint<Env> {
  override connect(socket: Socket): Promise<void> {
    return endTunnel(socket);
  }

  override fetch(request: Request): Response | Promise<Response> {
    const url = addressed(request);
    return url instanceof Response ? url : dashboard(request, this.env, this.ctx);
  }
}

/** Serves one request to the dashboard. */
export async function dashboard(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  const answer = await desk.fetch(request, env, ctx);
  if (answer.status === 101) return answer;
  const safe = new Response(answer.body, answer);
  safe.headers.set("x-content-type-options", "nosniff");
  safe.headers.set("referrer-policy", "same-origin");
  safe.headers.set("cross-origin-resource-policy", "same-origin");
  // Beside a policy of Hermes' own, which can only forbid more.
  safe.headers.append(
    "content-security-policy",
    "frame-ancestors 'self'; base-uri 'self'; object-src 'none'",
  );
  if (new URL(request.url).protocol === "https:")
    safe.headers.set("strict-transport-security", "max-age=31536000");
  return safe;
}

// Who comes in

/**
 * Finds out who asks.
 * @returns `null` when the only credential is the old cookie, on a page that may be loaded again.
 * @throws ApiError 401, 403 or 503 otherwise.
 */
async function callerOf(c: DeskContext): Promise<Caller | null> {
  const { settings } = c.var;
  const { headers } = c.req.raw;
  servesEveryone(settings);
  if (bearerOf(headers) !== null) return tokenCaller(c);
  const cookie = cookieOf(c);
  const session = cookie === undefined ? null : await sessionOf(c, cookie);
  if (session !== null) return session;
  const assertion = headers.get(ACCESS_HEADER);
  if (settings.access !== null && assertion !== null)
    return { by: "access", ...(await visitorOf(assertion, settings.access)) };
  if (getCookie(c, OLD_COOKIE) !== undefined && isNavigation(c.req.raw)) return null;
  if (cookie !== undefined)
    throw new ApiError({
      status: 401,
      code: "wrong_session",
      message: "The session is over. Sign in again.",
    });
  return tokenCaller(c);
}

async function tokenCaller(c: DeskContext): Promise<Caller> {
  const caller = await authorize(c.req.raw.headers, c.var.settings, (use) =>
    hermes(c, (it) => it.tokenUsed(use)),
  );
  return caller === null ? { by: "anyone" } : { by: "token", digest: caller.digest };
}

/** What lets somebody in, as the instance is told. */
function credentialOf(caller: Caller): Credential {
  switch (caller.by) {
    case "session":
      return `session ${caller.id}`;
    case "access":
      return `access ${caller.expires}`;
    case "token":
      return `token ${caller.digest}`;
    default:
      return "anyone";
  }
}

/** The signature is checked here, so that a forged cookie costs the instance nothing; the rest is its to know. */
async function sessionOf(c: DeskContext, cookie: string): Promise<Caller | null> {
  const ticket = await signedTicket(c, cookie);
  if (ticket === null) return null;
  const tokens = await tokenDigests(c.var.settings);
  const isOpen = await hermes(c, (it) => it.hasDashboardSession(ticket.id, tokens));
  return isOpen ? { by: "session", ...ticket } : null;
}

const keys = new WeakMap<Settings, { key: ArrayBuffer; at: number }>();

async function signedTicket(c: DeskContext, cookie: string) {
  const { settings } = c.var;
  for (let believed = KEY_BELIEVED; ; believed = KEY_DOUBTED) {
    const now = Date.now();
    let known = keys.get(settings);
    if (known === undefined || now - known.at >= believed) {
      known = { key: await hermes(c, (it) => it.dashboardKey()), at: now };
      keys.set(settings, known);
    }
    const ticket = await verify(cookie, known.key, now);
    // All sessions may have been revoked since, and the key made anew.
    if (ticket !== null || believed === KEY_DOUBTED) return ticket;
  }
}

async function tradeOldCookie(c: DeskContext): Promise<Caller> {
  const token = getCookie(c, OLD_COOKIE) ?? "";
  deleteCookie(c, OLD_COOKIE, { path: "/" });
  const { digest } = await authorizeToken(token, c.var.settings, (use) =>
    hermes(c, (it) => it.tokenUsed(use)),
  );
  const { id, expires } = await openSession(c, digest);
  return { by: "session", id, expires };
}

/** @param token digest of the API token that was given. */
async function openSession(c: DeskContext, token: string): Promise<Opened> {
  const opened = await hermes(c, (it) => it.openDashboardSession(token));
  // It may be signed with a key that was made just now.
  keys.delete(c.var.settings);
  const maxAge = Math.floor((opened.expires - Date.now()) / 1000);
  setCookie(c, cookieName(c), opened.cookie, { ...cookieOptions(c), maxAge });
  return opened;
}

/**
 * Cookies of one machine are shared by all its ports, so each deployment has a name of its own. Without TLS not every
 * browser takes `Secure`, and so none of the `__Host-` names: on loopback, and where the owner says it is seen so.
 */
function cookieName(c: DeskContext, isPlain = isSeenPlain(c)): string {
  return `${isPlain ? "" : "__Host-"}hermes-${c.var.settings.name}`;
}

/** The session's cookie. A proxy that tells another host than the browser sees hides by which name it was set. */
function cookieOf(c: DeskContext): string | undefined {
  return (
    getCookie(c, cookieName(c)) ??
    (c.var.settings.dashboardOrigin === "" ? undefined : getCookie(c, cookieName(c, false)))
  );
}

function cookieOptions(c: DeskContext) {
  return { path: "/", httpOnly: true, secure: !isSeenPlain(c), sameSite: "Lax" } as const;
}

/** Whether the browser sees the dashboard without TLS, as far as that can be told. */
function isSeenPlain(c: DeskContext): boolean {
  const { dashboardOrigin } = c.var.settings;
  const { protocol, hostname, host } = new URL(c.req.url);
  const named = dashboardOrigin === "" ? null : new URL(dashboardOrigin);
  if (named !== null && (c.req.header("origin") === dashboardOrigin || host === named.host))
    return named.protocol === "http:";
  return protocol === "http:" && /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname);
}

/** What a page elsewhere makes a browser send is refused, whatever cookie comes with it. */
function refuseForeign(request: Request, settings: Settings): void {
  const isSafe = request.method === "GET" || request.method === "HEAD" || request.method === "OPTIONS";
  if (isSafe && !isUpgrade(request)) return;
  const origin = request.headers.get("origin");
  const site = request.headers.get("sec-fetch-site");
  const own =
    origin === null
      ? site === null || site === "same-origin" || site === "none"
      : isOwn(origin, request, settings);
  if (!own)
    throw new ApiError({
      status: 403,
      code: "wrong_origin",
      message:
        "This was sent by a page of another site, and is not done. Where this is the dashboard's own page, seen " +
        "through a proxy, have the proxy pass the Host header on, or name the page's origin in HERMES_DASHBOARD_ORIGIN.",
    });
}

/**
 * Whether a page is the dashboard's own: of the origin that the owner named, or of the host that was asked. The scheme may
 * differ behind a proxy that speaks TLS for us, and with it the port that goes without saying; the host may not.
 */
function isOwn(page: string, request: Request, settings: Settings): boolean {
  if (!URL.canParse(page)) return false;
  const { protocol, host, origin } = new URL(page);
  if (origin === settings.dashboardOrigin) return true;
  const asked = `${protocol}//${request.headers.get("host") ?? new URL(request.url).host}`;
  return URL.canParse(asked) && new URL(asked).host === host;
}

function mustBeOn(settings: Settings): void {
  if (settings.dashboardOff === null) return;
  throw new ApiError({
    status: 404,
    code: "dashboard_off",
    message: `This deployment has no dashboard. ${settings.dashboardOff}`,
  });
}

// What goes on

/** Whether a browser loads a page, as opposed to what a page loads. */
function isNavigation(request: Request): boolean {
  if (request.method !== "GET" || isUpgrade(request)) return false;
  const mode = request.headers.get("sec-fetch-mode");
  if (mode !== null) return mode === "navigate";
  return (request.headers.get("accept") ?? "").includes("text/html");
}

/** Whether somebody does something, as opposed to a page that polls. A link elsewhere wakes nobody. */
function isPerson(request: Request): boolean {
  if (request.headers.get("sec-fetch-site") === "cross-site") return false;
  return (
    isNavigation(request) || !(request.method === "GET" || request.method === "HEAD" || isUpgrade(request))
  );
}

function checkSize(request: Request): void {
  if (Number(request.headers.get("content-length") ?? 0) <= UPLOAD_LIMIT) return;
  throw new ApiError({
    status: 413,
    code: "body_too_large",
    message: `The upload is larger than ${UPLOAD_LIMIT / (1024 * 1024)} MB.`,
  });
}

/** An answer of Hermes with caching by what it is, and compressed for those who take it. */
function dressed(request: Request, answer: Response): Response {
  const { pathname } = new URL(request.url);
  const out = new Response(answer.body, answer);
  const { headers } = out;
  if (answer.ok && ASSET.test(pathname)) {
    const caching = HASHED_ASSET.test(pathname) ? "max-age=31536000, immutable" : "max-age=3600";
    headers.set("cache-control", `private, ${caching}`);
  } else if (!headers.has("cache-control")) headers.set("cache-control", "no-store");
  return compressed(request, out);
}

function compressed(request: Request, answer: Response): Response {
  const { headers, status } = answer;
  const type = headers.get("content-type") ?? "";
  const worthIt = Number(headers.get("content-length") ?? Number.POSITIVE_INFINITY) > 1024;
  if (status !== 200 || headers.has("content-encoding") || !COMPRESSIBLE.test(type) || !worthIt)
    return answer;
  if (type.startsWith("text/event-stream")) return answer;
  headers.append("vary", "accept-encoding");
  if (!/\bgzip\b/.test(request.headers.get("accept-encoding") ?? "")) return answer;
  const out = new Response(answer.body, answer);
  // Saying so makes the runtime do it.
  out.headers.set("content-encoding", "gzip");
  out.headers.delete("content-length");
  const etag = out.headers.get("etag");
  if (etag !== null && !etag.startsWith("W/")) out.headers.set("etag", `W/${etag}`);
  return out;
}

/** A refusal of the instance, as a page where a page was asked for. */
async function refused(c: DeskContext, answer: Response, code: string): Promise<Response> {
  const { message } = ((await answer.json()) as { error: { message: string } }).error;
  const retryAfter = Number(answer.headers.get("retry-after") ?? 0);
  return tell(
    c,
    new ApiError({ status: answer.status, code, message, ...(retryAfter > 0 ? { retryAfter } : {}) }),
  );
}

/** A refusal in the form that the asker understands: a page, or what Hermes' page acts upon. */
function tell(c: DeskContext, refusal: ApiError): Response | Promise<Response> {
  const { name } = c.var.settings;
  const here = inside(c.req.url);
  if (isNavigation(c.req.raw)) {
    if (refusal.code === WAKING) return waitingPage(name, here);
    if (refusal.code === ASLEEP) return asleepPage(name, here);
    return problemPage(`${name} cannot be shown`, refusal.message, here, refusal.status);
  }
  const isAsleep = refusal.code === ASLEEP;
  const headers = new Headers({ "x-request-id": c.var.requestId, "cache-control": "no-store" });
  if (refusal.retryAfter !== undefined) headers.set("retry-after", String(Math.ceil(refusal.retryAfter)));
  const from = encodeURIComponent(refererOf(c.req.raw, c.var.settings));
  const body = {
    // Hermes' page goes to `login_url` on a 401 with this word; so it stops polling a Hermes that sleeps, too.
    error: isAsleep || refusal.status === 401 ? "unauthenticated" : refusal.code,
    code: refusal.code,
    detail: refusal.message,
    request_id: c.var.requestId,
    ...(isAsleep ? { login_url: `/gate/asleep?next=${from}` } : {}),
    ...(refusal.status === 401 ? { login_url: `/login?next=${from}` } : {}),
  };
  return Response.json(body, { status: isAsleep ? 401 : refusal.status, headers });
}

/** The page that a request of a page came from. */
function refererOf(request: Request, settings: Settings): string {
  const referer = request.headers.get("referer");
  return referer !== null && isOwn(referer, request, settings) ? inside(referer) : "/";
}

/** Path and query of a target within this dashboard; whatever leads elsewhere becomes the front page. */
function inside(target: string | undefined): string {
  const base = "http://inside.invalid";
  if (target === undefined || !URL.canParse(target, base)) return "/";
  const { protocol, pathname, search } = new URL(target, base);
  if (!/^https?:$/.test(protocol)) return "/";
  const path = pathname.replace(/^\/+/, "/");
  return /^\/(?:login|auth\/|gate\/|api\/)/.test(path) || path.includes("\\") ? "/" : path + search;
}

/** Asks the one instance. */
function hermes<T>(c: DeskContext, work: (instance: Stub) => Promise<T>): Promise<T> {
  return askInstance(c.env, work, c.req.raw.signal);
}
