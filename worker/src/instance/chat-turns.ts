// SPDX-License-Identifier: Apache-2.0
/** The way of one request to Hermes and back: order within a session, patience with restarts, streaming. */
import { ApiError, inShape, reason, toApiError } from "../base/errors.ts";
import { innerHeaders, mayHaveBody, outerHeaders, WAITING } from "../base/headers.ts";
import { during, type Lasting, over } from "../base/lasting.ts";
import type { Log } from "../base/log.ts";
import { isEventStream, lineOf, onlyEvent, textOf, WAKING } from "../base/streams.ts";
import { Deadline, type Time, within } from "../base/time.ts";
import { abortOf, clientGone } from "./leases.ts";
import type { Lifecycle } from "./lifecycle.ts";

/** A run lives in the memory of the Hermes that began it. */
const OF_A_RUN = /^\/v1\/runs\/./;

/** Headers by which the Worker tells the Durable Object what it found out about a request. */
export const TURN_HEADERS = {
  requestId: "x-request-id",
  /** Model that will speak; set for requests that name one. */
  model: "x-hermes-worker-model",
  /** `1` when the client asked for a stream. */
  stream: "x-hermes-worker-stream",
  /** Session that a streamed chat belongs to, as Hermes will tell it. */
  session: "x-hermes-worker-session",
} as const;

/** A stream that waits longer than this for its first byte gets comments; earlier ones would freeze status and headers. */
const BEARABLE = 10_000;
/** Between comments. */
const COMMENT_EVERY = 5000;
/** How long a stream that is held back for a new version says nothing, beyond the drain timeout; and between looks. */
const BEARABLE_FOR_A_VERSION = 60_000;
const HELD_LOOK = 1000;
/** How long a Hermes that restarts in place is waited for, beyond the drain timeout. */
const RESTART_PATIENCE = 60_000;
/** A Hermes that cannot be reached for so long, though it runs, will not be: the way to it is gone. In milliseconds. */
const WAY_PATIENCE = 15_000;
/** A whole answer up to so many bytes is taken whole: that is quicker than to watch a stream's end. */
const SHORT = 64 * 1024;
/** A request during which the sandbox dies this often is not tried again. */
const MAX_DEATHS = 3;

/** What the proxy works with. */
export interface ChatTurnsParts {
  lifecycle: Lifecycle;
  time: Time;
  log: Log;
  /** Milliseconds that a restart of Hermes may take at most to drain. */
  drainTimeout: number;
  /** Whether a turn that Hermes has begun goes on without the client that asked for it. */
  finishesAlone: boolean;
}

/** A request on its way; the body is held so that it can be sent again. */
interface Turn {
  id: string;
  method: string;
  /** Path and query. */
  path: string;
  /** The path alone, for whoever wants to know what Hermes was woken for. */
  route: string;
  headers: Headers;
  body: ArrayBuffer | null;
  model: string | null;
  stream: boolean;
  /** Session whose turns are served in order, or `null`. */
  session: string | null;
  writes: boolean;
  /** Whether Hermes is to finish it though nobody listens any more. */
  finishesAlone: boolean;
  /** Aborted when the client is gone, or is not to be served any more. */
  signal: AbortSignal;
}

/** Serves requests of one instance. */
export class ChatTurns {
  readonly #parts: ChatTurnsParts;
  /** End of the last turn of each session that has any. */
  readonly #sessions = new Map<string, Promise<void>>();

  constructor(parts: ChatTurnsParts) {
    this.#parts = parts;
  }

