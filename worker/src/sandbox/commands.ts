// SPDX-License-Identifier: Apache-2.0
/** `SandboxCommands`: what is asked of the sandbox of one boot, by its `sandbox` command and by Hermes' port. */
import { ApiError, reason } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { lastLine, startingWith } from "../base/streams.ts";
import { Deadline, inTime, type Time } from "../base/time.ts";
import { type Configuration, type LabelledGo, parseConfiguration } from "../config/configuration.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import { SignIns } from "../state/sign-ins.ts";
import { DamagedGeneration, type Generation, type Vault } from "../state/vault.ts";
import type { BoundedSandbox } from "./bounded.ts";
import { type InForce, inForce, type Laid, NOTHING_LAID, SOURCES } from "./in-force.ts";
import { run } from "./run.ts";
import { EngineError, engineReason, isRefusedForNow, SandboxGone, type SandboxProcess } from "./sandbox.ts";

/** Result of a save. */
export interface Saved {
  backup: Generation;
  /** The state was the same as in the newest backup; nothing was stored. */
  unchanged: boolean;
}

/** Port of Hermes' API in the sandbox. */
export const API_PORT = 18789;
/** Port of Hermes' dashboard there. Its every request carries the boot's token as {@link DASHBOARD_HEADER}. */
export const DASHBOARD_PORT = 9119;
export const DASHBOARD_HEADER = "x-hermes-session-token";

/** Between looks whether Hermes is ready at most, in milliseconds: a look costs less than somebody's waiting. */
const LONGEST_PAUSE = 50;
/** How long a command may take: one that is quick; one that moves the whole state; Hermes' end or start. Milliseconds. */
const QUICK = 60_000;
const WHOLE_STATE = 300_000;
const START_OR_END = 120_000;
/** A Hermes that runs tells of itself within so long. */
const ANSWER_PATIENCE = 10_000;
/** Exit codes of the `sandbox` command that mean something to us. */
const FAILED = 1;
const UNCHANGED = 3;
/** The sandbox is of a release that does not know the command. */
const UNKNOWN = 64;
const OTHER_BOOT = 65;
const NOT_YET = 75;
const DAMAGED_ARCHIVE = 70;
const DAMAGED_STATE = 71;
const TOO_LARGE = 72;
const DISK_FULL = 73;
const REFUSED = 77;
/** Nobody took any more what a command printed: by a signal (128 + SIGPIPE), or in the command's own words. */
const PIPE_GONE = 141;
const READER_GONE = "The reader of the output went away.";
/** Code of the error that a command ends with then. */
export const COMMAND_CUT = "command_cut";
/** Those with which the sandbox says that the bytes themselves are no good. */
const PROVED_BAD = [DAMAGED_ARCHIVE, DAMAGED_STATE, TOO_LARGE];

/** What Hermes says about its own work when it is asked before a sleep. */
export interface Chores {
  /** Cron jobs under way. */
  cronRunning: number;
  /** Runs, delegations and finished commands in its background queues. */
  background: number;
  /** Next cron time, or `null`. */
  nextCron: number | null;
}

/** A cron job whose last run failed, as Hermes noted it. */
export interface JobTrouble {
  at: number;
  job: string;
  id: string;
  message: string;
}

/** What a boot began with. */
export interface Restored {
  /** Generation, or `null` for an empty home. */
  backup: number | null;
  /** Snapshot that brought it, or `null` when the vault did. */
  snapshot: string | null;
  /** What would have been newer or faster but was no good, each with the reason. */
  passedOver: string[];
}

/** What a sandbox says about Hermes and its jobs. */
export interface Status {
  state: string;
  configuration: Configuration | null;
  chores: Omit<Chores, "background">;
  jobError: JobTrouble | null;
  agent: Laid;
}

/** What the commands work with. */
export interface CommandsParts {
  sandbox: BoundedSandbox;
  vault: Vault;
  time: Time;
  log: Log;
}

