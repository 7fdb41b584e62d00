// SPDX-License-Identifier: Apache-2.0
/**
 * The life of one sandbox: asleep, booting, awake, saving, stopping. Everything that starts, saves or stops
 * it goes through here. It knows no HTTP of its own and asks the clock it was given, so that a simulator can
 * drive it.
 */
import { ApiError } from "../base/errors.ts";
import type { Lasting } from "../base/lasting.ts";
import { within } from "../base/time.ts";
import {
  type Configuration,
  configurationOf,
  type Difference,
  differenceOf,
  goFor,
  NO_DIFFERENCE,
  type Restart,
  startOf,
} from "../config/configuration.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import type { Settings } from "../config/settings.ts";
import { BoundedSandbox } from "../sandbox/bounded.ts";
import { API_PORT, DASHBOARD_PORT, SandboxCommands, type Saved } from "../sandbox/commands.ts";
import type { InForce } from "../sandbox/in-force.ts";
import { asPublicError, type Exit, engineReason, SandboxGone } from "../sandbox/sandbox.ts";
import type { Generation } from "../state/vault.ts";
import { Boot, gatewayKeys, READY_PATIENCE, redactKeys } from "./boot.ts";
import { followedLog } from "./followed-log.ts";
import type { LifecycleParts, SharedParts } from "./parts.ts";
import { PutBack } from "./put-back.ts";
import { Reattach } from "./reattach.ts";
import { type InstanceRecord, type ProviderTrouble, startedWith } from "./record.ts";
import { Recorder } from "./recorder.ts";
import { riskOf, Saving } from "./saving.ts";
import { bootPause, maySleep, nextDue, type Policy, policyFor } from "./schedule.ts";
import { type Seat, Seats } from "./seats.ts";
import { Stops, type StopsParts } from "./stops.ts";
import { Watch } from "./watch.ts";

/** A Hermes that runs answers within so long. */
const ANSWER_PATIENCE = 3000;
/** A lost engine is usually back after so long. */
const LOOK_AGAIN = 1500;
/** A sandbox that died has its appointments kept after so long: soon, but not in a circle. */
const AFTER_DEATH = 45_000;
/** How often a request sees its sandbox die before it is refused. */
const MAX_DEATHS = 5;

/** An object that must not leave memory looks again after so long at the latest, in milliseconds. */
const STAY = 60_000;

/** The life of one sandbox. */
export class Lifecycle {
  readonly #parts: SharedParts;
  readonly #policy: Policy;
  readonly #record: Readonly<InstanceRecord>;
  readonly #recorder: Recorder;
  /** The boot under way, whoever asked for it. */
  #boot: Promise<void> | null = null;
  /** A restart of Hermes alone under way. */
  #wayBack: Promise<void> | null = null;
  #gatewayStart: Promise<void> | null = null;
  /** A stop, restart or sleep under way; everything else waits for it. */
  #transition: Promise<unknown> | null = null;
  /** Finding a sandbox again after this object was restarted, or after its watch was lost. */
  #reattach: Promise<void> | null = null;
  readonly #seats: Seats;
  readonly #watch: Watch;
  readonly #saving: Saving;
  readonly #boots: Boot;
  readonly #finding: Reattach;
  readonly #stops: Stops;
  readonly #puttingBack: PutBack;
  /** What the running Hermes was given, as it reported or we know; `null` when neither. */
  #running: Configuration | null = null;
  #difference: Difference = NO_DIFFERENCE;
  /** Turns that go on without a client. */
  #unattended = 0;
  /** When the alarm is set for; unknown in a new object, for the platform keeps it. */
  #alarm: number | null | undefined = undefined;