  /**
   * Answers one request. Errors are thrown as {@link ApiError} until the answer has begun.
   * @param request as the Worker sent it on, with the headers of {@link TURN_HEADERS}.
   * @param signal aborted when who asked is gone, or is not to be served any more.
   */
  async serve(request: Request, signal: AbortSignal): Promise<Lasting<Response>> {
    const aborted = new AbortController();
    signal.addEventListener("abort", () => aborted.abort(signal.reason), { once: true });
    const turn = await turnOf(request, aborted.signal, this.#parts.finishesAlone);
    if (OF_A_RUN.test(turn.route) && this.#parts.lifecycle.isAsleep) throw runOver();
    const answer = this.#answer(turn);
    if (!turn.stream) return answer;
    const early = (await within(this.#parts.time, BEARABLE, answer)) ?? (await this.#whileHeldBack(answer));
    return early ?? this.#withComments(turn, answer, aborted);
  }

  /**
   * A new version cuts what has begun, were it by a comment, and what has not is sent again by the Worker.
   * @returns the answer, or `undefined` when it waits for something else, or for too long.
   */
  async #whileHeldBack<T>(answer: Promise<T>): Promise<T | undefined> {
    const { lifecycle, time, drainTimeout } = this.#parts;
    for (
      let left = drainTimeout + BEARABLE_FOR_A_VERSION;
      left > 0 && lifecycle.isHeldBack;
      left -= HELD_LOOK
    ) {
      const early = await within(time, HELD_LOOK, answer);
      if (early !== undefined) return early;
    }
    return undefined;
  }

  #answer(turn: Turn): Promise<Lasting<Response>> {
    return this.#parts.lifecycle.arrive(true, () => this.#inOrder(turn, () => this.#patiently(turn)));
  }

  /** Answers after the turns of this session that came before. */
  async #inOrder<T>(turn: Turn, answer: () => Promise<Lasting<T>>): Promise<Lasting<T>> {
    const { session } = turn;
    if (session === null) return answer();
    const before = this.#sessions.get(session);
    const { promise, resolve } = Promise.withResolvers<void>();
    const mine = (before ?? Promise.resolve()).then(() => promise);
    this.#sessions.set(session, mine);
    void mine.then(() => {
      if (this.#sessions.get(session) === mine) this.#sessions.delete(session);
    });
    return during(resolve, async () => {
      if (before !== undefined) await Promise.race([before, abortOf(turn.signal)]);
      return answer();
    });
  }

  /** Sends the request until somebody answers it: Hermes may restart in place, or the sandbox may die. */
  async #patiently(turn: Turn): Promise<Lasting<Response>> {
    const { lifecycle, time, log, drainTimeout } = this.#parts;
    let patience: Deadline | undefined;
    let lostAt = 0;
    let lastBoot: string | null = null;
    let deaths = 0;
    try {
      for (let pause = 50; ; pause = Math.min(pause * 2, 1000)) {
        const { value, end } = await lifecycle.withSeat(turn.route, turn.writes, ({ keys, bootId }) => {
          if (lastBoot !== null && lastBoot !== bootId) deaths++;
          lastBoot = bootId;
          // Nobody may be left who waited for the boot: then there is no turn to begin, either.
          turn.signal.throwIfAborted();
          return this.#once(turn, keys.gatewayKey);
        });
        if (value instanceof Response) return { value, end };
        // Counted from the first failure: most requests never need it.
        if (patience === undefined) lostAt = time.now();
        patience ??= new Deadline(time, drainTimeout + RESTART_PATIENCE);
        if (patience.isOver || deaths >= MAX_DEATHS) throw unreachable(value, deaths);
        log.warn("sent_again", { request_id: turn.id, why: value, boot: lastBoot });
        if (lastBoot !== null && time.now() - lostAt >= WAY_PATIENCE) {
          lostAt = time.now();
          await lifecycle.findWay(lastBoot);
        }
        await within(time, pause, abortOf(turn.signal));
      }
    } finally {
      patience?.stop();
    }
  }

  /** Sends the request once. @returns the answer, or why it is to be sent again. */
  #once(turn: Turn, gatewayKey: string): Promise<Lasting<Response | string>> {
    const sent = this.#sendOnce(turn, gatewayKey);
    if (turn.finishesAlone)
      this.#stayFor(
        turn,
        sent.then(({ end }) => end),
      );
    return sent;
  }

  /** What Hermes is read of keeps no object in memory; with this one the way to Hermes would go. */
  #stayFor({ signal }: Turn, end: Promise<unknown>): void {
    const stay = () => this.#parts.lifecycle.stay(end);
    const over = () => signal.removeEventListener("abort", stay);
    signal.addEventListener("abort", stay, { once: true });
    end.then(over, over);
  }

  async #sendOnce(turn: Turn, gatewayKey: string): Promise<Lasting<Response | string>> {
    try {
      const answer = await this.#send(turn, gatewayKey);
      if (await this.#isStranger(answer, gatewayKey)) return over("Hermes was started anew");
      if (await isDraining(answer)) return over("Hermes is restarting");
      return await this.#pass(turn, answer);
    } catch (error) {
      turn.signal.throwIfAborted();
      if (error instanceof ApiError) throw error;
      return over(reason(error));
    }
  }

  /** Whether a Hermes refused our key that was started later, or was not told it; its port may be the same. */
  async #isStranger(answer: Response, gatewayKey: string): Promise<boolean> {
    if (answer.status !== 401 || !(await this.#parts.lifecycle.refused(gatewayKey))) return false;
    await answer.body?.cancel();
    return true;
  }

  #send(turn: Turn, gatewayKey: string): Promise<Response> {
    const headers = innerHeaders(turn.headers);
    headers.set("authorization", `Bearer ${gatewayKey}`);
    headers.set("x-request-id", turn.id);
    // A request that is sent again must not be answered twice by the same Hermes.
    if (turn.writes && !headers.has("idempotency-key")) headers.set("idempotency-key", turn.id);
    return this.#parts.lifecycle.port.fetch(`http://hermes${turn.path}`, {
      method: turn.method,
      headers,
      body: turn.body,
      redirect: "manual",
      ...(turn.finishesAlone ? {} : { signal: turn.signal }),
    });
  }

  /** Hands an answer on untouched and notices its end, however it ends. */
  async #pass(turn: Turn, answer: Response): Promise<Lasting<Response>> {
    const headers = outerHeaders(answer.headers);
    headers.set("x-request-id", turn.id);
    if (turn.model !== null) headers.set("x-hermes-model", turn.model);
    const { status } = answer;
    if (status >= 400) {
      const told = inShape(await textOf(answer.body ?? new Blob([]).stream(), SHORT), status, turn.id);
      for (const name of ["content-length", "content-type"]) headers.delete(name);
      return over(Response.json(told, { status, headers }));
    }
    if (isShort(answer)) return over(new Response(await answer.arrayBuffer(), { status, headers }));
    const { body } = answer;
    if (body === null) return over(new Response(null, { status, headers }));
    const { readable, writable } = new IdentityTransformStream();
    const { signal } = turn;
    const end = turn.finishesAlone ? passToTheEnd(body, writable, signal) : body.pipeTo(writable, { signal });
    return { value: new Response(readable, { status, headers }), end };
  }

  /** A stream that begins with comments, so that no client gives up during a slow boot. */
  #withComments(turn: Turn, answer: Promise<Lasting<Response>>, aborted: AbortController): Lasting<Response> {
    const { readable, writable } = new IdentityTransformStream();
    const writer = writable.getWriter();
    const broken = (error: unknown) => {
      // Whoever takes nothing any more may take their time for that, too.
      writer.abort(error).catch(() => undefined);
      aborted.abort(clientGone());
      answer.then(({ value }) => value.body?.cancel()).catch(() => undefined);
    };
    turn.signal.addEventListener("abort", () => broken(turn.signal.reason), { once: true });
    const early = toldEarly(turn);
    const end = this.#comment(turn, answer, early, writer).catch(broken);
    const headers = new Headers({
      "content-type": "text/event-stream",
      "cache-control": "no-cache",
      "x-request-id": turn.id,
      [WAITING]: "1",
    });
    for (const [name, value] of Object.entries(early)) if (value !== null) headers.set(name, value);
    return { value: new Response(readable, { headers }), end };
  }

  async #comment(
    turn: Turn,
    answer: Promise<Lasting<Response>>,
    early: Record<string, string | null>,
    writer: WritableStreamDefaultWriter<Uint8Array>,
  ): Promise<void> {
    const encoder = new TextEncoder();
    const settled = answer.then(
      ({ value }) => ({ response: value }),
      (error: unknown) => ({ error }),
    );
    for (;;) {
      await writer.write(encoder.encode(WAKING));
      const result = await within(this.#parts.time, COMMENT_EVERY, settled);
      if (result === undefined) continue;
      if ("response" in result && isEventStream(result.response) && result.response.body !== null) {
        const late = lateHeaders(result.response.headers, early);
        if (late !== "") await writer.write(encoder.encode(`${late}\n`));
        // Chunk by chunk: the runtime cannot connect two of its identity streams directly.
        for await (const chunk of result.response.body) await writer.write(chunk);
        return writer.close();
      }
      const told = "response" in result ? await lineOf(result.response) : errorOf(result.error, turn.id);
      this.#parts.log.warn("stream_failed", { request_id: turn.id, answer: told });
      await writer.write(encoder.encode(onlyEvent(told)));
      return writer.close();
    }
  }
}