/** One boot's sandbox. A command for another boot, or for none, throws {@link SandboxGone}. */
export class SandboxCommands {
  readonly #parts: CommandsParts;
  #ran = false;

  /**
   * @param bootId goes with every command, so that no ghost of another boot answers.
   * @param isCurrent whether this boot is still the one that counts; ends waits that became pointless.
   */
  constructor(
    parts: CommandsParts,
    readonly bootId: string,
    readonly keys: BootKeys,
    readonly isCurrent: () => boolean,
  ) {
    this.#parts = parts;
  }

  /** Whether something was seen to run in the sandbox, be it that it failed. */
  get ran(): boolean {
    return this.#ran;
  }

  /** Waits until commands work, in a sandbox that was just started if no `patience` in milliseconds is given. */
  waitForCommands(patience: number = this.#parts.sandbox.startPatience): Promise<Status> {
    return this.#untilItWorks(patience, (limit) => this.status(limit));
  }

  /**
   * Accepts the home that a snapshot brought, unless a database in it is damaged. As the first command of a boot it
   * waits until commands work.
   */
  async acceptSnapshot(): Promise<void> {
    const keep = (limit: number) => this.#command("restore", ["--keep"], { limit: limit + WHOLE_STATE });
    await this.#untilItWorks(this.#parts.sandbox.startPatience, keep, "restore_failed");
  }