  constructor(parts: LifecycleParts) {
    this.#policy = policyFor(parts.settings.sleepAfter);
    this.#recorder = new Recorder(parts.store, parts.time);
    this.#record = this.#recorder.record;
    if (this.#record.keys !== null) redactKeys(parts.log, this.#record.keys);
    const shared: SharedParts = {
      ...parts,
      sandbox: BoundedSandbox.of(parts.sandbox, parts.time),
      record: this.#record,
      recorder: this.#recorder,
    };
    this.#parts = shared;
    const lookAgain = () => void this.#lookAgain().catch(() => undefined);
    this.#seats = new Seats({ time: parts.time, drainTimeout: parts.settings.drainTimeout });
    this.#watch = new Watch({ ...shared, onEnd: (exit) => this.#gone(exit), onLost: lookAgain });
    this.#saving = new Saving({
      ...shared,
      // A boot that is not through yet has nothing to save, whatever a save that waited believes.
      commands: () => (this.#record.state === "booting" ? null : this.#commandsOrNone()),
    });
    const boot = {
      ...shared,
      watch: this.#watch,
      commands: (bootId: string, keys: BootKeys) => this.#commands(bootId, keys),
    };
    const fallAsleep = (wakeAt: number | null, notBefore?: number) => this.#fallAsleep(wakeAt, notBefore);
    this.#boots = new Boot({ ...boot, fallAsleep });
    const [drain, died] = [() => this.#seats.drain(), () => this.#died()];
    const found = (running: Configuration | null) => this.#runsWith(running);
    const takeUp = () => this.#takeUp();
    this.#finding = new Reattach({ ...boot, saving: this.#saving, found, drain, died, takeUp });
    const stops: StopsParts = {
      ...shared,
      saving: this.#saving,
      seats: this.#seats,
      commands: () => this.#commandsOrNone(),
      exclusively: (work) => this.#exclusively(work),
      fallAsleep,
      wake: (why) => this.wake(why),
    };
    this.#stops = new Stops(stops);
    this.#puttingBack = new PutBack({ ...stops, stops: this.#stops, isReady: () => this.isReady });
    this.#arm();
  }

  /** What is remembered; a copy. */
  get record(): Readonly<InstanceRecord> {
    return { ...this.#record };
  }

  /** Requests that are not yet answered to their end. */
  get inFlight(): number {
    return this.#seats.inFlight;
  }

  /** Digest of this boot's capability is compared against this; `null` when no sandbox runs. */
  get capability(): string | null {
    return this.#record.keys?.capability ?? null;
  }

  /** Whether a sandbox may run that this object has not looked at yet. */
  get mustReattach(): boolean {
    return (
      this.#record.state !== "asleep" && !this.#watch.kept && this.#boot === null && this.#transition === null
    );
  }

  // Requests

  /**
   * Counts a request from its arrival to the end of its answer.
   * @param isActivity whether Hermes stays awake for it once it is over; what a page asks by itself is none.
   */
  arrive<T>(isActivity: boolean, answer: () => Promise<Lasting<T>>): Promise<Lasting<T>> {
    if (isActivity) this.#recorder.asked();
    const gone = () => {
      if (isActivity) this.#recorder.answered();
      this.#arm();
    };
    return this.#seats.arrive(gone, answer);
  }

  /** Notes that somebody works with Hermes in a way that no request shows. */
  touch(): void {
    this.#recorder.asked();
    this.#turnBegins();
    this.#turnEnds();
  }

  /**
   * Waits until Hermes is ready, and has a seat there until the turn is over.
   * @param writes whether the turn changes Hermes' state.
   * @throws ApiError when it does not get ready; what `turn` throws.
   */
  async withSeat<T>(
    why: string,
    writes: boolean,
    turn: (at: Seat) => Promise<Lasting<T>>,
  ): Promise<Lasting<T>> {
    let ready = this.#readyNow();
    // Between the look that found it ready and our turn, a stop may have begun that did not count us.
    for (; ready === null; ready = this.#readyNow()) await this.wake(why);
    const at = ready;
    if (writes) this.#turnBegins();
    const left = () => {
      if (writes) this.#turnEnds();
    };
    return this.#seats.withSeat(left, () => turn(at));
  }

  /** Whether Hermes can be asked at this very moment. */
  get isReady(): boolean {
    return this.#readyNow() !== null;
  }

  /** Whether a request would wake Hermes, instead of finding it awake or on its way. */
  get isAsleep(): boolean {
    return this.#record.state === "asleep" && this.#boot === null && this.#transition === null;
  }

  /**
   * Sees to it that Hermes' dashboard runs in the sandbox of a boot.
   * @throws ApiError `dashboard_failed` when it does not; {@link SandboxGone} when that boot is over.
   */
  async startDashboard(bootId: string): Promise<void> {
    const commands = this.#commandsOrNone();
    if (commands === null || commands.bootId !== bootId) throw new SandboxGone(null);
    await commands.dashboard(this.#parts.settings.hostTools);
  }

  /** The port of Hermes' dashboard. */
  get dashboardPort(): { fetch(url: string, init?: RequestInit): Promise<Response> } {
    return this.#parts.sandbox.getTcpPort(DASHBOARD_PORT);
  }

  /** The port of Hermes' API. */
  get port(): { fetch(url: string, init?: RequestInit): Promise<Response> } {
    return this.#parts.sandbox.getTcpPort(API_PORT);
  }

  #turnBegins(): void {
    if (this.#record.firstUnsaved !== null) return;
    this.#recorder.turnBegan();
    this.#arm();
  }

  #turnEnds(): void {
    this.#recorder.turnEnded();
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
        if (!(error instanceof SandboxGone)) throw asPublicError(error);
        if (++deaths >= MAX_DEATHS) throw diedError();
      }
    }
  }

  /** The boot that can be asked at this very moment. */
  #readyNow(): Seat | null {
    const { state, keys, bootId, gatewayStopped } = this.#record;
    // One with the settings of before would answer as it was told before: it is given today's first.
    if (!this.#settled || state === "asleep" || gatewayStopped || this.#difference.hermes) return null;
    return keys === null || bootId === null ? null : { keys, bootId };
  }

  /** One step on the way to a Hermes that is ready. */
  async #nextStep(why: string): Promise<void> {
    if (this.#transition !== null) await this.#transition.catch(() => undefined);
    else if (this.#boot !== null) await this.#boot;
    else if (this.mustReattach) await this.reattach();
    else if (this.#record.state === "asleep") await this.#startBoot(why);
    else await this.restartGateway();
  }

  #startBoot(why: string): Promise<void> {
    const { bootFailures, notBefore, lastError } = this.#record;
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
    return this.#booting(() => this.#bootOnce(why));
  }

  /** The boot that an earlier life of this object began. */
  #takeUp(): void {
    const boot = async () => {
      await this.#boots.takeUp();
      const { configuration } = (await this.#commandsOrNone()?.status()) ?? { configuration: null };
      await this.#runsWith(configuration);
    };
    this.#booting(boot).catch(() => undefined);
  }

  #booting(boot: () => Promise<void>): Promise<void> {
    this.#boot = boot().finally(() => {
      this.#boot = null;
      this.#armAnew();
      this.#lookIfLost();
    });
    void this.#held(this.#boot);
    this.#arm();
    return this.#boot;
  }

  /** What requests share goes on without the one that began it. */
  #held<T>(work: Promise<T>): Promise<T> {
    this.#parts.hold(work.catch(() => undefined));
    return work;
  }

  async #bootOnce(why: string): Promise<void> {
    await this.#boots.run(why);
    await this.#runsWith(await configurationOf(this.#parts.settings));
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
    this.#watch.end();
    if (this.#transition !== null) return;
    const exitCode = exit?.exitCode ?? null;
    this.#recorder.exited(exitCode);
    if (this.#boot !== null) return;
    this.#parts.log.warn("sandbox_ended", { boot: this.#record.bootId, exit_code: exitCode });
    this.#died();
  }

  /** It ended without having been told to. What it had to do at which time is known from when it was asked last. */
  #died(): void {
    const { wakeAt, nextCron } = this.#record;
    const appointment = wakeAt ?? nextCron;
    const soonest = this.#parts.time.now() + AFTER_DEATH;
    this.#fallAsleep(appointment === null ? null : Math.max(appointment, soonest));
  }

  /** Nothing runs any more. */
  #fallAsleep(wakeAt: number | null, notBefore = 0): void {
    this.#watch.end();
    this.#running = null;
    this.#difference = NO_DIFFERENCE;
    this.#recorder.asleep(wakeAt, notBefore);
    this.#arm();
  }

  // Finding a running sandbox again

  /**
   * Looks whether the sandbox that is remembered still runs and is ours; else this object is asleep.
   * @throws ApiError `engine_unavailable` when nobody can tell.
   */
  reattach(): Promise<void> {
    this.#reattach ??= this.#held(
      this.#finding.run().finally(() => {
        this.#reattach = null;
        this.#arm();
      }),
    );
    return this.#reattach;
  }

  /** See {@link followedLog}. */
  followLog(lines: number): Promise<ReadableStream<Uint8Array>> {
    return followedLog(this.#parts, lines);
  }

  // Settings

  /** What of the deployed settings the running Hermes does not have; `null` while nobody knows, or none runs. */
  get difference(): Difference | null {
    const { state, gatewayStopped } = this.#record;
    if (state === "asleep" || state === "booting" || this.mustReattach) return null;
    // The next request starts it with today's settings.
    return gatewayStopped ? { ...this.#difference, hermes: false } : this.#difference;
  }

  /**
   * What a Hermes that runs, or is being started, would lack if these were the settings. A start under way, which may
   * take minutes, is not waited for: it gives Hermes the settings of now, unless it is cut before that.
   * @returns `null` when none runs; `starting` when it is of a start under way.
   */
  async differenceFrom(settings: Settings): Promise<{ difference: Difference; starting: boolean } | null> {
    const { settings: own } = this.#parts;
    if (await this.#settlesToBoot()) {
      const difference = await differenceOf(settings, await configurationOf(own), startOf(own));
      return { difference, starting: true };
    }
    if (this.#record.state === "asleep") return null;
    const started = startedWith(this.#record);
    return { difference: await differenceOf(settings, this.#running, started), starting: false };
  }

  async #runsWith(running: Configuration | null): Promise<void> {
    this.#difference = await differenceOf(this.#parts.settings, running, startedWith(this.#record));
    this.#running = running;
    if (this.#difference.restart !== "nothing")
      this.#parts.log.info("settings_not_in_force", { ...this.#difference, boot: this.#record.bootId });
  }

  /**
   * Brings a running Hermes to the deployed settings by the lightest way; turns under way come to their end. A
   * sleeping one is left alone: it takes them when it wakes.
   * @returns what was restarted, or laid.
   * @throws ApiError as {@link restart} and {@link restartGateway} do; `declare_failed` with the item in its sentence.
   */
  async refresh(): Promise<Restart> {
    await this.#settle();
    const difference = this.difference;
    if (difference === null) return "nothing";
    if (difference.restart === "sandbox") {
      if (this.#record.gatewayStopped) await this.sleep();
      else await this.restart(false);
      return "sandbox";
    }
    if (difference.hermes) {
      await this.restartGateway();
      return "hermes";
    }
    if (difference.content) await this.#held(this.#layContent());
    return difference.content ? "content" : "nothing";
  }

  /**
   * What a running Hermes has of all that can be declared; `null` when none runs. Never wakes it.
   * @throws ApiError `starting` while it does not run yet; `not_told` when it runs and does not tell.
   */
  async inForce(): Promise<InForce | null> {
    if (await this.#settlesToBoot())
      throw new ApiError({
        status: 409,
        code: "starting",
        message: "Hermes is still starting; what it has is not known yet.",
      });
    const { state, gatewayStopped } = this.#record;
    const commands = this.#commandsOrNone();
    if (state === "asleep" || gatewayStopped || commands === null) return null;
    try {
      return await commands.inForce();
    } catch (error) {
      throw new ApiError({
        status: 503,
        code: "not_told",
        message: `Hermes does not tell what it has: ${engineReason(error)}`,
        retryAfter: 5,
        cause: error,
      });
    }
  }

  /** Brings content that Hermes reads when it needs it; turns under way go on. */
  async #layContent(): Promise<void> {
    const { settings, agentArchive, log } = this.#parts;
    const commands = this.#commandsOrNone();
    if (commands === null) return;
    try {
      const go = await goFor(settings, commands.keys, agentArchive);
      await commands.declare(go, !this.#record.gatewayStopped);
    } catch (error) {
      throw asPublicError(error);
    }
    if (!commands.isCurrent()) return;
    await this.#runsWith(await configurationOf(settings));
    // It is part of the state, and saved as what a turn changes is.
    this.#turnBegins();
    this.#turnEnds();
    log.info("content_laid", { boot: commands.bootId });
  }

  // Saving

  /**
   * Saves the state now.
   * @returns `null` when Hermes is asleep: the newest backup is its state.
   * @throws ApiError or Error with the reason; the generations before stay.
   */
  async save(why: string): Promise<Saved | null> {
    await this.#settle();
    if (this.#record.state === "asleep") return null;
    return this.#held(this.#saving.save(why));
  }

  /** See {@link PutBack.run}. */
  putBack(archive: ReadableStream<Uint8Array>): Promise<Generation> {
    return this.#puttingBack.run(archive);
  }

  // Stopping

  /** See {@link Stops.sleep}. */
  sleep(force = false): Promise<Saved | null> {
    return this.#stops.sleep(force);
  }

  /** See {@link Stops.restart}. */
  restart(force: boolean): Promise<void> {
    return this.#stops.restart(force);
  }

  /** See {@link Stops.stopGateway}. */
  stopGateway(): Promise<void> {
    return this.#stops.stopGateway();
  }

  /** See {@link Stops.hold}. */
  hold(): Promise<string> {
    return this.#stops.hold();
  }

  /** See {@link Stops.isHeldBack}. */
  get isHeldBack(): boolean {
    return this.#stops.isHeldBack;
  }

  /** See {@link Stops.holdOn}. */
  holdOn(id: string): boolean {
    return this.#stops.holdOn(id);
  }

  /**
   * Restarts Hermes alone, with today's configuration and a new gateway key; streams under way are drained.
   * Who asks meanwhile shares it.
   */
  restartGateway(): Promise<void> {
    this.#gatewayStart ??= this.#held(
      this.#restartGatewayOnce().finally(() => {
        this.#gatewayStart = null;
      }),
    );
    return this.#gatewayStart;
  }

  async #restartGatewayOnce(): Promise<void> {
    const { settings, agentArchive, log, time } = this.#parts;
    const restarted = await this.#exclusively(async () => {
      const commands = this.#commandsOrNone();
      if (commands === null) return false;
      const renewed = await this.#renewed(commands);
      try {
        const go = await goFor(settings, renewed.keys, agentArchive);
        await renewed.restartGateway(go, this.#stops.drainSeconds);
      } catch (error) {
        // Nothing was restarted where the Hermes that answers still knows the key of before.
        if (await within(time, ANSWER_PATIENCE, commands.answers())) this.#recorder.rekeyed(commands.keys);
        throw error;
      }
      this.#recorder.gateway(true);
      await renewed.ready(READY_PATIENCE);
      await this.#runsWith(await configurationOf(settings));
      log.info("gateway_restarted", { boot: commands.bootId });
      return true;
    });
    if (!restarted) await this.wake("restart-gateway");
  }

  /**
   * Hermes answered a request with 401. A restart that was cut off can leave it with another key than ours.
   * @returns whether the request should be sent again; `false` when the refusal is about the request itself.
   */
  async refused(gatewayKey: string): Promise<boolean> {
    const commands = this.#commandsOrNone();
    if (commands === null || commands.keys.gatewayKey !== gatewayKey) return true;
    if (await commands.answers()) return false;
    await this.restartGateway();
    return true;
  }

  /**
   * Hermes could not be reached for a while. Where it runs all the same, the way to it is gone for good, as when a
   * container's network died: another start lays another one. Its state is saved by commands, which need no network.
   * Who asks meanwhile shares it; failures are logged.
   */
  findWay(bootId: string): Promise<void> {
    this.#wayBack ??= this.#held(
      this.#findWay(bootId)
        .catch((error: unknown) =>
          this.#parts.log.warn("way_not_found", { boot: bootId, why: engineReason(error) }),
        )
        .finally(() => {
          this.#wayBack = null;
        }),
    );
    return this.#wayBack;
  }

  async #findWay(bootId: string): Promise<void> {
    const { log, time } = this.#parts;
    const commands = this.#commandsOrNone();
    if (
      commands === null ||
      commands.bootId !== bootId ||
      (await within(time, ANSWER_PATIENCE, commands.answers()))
    )
      return;
    // One that has ended is started again by the sandbox.
    if ((await commands.status()).state !== "running") return;
    log.warn("way_lost", { boot: bootId });
    await this.restart(false);
  }

  /** The same sandbox with a new gateway key, remembered before Hermes knows it: who comes with the old one asks again. */
  async #renewed(commands: SandboxCommands): Promise<SandboxCommands> {
    const { capability, dashboardToken } = commands.keys;
    const keys = { capability, dashboardToken, ...(await gatewayKeys(this.#parts.settings)) };
    redactKeys(this.#parts.log, keys);
    this.#recorder.rekeyed(keys);
    return this.#commands(commands.bootId, keys);
  }

  /** The sandbox of the current boot. */
  #commandsOrNone(): SandboxCommands | null {
    const { bootId, keys } = this.#record;
    return bootId === null || keys === null ? null : this.#commands(bootId, keys);
  }

  #commands(bootId: string, keys: BootKeys): SandboxCommands {
    const isCurrent = () => this.#record.bootId === bootId && !this.#watch.hasEnded(bootId);
    return new SandboxCommands(this.#parts, bootId, keys, isCurrent);
  }

  /** Lets a boot, a stop or a look at a found sandbox come to its end; nothing happens between that and the return. */
  async #settle(): Promise<void> {
    while (!this.#settled) {
      if (this.#transition !== null) await this.#transition.catch(() => undefined);
      else if (this.#boot !== null) await this.#boot.catch(() => undefined);
      else await this.reattach();
    }
  }

  /** The same for who would rather hear of a boot than wait for it: whether one is under way. */
  async #settlesToBoot(): Promise<boolean> {
    while (this.#boot === null && !this.#settled)
      await (this.#transition?.catch(() => undefined) ?? this.reattach());
    return this.#boot !== null;
  }

  get #settled(): boolean {
    return this.#transition === null && this.#boot === null && !this.mustReattach;
  }

  /** Everything that wants Hermes waits until `work` is done; on failure Hermes is as before. */
  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#held(this.#alone(work));
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    // What was settled may have begun to move before we got our turn.
    while (!this.#settled)
      await this.#settle().catch((error: unknown) => {
        throw asPublicError(error);
      });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#transition = promise;
    this.#recorder.stopping();
    try {
      return await work();
    } catch (error) {
      throw asPublicError(error);
    } finally {
      this.#transition = null;
      this.#recorder.stays("stopping");
      this.#arm();
      this.#lookIfLost();
      resolve();
    }
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
      this.#saving.tellRisk();
      // What failed has set its own pause, or else nobody has.
      if (this.#record.notBefore <= time.now()) this.#recorder.postponed(time.now() + 15_000);
    }
    this.#arm();
  }

  async #do(what: "save" | "sleep" | "wake"): Promise<void> {
    if (what === "wake") await this.wake("cron");
    else if (what === "sleep") await this.#sleepWhenIdle();
    else {
      await this.#saving.save("checkpoint");
      await this.#stops.chores();
    }
  }

  /** A sleep that any request calls off. */
  async #sleepWhenIdle(): Promise<void> {
    const { time } = this.#parts;
    const { lastActivity, bootId } = this.#record;
    const verdict = maySleep(time.now(), lastActivity, await this.#stops.chores());
    if (!verdict.sleep) return this.#recorder.postponed(verdict.askAgain);
    const calledOff = () =>
      this.inFlight > 0 || this.#record.lastActivity !== lastActivity || this.#record.bootId !== bootId;
    if (calledOff() || !this.#settled) return;
    this.#recorder.fallingAsleep();
    try {
      const saved = await this.#saving.verified("sleep");
      if (!calledOff()) await this.#saving.snapshot(saved, () => !calledOff());
    } finally {
      this.#recorder.stays("saving");
    }
    if (calledOff()) return;
    await this.#exclusively(async () => {
      if (!calledOff()) await this.#stops.end(verdict.wakeAt);
    });
  }

  #due(): ReturnType<typeof nextDue> {
    this.#recorder.mendTimes();
    const record = this.#record;
    return nextDue({ ...record, awake: record.state !== "asleep", inFlight: this.inFlight }, this.#policy);
  }

  /** Moves the alarm forward when something is due earlier than it; an early alarm only looks again. */
  #arm(): void {
    const at = this.#nextAlarm();
    if (at === null) {
      if (this.#alarm !== null) this.#parts.setAlarm(null);
      this.#alarm = null;
      return;
    }
    if (typeof this.#alarm === "number" && this.#alarm <= at) return;
    this.#alarm = at;
    this.#parts.setAlarm(at);
  }

  /** The same where it need not look as soon as it did before. */
  #armAnew(): void {
    this.#alarm = undefined;
    this.#arm();
  }

  /** An object without requests leaves memory after a minute or so; its alarm brings it back to what nobody asks for. */
  #nextAlarm(): number | null {
    const due = this.#due();
    if (this.#boot === null && this.#unattended === 0) return due?.at ?? null;
    return Math.min(due?.at ?? Number.POSITIVE_INFINITY, this.#parts.time.now() + STAY);
  }

  /** Stays until something is over that nobody waits for any more. */
  stay(work: Promise<unknown>): void {
    this.#unattended++;
    const left = () => {
      this.#unattended--;
      this.#armAnew();
    };
    void this.#held(work.then(left, left));
    this.#arm();
  }

  // The record

  /** Keeps a provider's refusal for the status page, until it is over. */
  noteProviderTrouble(trouble: ProviderTrouble | null): void {
    this.#recorder.provider(trouble);
  }

  /** Since when, and why, what Hermes knows is not saved, when that is for too long. */
  get risk(): ReturnType<typeof riskOf> {
    return riskOf(this.#record, this.#parts.time.now());
  }

  /** When the next thing is due, for the status page. */
  get due(): ReturnType<typeof nextDue> {
    return this.#due();
  }
}

function diedError(): ApiError {
  return new ApiError({
    status: 503,
    code: "sandbox_died",
    message: "The sandbox ended again and again while it was waited for. See GET /api/instance/logs.",
    retryAfter: 5,
  });
}
