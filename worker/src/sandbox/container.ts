// SPDX-License-Identifier: Apache-2.0
/** The platform's own container, as a Durable Object's `ctx.container` hands it over: Cloudflare's or Docker's. */
import { ApiError, reason } from "../base/errors.ts";
import { streamOf, textOf } from "../base/streams.ts";
import { realTime, type Time, within } from "../base/time.ts";
import {
  CLOUD_START,
  EngineError,
  type ExecOptions,
  type Exit,
  INACTIVITY_LIMIT,
  LOCAL_START,
  type Sandbox,
  type SandboxInfo,
  type SandboxProcess,
  type Snapshot,
  START_REFUSED,
  STDERR_TAIL,
  type StartOptions,
} from "./sandbox.ts";

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
  /** Whether workerd itself drives the container, by Docker; what is different then is in docs/docker-engine.md. */
  local: boolean;
  /** The image by its digest, where the configuration names it so; see {@link imageToStart}. */
  reference: string;
  /** Added to the environment of every start, and of every command: what differs from what the image knows. */
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
/** What Cloudflare says when it has no container for the moment, or no word from those who have. */
const REFUSALS =
  /no container instance|too many containers|throttling the container service|container service is unreachable|maximum number of running container instances/i;
/**
 * The runtime makes one call after the other, and one that never comes back (a command that was about to begin when
 * its container ended) holds up all later ones, the news of that end among them. So long is waited, and so long
 * while the disk is copied; in milliseconds.
 */
const CALL_PATIENCE = 20_000;
const COPY_PATIENCE = 120_000;
/**
 * Docker starts a container that failed again, and a command meets one of its ends sooner or later. Before any command
 * worked, one that takes longer than this is such a case; in milliseconds.
 */
const FIRST_PATIENCE = 10_000;
/** What waits for a failed boot is answered before this object is torn down; in milliseconds. */
const BEFORE_HEALING = 500;
/** One that ends at once has done so after this long, in milliseconds; PID 1 takes as long to get ready. */
const FIRST_BREATH = 100;
/** The last words of a command in a container that ended are waited for so long, in milliseconds. */
const LAST_WORDS = 1000;

/**
 * A container. After a restart of the runtime it may run although nothing is known of it: labels are not
 * told, and the detour of its outgoing calls is lost and laid again at the first look.
 */
export class ContainerSandbox implements Sandbox {
  /** Whether the detour is laid for what runs now. */
  #detoured = false;
  /** The watch over what was just started, until somebody takes it. */
  #watched: Promise<Exit> | null = null;
  /** Whether a command ever worked in what runs, as far as this object knows. */
  #proven: boolean;
  /** Whether a call to the engine will never come back, and all later ones wait behind it. */
  #stuck = false;
  /** Called when what runs now is given up. */
  #giveUp: () => void = () => undefined;
  /** Copies of the disk under way. */
  #copies = 0;
  /** Aborted when what runs now has ended and nothing more will be heard of it. */
  #over = new AbortController();

  constructor(
    readonly parts: ContainerParts,
    readonly time: Time = realTime,
  ) {
    // On Cloudflare one that is found may be on its way still.
    this.#proven = parts.local;
  }

  get startPatience(): number {
    return this.parts.local ? LOCAL_START : CLOUD_START;
  }