/** What is known of an answer's headers before Hermes has begun it. */
function toldEarly({ model, headers }: Turn): Record<string, string | null> {
  return {
    "x-hermes-model": model,
    "x-hermes-session-id": headers.get(TURN_HEADERS.session),
    "x-hermes-session-key": headers.get("x-hermes-session-key"),
  };
}

/** Hermes' own headers that came too late to be any, as comments. */
function lateHeaders(headers: Headers, told: Record<string, string | null>): string {
  const late = [...headers].filter(([name, value]) => name.startsWith("x-hermes-") && told[name] !== value);
  return late.map(([name, value]) => `: ${name}: ${value}\n`).join("");
}

async function turnOf(request: Request, signal: AbortSignal, finishesAlone: boolean): Promise<Turn> {
  const url = new URL(request.url);
  const { headers, method } = request;
  const turns = method === "POST" && /^\/v1\/(?:chat\/completions|responses)$/.test(url.pathname);
  const body = mayHaveBody(method) ? await request.arrayBuffer() : null;
  return {
    id: headers.get(TURN_HEADERS.requestId) ?? crypto.randomUUID(),
    method,
    path: url.pathname + url.search,
    route: url.pathname,
    headers,
    body: body?.byteLength === 0 ? null : body,
    model: headers.get(TURN_HEADERS.model),
    stream: headers.get(TURN_HEADERS.stream) === "1",
    session: turns ? headers.get("x-hermes-session-id") : null,
    writes: method !== "GET" && method !== "HEAD",
    finishesAlone: turns && finishesAlone,
    signal,
  };
}

