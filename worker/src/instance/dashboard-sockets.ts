// SPDX-License-Identifier: Apache-2.0
/**
 * The dashboard's WebSockets, each between a browser and Hermes. Once one is over nothing is passed on any more, and
 * an end that does not close by itself is cut: whoever may not speak must not be able to stay either.
 */
import { ApiError } from "../base/errors.ts";
import { during, type Lasting } from "../base/lasting.ts";
import { type Time, within } from "../base/time.ts";

/** Header of the call by which this object fetches an end that waits in it. */
export const SOCKET_END = "x-hermes-worker-socket-end";

/** WebSockets that may speak at once: a page opens a handful, and each costs memory here and in Hermes. */
const MOST_SOCKETS = 100;
/** Milliseconds to write a closing frame; whether it is answered does not matter. */
const GRACE = 250;
/** WebSocket close codes: what let it in is over; this end goes away. */
const CREDENTIAL_OVER = 4401;
const GOING_AWAY = 1001;

/** What the sockets work with. */
export interface DashboardSocketsParts {
  time: Time;
  /** Calls this very object with {@link SOCKET_END}: a socket that came by a call can be cut, one of a pair cannot. */
  fetchEnd(id: string, signal: AbortSignal): Promise<Response>;
}

/** Who sent a frame. */
export type Speaker = "person" | "hermes";

/** All sockets of one instance. */
export class DashboardSockets {
  readonly #parts: DashboardSocketsParts;
  /** Ends that wait to be fetched. */
  readonly #waiting = new Map<string, WebSocket>();
  #speaking = 0;

  constructor(parts: DashboardSocketsParts) {
    this.#parts = parts;
  }

  /** Hands out an end that waits. */
  end(id: string): Response {
    const webSocket = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (webSocket === undefined) return new Response(null, { status: 404 });
    return new Response(null, { status: 101, webSocket });
  }

  /**
   * Joins a browser's socket with Hermes'.
   * @param signal aborted when nobody may speak any more.
   * @param connect opens Hermes' socket; its signal cuts it.
   * @returns the browser's end; it is over when nothing is passed on any more.
   * @throws ApiError 503 `too_many_sockets`.
   */
  join(
    signal: AbortSignal,
    connect: (signal: AbortSignal) => Promise<WebSocket>,
    onFrame: (speaker: Speaker) => void,
  ): Promise<Lasting<WebSocket>> {
    if (this.#speaking >= MOST_SOCKETS) throw tooManySockets();
    this.#speaking++;
    const leave = () => {
      this.#speaking--;
    };
    return during(leave, async () => {
      const line = new Line();
      signal.addEventListener("abort", () => line.cutHermes(), { once: true });
      const inner = await connect(line.toHermes);
      const { 0: outside, 1: outer } = new WebSocketPair();
      const value = await this.#cuttable(outside, line.toPerson);
      signal.throwIfAborted();
      return { value, end: this.#pass(outer, inner, line, signal, onFrame) };
    });
  }

  /** The same end of a pair, in a form that a signal cuts. */
  async #cuttable(end: WebSocket, signal: AbortSignal): Promise<WebSocket> {
    const id = crypto.randomUUID();
    this.#waiting.set(id, end);
    const { webSocket } = await this.#parts.fetchEnd(id, signal).finally(() => this.#waiting.delete(id));
    if (webSocket === null) throw new Error("this object was started over");
    return webSocket;
  }

  /** Passes frames both ways; resolves when none is passed on any more. */
  #pass(
    outer: WebSocket,
    inner: WebSocket,
    line: Line,
    signal: AbortSignal,
    onFrame: (speaker: Speaker) => void,
  ): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    let isOver = false;
    const finish = (code: number, why: string) => {
      if (isOver) return;
      isOver = true;
      resolve();
      close(outer, code, why);
      close(inner, code, why);
    };
    signal.addEventListener("abort", () => finish(CREDENTIAL_OVER, "The session is over."), { once: true });
    const ends = [pump(outer, inner, "person"), pump(inner, outer, "hermes")];
    const closed = Promise.all(ends).then(() => true);
    void promise.then(async () => {
      if ((await within(this.#parts.time, GRACE, closed)) === undefined) line.cut();
    });
    return promise;

    /** Resolves when this end is closed. */
    function pump(from: WebSocket, to: WebSocket, speaker: Speaker): Promise<void> {
      const end = Promise.withResolvers<void>();
      from.binaryType = "arraybuffer";
      from.addEventListener("message", ({ data }) => {
        if (isOver) return;
        onFrame(speaker);
        try {
          to.send(data);
        } catch {
          finish(GOING_AWAY, "");
        }
      });
      const ended = (code: number, why: string) => {
        end.resolve();
        finish(code, why);
      };
      from.addEventListener("close", ({ code, reason: why }) => ended(code, why));
      from.addEventListener("error", () => ended(GOING_AWAY, ""));
      from.accept();
      return end.promise;
    }
  }
}

/** The two ends of a joined pair, and how each is cut. */
class Line {
  readonly #person = new AbortController();
  readonly #hermes = new AbortController();

  get toPerson(): AbortSignal {
    return this.#person.signal;
  }

  get toHermes(): AbortSignal {
    return this.#hermes.signal;
  }

  /** What is on its way to Hermes does not arrive. */
  cutHermes(): void {
    this.#hermes.abort();
  }

  cut(): void {
    this.#hermes.abort();
    this.#person.abort();
  }
}

/** Closes a socket that may be closed already; codes that mean "none" or "broken" cannot be sent. */
function close(socket: WebSocket, code: number, why: string): void {
  const sendable = code >= 1000 && code < 5000 && ![1004, 1005, 1006, 1015].includes(code);
  try {
    socket.close(sendable ? code : GOING_AWAY, sendable ? why : "");
  } catch {
    // It is closed.
  }
}

function tooManySockets(): ApiError {
  return new ApiError({
    status: 503,
    code: "too_many_sockets",
    message: `The dashboard has ${MOST_SOCKETS} WebSockets open already. Close some of its pages.`,
    retryAfter: 5,
  });
}
