// SPDX-License-Identifier: Apache-2.0
/**
 * STAND-INS inside workerd: a sandbox that lives in memory and a clock that only moves when told to. For tests
 * of the lifecycle alone, where the wire does not matter and time does.
 */
import type { Time } from "../../src/base/time.ts";
import {
  EngineError,
  type ExecOptions,
  type Exit,
  type Sandbox,
  type SandboxInfo,
  type SandboxProcess,
  type Snapshot,
  type StartOptions,
} from "../../src/sandbox/sandbox.ts";

/** A clock under control of the test. */
export class ManualTime implements Time {
  #now = Date.UTC(2026, 0, 1);
  #waiting: { at: number; wake: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const entry = { at: this.#now + ms, wake: resolve };
      this.#waiting.push(entry);
      signal?.addEventListener("abort", () => {
        this.#waiting = this.#waiting.filter((other) => other !== entry);
        reject(new Error("aborted"));
      });
    });
  }

  /** Sets the clock, forward or back; timers do not heed it. */
  jump(ms: number): void {
    this.#now += ms;
    for (const entry of this.#waiting) entry.at += ms;
  }

  /** Timers that wait for the time to come. */
  get timers(): number {
    return this.#waiting.length;
  }

  /** Lets time pass, timer by timer, with room for everything that each of them sets off. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      await settled();
      const next = this.#waiting.filter((entry) => entry.at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#waiting = this.#waiting.filter((entry) => entry !== next);
      this.#now = Math.max(this.#now, next.at);
      next.wake();
    }
    this.#now = end;
    await settled();
  }
}

/** Returns when everything that could happen without time passing has happened. */
export async function settled(): Promise<void> {
  for (let round = 0; round < 20; round++) await scheduler.wait(0);
}

/** A backup of a state, as its owner brings it. @param change what its manifest says otherwise. */
export async function backupOf(state: string, change: object = {}): Promise<ReadableStream<Uint8Array>> {
  const sum = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(state));
  const sha256 = [...new Uint8Array(sum)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const manifest = {
    format: 1,
    boot: "elsewhere",
    digest: sha256,
    sha256,
    bytes: state.length,
    files: 1,
    databases: ["state.db"],
    ...change,
  };
  return new Response(`${JSON.stringify(manifest)}\n${state}`).body as ReadableStream<Uint8Array>;
}

interface Done {
  stdout?: Uint8Array | string;
  stderr?: string;
  exitCode?: number;
}

/** A sandbox in memory. Tests replace the entries of `commands` to make it misbehave. */
export class MemorySandbox implements Sandbox {
  startPatience = 30_000;
  running: {
    boot: string;
    restored: string | null;
    went: boolean;
    /** What `go` or a restart of Hermes brought last. */
    input: {
      env?: Record<string, string>;
      config?: Record<string, unknown>;
      configuration?: unknown;
      agent?: { archive: string; content: string };
    };
    ended: PromiseWithResolvers<Exit>;
  } | null = null;
  starts: StartOptions[] = [];
  destroys = 0;
  /** What Hermes has in its home. */
  state = "";
  nextCron: number | null = null;
  cronRunning = 0;
  jobError: { at: number; name: string; id: string; error: string } | null = null;
  healthy = true;
  readonly commands: Record<string, (stdin: string, words: readonly string[]) => Done | Promise<Done>> = {
    status: () => ({
      stdout: JSON.stringify({
        state: this.running?.went === true ? "running" : "waiting",
        configuration: this.running?.input.configuration ?? null,
        nextCron: this.nextCron,
        cronRunning: this.cronRunning,
        jobError: this.jobError,
      }),
    }),
    logs: () => ({ stdout: "the log\n" }),
    restore: (stdin, words) => {
      const archive = words.includes("--empty") ? "" : stdin;
      if (this.running !== null) this.running.restored = archive;
      this.state = archive.slice(archive.indexOf("\n") + 1);
      return {};
    },
    go: (stdin) => {
      if (this.running !== null)
        Object.assign(this.running, { went: true, input: JSON.parse(stdin || "{}") });
      return {};
    },
    declare: (stdin) => {
      if (this.running === null) return {};
      const { agent, configuration } = JSON.parse(stdin);
      Object.assign(this.running.input, { agent, configuration });
      return {};
    },
    save: (_, words) => this.archive(words[words.indexOf("--unless") + 1]),
    "restart-gateway": (stdin) => {
      if (this.running !== null) this.running.input = JSON.parse(stdin || "{}");
      return {};
    },
    "stop-gateway": () => ({}),
  };

  /** The archive of the current state, as `sandbox save` prints it. */
  async archive(unless?: string): Promise<Done> {
    const sum = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(this.state));
    const sha256 = [...new Uint8Array(sum)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    if (unless === sha256) return { exitCode: 3 };
    const manifest = {
      format: 1,
      boot: this.running?.boot,
      digest: sha256,
      sha256,
      bytes: this.state.length,
    };
    return { stdout: `${JSON.stringify(manifest)}\n${this.state}` };
  }

  /** The sandbox dies by itself. */
  die(exitCode: number): void {
    this.running?.ended.resolve({ exitCode, labels: null });
    this.running = null;
  }

  async inspect(): Promise<SandboxInfo> {
    const labels = this.running === null ? null : { boot: this.running.boot };
    return { running: this.running !== null, labels, image: null, confined: false };
  }

  async start(options: StartOptions): Promise<void> {
    if (this.running !== null) throw new EngineError(409, "already_running", "already running");
    this.starts.push(options);
    const boot = options.env["HERMES_BOOT_ID"] ?? "";
    this.running = { boot, restored: null, went: false, input: {}, ended: Promise.withResolvers<Exit>() };
    this.state = "";
  }

  async exec(cmd: readonly string[], options: ExecOptions = {}): Promise<SandboxProcess> {
    if (this.running === null) throw new EngineError(409, "not_running", "not running");
    const { stdin = "" } = options;
    const input = typeof stdin === "string" ? stdin : await new Response(stdin).text();
    const [, name = "", , boot] = cmd;
    const done: Done =
      boot === this.running.boot
        ? ((await this.commands[name]?.(input, cmd)) ?? { exitCode: 64, stderr: "usage" })
        : { exitCode: 65, stderr: "other boot" };
    const stdout = new Response(done.stdout ?? "").body;
    if (stdout === null) throw new TypeError("a response has a body");
    return {
      stdout,
      stderr: Promise.resolve(done.stderr ?? ""),
      exitCode: Promise.resolve(done.exitCode ?? 0),
    };
  }

  getTcpPort(): { fetch(url: string, init?: RequestInit): Promise<Response> } {
    return {
      fetch: async (url) => {
        if (this.running?.went !== true || !this.healthy) throw new Error("connection refused");
        return new URL(url).pathname === "/v1/models" ? Response.json({}) : this.answer(url);
      },
    };
  }

  /** What Hermes answers to anything but `/v1/models`. */
  answer: (url: string) => Response | Promise<Response> = () => new Response("answer");

  async signal(): Promise<void> {}

  async destroy(): Promise<void> {
    this.destroys++;
    this.die(137);
  }

  monitor(): Promise<Exit> {
    if (this.running === null) return Promise.reject(new EngineError(409, "not_running", "not running"));
    return this.running.ended.promise;
  }

  async setInactivityTimeout(): Promise<void> {}

  async snapshotContainer(): Promise<Snapshot> {
    throw new EngineError(501, "unsupported", "no snapshots here");
  }
}
