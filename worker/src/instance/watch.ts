// SPDX-License-Identifier: Apache-2.0
/** The watch over a running sandbox: who tells us that it ended, and of which boot it was. */
import type { Log } from "../base/log.ts";
import type { BoundedSandbox } from "../sandbox/bounded.ts";
import {
  EngineError,
  type Exit,
  engineReason,
  isNotRunning,
  isRefusedForNow,
  SandboxGone,
} from "../sandbox/sandbox.ts";
import type { InstanceRecord } from "./record.ts";

/** What a watch works with. */
export interface WatchParts {
  sandbox: BoundedSandbox;
  log: Log;
  record: Readonly<InstanceRecord>;
  /** The sandbox of the current boot ended; without an exit nobody knows how. */
  onEnd(exit: Exit | null): void;
  /** Nobody would tell us any more. */
  onLost(): void;
}

/** The watch over the sandbox of the current boot. */
export class Watch {
  readonly #parts: WatchParts;
  /** The boot whose sandbox is known to have ended. */
  #ended: string | null = null;
  #kept = false;

  constructor(parts: WatchParts) {
    this.#parts = parts;
  }

  /** Whether somebody would tell us that the sandbox ended. */
  get kept(): boolean {
    return this.#kept;
  }

  /** Whether the sandbox of a boot is known to have ended. */
  hasEnded(bootId: string): boolean {
    return this.#ended === bootId;
  }

  /** Watches the sandbox of a boot. The promise only ever rejects: with {@link SandboxGone}, or with why it never began. */
  over(bootId: string): Promise<never> {
    this.#kept = true;
    const ended = this.#parts.sandbox.monitor().then(
      (exit) => this.#onExit(bootId, exit),
      (error) => this.#onLost(bootId, error),
    );
    ended.catch(() => undefined);
    return ended;
  }

  /** Nothing runs that had to be watched. */
  end(): void {
    this.#kept = false;
  }

  #onExit(bootId: string, exit: Exit): never {
    this.#ended = bootId;
    if (this.#parts.record.bootId === bootId) {
      this.#kept = false;
      this.#parts.onEnd(exit);
    }
    throw new SandboxGone(exit);
  }

  /** The engine went away or the watch was cut: nobody knows, so the next one who needs Hermes looks. */
  #onLost(bootId: string, error: unknown): never {
    const notStarted = isStartFailure(error) || isRefusedForNow(error);
    const over = isNotRunning(error) || notStarted;
    if (over) this.#ended = bootId;
    if (this.#parts.record.bootId === bootId) {
      this.#kept = false;
      if (over) this.#parts.onEnd(null);
      else {
        this.#parts.log.warn("watch_lost", { boot: bootId, why: engineReason(error) });
        this.#parts.onLost();
      }
    }
    if (notStarted) throw error;
    throw new SandboxGone(null);
  }
}

/** Whether the engine said that what was to be started never began to run. */
export function isStartFailure(error: unknown): error is EngineError {
  return error instanceof EngineError && error.code === "start_failed";
}
