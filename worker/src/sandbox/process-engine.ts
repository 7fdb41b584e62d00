// SPDX-License-Identifier: Apache-2.0
/** A sandbox made of processes, by the engine: its unix socket, and a network that reaches only this machine. */
import { ApiError } from "../base/errors.ts";
import { startingWith, Tail } from "../base/streams.ts";
import { realTime, type Time } from "../base/time.ts";
import {
  EngineError,
  type ExecOptions,
  type Exit,
  LOCAL_START,
  type Sandbox,
  type SandboxInfo,
  type SandboxProcess,
  type Snapshot,
  STDERR_TAIL,
  type StartOptions,
} from "./sandbox.ts";

/** How long a missing engine socket is waited for, in milliseconds. */
const ENGINE_PATIENCE = 5000;
/** Between two attempts to reach it, in milliseconds. */
const ENGINE_PAUSE = 150;

/** A process sandbox, through the engine's unix socket and a network that reaches only this machine. */
export class ProcessSandbox implements Sandbox {
  #ports: Record<string, number> | null = null;

  /** @param startPatience as of the platform that the engine stands for. */
  constructor(
    readonly engine: Fetcher,
    readonly loopback: Fetcher,
    readonly startPatience: number = LOCAL_START,
    readonly time: Time = realTime,
  ) {}

  async inspect(): Promise<SandboxInfo> {
    const info = await this.#json<SandboxInfo & { ports: Record<string, number> | null }>("GET", "");
    this.#ports = info.ports;
    return { running: info.running, labels: info.labels, image: info.image, confined: info.confined };
  }

  async start(options: StartOptions): Promise<void> {
    const { ports } = await this.#json<{ ports: Record<string, number> }>("POST", "start", options);
    this.#ports = ports;
  }

  async exec(cmd: readonly string[], options: ExecOptions = {}): Promise<SandboxProcess> {
    const head = `${JSON.stringify({ cmd, stdout: "pipe", stderr: "pipe" })}\n`;
    const { stdin = "", signal } = options;
    const body =
      typeof stdin === "string"
        ? head + stdin
        : startingWith(new TextEncoder().encode(head), stdin.getReader());
    const answer = await this.#send("exec", {
      method: "POST",
      body,
      ...(signal === undefined ? {} : { signal }),
    });
    if (answer.body === null)
      throw new EngineError(502, "bad_answer", "The engine answered exec with no body.");
    return new FramedProcess(answer.body);
  }

  getTcpPort(port: number): { fetch(url: string, init?: RequestInit): Promise<Response> } {
    return {
      fetch: async (url, init) => {
        if (this.#ports === null) await this.inspect();
        const mapped = this.#ports?.[String(port)];
        if (mapped === undefined) throw new EngineError(409, "not_running", "The sandbox is not running.");
        const target = new URL(url);
        target.protocol = "http:";
        target.host = `127.0.0.1:${mapped}`;
        return this.loopback.fetch(target.href, init);
      },
    };
  }

  async signal(signo: number): Promise<void> {
    await this.#json("POST", "signal", { signal: signo });
  }

  async destroy(): Promise<void> {
    this.#ports = null;
    await this.#json("POST", "destroy", {});
  }

  async monitor(): Promise<Exit> {
    // A watch that is cut is not taken up silently: the sandbox may have ended meanwhile.
    const answer = await this.#send("monitor", { method: "GET" }, 0);
    const exit = await answer.json<Exit>();
    this.#ports = null;
    return exit;
  }

  async setInactivityTimeout(ms: number): Promise<void> {
    await this.#json("POST", "inactivity-timeout", { ms });
  }

  async snapshotContainer(options: { name?: string }): Promise<Snapshot> {
    return this.#json<Snapshot>("POST", "snapshot", options);
  }

  async #json<T>(method: "GET" | "POST", path: string, body?: unknown): Promise<T> {
    const init: RequestInit = { method };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { "content-type": "application/json" };
    }
    const answer = await this.#send(path, init);
    return (await answer.json()) as T;
  }

  /**
   * One call. A socket that is not there yet is waited for, but a body that was a stream cannot be sent twice.
   * @throws ApiError 503 `engine_unavailable`; EngineError for the engine's own refusals.
   */
  async #send(path: string, init: RequestInit, patience = ENGINE_PATIENCE): Promise<Response> {
    const once = init.body instanceof ReadableStream;
    for (let left = patience; ; left -= ENGINE_PAUSE) {
      let answer: Response;
      try {
        answer = await this.engine.fetch(`http://engine/${path}`, init);
      } catch (error) {
        if (init.signal?.aborted) throw error;
        if (once || left <= 0) throw engineUnavailable(error);
        await this.time.sleep(ENGINE_PAUSE);
        continue;
      }
      if (answer.ok) return answer;
      throw await engineError(answer);
    }
  }
}

