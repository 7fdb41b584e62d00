// SPDX-License-Identifier: Apache-2.0
/**
 * The instance's side of the dashboard: starts Hermes' own in the sandbox and passes requests and WebSockets
 * to it. An open page polls and reconnects by itself for ever, so only what a person does wakes Hermes or
 * keeps it awake: opening a page, changing something, typing.
 */
import { ApiError, reason } from "../base/errors.ts";
import { innerHeaders, outerHeaders } from "../base/headers.ts";
import { type Lasting, over } from "../base/lasting.ts";
import type { Log } from "../base/log.ts";
import { textOf } from "../base/streams.ts";
import { type Time, within } from "../base/time.ts";
import { DASHBOARD_HEADER, DASHBOARD_PORT } from "../sandbox/commands.ts";
import { TURN_HEADERS } from "./chat-turns.ts";
import type { DashboardSockets, Speaker } from "./dashboard-sockets.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Seat } from "./seats.ts";

/** Headers by which the Worker tells what it found out about a request to the dashboard. */
export const PROXY_HEADERS = {
  /** Who asks: `person`, or `page` for what a page asks by itself. */
  by: "x-hermes-worker-by",
  /** `1` when somebody would rather see a waiting page than wait. */
  impatient: "x-hermes-worker-impatient",
  /** On the way back: the code of a refusal that is the instance's own, not Hermes'. */
  refusal: "x-hermes-worker-refusal",
} as const;

/** Code of the refusal that a sleeping Hermes gives to what must not wake it. */
export const ASLEEP = "asleep";
/** Code of the refusal while Hermes and its dashboard start. */
export const WAKING = "waking";

/** How long somebody impatient waits, in milliseconds: a dashboard that runs answers at once. */
const IMPATIENCE = 400;
/** Between notes of activity of one socket, in milliseconds. */
const TOUCH_EVERY = 1000;
/** A dashboard that was started anew is asked again after so many milliseconds, so often. */
const RETRY_PAUSE = 250;
const RETRIES = 8;
const HOST = `http://127.0.0.1:${DASHBOARD_PORT}`;
/** Pages of Hermes are small; the limit keeps a mistake from filling memory. */
const PAGE_LIMIT = 2 * 1024 * 1024;

/** What the proxy works with. */
export interface DashboardProxyParts {
  lifecycle: Lifecycle;
  time: Time;
  log: Log;
  /** How long frames from Hermes count as activity after the last sign of a person, in milliseconds. */
  idle: number;
  sockets: DashboardSockets;
}

/** Where a request goes. */
interface Desk {
  bootId: string;
  /** What Hermes' dashboard knows its callers by in this boot. */
  token: string;
}

/** Serves the dashboard of one instance. */
export class DashboardProxy {
  readonly #parts: DashboardProxyParts;
  /** The start of the dashboard in the newest boot. */
  #started: { bootId: string; done: Promise<void> } | null = null;

  constructor(parts: DashboardProxyParts) {
    this.#parts = parts;
  }

  /**
   * Answers one request that the Worker let in.
   * @param signal aborted when who asked is gone, or is not to be served any more.
   */
  async serve(request: Request, signal: AbortSignal): Promise<Lasting<Response>> {
    const { lifecycle } = this.#parts;
    const isPerson = request.headers.get(PROXY_HEADERS.by) === "person";
    if (!isPerson && lifecycle.isAsleep) throw asleep();
    const isSocket = request.headers.get("upgrade")?.toLowerCase() === "websocket";
    if (!isSocket)
      return lifecycle.arrive(isPerson, () =>
        this.#seated(request, isPerson, (desk) => this.#pass(request, desk, signal)),
      );
    // An open socket is no request under way: Hermes may sleep.
    const opened = await lifecycle.arrive(isPerson, () =>
      this.#seated(request, isPerson, async (desk) => over(await this.#connect(request, desk, signal))),
    );
    return opened.value;
  }

