// SPDX-License-Identifier: Apache-2.0
/** What every route has in common: a request id, one line in the log, the address of who asks. */
import type { Context, Next } from "hono";
import { ApiError, errorResponse, toApiError } from "../base/errors.ts";
import { BOOT_CAUSE, WAITING } from "../base/headers.ts";
import { Log, Redactor } from "../base/log.ts";
import { type Env, type Settings, secretValues, settingsOf } from "../config/settings.ts";
import { addressOf, FailedAttempts, Quiet } from "./failed-attempts.ts";

/** What all routes know. */
export interface Base {
  Bindings: Env;
  Variables: {
    requestId: string;
    settings: Settings;
    bootCause?: string;
    /** Whether the request had a good credential: of all others only so much is logged. */
    isLetIn?: true;
    /** Why it was refused. */
    refusal?: string;
    /** What is left out of the log. */
    unlogged?: true;
  };
}

/** Gives a request its id and the settings, and reports it when it is answered. */
export async function accompany<E extends Base>(c: Context<E>, next: Next): Promise<void> {
  c.set("requestId", crypto.randomUUID());
  const began = Date.now();
  c.set("settings", settingsOf(c.env));
  await next();
  report(c, Date.now() - began);
  const { status, headers } = c.res;
  if (status !== 101 && !headers.has("x-request-id")) c.res.headers.set("x-request-id", c.var.requestId);
}

/** Notes what went wrong on our side; returns the error as it is told. */
export function noteFailure<E extends Base>(c: Context<E>, error: unknown): ApiError {
  const known = toApiError(error);
  c.set("refusal", known.code);
  if (known.code === TOO_MANY) c.set("unlogged", true);
  if (known.status < 500) return known;
  const fields = {
    request_id: c.var.requestId,
    code: known.code,
    why: known.cause === undefined ? known.message : String(known.cause),
  };
  if (mayLog(c)) logOf(c.env).error("refused", fields);
  return known;
}

/**
 * The path exactly as the client sent it (the URL parser has resolved dot segments already). What is no address
 * of this Worker's has none that any route knows.
 */
export function rawPath(request: Request): string {
  const parts = /^https?:\/\/[^/?#]*([^?#]*)/i.exec(request.url);
  return parts === null ? "*" : parts[1] || "/";
}

/**
 * The URL of a request.
 * @returns an answer to hand out where a strange target or `Host` makes none.
 */
export function addressed(request: Request): URL | Response {
  if (URL.canParse(request.url)) return new URL(request.url);
  const refusal = new ApiError({
    status: 400,
    code: "bad_address",
    message: "The request's target and its Host header make no address.",
  });
  return errorResponse(refusal, crypto.randomUUID());
}

/**
 * Ends what a CONNECT has opened, at once: there are no tunnels here. The runtime has said yes by then; without this it
 * would fail instead, and write an exception into the log for whoever asks.
 */
export function endTunnel(socket: Socket): Promise<void> {
  return socket.close();
}

/** Whether a request asks for a WebSocket. */
export function isUpgrade(request: Request): boolean {
  return request.headers.get("upgrade")?.toLowerCase() === "websocket";
}

const quiet = new Quiet();

/** Whether a line about a request may be written; once one about a stranger is left out, the others are, too. */
function mayLog<E extends Base>(c: Context<E>): boolean {
  if (c.var.unlogged) return false;
  if (c.var.isLetIn) return true;
  const dropped = quiet.take(c.var.refusal ?? "served", Date.now());
  if (dropped === null) c.set("unlogged", true);
  else if (dropped > 0) logOf(c.env).warn("requests_not_logged", { number: dropped });
  return dropped !== null;
}

/** One line for each request; the route, never the query. It is written once the answer is under way. */
function report<E extends Base>(c: Context<E>, ms: number): void {
  const { requestId, bootCause } = c.var;
  if (!mayLog(c)) return;
  const line = {
    request_id: requestId,
    method: c.req.method,
    route: rawPath(c.req.raw).slice(0, 200),
    status: c.res.status,
    ms,
    ...(bootCause === undefined ? {} : { boot_cause: bootCause }),
  };
  c.executionCtx.waitUntil(scheduler.wait(0).then(() => logOf(c.env).info("request", line)));
}

/** Takes what is meant for the log off an answer of the instance. */
export function unwrap<E extends Base>(c: Context<E>, answer: Response): Response {
  const cause = answer.headers.get(BOOT_CAUSE);
  if (cause !== null) c.set("bootCause", cause);
  const told = [BOOT_CAUSE, WAITING].filter((name) => answer.headers.has(name));
  if (told.length === 0) return answer;
  const bare = new Response(answer.body, answer);
  for (const name of told) bare.headers.delete(name);
  return bare;
}

const logs = new WeakMap<object, Log>();

/** The Worker's log. */
function logOf(env: Env): Log {
  const kept = logs.get(env);
  if (kept !== undefined) return kept;
  const log = new Log(new Redactor(secretsOrNone(env)));
  logs.set(env, log);
  return log;
}

/** A configuration that cannot be read has to be reported, too. */
function secretsOrNone(env: Env): string[] {
  try {
    return secretValues(settingsOf(env));
  } catch {
    return [];
  }
}

const TOO_MANY = "too_many_attempts";
const attempts = new FailedAttempts();

/** Turns the refusal of a wrong credential into 429 when its address failed too often; others stay as they are. */
export function countFailure(request: Request, settings: Settings, refusal: unknown): unknown {
  if (!(refusal instanceof ApiError) || !WRONG.has(refusal.code)) return refusal;
  const wait = attempts.fail(clientOf(request, settings), Date.now());
  return wait === 0 ? refusal : tooMany(wait);
}

/** Codes of refusals that somebody gets who guesses. */
const WRONG = new Set(["wrong_token", "retired_token", "wrong_session", "access_refused"]);

function tooMany(wait: number): ApiError {
  return new ApiError({
    status: 429,
    code: TOO_MANY,
    message: `Too many wrong credentials came from this address. A right one is let in at any time; else wait ${wait} s.`,
    retryAfter: wait,
  });
}

/** The address of who asks. Only Cloudflare's own header is believed, and only there. */
function clientOf(request: Request, settings: Settings): string {
  const told =
    settings.platform === "cloudflare"
      ? request.headers.get("cf-connecting-ip")
      : (request.cf as { clientIp?: unknown } | undefined)?.clientIp;
  if (typeof told !== "string" || told === "") return "unknown";
  // workerd tells the port as well: 192.0.2.1:50000, [2001:db8::1]:50000.
  return addressOf(told.replace(/^(?:\[(.*)\]|([\d.]+)):\d+$/, "$1$2"));
}