  /**
   * @param command is given how long it may take: it may have to wait for the start.
   * @param final code of the error that no other attempt would mend.
   */
  async #untilItWorks<T>(
    patience: number,
    command: (limit: number) => Promise<T>,
    final?: string,
  ): Promise<T> {
    const { time } = this.#parts;
    const deadline = new Deadline(time, patience);
    try {
      for (let pause = 20; ; pause = Math.min(pause * 2, 500)) {
        const done = command(Math.max(patience, QUICK)).then(
          (value) => ({ value }),
          (error: unknown) => {
            if (saysThatItRuns(error)) this.#ran = true;
            if (isRefusedForNow(error)) throw error;
            if (error instanceof ApiError && error.code === final) throw error;
            return { why: engineReason(error) };
          },
        );
        // A command that was begun in a dying sandbox may never be answered.
        const result = (await Promise.race([done, deadline.over])) ?? {
          why: "the last one was not answered",
        };
        if ("value" in result) {
          this.#ran = true;
          return result.value;
        }
        this.#mustStillBe();
        if (deadline.isOver) throw new Error(`no command works in the sandbox (${result.why}).`);
        await time.sleep(pause);
      }
    } finally {
      deadline.stop();
    }
  }

  /** Puts the newest good generation back, or says that there never was one. */
  async restore(): Promise<Pick<Restored, "backup" | "passedOver">> {
    const { vault, log } = this.#parts;
    if (!vault.hasHistory) {
      await this.#command("restore", ["--empty"]);
      return { backup: null, passedOver: [] };
    }
    const good = vault.good();
    const bad = vault.list().filter(({ state }) => state === "damaged");
    const newer = bad.filter(({ id }) => good[0] !== undefined && id > good[0].id);
    const passedOver = newer.map(({ id }) => `backup ${id}: it is marked as damaged`);
    // What was found to be damaged is judged again before nothing is left.
    for (const generation of [...good, ...bad]) {
      const why = await this.#restoreOne(generation);
      if (why === null) {
        vault.acquit(generation.id);
        return { backup: generation.id, passedOver };
      }
      passedOver.push(`backup ${generation.id}: ${why}`);
      log.error("backup_passed_over", { backup: generation.id, why });
    }
    throw new ApiError({
      status: 503,
      code: "no_good_backup",
      message:
        `None of the backups could be restored (${passedOver.join("; ")}), and Hermes is not started empty over them. ` +
        "Restore a backup that you kept elsewhere, or destroy the instance's data to begin anew.",
    });
  }

  /**
   * Puts an upload in place.
   * @throws ApiError 503 `restore_failed`, and whatever else came in between.
   */
  async restoreUpload({ id }: Generation): Promise<void> {
    const why = await this.#judge(id);
    if (why !== null) throw commandError("restore", { exitCode: FAILED, why });
  }

  /** @returns why this generation is no good, or `null` when it is in place. */
  async #restoreOne({ id }: Generation): Promise<string | null> {
    // Twice: memory and disks err as well.
    const why = (await this.#judge(id)) && (await this.#judge(id));
    if (why === null) return null;
    // Of an end that came meanwhile no backup is guilty.
    this.#mustStillBe();
    this.#parts.vault.condemn(id, why);
    return why;
  }

  /**
   * Hands an archive to the sandbox.
   * @returns what proves that its bytes are no good, or `null`.
   * @throws for everything else, which proves nothing: no memory, no disk space, a cut transfer, an engine that is gone.
   */
  async #judge(id: number): Promise<string | null> {
    const { vault, sandbox } = this.#parts;
    try {
      await vault.verify(id);
    } catch (error) {
      if (!(error instanceof DamagedGeneration)) throw error;
      return error.message;
    }
    const cmd = ["sandbox", "restore", "--boot", this.bootId];
    const result = await run(sandbox, cmd, { stdin: vault.read(id), limit: WHOLE_STATE });
    if (result.exitCode === 0) return null;
    if (PROVED_BAD.includes(result.exitCode)) return result.why;
    throw commandError("restore", result);
  }

  /**
   * Has an archive judged in the sandbox as a restore would, beside what runs there; nothing is changed by it.
   * @throws ApiError 400 `bad_backup` when its bytes prove that it cannot be restored; 503 `check_failed` when
   * the sandbox cannot tell.
   */
  async check(upload: ReadableStream<Uint8Array>): Promise<void> {
    const { sandbox, log } = this.#parts;
    const cmd = ["sandbox", "check", "--boot", this.bootId];
    const result = await run(sandbox, cmd, { stdin: upload, limit: WHOLE_STATE });
    if (result.exitCode === 0) return;
    if (result.exitCode === UNKNOWN)
      return log.warn("backup_unchecked", { boot: this.bootId, why: result.why });
    if (result.exitCode !== DAMAGED_ARCHIVE) throw commandError("check", result);
    throw new ApiError({
      status: 400,
      code: "bad_backup",
      message: `Hermes cannot be given this backup: ${result.why} Nothing was changed.`,
    });
  }

  /** Tells the sandbox to start Hermes. */
  async go(input: LabelledGo): Promise<void> {
    await this.#command("go", [], { stdin: JSON.stringify(input) });
  }

  /**
   * Has the sandbox lay the declared content beside the Hermes that runs; all of it, or nothing.
   * @param runs whether Hermes runs: it then looks again at what it reads only once.
   */
  async declare(input: LabelledGo, runs: boolean): Promise<void> {
    await this.#command("declare", [], { stdin: JSON.stringify(input) });
    if (!runs) return;
    const answer = await this.#call("/sandbox/look-again", "POST");
    await answer.body?.cancel();
    if (!answer.ok)
      throw commandError("declare", { exitCode: FAILED, why: `Hermes answered ${answer.status}.` });
  }

  /** Waits for an authenticated answer: only the Hermes of this boot knows the key. */
  async ready(patience: number): Promise<void> {
    const { time } = this.#parts;
    const deadline = new Deadline(time, patience);
    try {
      for (let pause = 25; ; pause = Math.min(pause * 1.5, LONGEST_PAUSE)) {
        const status = await Promise.race([this.#ask(), deadline.over]);
        if (status === 200) return;
        this.#mustStillBe();
        if (deadline.isOver)
          throw new Error(
            `Hermes did not get ready within ${patience / 1000} s (last answer: ${status ?? "none"}).`,
          );
        await time.sleep(pause);
      }
    } finally {
      deadline.stop();
    }
  }

  /** Whether a Hermes that knows our key answers now. */
  async answers(): Promise<boolean> {
    return (await this.#ask()) === 200;
  }

  /** Status of an authenticated call, or `null` when nobody answers. */
  async #ask(): Promise<number | null> {
    try {
      const answer = await this.#call("/v1/models");
      await answer.body?.cancel();
      return answer.status;
    } catch {
      return null;
    }
  }

  #call(path: string, method = "GET"): Promise<Response> {
    const { sandbox, time } = this.#parts;
    const answer = sandbox.getTcpPort(API_PORT).fetch(`http://hermes${path}`, {
      method,
      headers: { authorization: `Bearer ${this.keys.gatewayKey}` },
    });
    return inTime(time, `Hermes' ${path}`, ANSWER_PATIENCE, answer);
  }

  /** What the sandbox says about Hermes and its jobs. */
  async status(limit: number = QUICK): Promise<Status> {
    const told = parseStatus(await this.#command("status", [], { limit }));
    const nextCron = typeof told.nextCron === "number" ? told.nextCron * 1000 : null;
    return {
      state: told.state ?? "unknown",
      configuration: parseConfiguration(told.configuration),
      chores: { nextCron, cronRunning: told.cronRunning ?? 0 },
      jobError: this.#jobTrouble(told.jobError ?? null),
      agent: told.agent ?? NOTHING_LAID,
    };
  }

  /** Errors quote what was sent, so they are kept without secrets. */
  #jobTrouble(told: ToldStatus["jobError"]): JobTrouble | null {
    if (told == null) return null;
    const { redactor } = this.#parts.log;
    const { at, name, id, error } = told;
    return { at: at * 1000, job: redactor.clean(name), id, message: redactor.clean(error) };
  }

  /** Work in Hermes' own queues, which no request of ours waits for; 0 when it cannot tell. */
  async background(): Promise<number> {
    try {
      const answer = await this.#call("/health/detailed");
      const body = inTime(this.#parts.time, "Hermes' health", ANSWER_PATIENCE, answer.json());
      const told = (await body) as { readiness?: { checks?: { background_queues?: object } } };
      const queues = Object.values(told.readiness?.checks?.background_queues ?? {});
      return queues.reduce((sum: number, depth) => sum + (typeof depth === "number" ? depth : 0), 0);
    } catch {
      return 0;
    }
  }

  /** What Hermes has of all that can be declared. Errors in it quote what was sent, so it is without secrets. */
  async inForce(): Promise<InForce> {
    const { time, log } = this.#parts;
    const asked = SOURCES.map(async (path) => {
      const answer = await this.#call(path);
      const body = await inTime(time, `Hermes' ${path}`, ANSWER_PATIENCE, answer.text());
      return answer.status === 404 ? null : JSON.parse(body);
    });
    const [{ agent }, ...told] = await Promise.all([this.status(), ...asked]);
    return JSON.parse(log.redactor.clean(JSON.stringify({ ...agent, ...inForce(told) }))) as InForce;
  }

  /** Restarts Hermes alone with new input; returns when it is ready again. */
  async restartGateway(input: LabelledGo, drainSeconds: number): Promise<void> {
    await this.#command("restart-gateway", ["--drain", String(drainSeconds)], {
      stdin: JSON.stringify(input),
      limit: drainSeconds * 1000 + START_OR_END,
    });
  }

  /**
   * Has Hermes' dashboard started, unless it runs, and returns when it answers on {@link DASHBOARD_PORT}.
   * @param hostTools whether Hermes may touch the machine, so that nothing need confine the dashboard.
   * @throws ApiError 503 `dashboard_refused` where it must not run, `dashboard_failed` when it does not come up.
   */
  async dashboard(hostTools: boolean): Promise<void> {
    await this.#command("dashboard", hostTools ? ["--host-tools"] : [], { limit: START_OR_END });
  }

  /** Stops Hermes alone. */
  async stopGateway(drainSeconds: number): Promise<void> {
    await this.#command("stop-gateway", ["--drain", String(drainSeconds)], {
      limit: drainSeconds * 1000 + START_OR_END,
    });
  }

  /**
   * Puts the keys and sign-ins that are kept into the home that was restored.
   * @param has digest of those that it brought along itself, as a snapshot does.
   * @returns why they are lost, or `null`.
   */
  async restoreSignIns(has: string | null): Promise<string | null> {
    const { sandbox, vault, log } = this.#parts;
    const kept = new SignIns(vault.storage);
    if (!kept.isKept || kept.digest === has) return null;
    const cmd = ["sandbox", "restore-sign-ins", "--boot", this.bootId];
    const put = () => run(sandbox, cmd, { stdin: kept.read(), limit: QUICK });
    let result = await put();
    // What was bad on the way once is not given up.
    if (result.exitCode === DAMAGED_ARCHIVE) result = await put();
    if (result.exitCode === 0 || result.exitCode === UNKNOWN) return null;
    if (result.exitCode !== DAMAGED_ARCHIVE) throw commandError("restore", result);
    log.error("sign_ins_lost", { boot: this.bootId, why: result.why });
    kept.drop();
    return `keys and sign-ins: ${result.why}`;
  }

  /** Keeps the keys and sign-ins in the home, unless they are the same as before. */
  async #exportSignIns(): Promise<void> {
    const { sandbox, vault } = this.#parts;
    const kept = new SignIns(vault.storage);
    const cmd = ["sandbox", "save-sign-ins", "--boot", this.bootId, "--unless", kept.digest];
    const process = await sandbox.exec(cmd, { limit: QUICK });
    const failed = async () => commandError("save", await outcome(process));
    const first = await peek(process.stdout);
    if (first === null) {
      const exitCode = await process.exitCode;
      // A sandbox of an earlier release has them in its state.
      if (exitCode === UNCHANGED || exitCode === UNKNOWN) return;
      throw await failed();
    }
    const succeeded = async () => {
      if ((await process.exitCode) !== 0) throw await failed();
    };
    try {
      await kept.write(first, this.bootId, succeeded);
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw commandError("save", { exitCode: FAILED, why: reason(error) });
    }
  }

  /**
   * Streams one archive into the vault, unless the newest good generation has the same content; before it the keys
   * and sign-ins, which are in no backup.
   */
  async export(why: string, image: string): Promise<Saved> {
    await this.#exportSignIns();
    const { sandbox, vault } = this.#parts;
    const newest = vault.good()[0];
    const unless = newest === undefined ? [] : ["--unless", newest.digest];
    const cmd = ["sandbox", "save", "--boot", this.bootId, ...unless];
    const process = await sandbox.exec(cmd, { limit: WHOLE_STATE });
    const first = await peek(process.stdout);
    if (first === null) {
      const exitCode = await process.exitCode;
      if (exitCode === UNCHANGED && newest !== undefined) return this.#confirm(newest, why, image);
      throw commandError("save", { exitCode, why: lastLine(await process.stderr) });
    }
    const succeeded = async () => {
      const exitCode = await process.exitCode;
      if (exitCode !== 0) throw commandError("save", { exitCode, why: lastLine(await process.stderr) });
    };
    const meta = { boot: this.bootId, reason: why, image };
    try {
      return { backup: await vault.write(first, meta, succeeded), unchanged: false };
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw commandError("save", { exitCode: FAILED, why: reason(error) });
    }
  }

  /** "Unchanged" is only as good as the generation it refers to. */
  async #confirm(newest: Generation, why: string, image: string): Promise<Saved> {
    const { vault, log } = this.#parts;
    try {
      vault.check(newest.id);
      return { backup: newest, unchanged: true };
    } catch (error) {
      if (!(error instanceof DamagedGeneration)) throw error;
      log.error("backup_damaged", { backup: newest.id, why: error.message });
      vault.condemn(newest.id, error.message);
      return this.export(why, image);
    }
  }

  /** Ends a wait for a sandbox that is no longer the current one. */
  #mustStillBe(): void {
    if (!this.isCurrent()) throw new SandboxGone(null);
  }

  /** Runs `sandbox NAME --boot ID ...` and throws unless it succeeds. */
  async #command(
    name: string,
    args: readonly string[],
    { stdin = "", limit = QUICK }: { stdin?: string; limit?: number } = {},
  ): Promise<string> {
    const cmd = ["sandbox", name, "--boot", this.bootId, ...args];
    const result = await run(this.#parts.sandbox, cmd, { stdin, limit });
    if (result.exitCode !== 0) throw commandError(name, result);
    return result.stdout;
  }
}