  async inspect(): Promise<SandboxInfo> {
    const { container } = this.parts;
    if (container.running && !this.#detoured) await this.#detour();
    return { running: container.running, labels: null, image: null, confined: null };
  }

  async start(options: StartOptions): Promise<void> {
    const { container, instance, env, local } = this.parts;
    await this.#detour();
    this.#over = new AbortController();
    this.#proven = false;
    this.#stuck = false;
    const { image, containerSnapshot, enableInternet } = options;
    const what =
      containerSnapshot === undefined ? { image: this.#imageToStart(image ?? "") } : { containerSnapshot };
    const labels = Object.entries(options.labels).map(([key, value]) => [key, clip(value)]);
    const startup = {
      ...what,
      instance,
      enableInternet,
      env: { ...env, ...options.env },
      labels: Object.fromEntries(labels),
    };
    try {
      container.start(startup as ContainerStartupOptions);
    } catch (error) {
      throw asRefusal(error);
    }
    // From its start on: a refusal, or an end at once, would have gone by before anybody asked for the watch.
    this.#watched = this.#untilItEnds();
    this.#watched.catch(() => undefined);
    // An object that leaves memory during the start must not leave behind what runs for ever, or ends too early.
    if (!local) void container.setInactivityTimeout(INACTIVITY_LIMIT).catch(() => undefined);
    if (local) await this.#firstBreath();
  }

  /**
   * Cloudflare starts images by their digest. The names of the configuration reach an object late after a deploy, or
   * with the digest of before: they are taken for nothing but another way to write the same one.
   */
  #imageToStart(image: string): string {
    const { container, local, reference } = this.parts;
    if (local) return image;
    // A release of the runtime that has no such map is safe with this, whatever the types say.
    const named = (container as Partial<Container>).images?.["hermes"];
    if (reference === "") return named ?? image;
    return named?.split("@")[1] === reference.split("@")[1] ? (named ?? reference) : reference;
  }

  /**
   * A command that meets its container's end may never come back, so one that ends at once is given the time to: Docker
   * starts what failed again, and then it seems to run.
   */
  async #firstBreath(): Promise<void> {
    const breath = async () => {
      // It takes its turn after a start, and settles when that is through.
      await this.#inTime(this.parts.container.inspect());
      await this.time.sleep(FIRST_BREATH);
    };
    await Promise.race([breath(), this.#watched?.catch(() => undefined)]);
  }

  async exec(cmd: readonly string[], options: ExecOptions = {}): Promise<SandboxProcess> {
    const { stdin, signal } = options;
    const { container, env, local } = this.parts;
    this.#mustRun();
    // It gets neither the environment of the image nor that of the start.
    const call = container
      .exec([...cmd], {
        env,
        ...(stdin === undefined ? {} : { stdin: typeof stdin === "string" ? streamOf(stdin) : stdin }),
      })
      .catch((error: unknown) => {
        throw asRefusal(error);
      });
    if (local && !this.#proven) await this.#first(call);
    const process = await this.#inTime(call);
    this.#proven = true;
    return containerProcess(process, signal, this.#over.signal);
  }

  /** @throws EngineError when the first command does not come back: its container has ended, and the watch says so. */
  async #first(call: Promise<ExecProcess>): Promise<void> {
    const begun = call.then(() => true);
    if (await within(this.time, FIRST_PATIENCE, begun)) {
      this.#proven = true;
      return;
    }
    this.#stuck = true;
    this.#giveUp();
    throw notRunning();
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
    if (this.#stuck) return this.#healSoon();
    if (this.parts.container.running) await this.#inTime(this.parts.container.destroy());
  }

  /** The next start removes what is left; it needs a new way to the engine. */
  #healSoon(): void {
    void this.time.sleep(BEFORE_HEALING).then(() => this.parts.heal());
  }

  monitor(): Promise<Exit> {
    const watched = this.#watched ?? this.#untilItEnds();
    this.#watched = null;
    return watched;
  }

  async #untilItEnds(): Promise<Exit> {
    this.#mustRun();
    const over = this.#over;
    const givenUp = new Promise<never>((_, reject) => {
      this.#giveUp = () => reject(notRunning());
    });
    try {
      await Promise.race([this.parts.container.monitor(), givenUp]);
      return { exitCode: 0, labels: null };
    } catch (error) {
      const exitCode = exitCodeOf(error);
      if (exitCode !== null) return { exitCode, labels: null };
      if (/failed to start/i.test(reason(error))) throw startFailed(this.parts.local);
      throw asRefusal(error);
    } finally {
      this.#detoured = false;
      void this.time.sleep(LAST_WORDS).then(() => over.abort());
    }
  }

  async setInactivityTimeout(ms: number): Promise<void> {
    // Locally nothing ends it; the call would only keep the way to the engine, broken or not, beyond this object.
    if (this.parts.local) return;
    await this.#inTime(this.parts.container.setInactivityTimeout(ms));
  }

  async snapshotContainer(options: { name?: string }): Promise<Snapshot> {
    this.#mustRun();
    this.#copies++;
    const copy = this.parts.container.snapshotContainer(options).finally(() => this.#copies--);
    const { id, size } = await copy;
    return { id, size };
  }

  /** Leads the container's model calls to the Worker; what the platform remembers of it does not outlive a restart. */
  async #detour(): Promise<void> {
    const { container, providers, providersHost, egress, heal } = this.parts;
    try {
      // The specific one first: what is led away later does not get what was led away before.
      await this.#inTime(container.interceptOutboundHttp(providersHost, providers));
      if (egress !== null) {
        await this.#inTime(container.interceptAllOutboundHttp(egress));
        await this.#inTime(container.interceptOutboundHttps("*", egress));
      }
      this.#detoured = true;
    } catch (error) {
      if (error instanceof ApiError) throw error;
      // This object's connection to the engine or to the container's network is broken for good.
      await heal();
      throw engineUnavailable(error);
    }
  }

  /** @throws ApiError `engine_unavailable` when the call does not come back and a new way to the engine did not help. */
  async #inTime<T>(call: Promise<T>): Promise<T> {
    const patience = this.#patience;
    const done = await within(
      this.time,
      patience,
      call.then((value) => ({ value })),
    );
    if (done !== undefined) return done.value;
    const stuck = new Error(`A call to the container engine did not come back within ${patience / 1000} s.`);
    // Only with this object does the call go that blocks the others.
    await this.parts.heal();
    throw engineUnavailable(stuck);
  }

  get #patience(): number {
    if (this.parts.local && this.#copies === 0) return CALL_PATIENCE;
    // Who waits for a start is out of patience before, and gives it up as one that failed.
    return this.#proven ? COPY_PATIENCE : CLOUD_START + CALL_PATIENCE;
  }

  #mustRun(): void {
    if (!this.parts.container.running) throw notRunning();
  }
}

