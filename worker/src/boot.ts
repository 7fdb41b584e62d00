// SPDX-License-Identifier: Apache-2.0
/** One boot: from the snapshot, else from the image and the vault, until Hermes answers; or why it did not. */
import { bootPause, cronPause } from "./clock.ts";
import { goFor, startOf } from "./configuration.ts";
import { EngineError, engineReason, INACTIVITY_LIMIT, Listener, lastLine } from "./engine.ts";
import { ApiError } from "./errors.ts";
import { type Guest, SandboxGone } from "./guest.ts";
import type { BootKeys } from "./hermes-config.ts";
import type { Parts, Running } from "./lifecycle.ts";
import type { Memory, Restored } from "./memory.ts";
import { chooseSnapshot, type SnapshotRecord } from "./snapshots.ts";
import { SILENT, within } from "./time.ts";
import type { Generation } from "./vault.ts";
import { isStartFailure, type Watch } from "./watch.ts";

/** What a boot works with. */
export interface BootParts extends Running {
  watch: Watch;
  guest(bootId: string, keys: BootKeys): Guest;
  /** Nothing runs any more. */
  fallAsleep(wakeAt: number | null, notBefore?: number): void;
}

/** Until a Hermes that was told to go answers with this boot's key, in milliseconds. */
export const READY_PATIENCE = 90_000;
/** Characters of a failed boot's log that are kept, and how long its last words are waited for, in ms. */
const LOG_TAIL = 4000;
const LOG_GRACE = 300;

/** Boots of one instance, one at a time. */
export class Boot {
  readonly #parts: BootParts;

  constructor(parts: BootParts) {
    this.#parts = parts;
  }

  /**
   * Returns when Hermes is ready.
   * @throws ApiError 503 with the reason; what was started is gone then, and the pause before the next attempt set.
   */
  async run(why: string): Promise<void> {
    const { time, log, memory, remember } = this.#parts;
    const began = time.now();
    // A boot that never gets ready leaves the appointments where they were.
    remember({ whyAwake: why, wakeAt: memory.wakeAt ?? memory.nextCron });
    await this.#bringSomehow([]);
    const now = time.now();
    remember({
      state: "awake",
      since: now,
      gatewayStopped: false,
      wokenForCron: why === "cron",
      lastActivity: now,
      lastSave: now,
      firstUnsaved: null,
      lastUnsaved: null,
      wakeAt: null,
      notBefore: 0,
      bootFailures: 0,
      saveFailures: 0,
      failingSince: null,
      boots: memory.boots + 1,
      lastError: null,
    });
    log.info("awake", { boot: memory.bootId, ms: now - began, restored: memory.restored });
  }

  /** With what was brought from elsewhere, else from the snapshot, else from the image and the vault. */
  async #bringSomehow(passedOver: string[]): Promise<void> {
    const { vault, remember } = this.#parts;
    const { offered } = vault;
    if (offered !== null) {
      const upload = { snapshot: null, upload: offered, passedOver };
      if (await this.#tried(upload, `backup ${offered.id}`)) return void vault.prove(offered.id);
      vault.withdraw(offered.id);
    }
    const snapshot = this.#chosen(passedOver);
    if (snapshot !== null) {
      if (await this.#tried({ snapshot, upload: null, passedOver }, `snapshot ${snapshot.id}`)) return;
      remember({ snapshot: null });
    }
    await this.#fromVault(passedOver);
  }

  #chosen(passedOver: string[]): SnapshotRecord | null {
    const { time, settings, memory, vault, remember } = this.#parts;
    const choice = chooseSnapshot(memory, vault, settings.image, time.now());
    if (choice === null) return null;
    if ("use" in choice) return choice.use;
    this.#passOver(passedOver, choice.why);
    remember({ snapshot: null });
    return null;
  }

