// SPDX-License-Identifier: Apache-2.0
/** Running a command in the sandbox: to its end, or listening for as long as the sandbox lasts. */
import { lastLine, Tail, textOf } from "../base/streams.ts";
import type { BoundedExec, BoundedSandbox } from "./bounded.ts";

/** Keeps the end of what a running command prints; made to outlive the sandbox it runs in. */
export class Listener {
  readonly #tail: Tail;
  readonly #stop = new AbortController();
  /** Settles when there is nothing more to come, for whatever reason. */
  readonly done: Promise<void>;

  /** @param limit characters that are kept. */
  constructor(sandbox: BoundedSandbox, cmd: readonly string[], limit: number) {
    this.#tail = new Tail(limit);
    this.done = this.#listen(sandbox, cmd).catch(() => undefined);
  }

  text(): string {
    return this.#tail.text();
  }

  /** Ends the command. */
  stop(): void {
    this.#stop.abort();
  }

  async #listen(sandbox: BoundedSandbox, cmd: readonly string[]): Promise<void> {
    const { signal } = this.#stop;
    const { stdout } = await sandbox.exec(cmd, { signal, limit: null });
    const reader = stdout.getReader();
    const stopped = () => void reader.cancel().catch(() => undefined);
    if (signal.aborted) stopped();
    else signal.addEventListener("abort", stopped, { once: true });
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.#tail.push(value);
    }
  }
}

/** What a finished command of the sandbox left. */
export interface CommandResult {
  exitCode: number;
  stdout: string;
  /** The last line of standard error: one sentence for a person. */
  why: string;
}

/** Runs a command to its end and returns what it printed (at most 1 MB). */
export async function run(
  sandbox: Pick<BoundedSandbox, "exec">,
  cmd: readonly string[],
  options: BoundedExec,
): Promise<CommandResult> {
  const process = await sandbox.exec(cmd, options);
  const [stdout, stderr, exitCode] = await Promise.all([
    textOf(process.stdout),
    process.stderr,
    process.exitCode,
  ]);
  return { exitCode, stdout, why: lastLine(stderr) };
}
