// SPDX-License-Identifier: Apache-2.0
/**
 * A sandbox that nobody waits for without end. Whatever the instance asks of its sandbox goes through here: a call
 * that is never answered would hold back everybody who waits for Hermes, for ever.
 */
import { Deadline, inTime, type Time, tookTooLong } from "../base/time.ts";
import type {
  ExecOptions,
  Exit,
  Sandbox,
  SandboxInfo,
  SandboxProcess,
  Snapshot,
  StartOptions,
} from "./sandbox.ts";

/** Options of {@link BoundedSandbox.exec}. */
export interface BoundedExec extends ExecOptions {
  /**
   * How long the command may take until its output and itself have ended, in milliseconds; then it is killed. `null`
   * is for what lasts as long as the sandbox, and bounds its beginning alone.
   */
  limit: number | null;
}

/** The engine's own patience with what it drives ends before this, in milliseconds. */
const CALL = 150_000;
/** A snapshot that takes longer is given up, in milliseconds: the vault has the state. */
const SNAPSHOT = 60_000;

/** A sandbox whose calls end: each method rejects with ApiError 503 `sandbox_silent` when its time is over. */
export class BoundedSandbox {
  readonly #sandbox: Sandbox;
  readonly #time: Time;

  private constructor(sandbox: Sandbox, time: Time) {
    this.#sandbox = sandbox;
    this.#time = time;
  }

  static of(sandbox: Sandbox | BoundedSandbox, time: Time): BoundedSandbox {
    return sandbox instanceof BoundedSandbox ? sandbox : new BoundedSandbox(sandbox, time);
  }

  /** See {@link Sandbox.startPatience}. */
  get startPatience(): number {
    return this.#sandbox.startPatience;
  }

  inspect(): Promise<SandboxInfo> {
    return this.#call("inspect", this.#sandbox.inspect());
  }

  start(options: StartOptions): Promise<void> {
    return this.#call("start", this.#sandbox.start(options));
  }

  /** @throws through the process, too, when its time is over. */
  async exec(cmd: readonly string[], { limit, ...options }: BoundedExec): Promise<SandboxProcess> {
    if (limit === null) {
      // It may have to wait for the start.
      const patience = Math.max(CALL, this.startPatience);
      return inTime(this.#time, "the engine's 'exec'", patience, this.#sandbox.exec(cmd, options));
    }
    const kill = new AbortController();
    const deadline = new Deadline(this.#time, limit);
    const over = Promise.withResolvers<never>();
    over.promise.catch(() => undefined);
    void deadline.over.then(() => {
      if (!deadline.isOver) return;
      kill.abort();
      over.reject(tookTooLong(`'${cmd.slice(0, 2).join(" ")}'`, limit));
    });
    const signals = options.signal === undefined ? [kill.signal] : [kill.signal, options.signal];
    const begun = this.#sandbox.exec(cmd, { ...options, signal: AbortSignal.any(signals) });
    try {
      return boundedProcess(await Promise.race([begun, over.promise]), deadline, over.promise);
    } catch (error) {
      deadline.stop();
      begun.then((late) => late.stdout.cancel()).catch(() => undefined);
      throw error;
    }
  }

  /** The way to a TCP port in the sandbox; who asks there knows how long an answer may take. */
  getTcpPort(port: number): ReturnType<Sandbox["getTcpPort"]> {
    return this.#sandbox.getTcpPort(port);
  }

  destroy(): Promise<void> {
    return this.#call("destroy", this.#sandbox.destroy());
  }

  /** Settles when the sandbox has ended, whenever that is. */
  monitor(): Promise<Exit> {
    return this.#sandbox.monitor();
  }

  setInactivityTimeout(ms: number): Promise<void> {
    return this.#call("setInactivityTimeout", this.#sandbox.setInactivityTimeout(ms));
  }

  snapshotContainer(options: { name?: string }): Promise<Snapshot> {
    return inTime(this.#time, "the engine's 'snapshot'", SNAPSHOT, this.#sandbox.snapshotContainer(options));
  }

  #call<T>(name: string, call: Promise<T>): Promise<T> {
    return inTime(this.#time, `the engine's '${name}'`, CALL, call);
  }
}

/** The same process, of which nothing is waited for once `over` rejects; the deadline ends with it. */
function boundedProcess(process: SandboxProcess, deadline: Deadline, over: Promise<never>): SandboxProcess {
  const reader = process.stdout.getReader();
  const read = Promise.withResolvers<void>();
  const stdout = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await Promise.race([reader.read(), over]).catch((error: unknown) => {
          read.resolve();
          void reader.cancel(error).catch(() => undefined);
          throw error;
        });
        if (!done) return controller.enqueue(value);
        read.resolve();
        controller.close();
      },
      cancel(why) {
        read.resolve();
        return reader.cancel(why);
      },
    },
    { highWaterMark: 0 },
  );
  const stderr = Promise.race([process.stderr, over]);
  const exitCode = Promise.race([process.exitCode, over]);
  // Nobody may be interested; that must not become an unhandled rejection.
  for (const promise of [stderr, exitCode]) promise.catch(() => undefined);
  void Promise.allSettled([read.promise, exitCode]).then(() => deadline.stop());
  return { stdout, stderr, exitCode };
}
