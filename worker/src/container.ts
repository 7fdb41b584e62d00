// SPDX-License-Identifier: Apache-2.0
/** The platform's own container, as a Durable Object's `ctx.container` hands it over: Cloudflare's or Docker's. */
import {
  EngineError,
  type ExecOptions,
  type Exit,
  type Sandbox,
  type SandboxInfo,
  type SandboxProcess,
  type Snapshot,
  STDERR_TAIL,
  type StartOptions,
  streamOf,
  textOf,
} from "./engine.ts";
import { ApiError, reason } from "./errors.ts";

/** What a container is driven by. */
export interface ContainerParts {
  container: Container;
  /** Where the container's calls to {@link ContainerParts.providersHost} go instead. */
  providers: Fetcher;
  /** Host (and port, unless 80) at which Hermes finds its model providers. */
  providersHost: string;
  /** Where all of its other calls go instead; `null` lets them out. */
  egress: Fetcher | null;
  /** Size of the machine, for platforms that offer several. */
  instance: string;
  /** Added to the environment of every start. */
  env: Readonly<Record<string, string>>;
  /**
   * Tears the object down so that its next life gets a new way to the container engine. Returns only when
   * that was tried a moment ago and did not help.
   */
  heal(): Promise<void>;
}

/** Bytes that the value of a label may have. */
const LABEL_LIMIT = 64;
const SIGKILL = 9;

/**
 * A container. After a restart of the runtime it may run although nothing is known of it: labels are not
 * told, and the detour of its outgoing calls is lost and laid again at the first look.
 */
export class ContainerSandbox implements Sandbox {
  /** Whether the detour is laid for what runs now. */
  #detoured = false;

  constructor(readonly parts: ContainerParts) {}

  async inspect(): Promise<SandboxInfo> {
    const { container } = this.parts;
    if (container.running && !this.#detoured) await this.#detour();
    return { running: container.running, labels: null, image: null, confined: null };
  }

  async start(options: StartOptions): Promise<void> {
    const { container, instance, env } = this.parts;
    await this.#detour();
    container.start({
      ...options,
      instance,
      env: { ...env, ...options.env },
      labels: Object.fromEntries(Object.entries(options.labels).map(([key, value]) => [key, clip(value)])),
    } as ContainerStartupOptions);
  }

  async exec(cmd: readonly string[], options: ExecOptions = {}): Promise<SandboxProcess> {
    const { stdin, signal } = options;
    this.#mustRun();
    const process = await this.parts.container.exec([...cmd], {
      ...(stdin === undefined ? {} : { stdin: typeof stdin === "string" ? streamOf(stdin) : stdin }),
    });
    return containerProcess(process, signal);
  }

  getTcpPort(port: number): { fetch(url: string, init?: RequestInit): Promise<Response> } {
    return this.parts.container.getTcpPort(port);
  }

  async signal(signo: number): Promise<void> {
    this.#mustRun();
    this.parts.container.signal(signo);
  }

  async destroy(): Promise<void> {
    this.#detoured = false;
    if (this.parts.container.running) await this.parts.container.destroy();
  }

  async monitor(): Promise<Exit> {
    this.#mustRun();
    try {
      await this.parts.container.monitor();
      return { exitCode: 0, labels: null };
    } catch (error) {
      const code = (error as { exitCode?: unknown }).exitCode;
      if (typeof code === "number") return { exitCode: code, labels: null };
      if (/failed to start/i.test(reason(error))) throw startFailed();
      throw error;
    } finally {
      this.#detoured = false;
    }
  }

  async setInactivityTimeout(ms: number): Promise<void> {
    await this.parts.container.setInactivityTimeout(ms);
  }

  async snapshotContainer(options: { name?: string }): Promise<Snapshot> {
    this.#mustRun();
    const { id, size } = await this.parts.container.snapshotContainer(options);
    return { id, size };
  }

  /** Leads the container's model calls to the Worker; what the platform remembers of it does not outlive a restart. */
  async #detour(): Promise<void> {
    const { container, providers, providersHost, egress, heal } = this.parts;
    try {
      // The specific one first: what is led away later does not get what was led away before.
      await container.interceptOutboundHttp(providersHost, providers);
      if (egress !== null) {
        await container.interceptAllOutboundHttp(egress);
        await container.interceptOutboundHttps("*", egress);
      }
      this.#detoured = true;
    } catch (error) {
      // This object's connection to the engine or to the container's network is broken for good.
      await heal();
      throw engineUnavailable(error);
    }
  }

  #mustRun(): void {
    if (!this.parts.container.running)
      throw new EngineError(409, "not_running", "The container is not running.");
  }
}

/**
 * Wraps a process so that it is never abandoned: output that nobody reads holds up the container engine, and
 * a client that leaves ends nothing. Whoever cancels kills, and the rest is read in the background.
 */
function containerProcess(process: ExecProcess, signal: AbortSignal | undefined): SandboxProcess {
  const stderr = process.stderr === null ? Promise.resolve("") : textOf(process.stderr, STDERR_TAIL);
  const reader = (process.stdout ?? streamOf("")).getReader();
  const drain = async () => {
    while (!(await reader.read()).done);
  };
  const kill = () => {
    try {
      process.kill(SIGKILL);
    } catch {
      // It has ended already.
    }
  };
  const exitCode = process.exitCode;
  // Nobody may be interested; that must not become an unhandled rejection.
  for (const promise of [exitCode, stderr]) promise.catch(() => undefined);
  if (signal?.aborted) kill();
  else signal?.addEventListener("abort", kill, { once: true });
  const stdout = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel() {
        kill();
        void drain().catch(() => undefined);
      },
    },
    { highWaterMark: 0 },
  );
  return { stdout, stderr, exitCode };
}

/** The longest beginning of a text that fits into a label. */
function clip(value: string): string {
  const { read } = new TextEncoder().encodeInto(value, new Uint8Array(LABEL_LIMIT));
  return value.slice(0, read);
}

function startFailed(): EngineError {
  return new EngineError(
    404,
    "start_failed",
    "the container failed to start; its image is missing, or Docker cannot be reached.",
  );
}

function engineUnavailable(cause: unknown): ApiError {
  return new ApiError({
    status: 503,
    code: "engine_unavailable",
    message:
      "The container engine cannot be reached, or the network of the container is gone. " +
      "See that Docker runs and that its socket is the configured one, then try again.",
    retryAfter: 5,
    cause,
  });
}
