// SPDX-License-Identifier: Apache-2.0
/** One boot: from the snapshot, else from the image and the vault, until Hermes answers; or why it did not. */
import { hmac } from "../base/digests.ts";
import { ApiError, reason } from "../base/errors.ts";
import { lastLine } from "../base/streams.ts";
import { Deadline, SILENT, within } from "../base/time.ts";
import { goFor, startOf } from "../config/configuration.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import { COMMAND_CUT, type Restored, type SandboxCommands } from "../sandbox/commands.ts";
import { Listener } from "../sandbox/run.ts";
import {
  EngineError,
  engineReason,
  INACTIVITY_LIMIT,
  isRefusedForNow,
  SandboxGone,
} from "../sandbox/sandbox.ts";
import { chooseSnapshot, type SnapshotRecord } from "../state/snapshots.ts";
import type { Generation } from "../state/vault.ts";
import type { LifecycleParts, SharedParts } from "./parts.ts";
import { bootPause, cronPause } from "./schedule.ts";
import { isStartFailure, type Watch } from "./watch.ts";

/** What a boot works with. */
export interface BootParts extends SharedParts {
  watch: Watch;
  commands(bootId: string, keys: BootKeys): SandboxCommands;
  /** Nothing runs any more. */
  fallAsleep(wakeAt: number | null, notBefore?: number): void;
}

/** Until a Hermes that was told to go answers with this boot's key, in milliseconds. */
export const READY_PATIENCE = 90_000;
/** Characters of a failed boot's log that are kept, and how long its last words are waited for, in ms. */
const LOG_TAIL = 4000;
const LOG_GRACE = 300;
/**
 * What a platform refuses for the moment is tried again for so long, after pauses from the shortest to the longest; in
 * milliseconds. So is a snapshot that it took a moment ago: it may not be where it is started from yet.
 */
