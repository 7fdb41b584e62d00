// SPDX-License-Identifier: Apache-2.0
/**
 * The life of one sandbox: asleep, booting, awake, saving, stopping. Everything that starts, saves or stops
 * it goes through here. It knows no HTTP of its own and asks the clock it was given, so that a simulator can
 * drive it.
 */
import {
  bootPause,
  type Chores,
  cronPause,
  LONGEST_PAUSE,
  maySleep,
  nextDue,
  type Policy,
  policyFor,
} from "./clock.ts";
import {
  EngineError,
  type Exit,
  engineReason,
  isNotRunning,
  Listener,
  lastLine,
  type Sandbox,
} from "./engine.ts";
import { ApiError } from "./errors.ts";
import { API_PORT, Guest, SandboxGone, type Saved } from "./guest.ts";
import { type BootKeys, buildGo, configDigest } from "./hermes-config.ts";
import type { Log } from "./log.ts";
import { type Memory, newMemory, type ProviderTrouble } from "./memory.ts";
import { Saving } from "./saving.ts";
import type { Settings } from "./settings.ts";
import { chooseSnapshot, type SnapshotRecord } from "./snapshots.ts";
import { type Time, within } from "./time.ts";
import type { Vault } from "./vault.ts";

/** What the lifecycle works with. */
export interface Parts {
  settings: Settings;
  sandbox: Sandbox;
  vault: Vault;
  time: Time;
  log: Log;
  /** Keeps {@link Memory}; a get returns what the last put stored. */
  store: { get(): Memory | undefined; put(memory: Memory): void };
  /** Sets the one alarm, or clears it with `null`. Milliseconds since the epoch. */
  setAlarm(at: number | null): void;
}

/** Until a Hermes that was told to go answers with this boot's key. */
const READY_PATIENCE = 90_000;
/** Until a running Hermes that we found again answers. */
const REATTACH_PATIENCE = 30_000;
/** Characters of a failed boot's log that are kept, and how long its last words are waited for, in ms. */
const LOG_TAIL = 4000;
const LOG_GRACE = 300;
/** A lost engine is usually back after so long. */
const LOOK_AGAIN = 1500;
/** A sandbox that died has its appointments kept after so long: soon, but not in a circle. */
const AFTER_DEATH = 45_000;
/** How often, and after how long, the state of a Hermes that is given up is tried to be saved. */
const LAST_SAVES = 3;
const LAST_SAVES_PAUSE = 2000;
/** How often a request sees its sandbox die before it is refused. */
const MAX_DEATHS = 5;
/** The platform ends a sandbox that nobody asked anything for so long. */
const INACTIVITY_LIMIT = 6 * 3600_000;

