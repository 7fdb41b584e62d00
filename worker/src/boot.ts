// SPDX-License-Identifier: Apache-2.0
/** One boot: from the snapshot, else from the image and the vault, until Hermes answers; or why it did not. */
import { bootPause, cronPause } from "./clock.ts";
import { goFor, startOf } from "./configuration.ts";
import { EngineError, engineReason, INACTIVITY_LIMIT, Listener, lastLine } from "./engine.ts";
import { ApiError } from "./errors.ts";
import { type Guest, SandboxGone } from "./guest.ts";
import type { BootKeys } from "./hermes-config.ts";
import type { Parts } from "./lifecycle.ts";
import type { Memory } from "./memory.ts";
import { chooseSnapshot, type SnapshotRecord } from "./snapshots.ts";
import { within } from "./time.ts";
import { isStartFailure, type Watch } from "./watch.ts";

/** What a boot works with. */
export interface BootParts extends Parts {
  /** The living memory, and the way to change what outlives this object. */
  memory: Readonly<Memory>;
  remember(change: Partial<Memory>): void;
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
  /** What the sandbox of the current boot prints until it is ready. */
  #bootLog: Listener | null = null;
  /** Whether a command ever worked in the sandbox of the current boot. */
  #answered = false;

  constructor(parts: BootParts) {
    this.#parts = parts;
  }

  /**
   * Returns when Hermes is ready.
   * @throws ApiError 503 with the reason; what was started is gone then, and the pause before the next attempt set.
   */
  async run(why: string): Promise<void> {
    const { time, log, settings, memory, vault, remember } = this.#parts;
    const began = time.now();
    // A boot that never gets ready leaves the appointments where they were.
    remember({ whyAwake: why, wakeAt: memory.wakeAt ?? memory.nextCron });
    const passedOver: string[] = [];
    const choice = chooseSnapshot(memory, vault, settings.image, began);
    if (choice !== null && "why" in choice) {
      this.#passOver(passedOver, choice.why);
      remember({ snapshot: null });
    }
    const snapshot = choice !== null && "use" in choice ? choice.use : null;
    await this.#bringSomehow(snapshot, passedOver);
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
      boots: memory.boots + 1,
      lastError: null,
    });
    log.info("awake", { boot: memory.bootId, ms: now - began, restored: memory.restored });
  }

  /** From the snapshot, else from the image and the vault; an image is tried twice when nothing started at all. */
  async #bringSomehow(snapshot: SnapshotRecord | null, passedOver: string[]): Promise<void> {
    if (snapshot !== null) {
      try {
        return await this.#attempt(snapshot, passedOver);
      } catch (error) {
        if (isNoEngine(error)) throw await this.#failed(error);
        this.#passOver(passedOver, `snapshot ${snapshot.id}: ${engineReason(error)}`);
        await this.#destroyQuietly();
        this.#parts.remember({ snapshot: null });
      }
    }
    for (let left = 1; ; left--) {
      try {
        return await this.#attempt(null, passedOver);
      } catch (error) {
        if (left === 0 || !isStartFailure(error)) throw await this.#failed(error);
        this.#parts.log.warn("started_again", { why: engineReason(error) });
        await this.#destroyQuietly();
      }
    }
  }

  #passOver(passedOver: string[], why: string): void {
    passedOver.push(why);
    this.#parts.log.warn("snapshot_passed_over", { why });
  }

  /** One start, under a boot id of its own, so that no late news of another is taken for its own. */
  async #attempt(snapshot: SnapshotRecord | null, passedOver: string[]): Promise<void> {
    const { time, log, settings, memory, remember, guest } = this.#parts;
    const bootId = crypto.randomUUID();
    const keys = {
      gatewayKey: randomKey(),
      capability: randomKey(),
      dashboardToken: randomKey(),
    };
    redactKeys(log, keys);
    this.#bootLog = null;
    this.#answered = false;
    remember({
      state: "booting",
      since: time.now(),
      bootId,
      keys,
      image: settings.image,
      restored: null,
      startedFrom: snapshot,
    });
    const from = snapshot === null ? "image" : `snapshot ${snapshot.id}`;
    log.info("boot", { boot: bootId, why: memory.whyAwake, image: settings.image, from });
    await this.#bring(guest(bootId, keys), snapshot, passedOver);
  }

  /** start -> commands work -> restore -> go -> ready, each raced against the sandbox's end. */
  async #bring(guest: Guest, snapshot: SnapshotRecord | null, passedOver: string[]): Promise<void> {
    const { bootId } = guest;
    const { sandbox, settings, watch, remember } = this.#parts;
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
      this.#bootLog = new Listener(sandbox, ["sandbox", "logs", "--boot", bootId, "--follow"], LOG_TAIL);
      await works;
      this.#answered = true;
      const restored = snapshot === null ? await guest.restore() : this.#keptSnapshot(snapshot);
      const lost = await guest.restoreSignIns(snapshot?.signIns ?? null);
      remember({
        restored: {
          backup: restored.backup,
          snapshot: snapshot?.id ?? null,
          passedOver: [...passedOver, ...restored.passedOver, ...(lost === null ? [] : [lost])],
        },
      });
      await guest.go(await goFor(settings, guest.keys));
      await guest.ready(READY_PATIENCE);
      await sandbox.setInactivityTimeout(INACTIVITY_LIMIT);
    };
    const { open, instanceType } = startOf(settings);
    // The engine decides it at each start.
    const { confined } = await sandbox.inspect();
    remember({ confined, started: { open, instanceType } });
    await Promise.race([steps(), ended]);
    if (watch.hasEnded(bootId)) throw new SandboxGone(null);
    this.#bootLog?.stop();
  }

  #keptSnapshot(snapshot: SnapshotRecord): { backup: number; passedOver: string[] } {
    // The platform renews a snapshot that is started from.
    this.#parts.remember({ snapshot: { ...snapshot, renewed: this.#parts.time.now() } });
    return { backup: snapshot.backup, passedOver: [] };
  }

  async #destroyQuietly(): Promise<void> {
    await this.#parts.sandbox
      .destroy()
      .catch((error: unknown) => this.#parts.log.warn("destroy_failed", { why: engineReason(error) }));
  }

  async #failed(cause: unknown): Promise<ApiError> {
    const { log, time, settings, memory, remember, fallAsleep } = this.#parts;
    const { bootId, lastExit } = memory;
    if (isNoEngine(cause)) return this.#noEngine(cause);
    const tail = await this.#tailOfBoot();
    await this.#destroyQuietly();
    const failures = memory.bootFailures + 1;
    const pause = bootPause(failures);
    const remedy = this.#answered ? lastWords(tail) : wrongImage(settings.image);
    const error = bootError(cause, remedy, pause);
    log.error("boot_failed", {
      boot: bootId,
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

  /** The end of the boot's log, without secrets; it was listened to, for a dead sandbox tells nothing. */
  async #tailOfBoot(): Promise<string | null> {
    const log = this.#bootLog;
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
