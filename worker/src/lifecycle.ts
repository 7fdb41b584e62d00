// SPDX-License-Identifier: Apache-2.0
/**
 * The life of one sandbox: asleep, booting, awake, saving, stopping. Everything that starts, saves or stops
 * it goes through here. It knows no HTTP of its own and asks the clock it was given, so that a simulator can
 * drive it.
 */
import { bootPause, type Chores, maySleep, nextDue, type Policy, policyFor, savePause } from "./clock.ts";
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
import type { Settings } from "./settings.ts";
import { type Time, within } from "./time.ts";
import { DamagedGeneration, type Vault } from "./vault.ts";

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
/** The platform ends a sandbox that nobody asked anything for so long. */
const INACTIVITY_LIMIT = 6 * 3600_000;

/** The life of one sandbox. */
export class Lifecycle {
  readonly #parts: Parts;
  readonly #policy: Policy;
  #memory: Memory;
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
  #save: Promise<Saved> | null = null;
  #nextSave: Promise<Saved> | null = null;
  #inFlight = 0;
  #atHermes = 0;
  #drained: (() => void)[] = [];
  #alarm: number | null = null;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#policy = policyFor(parts.settings.sleepAfter);
    this.#memory = parts.store.get() ?? newMemory(parts.time.now());
    if (this.#memory.keys !== null) this.#redactKeys(this.#memory.keys);
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
    await this.wake(why);
    const { keys, bootId } = this.#memory;
    if (keys === null || bootId === null) throw new SandboxGone(null);
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
    for (;;) {
      if (this.#transition !== null) {
        await this.#transition.catch(() => undefined);
        continue;
      }
      if (this.#boot !== null) return this.#boot;
      if (this.mustReattach) {
        await this.reattach();
        continue;
      }
      if (this.#memory.state === "asleep") return this.#startBoot(why);
      if (this.#memory.gatewayStopped) {
        await this.restartGateway();
        continue;
      }
      return;
    }
  }

  #startBoot(why: string): Promise<void> {
    const { bootFailures, notBefore, lastError } = this.#memory;
    const now = this.#parts.time.now();
    if (bootFailures > 0 && now < notBefore)
      return Promise.reject(
        new ApiError({
          status: 503,
          code: lastError?.code ?? "boot_failed",
          message: `Hermes did not start: ${lastError?.message ?? "unknown reason"} The next attempt is made in a moment.`,
          retryAfter: (notBefore - now) / 1000,
        }),
      );
    this.#boot = this.#bootOnce(why).finally(() => {
      this.#boot = null;
      this.#arm();
    });
    return this.#boot;
  }

  async #bootOnce(why: string): Promise<void> {
    const { time, log, settings } = this.#parts;
    const bootId = crypto.randomUUID();
    const keys = { gatewayKey: randomKey(), capability: randomKey() };
    const began = time.now();
    this.#redactKeys(keys);
    this.#bootLog = null;
    this.#remember({
      state: "booting",
      since: began,
      bootId,
      keys,
      image: settings.image,
      whyAwake: why,
      restored: null,
    });
    log.info("boot", { boot: bootId, why, image: settings.image });
    try {
      await this.#bring(this.#guest(bootId, keys));
    } catch (error) {
      throw await this.#bootFailed(bootId, error);
    }
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
      boots: this.#memory.boots + 1,
      lastError: null,
    });
    log.info("awake", { boot: bootId, ms: now - began, restored: this.#memory.restored });
  }

  /** start -> commands work -> restore -> go -> ready, each raced against the sandbox's end. */
  async #bring(guest: Guest): Promise<void> {
    const { bootId } = guest;
    const { sandbox, settings } = this.#parts;
    const found = await sandbox.inspect();
    // Whatever runs there is of no boot that we remember: it must neither answer nor be saved.
    if (found.running) await sandbox.destroy();
    await sandbox.start({
      image: settings.image,
      env: { HERMES_BOOT_ID: bootId },
      labels: { boot: bootId, name: settings.name },
      enableInternet: true,
    });
    const { confined } = found.confined === null ? await sandbox.inspect() : found;
    const ended = this.#watch(bootId);
    this.#bootLog = new Listener(sandbox, ["sandbox", "logs", "--boot", bootId, "--follow"], LOG_TAIL);
    const steps = async () => {
      await guest.works();
      this.#remember({ restored: await guest.restore() });
      await guest.go(buildGo(settings, guest.keys));
      await guest.ready(READY_PATIENCE);
      await sandbox.setInactivityTimeout(INACTIVITY_LIMIT);
    };
    this.#remember({ confined, configDigest: await configDigest(settings) });
    await Promise.race([steps(), ended]);
    this.#bootLog.stop();
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
    if (this.#memory.bootId === bootId) this.#gone(exit);
    throw new SandboxGone(exit);
  }

  /** The engine went away or the watch was cut: nobody knows, so the next one who needs Hermes looks. */
  #onWatchLost(bootId: string, error: unknown): never {
    if (this.#memory.bootId === bootId) {
      this.#watched = false;
      if (isNotRunning(error)) this.#gone(null);
      else {
        this.#parts.log.warn("watch_lost", { boot: bootId, why: engineReason(error) });
        void this.#lookAgain().catch(() => undefined);
      }
    }
    throw new SandboxGone(null);
  }

  /** The next request would look as well, but the status page should not have to wait for one. */
  async #lookAgain(): Promise<void> {
    await this.#parts.time.sleep(LOOK_AGAIN);
    if (this.mustReattach) await this.reattach();
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
    this.#fallAsleep(null);
  }

  /** Nothing runs any more. */
  #fallAsleep(wakeAt: number | null): void {
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
      wakeAt,
    });
    this.#arm();
  }

  async #bootFailed(bootId: string, cause: unknown): Promise<ApiError> {
    const { log, sandbox, time } = this.#parts;
    if (cause instanceof ApiError && cause.code === "engine_unavailable") return this.#noEngine(cause);
    const tail = await this.#tailOfBoot();
    await sandbox
      .destroy()
      .catch((error: unknown) => log.warn("destroy_failed", { why: engineReason(error) }));
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
    const { lastExit } = this.#memory;
    this.#remember({
      lastExit: cause instanceof SandboxGone && lastExit !== null ? { ...lastExit, logTail: tail } : lastExit,
      bootFailures: failures,
      notBefore: time.now() + pause,
      lastError: { at: time.now(), code: error.code, message: error.message },
    });
    // A job that woke us is tried again after the pause; nothing else needs a timer.
    this.#fallAsleep(this.#memory.whyAwake === "cron" ? time.now() + pause : this.#memory.wakeAt);
    return error;
  }

  /** Nothing was wrong with Hermes, so the next request tries at once; what did run died with its engine. */
  #noEngine(cause: ApiError): ApiError {
    this.#parts.log.error("boot_failed", { code: cause.code, why: cause.message });
    this.#remember({ lastError: { at: this.#parts.time.now(), code: cause.code, message: cause.message } });
    const retryCron =
      this.#memory.whyAwake === "cron" ? this.#parts.time.now() + bootPause(6) : this.#memory.wakeAt;
    this.#fallAsleep(retryCron);
    return cause;
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
    const { sandbox, log } = this.#parts;
    const { bootId, keys, state } = this.#memory;
    const found = await sandbox.inspect();
    const label = found.labels?.["boot"];
    const ours =
      found.running && bootId !== null && keys !== null && (label === undefined || label === bootId);
    if (!ours) {
      if (found.running) await sandbox.destroy();
      log.warn("sandbox_lost", { boot: bootId, running: found.running });
      this.#remember({ lastExit: { at: this.#parts.time.now(), exitCode: null, logTail: null } });
      return this.#fallAsleep(null);
    }
    // A boot or a stop that was cut off cannot be taken up where it was.
    const half = state === "booting" || state === "stopping";
    if (half || !(await this.#answersAgain(this.#guest(bootId, keys)))) {
      if (!half) await this.#saveOnce("before giving up").catch(() => undefined);
      await sandbox.destroy();
      log.warn("sandbox_given_up", { boot: bootId, state });
      return this.#fallAsleep(null);
    }
    await sandbox.setInactivityTimeout(INACTIVITY_LIMIT);
    void this.#watch(bootId).catch(() => undefined);
    const now = this.#parts.time.now();
    this.#remember({ state: "awake", firstUnsaved: this.#memory.firstUnsaved ?? now, lastUnsaved: now });
    log.info("reattached", { boot: bootId });
  }

  async #answersAgain(guest: Guest): Promise<boolean> {
    try {
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
   * Saves the state. One save at a time: who asks while one runs gets the next one, shared with all who ask.
   * @throws ApiError or Error with the reason; the generations before stay.
   */
  save(why: string): Promise<Saved> {
    if (this.#save === null) {
      this.#save = this.#saveOnce(why).finally(() => {
        this.#save = null;
      });
      return this.#save;
    }
    this.#nextSave ??= this.#save
      .catch(() => undefined)
      .then(() => {
        this.#nextSave = null;
        return this.save(why);
      });
    return this.#nextSave;
  }

  async #saveOnce(why: string): Promise<Saved> {
    const { time, log } = this.#parts;
    const { bootId, firstUnsaved, lastUnsaved } = this.#memory;
    if (bootId === null) throw asleepError();
    const began = time.now();
    // Turns that end from here on are for the next save.
    this.#memory.firstUnsaved = null;
    this.#memory.lastUnsaved = null;
    try {
      const saved = await this.#current().export(why, this.#memory.image ?? "");
      this.#remember({ lastSave: began, saveFailures: 0, lastSaveError: null, notBefore: 0 });
      if (this.#inFlight > 0 && firstUnsaved !== null) this.#markUnsaved(began);
      log.info("saved", {
        boot: bootId,
        why,
        backup: saved.backup.id,
        bytes: saved.backup.bytes,
        unchanged: saved.unchanged,
        ms: time.now() - began,
      });
      return saved;
    } catch (error) {
      this.#saveFailed(error, firstUnsaved, lastUnsaved);
      throw error;
    }
  }

  /** A turn was under way during the save and is not in it. */
  #markUnsaved(at: number): void {
    if (this.#memory.firstUnsaved !== null || this.#atHermes === 0) return;
    this.#remember({ firstUnsaved: at, lastUnsaved: this.#parts.time.now() });
  }

  #saveFailed(error: unknown, firstUnsaved: number | null, lastUnsaved: number | null): void {
    const { time, log } = this.#parts;
    const failures = this.#memory.saveFailures + 1;
    const code = error instanceof ApiError ? error.code : "save_failed";
    log.error("save_failed", { boot: this.#memory.bootId, why: engineReason(error), attempt: failures });
    this.#remember({
      firstUnsaved: firstUnsaved ?? this.#memory.firstUnsaved,
      lastUnsaved: this.#memory.lastUnsaved ?? lastUnsaved,
      saveFailures: failures,
      notBefore: time.now() + savePause(failures),
      lastSaveError: { at: time.now(), code, message: engineReason(error) },
    });
  }

  // Stopping

  /**
   * Saves, verifies the save and ends the sandbox.
   * @throws ApiError 409 `busy` when requests outlast the drain timeout; the save's error otherwise.
   */
  async sleep(): Promise<Saved | null> {
    await this.#settle();
    if (this.#memory.state === "asleep") return null;
    const { nextCron } = await this.#chores();
    return this.#exclusively(async () => {
      await this.#drain();
      const saved = await this.#saveVerified("sleep");
      await this.#end(nextCron);
      return saved;
    });
  }

  /**
   * Saves, ends the sandbox and boots from the current image.
   * @param force whether to go on when the save fails, losing what came after the last one.
   */
  async restart(force: boolean): Promise<void> {
    await this.#settle();
    if (this.#memory.state !== "asleep")
      await this.#exclusively(async () => {
        await this.#drain().catch((error: unknown) => {
          if (!force) throw error;
        });
        await this.#saveVerified("restart").catch((error: unknown) => {
          if (!force) throw error;
          this.#parts.log.warn("restart_without_save", { why: engineReason(error) });
        });
        await this.#end(null);
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
    await this.#settle();
    if (this.#memory.state === "asleep") return this.wake("restart-gateway");
    const { settings, log } = this.#parts;
    const guest = this.#current();
    await guest.restartGateway(buildGo(settings, guest.keys), this.#drainSeconds);
    this.#remember({ gatewayStopped: false, configDigest: await configDigest(settings) });
    await guest.ready(READY_PATIENCE);
    log.info("gateway_restarted", { boot: guest.bootId });
  }

  /** Stops Hermes and leaves the sandbox; the next request starts Hermes again. */
  async stopGateway(): Promise<void> {
    await this.#settle();
    if (this.#memory.state === "asleep") return;
    const guest = this.#current();
    await this.#exclusively(async () => {
      await this.#drain();
      await guest.stopGateway(this.#drainSeconds);
      this.#remember({ gatewayStopped: true });
    });
    this.#parts.log.info("gateway_stopped", { boot: guest.bootId });
  }

  /** What Hermes has to do by itself; nothing, when it cannot be asked. */
  async #chores(): Promise<Chores> {
    try {
      return (await this.#current().status()).chores;
    } catch (error) {
      this.#parts.log.warn("status_failed", { boot: this.#memory.bootId, why: engineReason(error) });
      return { nextCron: null, cronRunning: 0 };
    }
  }

  get #drainSeconds(): number {
    return Math.ceil(this.#parts.settings.drainTimeout / 1000);
  }

  /** The sandbox of the current boot. */
  #current(): Guest {
    const { bootId, keys } = this.#memory;
    if (bootId === null || keys === null) throw new SandboxGone(null);
    return this.#guest(bootId, keys);
  }

  #guest(bootId: string, keys: BootKeys): Guest {
    return new Guest(this.#parts, bootId, keys, () => this.#memory.bootId === bootId);
  }

  /** Lets a boot, a stop or a look at a found sandbox come to its end. */
  async #settle(): Promise<void> {
    for (;;) {
      if (this.#transition !== null) await this.#transition.catch(() => undefined);
      else if (this.#boot !== null) await this.#boot.catch(() => undefined);
      else if (this.mustReattach) await this.reattach();
      else return;
    }
  }

  /** Everything that wants Hermes waits until `work` is done; on failure Hermes is as before. */
  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const done = work().finally(() => {
      this.#transition = null;
      if (this.#memory.state === "stopping")
        this.#remember({ state: "awake", since: this.#parts.time.now() });
      this.#arm();
    });
    this.#transition = done;
    this.#remember({ state: "stopping", since: this.#parts.time.now() });
    return done;
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

  /** A save whose bytes were read back; a damaged one is replaced, for its content is still here. */
  async #saveVerified(why: string): Promise<Saved> {
    const { vault, log } = this.#parts;
    const saved = await this.save(why);
    try {
      await vault.verify(saved.backup.id);
      return saved;
    } catch (error) {
      if (!(error instanceof DamagedGeneration)) throw error;
      log.error("backup_damaged", { backup: error.id, why: error.message });
      vault.condemn(error.id, error.message);
    }
    const again = await this.save(why);
    await vault.verify(again.backup.id);
    return again;
  }

  async #end(wakeAt: number | null): Promise<void> {
    await this.#parts.sandbox.destroy();
    this.#parts.log.info("asleep", { boot: this.#memory.bootId, wake_at: wakeAt });
    this.#fallAsleep(wakeAt);
  }

  // The clock

  /** Does what is due, then sets the alarm for what comes next. Never throws. */
  async onAlarm(): Promise<void> {
    this.#alarm = null;
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
    if (what === "wake") {
      this.#remember({ wakeAt: null });
      await this.wake("cron");
    } else if (what === "save") await this.save("checkpoint");
    else await this.#sleepWhenIdle();
  }

  /** A sleep that any request calls off. */
  async #sleepWhenIdle(): Promise<void> {
    const { time } = this.#parts;
    const { lastActivity } = this.#memory;
    const chores = await this.#chores();
    const verdict = maySleep(time.now(), chores);
    if (!verdict.sleep) return this.#remember({ notBefore: verdict.askAgain });
    this.#remember({ state: "saving", since: time.now() });
    try {
      await this.#saveVerified("sleep");
    } finally {
      if (this.#memory.state === "saving") this.#remember({ state: "awake", since: time.now() });
    }
    if (this.#inFlight > 0 || this.#memory.lastActivity !== lastActivity || this.#memory.state !== "awake")
      return;
    await this.#exclusively(() => this.#end(chores.nextCron));
  }

  #due(): ReturnType<typeof nextDue> {
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
    if (this.#alarm !== null && this.#alarm <= due.at) return;
    this.#alarm = due.at;
    this.#parts.setAlarm(due.at);
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

function asleepError(): ApiError {
  return new ApiError({
    status: 409,
    code: "asleep",
    message: "Hermes is asleep; its state is already in the newest backup.",
  });
}

/** The refusal that a failed boot leaves behind. */
function bootError(cause: unknown, tail: string | null, pause: number): ApiError {
  const last = lastLine(tail ?? "");
  const code = cause instanceof ApiError ? cause.code : codeOf(cause);
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