  /** @throws ApiError `waking` when somebody impatient would have to wait; the boot goes on without him. */
  async #seated<T>(
    request: Request,
    isPerson: boolean,
    work: (desk: Desk) => Promise<Lasting<T>>,
  ): Promise<Lasting<T>> {
    const { lifecycle, time } = this.#parts;
    const writes = isPerson && request.method !== "GET" && request.method !== "HEAD";
    const ready = Promise.withResolvers<void>();
    let isReady = false;
    let isGone = false;
    const answer = lifecycle.withSeat("dashboard", writes, async (at) => {
      const desk = await this.#ready(at);
      isReady = true;
      ready.resolve();
      if (isGone) throw waking();
      return work(desk);
    });
    if (request.headers.get(PROXY_HEADERS.impatient) !== "1") return answer;
    await within(time, IMPATIENCE, Promise.race([ready.promise, answer]));
    if (isReady) return answer;
    isGone = true;
    answer.catch(() => undefined);
    throw waking();
  }

  /** Waits until the dashboard is there, too. */
  async #ready({ keys, bootId }: Seat): Promise<Desk> {
    if (keys.dashboardToken === undefined) throw olderBoot();
    await this.#start(bootId);
    return { bootId, token: keys.dashboardToken };
  }

  /** One start for each boot, whoever asks; one that failed is tried again by the next. */
  #start(bootId: string): Promise<void> {
    if (this.#started?.bootId === bootId) return this.#started.done;
    const done = this.#parts.lifecycle.startDashboard(bootId);
    const started = { bootId, done };
    this.#started = started;
    done.catch(() => {
      if (this.#started === started) this.#started = null;
    });
    return done;
  }

  async #pass(request: Request, desk: Desk, signal: AbortSignal): Promise<Lasting<Response>> {
    const { method, body } = request;
    const answer = await this.#ask(request, desk, { method, body, signal });
    const headers = outerHeaders(answer.headers);
    headers.set(TURN_HEADERS.requestId, request.headers.get(TURN_HEADERS.requestId) ?? "");
    const { status } = answer;
    if (answer.body === null) return over(new Response(null, { status, headers }));
    if (isPage(headers)) {
      const page = await pageOf(answer.body, desk.token);
      headers.delete("content-length");
      headers.delete("etag");
      return over(new Response(page, { status, headers }));
    }
    const { readable, writable } = new IdentityTransformStream();
    const end = answer.body.pipeTo(writable, { signal });
    return { value: new Response(readable, { status, headers }), end };
  }

  /** One call; a dashboard that is just being started again is asked again when that does no harm. */
  async #ask(request: Request, desk: Desk, init: RequestInit & { signal: AbortSignal }): Promise<Response> {
    const { lifecycle, time, log } = this.#parts;
    const url = new URL(request.url);
    if (url.searchParams.has("ticket")) url.searchParams.delete("ticket");
    if (request.headers.has("upgrade")) url.searchParams.set("token", desk.token);
    const headers = innerHeaders(request.headers);
    headers.set(DASHBOARD_HEADER, desk.token);
    headers.set("accept-encoding", "identity");
    if (request.headers.has("upgrade")) headers.set("upgrade", "websocket");
    for (let left = init.body == null ? RETRIES : 0; ; left--) {
      init.signal.throwIfAborted();
      try {
        const target = `${HOST}${url.pathname}${url.search}`;
        return await lifecycle.dashboardPort.fetch(target, { ...init, headers, redirect: "manual" });
      } catch (error) {
        init.signal.throwIfAborted();
        log.warn("dashboard_unreachable", { boot: desk.bootId, why: reason(error) });
        if (left === 0) throw unreachable(error);
        await time.sleep(RETRY_PAUSE);
      }
    }
  }

  /** Joins the browser's socket with Hermes'. */
  async #connect(request: Request, desk: Desk, signal: AbortSignal): Promise<Lasting<Response>> {
    const headers = new Headers();
    const connect = async (cut: AbortSignal) => {
      const answer = await this.#ask(request, desk, { signal: cut });
      const protocol = answer.headers.get("sec-websocket-protocol");
      if (protocol !== null) headers.set("sec-websocket-protocol", protocol);
      if (answer.webSocket !== null) return answer.webSocket;
      await answer.body?.cancel();
      throw new ApiError({
        status: answer.status >= 400 ? answer.status : 502,
        code: "no_websocket",
        message: "Hermes' dashboard takes no WebSocket here.",
      });
    };
    const { value: webSocket, end } = await this.#parts.sockets.join(signal, connect, this.#watch());
    return { value: new Response(null, { status: 101, webSocket, headers }), end };
  }

  /** Notes activity by frames: those of a person are; Hermes' own are for as long as a person was there lately. */
  #watch(): (speaker: Speaker) => void {
    const { time, idle, lifecycle } = this.#parts;
    let lastPerson = time.now();
    let lastTouch = 0;
    return (speaker) => {
      const now = time.now();
      if (speaker === "person") lastPerson = now;
      // Either way: a clock that is set back must not make anybody idle.
      if (Math.abs(now - lastTouch) < TOUCH_EVERY || now - lastPerson > idle) return;
      lastTouch = now;
      lifecycle.touch();
    };
  }
}

/** Whether this is a page of Hermes' own, and no file of the owner's. */
function isPage(headers: Headers): boolean {
  return headers.get("content-type")?.startsWith("text/html") === true && !headers.has("content-disposition");
}

/**
 * Hermes' page in the form that it has behind a gate: it asks the gate who is signed in, and gets no token.
 * That of this boot is added to each request on its way in, so it never leaves.
 */
async function pageOf(body: ReadableStream<Uint8Array>, token: string): Promise<string> {
  const html = await textOf(body, PAGE_LIMIT);
  return html
    .replace(/window\.__HERMES_SESSION_TOKEN__="[^"]*";/, "")
    .replace("window.__HERMES_AUTH_REQUIRED__=false", "window.__HERMES_AUTH_REQUIRED__=true")
    .replaceAll(token, "");
}

function asleep(): ApiError {
  return new ApiError({
    status: 503,
    code: ASLEEP,
    message: "Hermes is asleep. Open the dashboard again to wake it.",
  });
}

function waking(): ApiError {
  return new ApiError({ status: 503, code: WAKING, message: "Hermes is waking up.", retryAfter: 1 });
}

function olderBoot(): ApiError {
  return new ApiError({
    status: 503,
    code: "dashboard_unavailable",
    message:
      "Hermes was started by an earlier version, which had no dashboard. POST /api/instance/restart starts it anew.",
  });
}

function unreachable(cause: unknown): ApiError {
  return new ApiError({
    status: 502,
    code: "dashboard_unreachable",
    message: "Hermes' dashboard does not answer. See GET /api/instance/logs.",
    retryAfter: 3,
    cause,
  });
}