  /** @returns whether Hermes is ready with it; what did not serve is gone, and told of. */
  async #tried(from: From, name: string): Promise<boolean> {
    const attempt = this.#attempt(from);
    try {
      await attempt.run();
      return true;
    } catch (error) {
      if (isNoEngine(error)) throw await this.#failed(attempt, error);
      this.#passOver(from.passedOver, `${name}: ${engineReason(error)}`);
      await this.#destroyQuietly();
      return false;
    }
  }

  /** An image is tried twice when nothing started at all. */
  async #fromVault(passedOver: string[]): Promise<void> {
    for (let left = 1; ; left--) {
      const attempt = this.#attempt({ snapshot: null, upload: null, passedOver });
      try {
        return await attempt.run();
      } catch (error) {
        if (left === 0 || !isStartFailure(error)) throw await this.#failed(attempt, error);
        this.#parts.log.warn("started_again", { why: engineReason(error) });
        await this.#destroyQuietly();
      }
    }
  }

  #attempt(from: From): Attempt {
    return new Attempt(this.#parts, from);
  }

  #passOver(passedOver: string[], why: string): void {
    passedOver.push(why);
    this.#parts.log.warn("passed_over", { why });
  }

  async #destroyQuietly(): Promise<void> {
    await this.#parts.sandbox
      .destroy()
      .catch((error: unknown) => this.#parts.log.warn("destroy_failed", { why: engineReason(error) }));
  }

  async #failed(attempt: Attempt, cause: unknown): Promise<ApiError> {
    const { log, time, settings, memory, remember, fallAsleep } = this.#parts;
    const { lastExit } = memory;
    if (isNoEngine(cause)) return this.#noEngine(cause);
    const tail = await attempt.tail();
    await this.#destroyQuietly();
    const failures = memory.bootFailures + 1;
    const pause = bootPause(failures);
    const remedy = attempt.answered || isSilent(cause) ? lastWords(tail) : wrongImage(settings.image);
    const error = bootError(cause, remedy, pause);
    log.error("boot_failed", {
      boot: attempt.bootId,
      code: error.code,
      why: error.message,
      log_tail: tail,
      attempt: failures,
    });
    const now = time.now();
    remember({
      lastExit: cause instanceof SandboxGone && lastExit !== null ? { ...lastExit, logTail: tail } : lastExit,
      bootFailures: failures,
      lastError: { at: now, code: error.code, message: error.message },
    });
    fallAsleep(this.#appointmentAfter(cronPause(failures)), now + pause);
    return error;
  }

  /** Nothing was wrong with Hermes, so the next request tries at once; what did run died with its engine. */
  #noEngine(cause: ApiError): ApiError {
    const { log, time, remember, fallAsleep } = this.#parts;
    log.error("boot_failed", { code: cause.code, why: cause.message });
    remember({ lastError: { at: time.now(), code: cause.code, message: cause.message } });
    fallAsleep(this.#appointmentAfter(bootPause(6)));
    return cause;
  }

  /** A job that woke us, or is due soon, is tried again after a pause; nothing else needs a timer. */
  #appointmentAfter(pause: number): number | null {
    const { wakeAt, whyAwake } = this.#parts.memory;
    const soonest = this.#parts.time.now() + pause;
    if (wakeAt === null) return whyAwake === "cron" ? soonest : null;
    return Math.max(wakeAt, soonest);
  }
}

/** What an attempt begins with. */
interface From {
  /** The disk; `null` for a fresh one. */
  snapshot: SnapshotRecord | null;
  /** What was brought from elsewhere and is to be proved; `null` for the newest of the vault. */
  upload: Generation | null;
  /** What would have been newer or faster but was no good, each with the reason. */
  passedOver: string[];
}

/**
 * One start, under a boot id of its own, so that no late news of another is taken for its own. All that it changes it
 * changes as its boot: what it still does when it is over already changes nothing of the next.
 */
class Attempt {
  readonly bootId = crypto.randomUUID();
  readonly #parts: BootParts;
  readonly #from: From;
  readonly #remember: (change: Partial<Memory>) => void;
  /** What the sandbox prints until it is ready. */
  #log: Listener | null = null;
  #answered = false;

  constructor(parts: BootParts, from: From) {
    this.#parts = parts;
    this.#from = from;
    this.#remember = parts.rememberAs(this.bootId);
  }

  /** Whether a command ever worked in its sandbox. */
  get answered(): boolean {
    return this.#answered;
  }

  /** @throws what ended it. */
  async run(): Promise<void> {
    const { time, log, settings, memory, remember } = this.#parts;
    const { snapshot } = this.#from;
    const keys = {
      gatewayKey: randomKey(),
      capability: randomKey(),
      dashboardToken: randomKey(),
    };
    redactKeys(log, keys);
    remember({
      state: "booting",
      since: time.now(),
      bootId: this.bootId,
      keys,
      image: settings.image,
      restored: null,
      startedFrom: snapshot,
    });
    const from = snapshot === null ? "image" : `snapshot ${snapshot.id}`;
    log.info("boot", { boot: this.bootId, why: memory.whyAwake, image: settings.image, from });
    await this.#bring(this.#parts.guest(this.bootId, keys));
  }