const AGAIN_PATIENCE = 30_000;
const SHORTEST_AGAIN = 1000;
const LONGEST_AGAIN = 5000;
/** A snapshot that is younger than this is such a one, in milliseconds. */
const FRESH = 60_000;
/** How often a boot begins anew of which a command was cut off. */
const MAX_CUTS = 2;

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
    const { time, recorder } = this.#parts;
    const began = time.now();
    recorder.bootBegan(why, this.#waitsFor);
    await this.#bringSomehow([]);
    this.#isAwake(began);
  }

  /**
   * Goes on with a boot that an earlier life of this object began, or begins another where that does not get ready.
   * @throws as {@link run} does.
   */
  async takeUp(): Promise<void> {
    const { time, log, record, vault } = this.#parts;
    const began = time.now();
    const { bootId, startedFrom: snapshot, whyAwake } = record;
    const upload = snapshot === null ? vault.offered : null;
    const attempt = new Attempt(this.#parts, { snapshot, upload, passedOver: [] }, bootId ?? undefined);
    try {
      await attempt.takeUp();
      if (upload !== null) vault.prove(upload.id);
    } catch (error) {
      if (isNoEngine(error)) throw await this.#failed(attempt, error);
      log.warn("boot_not_taken_up", { boot: bootId, why: engineReason(error) });
      await this.#destroyQuietly();
      return this.run(whyAwake ?? "reattach");
    }
    this.#isAwake(began);
  }

  /** What a boot waits for until a command works, for people. */
  get #waitsFor(): string {
    const { platform } = this.#parts.settings;
    return platform === "cloudflare"
      ? "Cloudflare is still distributing the image"
      : "the sandbox is starting";
  }

  #isAwake(began: number): void {
    const { time, log, record, recorder } = this.#parts;
    recorder.booted();
    log.info("awake", { boot: record.bootId, ms: time.now() - began, restored: record.restored });
  }

  /** With what was brought from elsewhere, else from the snapshot, else from the image and the vault. */
  async #bringSomehow(passedOver: string[]): Promise<void> {
    const { vault, recorder } = this.#parts;
    const { offered } = vault;
    if (offered !== null) {
      const upload = { snapshot: null, upload: offered, passedOver };
      if (await this.#tried(upload, `backup ${offered.id}`)) return void vault.prove(offered.id);
      vault.withdraw(offered.id);
    }
    const snapshot = this.#chosen(passedOver);
    if (snapshot !== null) {
      if (await this.#tried({ snapshot, upload: null, passedOver }, `snapshot ${snapshot.id}`)) return;
      recorder.snapshotDropped();
    }
    await this.#fromVault(passedOver);
  }

  #chosen(passedOver: string[]): SnapshotRecord | null {
    const { time, settings, record, vault, recorder } = this.#parts;
    const choice = chooseSnapshot(record.snapshot, vault, settings.image, time.now());
    if (choice === null) return null;
    if ("use" in choice) return choice.use;
    this.#passOver(passedOver, choice.why);
    recorder.snapshotDropped();
    return null;
  }

  /** @returns whether Hermes is ready with it; what did not serve is gone, and told of. */
  async #tried(from: From, name: string): Promise<boolean> {
    const failed = await this.#attempts(from);
    if (failed === null) return true;
    const { attempt, error } = failed;
    // Of a platform that has no container for it nothing that it would start with is guilty.
    if (isNoEngine(error) || isRefusedForNow(error)) throw await this.#failed(attempt, error);
    this.#passOver(from.passedOver, `${name}: ${engineReason(error)}`);
    await this.#destroyQuietly();
    return false;
  }

  async #fromVault(passedOver: string[]): Promise<void> {
    const failed = await this.#attempts({ snapshot: null, upload: null, passedOver });
    if (failed !== null) throw await this.#failed(failed.attempt, failed.error);
  }

  /**
   * Attempts with the same beginning until one is through, or fails for what the next one would meet again.
   * @returns the last one and why it failed, or `null` when Hermes is ready.
   */
  async #attempts(from: From): Promise<{ attempt: Attempt; error: unknown } | null> {
    const { time, log, recorder } = this.#parts;
    const tries = new Tries(this.#parts, from);
    try {
      for (let pause = SHORTEST_AGAIN; ; pause = Math.min(2 * pause, LONGEST_AGAIN)) {
        const attempt = new Attempt(this.#parts, from);
        try {
          await attempt.run();
          return null;
        } catch (error) {
          if (!tries.mayGoOn(attempt, error)) return { attempt, error };
          const why = engineReason(error);
          log.warn("started_again", { boot: attempt.bootId, why });
          if (isRefusedForNow(error)) recorder.waits(reason(error));
          await this.#destroyQuietly();
          await time.sleep(pause);
          recorder.waits(this.#waitsFor);
        }
      }
    } finally {
      tries.stop();
    }
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
    const { log, time, record, recorder, fallAsleep } = this.#parts;
    const { lastExit } = record;
    if (isNoEngine(cause)) return this.#noEngine(cause);
    const tail = await attempt.tail();
    await this.#destroyQuietly();
    const failures = record.bootFailures + 1;
    const pause = bootPause(failures);
    const remedy = this.#remedy(attempt, cause, tail);
    const error = bootError(cause, remedy, pause);
    log.error("boot_failed", {
      boot: attempt.bootId,
      code: error.code,
      why: error.message,
      log_tail: tail,
      attempt: failures,
    });
    const ended = cause instanceof SandboxGone && lastExit !== null;
    recorder.bootFailed(error, ended ? { ...lastExit, logTail: tail } : lastExit);
    fallAsleep(this.#appointmentAfter(cronPause(failures)), time.now() + pause);
    return error;
  }

  /** The image is blamed only when it was seen to run: else it is the platform that brought nothing up. */
  #remedy(attempt: Attempt, cause: unknown, tail: string | null): string {
    const { settings } = this.#parts;
    if (attempt.answered || isSilent(cause) || isRefusedForNow(cause)) return lastWords(tail);
    const ended = cause instanceof SandboxGone && cause.exit !== null;
    if (settings.platform !== "cloudflare" || attempt.ran || ended) return wrongImage(settings.image);
    const size = ofTheSize(settings);
    return ` Nothing was seen to run in it: Cloudflare did not bring its container up.${size} The next request tries again.`;
  }

  /** Nothing was wrong with Hermes, so the next request tries at once; what did run died with its engine. */
  #noEngine(cause: ApiError): ApiError {
    const { log, recorder, fallAsleep } = this.#parts;
    log.error("boot_failed", { code: cause.code, why: cause.message });
    recorder.notBooted(cause);
    fallAsleep(this.#appointmentAfter(bootPause(6)));
    return cause;
  }

  /** A job that woke us, or is due soon, is tried again after a pause; nothing else needs a timer. */
  #appointmentAfter(pause: number): number | null {
    const { wakeAt, whyAwake } = this.#parts.record;
    const soonest = this.#parts.time.now() + pause;
    if (wakeAt === null) return whyAwake === "cron" ? soonest : null;
    return Math.max(wakeAt, soonest);
  }
}