/** Whether a command failed in a way that only something that runs can fail. */
function saysThatItRuns(error: unknown): boolean {
  if (error instanceof EngineError) return error.code === "command_not_found";
  return error instanceof ApiError && !(error instanceof SandboxGone) && error.code.endsWith("_failed");
}

/** How a command ended. */
async function outcome(process: SandboxProcess): Promise<{ exitCode: number; why: string }> {
  return { exitCode: await process.exitCode, why: lastLine(await process.stderr) };
}

/** What `sandbox status` prints. Times are seconds since the epoch. */
interface ToldStatus {
  state?: string;
  configuration?: unknown;
  nextCron?: number | null;
  cronRunning?: number;
  jobError?: { at: number; name: string; id: string; error: string } | null;
  agent?: Laid;
}

/** An exit code alone is not believed: one that got lost reads as 0. */
function parseStatus(text: string): ToldStatus {
  try {
    return JSON.parse(text) as ToldStatus;
  } catch {
    throw commandError("status", { exitCode: 1, why: `it printed no JSON but: ${lastLine(text)}` });
  }
}

/** A command of the sandbox that failed, as `save_failed`, `restart_gateway_failed` and so on. */
function commandError(name: string, result: { exitCode: number; why: string }): Error {
  if (result.exitCode === OTHER_BOOT) return new SandboxGone(null);
  if (result.exitCode === PIPE_GONE || result.why === READER_GONE) return commandCut(name);
  if (result.exitCode === REFUSED && name === "dashboard") return dashboardRefused(result.why);
  if (result.exitCode === DISK_FULL && name === "save") return diskFull(result.why);
  if (result.exitCode === TOO_LARGE && name === "save") return stateTooLarge(result.why);
  const why = result.why === "" ? `exit code ${result.exitCode}` : result.why;
  return new ApiError({
    status: 503,
    code: result.exitCode === NOT_YET ? "sandbox_not_ready" : `${name.replaceAll("-", "_")}_failed`,
    message: `'sandbox ${name}' failed: ${why}`,
    retryAfter: 10,
  });
}