  /** start -> commands work -> restore -> go -> ready, each raced against the sandbox's end. */
  async #bring(guest: Guest): Promise<void> {
    const { bootId } = this;
    const { sandbox, settings, watch } = this.#parts;
    const { snapshot } = this.#from;
    // Whatever runs there is of no boot that we remember: it must neither answer nor be saved.
    if ((await sandbox.inspect()).running) await sandbox.destroy();
    await sandbox.start({
      ...(snapshot === null ? { image: settings.image } : { containerSnapshot: { id: snapshot.id } }),
      env: { HERMES_BOOT_ID: bootId },
      labels: { boot: bootId, name: settings.name },
      enableInternet: settings.egress === "open",
    });
    const ended = watch.over(bootId);
    const steps = async () => {
      const works = snapshot === null ? guest.works() : guest.keep();
      // Behind the first command, which nobody who waits for Hermes should have to wait for.
      this.#log = new Listener(sandbox, ["sandbox", "logs", "--boot", bootId, "--follow"], LOG_TAIL);
      await works;
      this.#answered = true;
      const restored = await this.#restore(guest);
      const lost = await guest.restoreSignIns(snapshot?.signIns ?? null);
      const passedOver = [...restored.passedOver, ...(lost === null ? [] : [lost])];
      this.#remember({ restored: { ...restored, passedOver } });
      await guest.go(await goFor(settings, guest.keys));
      await guest.ready(READY_PATIENCE);
      await sandbox.setInactivityTimeout(INACTIVITY_LIMIT);
    };
    const { open, instanceType } = startOf(settings);
    // The engine decides it at each start.
    const { confined } = await sandbox.inspect();
    this.#remember({ confined, started: { open, instanceType } });
    await Promise.race([steps(), ended]);
    if (watch.hasEnded(bootId)) throw new SandboxGone(null);
    this.#log?.stop();
  }

  async #restore(guest: Guest): Promise<Restored> {
    const { snapshot, upload, passedOver } = this.#from;
    if (snapshot !== null) {
      // The platform renews a snapshot that is started from.
      this.#remember({ snapshot: { ...snapshot, renewed: this.#parts.time.now() } });
      return { backup: snapshot.backup, snapshot: snapshot.id, passedOver };
    }
    if (upload !== null) {
      await guest.restoreUpload(upload);
      return { backup: upload.id, snapshot: null, passedOver };
    }
    const restored = await guest.restore();
    return { backup: restored.backup, snapshot: null, passedOver: [...passedOver, ...restored.passedOver] };
  }

  /** The end of its log, without secrets; it was listened to, for a dead sandbox tells nothing. */
  async tail(): Promise<string | null> {
    const log = this.#log;
    if (log === null) return null;
    // What a dying sandbox printed last is still on its way.
    await within(this.#parts.time, LOG_GRACE, log.done);
    log.stop();
    return this.#parts.log.redactor.clean(log.text()) || null;
  }
}

/** Keeps the keys of a boot out of the log. */
export function redactKeys(log: Parts["log"], keys: BootKeys): void {
  log.redactor.add(Object.values(keys));
}

/** A key of 256 random bits. */
export function randomKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(32))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

function isSilent(error: unknown): boolean {
  return error instanceof ApiError && error.code === SILENT;
}

function isNoEngine(error: unknown): error is ApiError {
  return error instanceof ApiError && error.code === "engine_unavailable";
}

/** The refusal that a failed boot leaves behind. */
function bootError(cause: unknown, more: string, pause: number): ApiError {
  const code = cause instanceof ApiError && !(cause instanceof SandboxGone) ? cause.code : codeOf(cause);
  return new ApiError({
    status: 503,
    code,
    message: `Hermes did not start: ${engineReason(cause)}${more}`,
    retryAfter: Math.max(1, pause / 1000),
    cause,
  });
}

function lastWords(tail: string | null): string {
  const last = lastLine(tail ?? "");
  return last === "" ? "" : ` Its log ends with: ${last}`;
}

/** What to do about a sandbox in which nothing could be asked: its log is only the engine's own noise. */
function wrongImage(image: string): string {
  return ` No command worked in it, so ${image} is probably not Hermes' image, or damaged: remove it and deploy again.`;
}

function codeOf(cause: unknown): string {
  return cause instanceof EngineError && cause.status === 507 ? "disk_full" : "boot_failed";
}