/** How often, and for how long, a boot is begun anew. */
class Tries {
  readonly #parts: BootParts;
  readonly #isFresh: boolean;
  readonly #patience: Deadline;
  #startFailures = 0;
  #cuts = 0;

  constructor(parts: BootParts, { snapshot }: From) {
    this.#parts = parts;
    const { time, settings } = parts;
    // Either way: the clock may have been set back.
    const isYoung = snapshot !== null && Math.abs(time.now() - snapshot.renewed) < FRESH;
    this.#isFresh = settings.platform === "cloudflare" && isYoung;
    this.#patience = new Deadline(time, AGAIN_PATIENCE);
  }

  /** Whether another attempt may do better than the one that failed. */
  mayGoOn(attempt: Attempt, error: unknown): boolean {
    if (this.#parts.record.bootId !== attempt.bootId || isNoEngine(error)) return false;
    if (isRefusedForNow(error) || (this.#isFresh && !attempt.answered)) return !this.#patience.isOver;
    if (isStartFailure(error)) return this.#startFailures++ === 0;
    return isCut(error) && this.#cuts++ < MAX_CUTS;
  }

  stop(): void {
    this.#patience.stop();
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
  readonly bootId: string;
  readonly #parts: BootParts;
  readonly #from: From;
  /** What the sandbox prints until it is ready. */
  #log: Listener | null = null;
  #answered = false;
  #commands: SandboxCommands | null = null;

  constructor(parts: BootParts, from: From, bootId: string = crypto.randomUUID()) {
    this.#parts = parts;
    this.#from = from;
    this.bootId = bootId;
  }

  /** Whether a command ever worked in its sandbox. */
  get answered(): boolean {
    return this.#answered;
  }

  /** Whether anything was seen to run in its sandbox. */
  get ran(): boolean {
    return this.#commands?.ran ?? false;
  }

  /** @throws what ended it. */
  async run(): Promise<void> {
    const { log, settings, record, recorder } = this.#parts;
    const { snapshot } = this.#from;
    const keys = {
      ...(await gatewayKeys(settings)),
      capability: randomKey(),
      dashboardToken: randomKey(),
    };
    redactKeys(log, keys);
    recorder.starting({
      bootId: this.bootId,
      keys,
      image: settings.image,
      started: { open: startOf(settings).open, instanceType: settings.instanceType },
      startedFrom: snapshot,
    });
    const from = snapshot === null ? "image" : `snapshot ${snapshot.id}`;
    log.info("boot", { boot: this.bootId, why: record.whyAwake, image: settings.image, from });
    await this.#start();
    const commands = this.#parts.commands(this.bootId, keys);
    await this.#bring(commands, () => this.#begin(commands));
  }

  /** Goes on where an earlier life of this object was cut off. @throws what ended it. */
  async takeUp(): Promise<void> {
    const { record, log, sandbox } = this.#parts;
    if (record.keys === null) throw new SandboxGone(null);
    // What was set at its start went with the life of this object that set it.
    void sandbox.setInactivityTimeout(INACTIVITY_LIMIT).catch(() => undefined);
    log.info("boot_taken_up", { boot: this.bootId });
    const commands = this.#parts.commands(this.bootId, record.keys);
    await this.#bring(commands, async () => {
      const { state } = await commands.waitForCommands();
      if (state !== "waiting") return false;
      if (this.#from.snapshot !== null) await commands.acceptSnapshot();
      return true;
    });
  }

  async #start(): Promise<void> {
    const { bootId } = this;
    const { sandbox, settings } = this.#parts;
    const { snapshot } = this.#from;
    // Whatever runs there is of no boot that we remember: it must neither answer nor be saved.
    if ((await sandbox.inspect()).running) await sandbox.destroy();
    await sandbox.start({
      ...(snapshot === null ? { image: settings.image } : { containerSnapshot: { id: snapshot.id } }),
      env: { HERMES_BOOT_ID: bootId },
      labels: { boot: bootId, name: settings.name },
      enableInternet: settings.egress === "open",
    });
  }

  /** The first command of a sandbox that was just started; its home is to be restored. */
  async #begin(commands: SandboxCommands): Promise<true> {
    await (this.#from.snapshot === null ? commands.waitForCommands() : commands.acceptSnapshot());
    return true;
  }

  /**
   * Commands work -> restore -> go -> ready, each raced against the sandbox's end.
   * @param begin does the first command, and tells whether Hermes is still to be started.
   */
  async #bring(commands: SandboxCommands, begin: () => Promise<boolean>): Promise<void> {
    const { bootId } = this;
    const { sandbox, watch, recorder } = this.#parts;
    this.#commands = commands;
    const ended = watch.over(bootId);
    const steps = async () => {
      const begun = begin();
      // Behind the first command, which nobody who waits for Hermes should have to wait for.
      this.#log = new Listener(sandbox, ["sandbox", "logs", "--boot", bootId, "--follow"], LOG_TAIL);
      const isToStart = await begun;
      this.#answered = true;
      recorder.as(bootId, (it) => it.commandsWork());
      if (isToStart) await this.#startHermes(commands);
      await commands.ready(READY_PATIENCE);
      await sandbox.setInactivityTimeout(INACTIVITY_LIMIT);
    };
    // The engine decides it at each start.
    const { confined } = await sandbox.inspect();
    recorder.as(bootId, (it) => it.isConfined(confined));
    await Promise.race([steps(), ended]);
    if (watch.hasEnded(bootId)) throw new SandboxGone(null);
    this.#log?.stop();
  }

  async #startHermes(commands: SandboxCommands): Promise<void> {
    const restored = await this.#restore(commands);
    const lost = await commands.restoreSignIns(this.#from.snapshot?.signIns ?? null);
    const passedOver = [...restored.passedOver, ...(lost === null ? [] : [lost])];
    this.#parts.recorder.as(this.bootId, (it) => it.restored({ ...restored, passedOver }));
    const { settings, agentArchive } = this.#parts;
    await commands.go(await goFor(settings, commands.keys, agentArchive));
  }

  async #restore(commands: SandboxCommands): Promise<Restored> {
    const { snapshot, upload, passedOver } = this.#from;
    if (snapshot !== null) {
      this.#parts.recorder.as(this.bootId, (it) => it.snapshotUsed(snapshot));
      return { backup: snapshot.backup, snapshot: snapshot.id, passedOver };
    }
    if (upload !== null) {
      await commands.restoreUpload(upload);
      return { backup: upload.id, snapshot: null, passedOver };
    }
    const restored = await commands.restore();
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
export function redactKeys(log: LifecycleParts["log"], keys: BootKeys): void {
  const { gatewayKey, capability, dashboardToken } = keys;
  log.redactor.add([gatewayKey, capability, dashboardToken]);
}

/**
 * The key between the Worker and a Hermes that is about to start, a new one for each start. Where the owner chose a
 * token it is made of that, so that who has the token can tell the key; no sandbox ever has the token itself.
 */
export async function gatewayKeys({
  secrets,
}: LifecycleParts["settings"]): Promise<Pick<BootKeys, "gatewayKey" | "gatewayStart">> {
  const token = secrets.GATEWAY_TOKEN;
  if (token === undefined) return { gatewayKey: randomKey() };
  const gatewayStart = crypto.randomUUID();
  return { gatewayKey: await hmac(token, gatewayStart), gatewayStart };
}

/** A key of 256 random bits. */
function randomKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(32))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

function isSilent(error: unknown): boolean {
  return error instanceof ApiError && error.code === SILENT;
}

/** Whether a command, or the way to it, was cut off, and nobody knows anything that would be wrong. */
function isCut(error: unknown): boolean {
  if (error instanceof ApiError) return error.code === COMMAND_CUT;
  return !(error instanceof EngineError) && /cut off|connection lost|disconnected/i.test(reason(error));
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

/** What it may be where nothing came up: of one size Cloudflare's pages say that it is not started, its types that it is. */
function ofTheSize({ instanceType }: LifecycleParts["settings"]): string {
  if (instanceType !== "basic") return "";
  return " It may not start the size basic: then say hermes_instance_type: standard-1, and deploy.";
}

/** What to do about a sandbox in which nothing could be asked: its log is only the engine's own noise. */
function wrongImage(image: string): string {
  return ` No command worked in it, so ${image} is probably not Hermes' image, or damaged: remove it and deploy again.`;
}

function codeOf(cause: unknown): string {
  return cause instanceof EngineError && cause.status === 507 ? "disk_full" : "boot_failed";
}