/** Reads an answer to its end, whether somebody still takes it or not. */
async function passToTheEnd(
  body: ReadableStream<Uint8Array>,
  writable: WritableStream<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const writer = writable.getWriter();
  const gone = abortOf(signal);
  // To somebody who is still there it is broken off.
  gone.catch((why: unknown) => writer.abort(why)).catch(() => undefined);
  let isTaken = true;
  // What is written to somebody who is gone may neither arrive nor fail.
  const written = async (writing: Promise<void>) => {
    isTaken = await Promise.race([writing, gone]).then(
      () => true,
      () => false,
    );
  };
  try {
    for await (const chunk of body) if (isTaken) await written(writer.write(chunk));
    if (isTaken) await written(writer.close());
  } catch (error) {
    await writer.abort(error);
  }
}

/** Whether Hermes refused because it is about to restart; looks at a copy, and only at such refusals. */
async function isDraining(answer: Response): Promise<boolean> {
  if (answer.status !== 503) return false;
  const body = (await answer
    .clone()
    .json()
    .catch(() => null)) as { error?: { code?: unknown } } | null;
  if (body?.error?.code !== "gateway_draining") return false;
  await answer.body?.cancel();
  return true;
}

function isShort({ status, headers }: Response): boolean {
  if (status === 204 || status === 304) return false;
  return Number(headers.get("content-length") ?? Infinity) <= SHORT && !headers.has("content-encoding");
}

function errorOf(error: unknown, id: string): string {
  return JSON.stringify(toApiError(error).toBody(id));
}

function runOver(): ApiError {
  return new ApiError({
    status: 404,
    code: "run_not_found",
    message: "Hermes is asleep, and a run ends with the Hermes that began it. Its session has what was said.",
  });
}

function unreachable(why: string, deaths: number): ApiError {
  const died = deaths > 0 ? ` The sandbox ended ${deaths} times while it was asked.` : "";
  return new ApiError({
    status: 502,
    code: "hermes_unreachable",
    message: `Hermes did not answer: ${why}.${died} See GET /api/instance/logs.`,
    retryAfter: 5,
  });
}