/** Its pipes ended before itself, as with the request that began it. That says nothing about what it did. */
function commandCut(name: string): ApiError {
  return new ApiError({
    status: 503,
    code: COMMAND_CUT,
    message: `'sandbox ${name}' was cut off. Try again.`,
    retryAfter: 3,
  });
}

function diskFull(why: string): ApiError {
  return new ApiError({
    status: 503,
    code: "disk_full",
    message:
      `The state was not saved: ${why} Have Hermes delete what it needs no more, or restart it by force: ` +
      "that brings a new disk, and gives up what was not saved.",
    retryAfter: 10,
  });
}

function stateTooLarge(why: string): ApiError {
  return new ApiError({
    status: 507,
    code: "state_too_large",
    message: `${why} The backups from before are kept. Have Hermes delete what it needs no more, then save again.`,
  });
}

function dashboardRefused(why: string): ApiError {
  return new ApiError({
    status: 503,
    code: "dashboard_refused",
    message: `${why} Install bubblewrap on this machine, or set hermes_host_tools: true, then deploy again.`,
  });
}

/** Looks at the first chunk of a stream without losing it; `null` when there is none. */
async function peek(stream: ReadableStream<Uint8Array>): Promise<ReadableStream<Uint8Array> | null> {
  const reader = stream.getReader();
  let { done, value } = await reader.read();
  while (!done && value?.byteLength === 0) ({ done, value } = await reader.read());
  if (done || value === undefined) return null;
  return startingWith(value, reader);
}