/** The life of one sandbox. */
export class Lifecycle {
  readonly #parts: Parts;
  readonly #policy: Policy;
  readonly #memory: Memory;
  /** The boot under way, whoever asked for it. */
  #boot: Promise<void> | null = null;
  /** A restart of Hermes alone under way. */
  #gatewayStart: Promise<void> | null = null;
  /** A stop, restart or sleep under way; everything else waits for it. */
  #transition: Promise<unknown> | null = null;
  /** Finding a sandbox again after this object was restarted, or after its watch was lost. */
  #reattach: Promise<void> | null = null;
  /** Whether somebody would tell us that the sandbox ended. */
  #watched = false;
  /** What the sandbox of the current boot prints until it is ready. */
  #bootLog: Listener | null = null;
  /** The boot whose sandbox is known to have ended. */
  #ended: string | null = null;
  readonly #saving: Saving;
  #inFlight = 0;
  #atHermes = 0;
  #drained: (() => void)[] = [];
  /** When the alarm is set for; unknown in a new object, for the platform keeps it. */
  #alarm: number | null | undefined = undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#policy = policyFor(parts.settings.sleepAfter);
    this.#memory = { ...newMemory(parts.time.now()), ...parts.store.get() };
    if (this.#memory.keys !== null) this.#redactKeys(this.#memory.keys);
    this.#saving = new Saving({
      ...parts,
      memory: this.#memory,
      remember: (change) => this.#remember(change),
      // A boot that is not through yet has nothing to save, whatever a save that waited believes.
      guest: () => (this.#memory.state === "booting" ? null : this.#guestOrNone()),
    });
    this.#arm();
  }

  /** What is remembered; a copy. */
  get memory(): Readonly<Memory> {
    return { ...this.#memory };
  }

  /** Requests that are not yet answered to their end. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Digest of this boot's capability is compared against this; `null` when no sandbox runs. */
  get capability(): string | null {
    return this.#memory.keys?.capability ?? null;
  }

  /** Whether a sandbox may run that this object has not looked at yet. */
  get mustReattach(): boolean {
    return (
      this.#memory.state !== "asleep" && !this.#watched && this.#boot === null && this.#transition === null
    );
  }

  // Requests

  /** Counts a request from its arrival to the end of its answer; call the result once. */
  arrive(): () => void {
    this.#inFlight++;
    this.#memory.lastActivity = this.#parts.time.now();
    this.#memory.wokenForCron = false;
    let gone = false;
    return () => {
      if (gone) return;
      gone = true;
      this.#inFlight--;
      this.#memory.lastActivity = this.#parts.time.now();
      this.#arm();
    };
  }

  /**
   * Waits until Hermes is ready and takes a seat there; call the result when the turn is over.
   * @param writes whether the turn changes Hermes' state.
   * @throws ApiError when it does not get ready.
   */
  async seat(why: string, writes: boolean): Promise<{ keys: BootKeys; bootId: string; leave: () => void }> {
    let ready = this.#readyNow();
    // Between the look that found it ready and our turn, a stop may have begun that did not count us.
    for (; ready === null; ready = this.#readyNow()) await this.wake(why);
    const { keys, bootId } = ready;
    this.#atHermes++;
    if (writes) this.#turnBegins();
    let left = false;
    const leave = () => {
      if (left) return;
      left = true;
      this.#atHermes--;
      if (writes) this.#turnEnds();
      if (this.#atHermes === 0) for (const tell of this.#drained.splice(0)) tell();
    };
    return { keys, bootId, leave };
  }

  /** The port of Hermes' API. */
  get port(): { fetch(url: string, init?: RequestInit): Promise<Response> } {
    return this.#parts.sandbox.getTcpPort(API_PORT);
  }

  /** From its beginning a turn counts as unsaved, so that a crash of this object does not hide it. */
  #turnBegins(): void {
    if (this.#memory.firstUnsaved !== null) return;
    const now = this.#parts.time.now();
    this.#remember({ firstUnsaved: now, lastUnsaved: now });
    this.#arm();
  }

  #turnEnds(): void {
    const now = this.#parts.time.now();
    if (this.#memory.firstUnsaved === null) this.#remember({ firstUnsaved: now, lastUnsaved: now });
    else this.#memory.lastUnsaved = now;
    this.#arm();
  }

  // Waking

  /**
   * Returns when Hermes is ready: at once when it is, else after the one boot that all wait for.
   * @throws ApiError 503 with the reason; `Retry-After` while a failed boot's pause lasts.
   */
  async wake(why: string): Promise<void> {
    let deaths = 0;
    while (this.#readyNow() === null) {
      try {
        await this.#nextStep(why);
      } catch (error) {
        if (!(error instanceof SandboxGone)) throw told(error);
        if (++deaths >= MAX_DEATHS) throw diedError();
      }
    }
  }

  /** The boot that can be asked at this very moment. */
  #readyNow(): { keys: BootKeys; bootId: string } | null {
    const { state, keys, bootId, gatewayStopped } = this.#memory;
    if (!this.#settled || state === "asleep" || gatewayStopped) return null;
    return keys === null || bootId === null ? null : { keys, bootId };
  }

  /** One step on the way to a Hermes that is ready. */
  async #nextStep(why: string): Promise<void> {
    if (this.#transition !== null) await this.#transition.catch(() => undefined);
    else if (this.#boot !== null) await this.#boot;
    else if (this.mustReattach) await this.reattach();
    else if (this.#memory.state === "asleep") await this.#startBoot(why);
    else await this.restartGateway();
  }

  #startBoot(why: string): Promise<void> {
    const { bootFailures, notBefore, lastError } = this.#memory;
    const now = this.#parts.time.now();
    const left = notBefore - now;
    // More than there can be left is of a clock that was set back.
    if (left > 0 && left <= bootPause(bootFailures))
      return Promise.reject(
        new ApiError({
          status: 503,
          code: lastError?.code ?? "boot_failed",
          message: `${lastError?.message ?? "Hermes did not start."} The next attempt is made in a moment.`,
          retryAfter: left / 1000,
        }),
      );
    this.#boot = this.#bootOnce(why).finally(() => {
      this.#boot = null;
      this.#arm();
      this.#lookIfLost();
    });
    return this.#boot;
  }

  async #bootOnce(why: string): Promise<void> {
    const { time, log, settings } = this.#parts;
    const began = time.now();
    // A boot that never gets ready leaves the appointments where they were.
    this.#remember({ whyAwake: why, wakeAt: this.#memory.wakeAt ?? this.#memory.nextCron });
    const passedOver: string[] = [];
    const choice = chooseSnapshot(this.#memory, this.#parts.vault, settings.image, began);
    if (choice !== null && "why" in choice) {
      this.#passOver(passedOver, choice.why);
      this.#remember({ snapshot: null });
    }
    const snapshot = choice !== null && "use" in choice ? choice.use : null;
    await this.#bringSomehow(snapshot, passedOver);
    const now = time.now();
    this.#remember({
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
      boots: this.#memory.boots + 1,
      lastError: null,
    });
    log.info("awake", { boot: this.#memory.bootId, ms: now - began, restored: this.#memory.restored });
  }

  /** From the snapshot, else from the image and the vault; an image is tried twice when nothing started at all. */
  async #bringSomehow(snapshot: SnapshotRecord | null, passedOver: string[]): Promise<void> {
    if (snapshot !== null) {
      try {
        return await this.#attempt(snapshot, passedOver);
      } catch (error) {
        if (isNoEngine(error)) throw await this.#bootFailed(error);
        this.#passOver(passedOver, `snapshot ${snapshot.id}: ${engineReason(error)}`);
        await this.#destroyQuietly();
        this.#remember({ snapshot: null });
      }
    }
    for (let left = 1; ; left--) {
      try {
        return await this.#attempt(null, passedOver);
      } catch (error) {
        if (left === 0 || !isStartFailure(error)) throw await this.#bootFailed(error);
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
    const { time, log, settings } = this.#parts;
    const bootId = crypto.randomUUID();
    const keys = { gatewayKey: randomKey(), capability: randomKey() };
    this.#redactKeys(keys);
    this.#bootLog = null;
    this.#remember({
      state: "booting",
      since: time.now(),
      bootId,
      keys,
      image: settings.image,
      restored: null,
      startedFrom: snapshot,
    });
    const from = snapshot === null ? "image" : `snapshot ${snapshot.id}`;
    log.info("boot", { boot: bootId, why: this.#memory.whyAwake, image: settings.image, from });
    await this.#bring(this.#guest(bootId, keys), snapshot, passedOver);
  }

  /** start -> commands work -> restore -> go -> ready, each raced against the sandbox's end. */
  async #bring(guest: Guest, snapshot: SnapshotRecord | null, passedOver: string[]): Promise<void> {
    const { bootId } = guest;
    const { sandbox, settings } = this.#parts;
    const found = await sandbox.inspect();
    // Whatever runs there is of no boot that we remember: it must neither answer nor be saved.
    if (found.running) await sandbox.destroy();
    await sandbox.start({
      ...(snapshot === null ? { image: settings.image } : { containerSnapshot: { id: snapshot.id } }),
      env: { HERMES_BOOT_ID: bootId },
      labels: { boot: bootId, name: settings.name },
      enableInternet: true,
    });
    const ended = this.#watch(bootId);
    this.#bootLog = new Listener(sandbox, ["sandbox", "logs", "--boot", bootId, "--follow"], LOG_TAIL);
    const steps = async () => {
      await guest.works();
      const restored = snapshot === null ? await guest.restore() : await this.#keepSnapshot(guest, snapshot);
      this.#remember({
        restored: {
          backup: restored.backup,
          snapshot: snapshot?.id ?? null,
          passedOver: [...passedOver, ...restored.passedOver],
        },
      });
      await guest.go(buildGo(settings, guest.keys));
      await guest.ready(READY_PATIENCE);
      await sandbox.setInactivityTimeout(INACTIVITY_LIMIT);
    };
    this.#remember({ confined: found.confined, configDigest: await configDigest(settings) });
    await Promise.race([steps(), ended]);
    if (this.#ended === bootId) throw new SandboxGone(null);
    this.#bootLog.stop();
  }

  async #keepSnapshot(
    guest: Guest,
    snapshot: SnapshotRecord,
  ): Promise<{ backup: number; passedOver: string[] }> {
    await guest.keep();
    // The platform renews a snapshot that is started from.
    this.#remember({ snapshot: { ...snapshot, renewed: this.#parts.time.now() } });
    return { backup: snapshot.backup, passedOver: [] };
  }

  async #destroyQuietly(): Promise<void> {
    await this.#parts.sandbox
      .destroy()
      .catch((error: unknown) => this.#parts.log.warn("destroy_failed", { why: engineReason(error) }));
  }

  /** Tells when the sandbox of a boot ends. The promise only ever rejects, with {@link SandboxGone}. */
  #watch(bootId: string): Promise<never> {
    this.#watched = true;
    const ended = this.#parts.sandbox.monitor().then(
      (exit) => this.#onExit(bootId, exit),
      (error) => this.#onWatchLost(bootId, error),
    );
    ended.catch(() => undefined);
    return ended;
  }

  #onExit(bootId: string, exit: Exit): never {
    this.#ended = bootId;
    if (this.#memory.bootId === bootId) this.#gone(exit);
    throw new SandboxGone(exit);
  }

  /** The engine went away or the watch was cut: nobody knows, so the next one who needs Hermes looks. */
  #onWatchLost(bootId: string, error: unknown): never {
    const over = isNotRunning(error) || isStartFailure(error);
    if (over) this.#ended = bootId;
    if (this.#memory.bootId === bootId) {
      this.#watched = false;
      if (over) this.#gone(null);
      else {
        this.#parts.log.warn("watch_lost", { boot: bootId, why: engineReason(error) });
        void this.#lookAgain().catch(() => undefined);
      }
    }
    if (isStartFailure(error)) throw error;
    throw new SandboxGone(null);
  }

  /** The next request would look as well, but the status page should not have to wait for one. */
  async #lookAgain(): Promise<void> {
    await this.#parts.time.sleep(LOOK_AGAIN);
    if (this.mustReattach) await this.reattach();
  }

  /** It may have died while a boot or a stop was to draw the conclusions, and then did not see it any more. */
  #lookIfLost(): void {
    if (this.mustReattach) void this.#lookAgain().catch(() => undefined);
  }

  /** The sandbox ended. While we boot or stop, whoever does that draws the conclusions. */
  #gone(exit: Exit | null): void {
    const { log, time } = this.#parts;
    this.#watched = false;
    if (this.#transition !== null) return;
    const exitCode = exit?.exitCode ?? null;
    this.#remember({ lastExit: { at: time.now(), exitCode, logTail: null } });
    if (this.#boot !== null) return;
    log.warn("sandbox_ended", { boot: this.#memory.bootId, exit_code: exitCode });
    this.#died();
  }

  /** It ended without having been told to. What it had to do at which time is known from when it was asked last. */
  #died(): void {
    const { wakeAt, nextCron } = this.#memory;
    const appointment = wakeAt ?? nextCron;
    const soonest = this.#parts.time.now() + AFTER_DEATH;
    this.#fallAsleep(appointment === null ? null : Math.max(appointment, soonest));
  }

  /** Nothing runs any more. */
  #fallAsleep(wakeAt: number | null, notBefore = 0): void {
    this.#watched = false;
    this.#remember({
      state: "asleep",
      since: this.#parts.time.now(),
      bootId: null,
      keys: null,
      whyAwake: null,
      wokenForCron: false,
      gatewayStopped: false,
      firstUnsaved: null,
      lastUnsaved: null,
      startedFrom: null,
      wakeAt,
      notBefore,
    });
    this.#arm();
  }

  async #bootFailed(cause: unknown): Promise<ApiError> {
    const { log, time } = this.#parts;
    const { bootId, lastExit } = this.#memory;
    if (isNoEngine(cause)) return this.#noEngine(cause);
    const tail = await this.#tailOfBoot();
    await this.#destroyQuietly();
    const failures = this.#memory.bootFailures + 1;
    const pause = bootPause(failures);
    const error = bootError(cause, tail, pause);
    log.error("boot_failed", {
      boot: bootId,
      code: error.code,
      why: error.message,
      log_tail: tail,
      attempt: failures,
    });
    const now = time.now();
    this.#remember({
      lastExit: cause instanceof SandboxGone && lastExit !== null ? { ...lastExit, logTail: tail } : lastExit,
      bootFailures: failures,
      lastError: { at: now, code: error.code, message: error.message },
    });
    this.#fallAsleep(this.#appointmentAfter(cronPause(failures)), now + pause);
    return error;
  }

  /** Nothing was wrong with Hermes, so the next request tries at once; what did run died with its engine. */
  #noEngine(cause: ApiError): ApiError {
    const now = this.#parts.time.now();
    this.#parts.log.error("boot_failed", { code: cause.code, why: cause.message });
    this.#remember({ lastError: { at: now, code: cause.code, message: cause.message } });
    this.#fallAsleep(this.#appointmentAfter(bootPause(6)));
    return cause;
  }

  /** A job that woke us, or is due soon, is tried again after a pause; nothing else needs a timer. */
  #appointmentAfter(pause: number): number | null {
    const { wakeAt, whyAwake } = this.#memory;
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

  // Finding a running sandbox again

  /**
   * Looks whether the sandbox that is remembered still runs and is ours; else this object is asleep.
   * @throws ApiError `engine_unavailable` when nobody can tell.
   */
  reattach(): Promise<void> {
    this.#reattach ??= this.#reattachOnce().finally(() => {
      this.#reattach = null;
      this.#arm();
    });
    return this.#reattach;
  }

  async #reattachOnce(): Promise<void> {
    const { sandbox, log, time } = this.#parts;
    const { bootId, keys, state } = this.#memory;
    const found = await sandbox.inspect();
    const label = found.labels?.["boot"];
    const ours =
      found.running && bootId !== null && keys !== null && (label === undefined || label === bootId);
    if (!ours) {
      if (found.running) await sandbox.destroy();
      log.warn("sandbox_lost", { boot: bootId, running: found.running });
      this.#remember({ lastExit: { at: time.now(), exitCode: null, logTail: null } });
      return this.#died();
    }
    // A boot that was cut off cannot be taken up where it was; a stop that was has not happened.
    const answers = state !== "booting" && (await this.#answersAgain(this.#guest(bootId, keys)));
    if (this.#memory.bootId !== bootId) return;
    if (!answers) return this.#giveUp(bootId, state !== "booting");
    await sandbox.setInactivityTimeout(INACTIVITY_LIMIT);
    const now = time.now();
    this.#remember({
      state: "awake",
      firstUnsaved: this.#memory.firstUnsaved ?? now,
      lastUnsaved: this.#memory.lastUnsaved ?? now,
    });
    void this.#watch(bootId).catch(() => undefined);
    log.info("reattached", { boot: bootId });
  }

  /** Ends a sandbox whose Hermes does not answer; what it knows is saved as well as it can be. */
  async #giveUp(bootId: string, save: boolean): Promise<void> {
    const { sandbox, log, time } = this.#parts;
    let saved = false;
    // Turns under way may yet come to their end, and then belong to what is saved.
    if (save) await this.#drain().catch(() => undefined);
    for (let left = LAST_SAVES; save && !saved && left > 0; left--) {
      saved = await this.#saving.save("before giving up").then(
        () => true,
        () => false,
      );
      if (!saved && left > 1) await time.sleep(LAST_SAVES_PAUSE);
    }
    await sandbox.destroy();
    log.warn("sandbox_given_up", { boot: bootId, saved });
    this.#died();
  }

  async #answersAgain(guest: Guest): Promise<boolean> {
    try {
      // A command may fail for once; what has to be given up is lost.
      await guest.works();
      const { state } = await guest.status();
      if (this.#memory.gatewayStopped || state === "stopped") {
        this.#remember({ gatewayStopped: true });
        return true;
      }
      await guest.ready(REATTACH_PATIENCE);
      return true;
    } catch (error) {
      this.#parts.log.warn("reattach_failed", { boot: guest.bootId, why: engineReason(error) });
      return false;
    }
  }

  // Saving

  /**
   * Saves the state now.
   * @returns `null` when Hermes is asleep: the newest backup is its state.
   * @throws ApiError or Error with the reason; the generations before stay.
   */
  async save(why: string): Promise<Saved | null> {
    await this.#settle();
    if (this.#memory.state === "asleep") return null;
    return this.#saving.save(why);
  }

  // Stopping

  /**
   * Saves, verifies the save and ends the sandbox.
   * @returns `null` when Hermes was asleep already.
   * @throws ApiError 409 `busy` when requests outlast the drain timeout; the save's error otherwise.
   */
  sleep(): Promise<Saved | null> {
    return this.#exclusively(async () => {
      if (this.#memory.state === "asleep") return null;
      await this.#drain();
      const { nextCron } = await this.#chores().catch(() => this.#memory);
      const saved = await this.#saving.verified("sleep");
      await this.#saving.snapshot(saved);
      await this.#end(nextCron);
      return saved;
    });
  }

  /**
   * Saves, ends the sandbox and boots from the current image.
   * @param force whether to go on when the save fails, losing what came after the last one; and whether to
   * leave everything behind that is not in the vault.
   */
  async restart(force: boolean): Promise<void> {
    await this.#exclusively(async () => {
      if (force) this.#remember({ snapshot: null });
      if (this.#memory.state === "asleep") return;
      await this.#drain().catch((error: unknown) => {
        if (!force) throw error;
      });
      const saved = await this.#saving.verified("restart").catch((error: unknown) => {
        if (!force) throw error;
        this.#parts.log.warn("restart_without_save", { why: engineReason(error) });
        return null;
      });
      if (!force && saved !== null && this.#memory.image === this.#parts.settings.image)
        await this.#saving.snapshot(saved);
      await this.#end(this.#memory.nextCron);
    });
    this.#remember({ notBefore: 0 });
    await this.wake("restart");
  }

  /** Restarts Hermes alone, with today's configuration; streams under way are drained. Who asks meanwhile shares it. */
  restartGateway(): Promise<void> {
    this.#gatewayStart ??= this.#restartGatewayOnce().finally(() => {
      this.#gatewayStart = null;
    });
    return this.#gatewayStart;
  }

  async #restartGatewayOnce(): Promise<void> {
    const { settings, log } = this.#parts;
    const restarted = await this.#exclusively(async () => {
      const guest = this.#guestOrNone();
      if (guest === null) return false;
      await guest.restartGateway(buildGo(settings, guest.keys), this.#drainSeconds);
      this.#remember({ gatewayStopped: false, configDigest: await configDigest(settings) });
      await guest.ready(READY_PATIENCE);
      log.info("gateway_restarted", { boot: guest.bootId });
      return true;
    });
    if (!restarted) await this.wake("restart-gateway");
  }

  /** Stops Hermes and leaves the sandbox; the next request starts Hermes again. */
  async stopGateway(): Promise<void> {
    await this.#exclusively(async () => {
      const guest = this.#guestOrNone();
      if (guest === null) return;
      await this.#drain();
      await guest.stopGateway(this.#drainSeconds);
      this.#remember({ gatewayStopped: true });
      this.#parts.log.info("gateway_stopped", { boot: guest.bootId });
    });
  }

  /** What Hermes has to do by itself. */
  async #chores(): Promise<Chores> {
    const guest = this.#guestOrNone();
    if (guest === null) throw new SandboxGone(null);
    const [{ chores }, background] = await Promise.all([guest.status(), guest.background()]);
    // A job under way that is cut off has to be done again.
    const nextCron = chores.cronRunning > 0 ? this.#parts.time.now() : chores.nextCron;
    if (this.#memory.bootId === guest.bootId) this.#remember({ nextCron });
    return { ...chores, background };
  }

  get #drainSeconds(): number {
    return Math.ceil(this.#parts.settings.drainTimeout / 1000);
  }

  /** The sandbox of the current boot. */
  #guestOrNone(): Guest | null {
    const { bootId, keys } = this.#memory;
    return bootId === null || keys === null ? null : this.#guest(bootId, keys);
  }

  #guest(bootId: string, keys: BootKeys): Guest {
    const isCurrent = () => this.#memory.bootId === bootId && this.#ended !== bootId;
    return new Guest(this.#parts, bootId, keys, isCurrent);
  }

  /** Lets a boot, a stop or a look at a found sandbox come to its end; nothing happens between that and the return. */
  async #settle(): Promise<void> {
    while (!this.#settled) {
      if (this.#transition !== null) await this.#transition.catch(() => undefined);
      else if (this.#boot !== null) await this.#boot.catch(() => undefined);
      else await this.reattach();
    }
  }

  get #settled(): boolean {
    return this.#transition === null && this.#boot === null && !this.mustReattach;
  }

  /** Everything that wants Hermes waits until `work` is done; on failure Hermes is as before. */
  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    // What was settled may have begun to move before we got our turn.
    while (!this.#settled)
      await this.#settle().catch((error: unknown) => {
        throw told(error);
      });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#transition = promise;
    if (this.#memory.state !== "asleep") this.#remember({ state: "stopping", since: this.#parts.time.now() });
    try {
      return await work();
    } catch (error) {
      throw told(error);
    } finally {
      this.#transition = null;
      if (this.#memory.state === "stopping")
        this.#remember({ state: "awake", since: this.#parts.time.now() });
      this.#arm();
      this.#lookIfLost();
      resolve();
    }
  }

  /** Waits for the turns that Hermes is at. */
  async #drain(): Promise<void> {
    if (this.#atHermes === 0) return;
    const { time, settings } = this.#parts;
    const empty = new Promise<true>((resolve) => this.#drained.push(() => resolve(true)));
    if ((await within(time, settings.drainTimeout, empty)) === undefined && this.#atHermes > 0)
      throw new ApiError({
        status: 409,
        code: "busy",
        message:
          `${this.#atHermes} requests were still being answered after ${settings.drainTimeout / 1000} s; nothing was ` +
          "stopped. Try again when they are done.",
        retryAfter: 30,
      });
  }

  async #end(wakeAt: number | null): Promise<void> {
    await this.#parts.sandbox.destroy();
    this.#remember({ nextCron: wakeAt });
    this.#parts.log.info("asleep", { boot: this.#memory.bootId, wake_at: wakeAt });
    this.#fallAsleep(wakeAt);
  }

  // The clock

  /** Does what is due, then sets the alarm for what comes next. Never throws. */
  async onAlarm(): Promise<void> {
    // One that rang twice may have another behind it.
    this.#alarm = undefined;
    try {
      await this.#settle();
      const due = this.#due();
      if (due !== null && due.at <= this.#parts.time.now()) await this.#do(due.what);
    } catch (error) {
      const { log, time } = this.#parts;
      log.warn("alarm_failed", { why: engineReason(error) });
      // What failed has set its own pause, or else nobody has.
      if (this.#memory.notBefore <= time.now()) this.#remember({ notBefore: time.now() + 15_000 });
    }
    this.#arm();
  }

  async #do(what: "save" | "sleep" | "wake"): Promise<void> {
    if (what === "wake") await this.wake("cron");
    else if (what === "sleep") await this.#sleepWhenIdle();
    else {
      await this.#saving.save("checkpoint");
      await this.#chores();
    }
  }

  /** A sleep that any request calls off. */
  async #sleepWhenIdle(): Promise<void> {
    const { time } = this.#parts;
    const { lastActivity, bootId } = this.#memory;
    const verdict = maySleep(time.now(), lastActivity, await this.#chores());
    if (!verdict.sleep) return this.#remember({ notBefore: verdict.askAgain });
    const calledOff = () =>
      this.#inFlight > 0 || this.#memory.lastActivity !== lastActivity || this.#memory.bootId !== bootId;
    if (calledOff() || !this.#settled) return;
    this.#remember({ state: "saving", since: time.now() });
    try {
      const saved = await this.#saving.verified("sleep");
      if (!calledOff()) await this.#saving.snapshot(saved);
    } finally {
      if (this.#memory.state === "saving") this.#remember({ state: "awake", since: time.now() });
    }
    if (calledOff()) return;
    await this.#exclusively(async () => {
      if (!calledOff()) await this.#end(verdict.wakeAt);
    });
  }

  #due(): ReturnType<typeof nextDue> {
    this.#mendTimes();
    const memory = this.#memory;
    return nextDue({ ...memory, awake: memory.state !== "asleep", inFlight: this.#inFlight }, this.#policy);
  }

  /** Moves the alarm forward when something is due earlier than it; an early alarm only looks again. */
  #arm(): void {
    const due = this.#due();
    if (due === null) {
      if (this.#alarm !== null) this.#parts.setAlarm(null);
      this.#alarm = null;
      return;
    }
    if (typeof this.#alarm === "number" && this.#alarm <= due.at) return;
    this.#alarm = due.at;
    this.#parts.setAlarm(due.at);
  }

  /** A clock that was set back must not turn a pause of seconds into one of days. */
  #mendTimes(): void {
    const now = this.#parts.time.now();
    const { notBefore, lastActivity, lastSave, firstUnsaved, lastUnsaved } = this.#memory;
    const past = (at: number | null) => (at === null ? null : Math.min(at, now));
    if (notBefore <= now + LONGEST_PAUSE && Math.max(lastActivity, lastSave, lastUnsaved ?? 0) <= now) return;
    this.#remember({
      notBefore: Math.min(notBefore, now + LONGEST_PAUSE),
      lastActivity: Math.min(lastActivity, now),
      lastSave: Math.min(lastSave, now),
      firstUnsaved: past(firstUnsaved),
      lastUnsaved: past(lastUnsaved),
    });
  }

  // Memory

  /** Keeps a provider's refusal for the status page. */
  noteProviderTrouble(trouble: ProviderTrouble): void {
    this.#remember({ lastProviderError: trouble });
  }

  /** When the next thing is due, for the status page. */
  get due(): ReturnType<typeof nextDue> {
    return this.#due();
  }

  #remember(change: Partial<Memory>): void {
    Object.assign(this.#memory, change);
    this.#parts.store.put(this.#memory);
  }

  #redactKeys(keys: BootKeys): void {
    this.#parts.log.redactor.add([keys.gatewayKey, keys.capability]);
  }
}

function randomKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(32))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

/** Whether the engine said that what was to be started never began to run. */
function isStartFailure(error: unknown): error is EngineError {
  return error instanceof EngineError && error.code === "start_failed";
}

function isNoEngine(error: unknown): error is ApiError {
  return error instanceof ApiError && error.code === "engine_unavailable";
}

/** The same trouble as people are told of it. */
function told(error: unknown): unknown {
  if (error instanceof ApiError) return error;
  return new ApiError({
    status: 503,
    code: "engine_failed",
    message: `The sandbox could not be asked: ${engineReason(error)} Try again; see GET /api/instance/logs if that goes on.`,
    retryAfter: 3,
    cause: error,
  });
}

function diedError(): ApiError {
  return new ApiError({
    status: 503,
    code: "sandbox_died",
    message: "The sandbox ended again and again while it was waited for. See GET /api/instance/logs.",
    retryAfter: 5,
  });
}

/** The refusal that a failed boot leaves behind. */
function bootError(cause: unknown, tail: string | null, pause: number): ApiError {
  const last = lastLine(tail ?? "");
  const code = cause instanceof ApiError && !(cause instanceof SandboxGone) ? cause.code : codeOf(cause);
  return new ApiError({
    status: 503,
    code,
    message: `Hermes did not start: ${engineReason(cause)}${last === "" ? "" : ` Its log ends with: ${last}`}`,
    retryAfter: Math.max(1, pause / 1000),
    cause,
  });
}

function codeOf(cause: unknown): string {
  return cause instanceof EngineError && cause.status === 507 ? "disk_full" : "boot_failed";
}