/** How a container ended, where an error of the watch says so: in a field, or in words alone. */
function exitCodeOf(error: unknown): number | null {
  const code = (error as { exitCode?: unknown }).exitCode;
  if (typeof code === "number") return code;
  const told = /(?:container to exit|unexpected exit code)[^:]*: *(\d+)/i.exec(reason(error))?.[1];
  return told === undefined ? null : Number(told);
}

/** The same error, told apart when it is a start that is refused for the moment. */
function asRefusal(error: unknown): unknown {
  const why = reason(error);
  if (!REFUSALS.test(why)) return error;
  return new EngineError(503, START_REFUSED, `Cloudflare has no container for it at this moment (${why}).`);
}

function notRunning(): EngineError {
  return new EngineError(409, "not_running", "The container is not running.");
}

/**
 * Wraps a process so that it is never abandoned: output that nobody reads holds up the container engine, and
 * a client that leaves ends nothing. Whoever cancels kills, and the rest is read in the background.
 * @param over is aborted when the container has ended: an engine may never end the output of what died with it.
 */
function containerProcess(
  process: ExecProcess,
  signal: AbortSignal | undefined,
  over: AbortSignal,
): SandboxProcess {
  const cut = Promise.withResolvers<never>();
  const onOver = () => cut.reject(new Error("The process was cut off: its container has ended."));
  if (over.aborted) onOver();
  else over.addEventListener("abort", onOver, { once: true });
  const unlessCut = <T>(promise: Promise<T>): Promise<T> => Promise.race([promise, cut.promise]);
  // What there is none of is null by the types, and undefined by Cloudflare's pages.
  const stderr = unlessCut(textOf(process.stderr ?? streamOf(""), STDERR_TAIL));
  const reader = (process.stdout ?? streamOf("")).getReader();
  const drain = async () => {
    while (!(await reader.read()).done);
  };
  let killed = false;
  const kill = () => {
    // Each is a command of its own in the container, and one that has exited already is an error there.
    if (killed) return;
    killed = true;
    try {
      process.kill(SIGKILL);
    } catch {
      // It has ended just now.
    }
  };
  const exitCode = unlessCut(process.exitCode);
  // Nobody may be interested; that must not become an unhandled rejection.
  for (const promise of [cut.promise, exitCode, stderr]) promise.catch(() => undefined);
  const onExit = () => {
    killed = true;
    over.removeEventListener("abort", onOver);
    signal?.removeEventListener("abort", kill);
  };
  exitCode.then(onExit, onExit);
  if (signal?.aborted) kill();
  else signal?.addEventListener("abort", kill, { once: true });
  const stdout = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await unlessCut(reader.read());
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

function startFailed(local: boolean): EngineError {
  const why = local ? "; its image is missing, or Docker cannot be reached." : ".";
  return new EngineError(404, "start_failed", `the container failed to start${why}`);
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
