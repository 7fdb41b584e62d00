// SPDX-License-Identifier: Apache-2.0
/**
 * One sandbox, however it is made. The interface is Cloudflare's `Container`, made asynchronous where a socket lies
 * between; `container.ts` wraps the platform's own, `process-engine.ts` speaks to ours.
 */
import { ApiError, reason } from "../base/errors.ts";

/** What a start needs: an image or a snapshot, never both. */
export interface StartOptions {
  image?: string;
  containerSnapshot?: { id: string };
  env: Record<string, string>;
  labels: Record<string, string>;
  /** Whether the sandbox may reach the internet. */
  enableInternet: boolean;
}

/** What runs at the moment. */
export interface SandboxInfo {
  running: boolean;
  /** Labels of the start, where the platform tells them. */
  labels: Record<string, string> | null;
  image: string | null;
  /** Whether a process sandbox is confined by the host; `null` where the question makes no sense. */
  confined: boolean | null;
}

/** How a sandbox ended. */
export interface Exit {
  exitCode: number | null;
  labels: Record<string, string> | null;
}

/** Options of {@link Sandbox.exec}. */
export interface ExecOptions {
  stdin?: ReadableStream<Uint8Array> | string;
  /** Aborting kills the process. */
  signal?: AbortSignal;
}

/** A process in the sandbox. Its output must be read (or cancelled): only that moves it on. */
export interface SandboxProcess {
  readonly stdout: ReadableStream<Uint8Array>;
  /** The last 16 KB of standard error, once the process has ended. */
  readonly stderr: Promise<string>;
  /** Settles after standard output was read to its end; rejects when the process was cut off. */
  readonly exitCode: Promise<number>;
}

/** A snapshot of the sandbox's disk. */
export interface Snapshot {
  id: string;
  /** Bytes. */
  size: number;
}

/** One sandbox. Every method may throw {@link ApiError} `engine_unavailable` or {@link EngineError}. */
export interface Sandbox {
  /** How long what was started may take until a command works in it, in milliseconds. */
  readonly startPatience: number;
  inspect(): Promise<SandboxInfo>;
  /**
   * Starts with a fresh disk; returns before anything in it is ready.
   * @throws EngineError {@link START_REFUSED}, here or by any call that waits for the start.
   */
  start(options: StartOptions): Promise<void>;
  exec(cmd: readonly string[], options?: ExecOptions): Promise<SandboxProcess>;
  /** The way to a TCP port in the sandbox. */
  getTcpPort(port: number): { fetch(url: string, init?: RequestInit): Promise<Response> };
  signal(signo: number): Promise<void>;
  /** Ends every process and removes the disk; nothing happens when nothing runs. */
  destroy(): Promise<void>;
  /** Settles when the sandbox has ended. */
  monitor(): Promise<Exit>;
  /** @param ms at most {@link INACTIVITY_LIMIT}; without a call for so long the platform ends the sandbox. */
  setInactivityTimeout(ms: number): Promise<void>;
  snapshotContainer(options: { name?: string }): Promise<Snapshot>;
}

/** Code of a start that is refused for the moment, for no reason of ours; it may succeed a few seconds later. */
export const START_REFUSED = "start_refused";
/** A sandbox of this machine takes no longer to start, in milliseconds. */
export const LOCAL_START = 30_000;
/**
 * Cloudflare brings a new image to where it is started: about a minute, after a first deploy several. A command waits
 * for that; in milliseconds.
 */
export const CLOUD_START = 300_000;
/** The platform ends a sandbox that nobody asked anything for so long; no longer time can be set. Milliseconds. */
export const INACTIVITY_LIMIT = 6 * 3600_000;

/** A refusal of the engine. */
export class EngineError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "EngineError";
  }
}

/** What remains of a process's standard error, in bytes. */
export const STDERR_TAIL = 16 * 1024;

/** Whether an error means that nothing runs in the engine. */
export function isNotRunning(error: unknown): boolean {
  return error instanceof EngineError && error.status === 409;
}

/** Whether a start was refused for the moment only. */
export function isRefusedForNow(error: unknown): error is EngineError {
  return error instanceof EngineError && error.code === START_REFUSED;
}

/** A sentence for an engine's refusal, for people. */
export function engineReason(error: unknown): string {
  if (error instanceof EngineError) return `the engine refused: ${error.message}`;
  return reason(error);
}

/** The sandbox of the current boot has ended; whoever waited for it starts over. */
export class SandboxGone extends ApiError {
  constructor(readonly exit: Exit | null) {
    super({
      status: 503,
      code: "sandbox_gone",
      message:
        exit === null
          ? "The sandbox is gone."
          : `The sandbox ended with exit code ${exit.exitCode ?? "unknown"}.`,
      retryAfter: 1,
    });
    this.name = "SandboxGone";
  }
}

/** The same trouble as people are told of it. */
export function asPublicError(error: unknown): unknown {
  if (error instanceof ApiError) return error;
  return new ApiError({
    status: 503,
    code: "engine_failed",
    message: `The sandbox could not be asked: ${engineReason(error)} Try again; see GET /api/instance/logs if that goes on.`,
    retryAfter: 3,
    cause: error,
  });
}