function engineUnavailable(cause: unknown): ApiError {
  return new ApiError({
    status: 503,
    code: "engine_unavailable",
    message:
      "The engine that runs Hermes does not answer on its socket (run/engine.sock). " +
      "It is started with the deployment; see logs/engine.log, then try again.",
    retryAfter: 2,
    cause,
  });
}

async function engineError(answer: Response): Promise<EngineError> {
  const body = (await answer.json().catch(() => null)) as {
    error?: { code?: string; message?: string };
  } | null;
  return new EngineError(
    answer.status,
    body?.error?.code ?? `http_${answer.status}`,
    body?.error?.message ?? `The engine answered ${answer.status}.`,
  );
}

const FRAME_PID = 0;
const FRAME_STDOUT = 1;
const FRAME_STDERR = 2;
const FRAME_EXIT = 3;

/**
 * A process whose output comes as frames: 1 byte of type, 4 bytes of length (big-endian), payload.
 * Pulling standard output is what reads the connection, so back-pressure reaches the process.
 */
class FramedProcess implements SandboxProcess {
  readonly stdout: ReadableStream<Uint8Array>;
  readonly stderr: Promise<string>;
  readonly exitCode: Promise<number>;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #tail = new Tail(STDERR_TAIL);
  #rest: Uint8Array = new Uint8Array(0);
  /** Bytes of the current standard output frame that are still to come. */
  #pending = 0;
  #code: number | null = null;

  constructor(body: ReadableStream<Uint8Array>) {
    this.#reader = body.getReader();
    const ended = Promise.withResolvers<number>();
    // Whoever is interested awaits these; a process nobody asks about must not become an unhandled rejection.
    ended.promise.catch(() => undefined);
    this.exitCode = ended.promise;
    this.stderr = ended.promise.then(
      () => this.#tail.text(),
      () => this.#tail.text(),
    );
    this.stdout = new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          try {
            const next = await this.#next();
            if (typeof next !== "number") return controller.enqueue(next);
            ended.resolve(next);
            controller.close();
          } catch (error) {
            ended.reject(error);
            controller.error(error);
          }
        },
        cancel: async (why) => {
          ended.reject(new Error("The process was cut off."));
          await this.#reader.cancel(why);
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** The next piece of standard output, or after it the exit code. */
  async #next(): Promise<Uint8Array | number> {
    while (this.#pending === 0) {
      const head = await this.#exactly(5);
      if (head === null) {
        if (this.#code !== null) return this.#code;
        throw new Error("The process was cut off: its output ended without an exit code.");
      }
      const type = head[0];
      const length = new DataView(head.buffer, head.byteOffset).getUint32(1);
      if (type === FRAME_STDOUT) {
        this.#pending = length;
        continue;
      }
      const payload = await this.#exactly(length);
      if (payload === null) throw new Error("The process was cut off in the middle of a frame.");
      if (type === FRAME_STDERR) this.#tail.push(payload);
      else if (type === FRAME_EXIT) this.#code = Number(new TextDecoder().decode(payload));
      else if (type !== FRAME_PID) throw new Error(`The engine sent a frame of unknown type ${type}.`);
    }
    if (this.#rest.byteLength === 0 && !(await this.#more()))
      throw new Error("The process was cut off in the middle of its output.");
    const chunk = this.#take(Math.min(this.#pending, this.#rest.byteLength));
    this.#pending -= chunk.byteLength;
    return chunk;
  }

  /** Exactly `length` bytes, or `null` at the end of the connection. */
  async #exactly(length: number): Promise<Uint8Array | null> {
    while (this.#rest.byteLength < length) if (!(await this.#more())) return null;
    return this.#take(length);
  }

  #take(length: number): Uint8Array {
    const taken = this.#rest.subarray(0, length);
    this.#rest = this.#rest.subarray(length);
    return taken;
  }

  async #more(): Promise<boolean> {
    const { done, value } = await this.#reader.read();
    if (done) return false;
    if (this.#rest.byteLength === 0) {
      this.#rest = value;
      return true;
    }
    const joined = new Uint8Array(this.#rest.byteLength + value.byteLength);
    joined.set(this.#rest);
    joined.set(value, this.#rest.byteLength);
    this.#rest = joined;
    return true;
  }
}
