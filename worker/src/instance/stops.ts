// SPDX-License-Identifier: Apache-2.0
/** How a sandbox, or Hermes in it, is ended: what is under way comes to its end, what Hermes knows is saved. */
import type { Chores, SandboxCommands, Saved } from "../sandbox/commands.ts";
import { engineReason, SandboxGone } from "../sandbox/sandbox.ts";
import type { SharedParts } from "./parts.ts";
import type { Saving } from "./saving.ts";
import type { Seats } from "./seats.ts";

/** Between looks whether a cron job has come to its end, in milliseconds. */
const JOBS_LOOK = 1000;
/** How long new turns are held back for a new version of the Worker, unless that is asked for again; in milliseconds. */
const HOLD = 30_000;

/** What stops work with. */
export interface StopsParts extends SharedParts {
  saving: Saving;
  seats: Seats;
  /** The sandbox of the current boot. */
  commands(): SandboxCommands | null;
  /** Everything that wants Hermes waits until `work` is done; on failure Hermes is as before. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** Nothing runs any more. */
  fallAsleep(wakeAt: number | null): void;
  /** Returns when Hermes is ready. */
  wake(why: string): Promise<void>;
}

/** Stops of one instance. */
export class Stops {
  readonly #parts: StopsParts;
  /** What holds new turns back now; aborted, it begins anew. */
  #hold: { id: string; again: AbortController } | null = null;
  #isHeldBack = false;

  constructor(parts: StopsParts) {
    this.#parts = parts;
  }

  /**
   * Saves, verifies the save and ends the sandbox.
   * @param force whether to go on when the save fails: what it could not save is left in a snapshot alone, and is lost
   * where there are none.
   * @returns `null` when Hermes was asleep already, or nothing could be saved.
   * @throws ApiError 409 `busy` when requests outlast the drain timeout; the save's error otherwise.
   */
  sleep(force: boolean): Promise<Saved | null> {
    const { exclusively, record, seats, saving, log } = this.#parts;
    return exclusively(async () => {
      if (record.state === "asleep") return null;
      await seats.drain().catch((error: unknown) => {
        if (!force) throw error;
      });
      const { nextCron } = await this.jobsDone().catch(() => record);
      const saved = await saving.verified("sleep").catch((error: unknown) => {
        if (!force) throw error;
        log.warn("sleep_without_save", { why: engineReason(error) });
        return null;
      });
      if (saved === null) await this.#setAside();
      else await saving.snapshot(saved);
      await this.end(nextCron);
      return saved;
    });
  }

  /** Takes a snapshot of what cannot be saved; the next wake on this image goes on with it. Never throws. */
  async #setAside(): Promise<void> {
    const { vault, saving, commands } = this.#parts;
    const newest = vault.list()[0];
    // It stands for the newest backup, which it is later than: so it is taken instead of that, and of no later one.
    if (newest === undefined) return;
    await commands()
      ?.stopGateway(this.drainSeconds)
      .catch(() => undefined);
    await saving.snapshot({ backup: newest, unchanged: true });
  }

  /**
   * Saves, ends the sandbox and boots from the current image.
   * @param force whether to go on when the save fails, losing what came after the last one; and whether to
   * leave everything behind that is not in the vault.
   */
  async restart(force: boolean): Promise<void> {
    const { exclusively, settings, record, recorder, seats, saving, log, wake } = this.#parts;
    await exclusively(async () => {
      if (force) recorder.snapshotDropped();
      if (record.state === "asleep") return;
      await seats.drain().catch((error: unknown) => {
        if (!force) throw error;
      });
      if (!force) await this.jobsDone().catch(() => undefined);
      const saved = await saving.verified("restart").catch((error: unknown) => {
        if (!force) throw error;
        log.warn("restart_without_save", { why: engineReason(error) });
        return null;
      });
      if (!force && saved !== null && record.image === settings.image) await saving.snapshot(saved);
      await this.end(record.nextCron);
    });
    recorder.postponed(0);
    await wake("restart");
  }

  /** Saves, stops Hermes and leaves the sandbox; the next request starts Hermes again. */
  async stopGateway(): Promise<void> {
    const { exclusively, recorder, seats, saving, log } = this.#parts;
    await exclusively(async () => {
      const commands = this.#parts.commands();
      if (commands === null) return;
      await seats.drain();
      await saving.save("stop");
      await commands.stopGateway(this.drainSeconds);
      recorder.gateway(false);
      log.info("gateway_stopped", { boot: commands.bootId });
    });
  }

  /**
   * Lets the turns under way come to their end and holds new ones back, so that a new version of the Worker cuts
   * none: it starts this object over, and what was held back is sent again. Without one it goes on after a while.
   * @returns by which {@link holdOn} knows it, when nothing is under way.
   * @throws ApiError 409 `busy` when turns outlast the drain timeout; nothing is held back then.
   */
  hold(): Promise<string> {
    const { exclusively, seats } = this.#parts;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    exclusively(async () => {
      this.#isHeldBack = true;
      try {
        await seats.drain();
        await this.#holdAs(crypto.randomUUID(), resolve);
      } finally {
        this.#isHeldBack = false;
      }
    }).catch(reject);
    return promise;
  }

  async #holdAs(id: string, begun: (id: string) => void): Promise<void> {
    for (let isOver = false; !isOver; ) {
      const again = new AbortController();
      this.#hold = { id, again };
      begun(id);
      isOver = await this.#parts.time.sleep(HOLD, again.signal).then(
        () => true,
        () => false,
      );
    }
    this.#hold = null;
  }

  /** Whether turns wait for a new version, or for those before it to come to their end. */
  get isHeldBack(): boolean {
    return this.#isHeldBack;
  }

  /**
   * Goes on holding back, for another while from now. Whoever uploads asks for it as long as that takes.
   * @returns whether it is held back: an object that was started over knows nothing of it, and holds nothing.
   */
  holdOn(id: string): boolean {
    if (this.#hold?.id !== id) return false;
    this.#hold.again.abort();
    return true;
  }

  /** What Hermes has to do by itself. */
  async chores(): Promise<Chores> {
    const commands = this.#parts.commands();
    if (commands === null) throw new SandboxGone(null);
    const [{ chores, jobError }, background] = await Promise.all([commands.status(), commands.background()]);
    // A job under way that is cut off has to be done again.
    const nextCron = chores.cronRunning > 0 ? this.#parts.time.now() : chores.nextCron;
    this.#parts.recorder.as(commands.bootId, (it) => it.jobs(nextCron, jobError));
    return { ...chores, background };
  }

  /**
   * Waits for the cron jobs that Hermes is at, for as long as for turns. In the state that is saved now they have been
   * begun, and Hermes does none of those again: one that takes longer is cut off, and told as failed.
   */
  async jobsDone(): Promise<Chores> {
    const { time, settings, log } = this.#parts;
    const end = time.now() + settings.drainTimeout;
    for (;;) {
      const chores = await this.chores();
      if (chores.cronRunning === 0) return chores;
      if (time.now() >= end) {
        log.warn("job_cut", { running: chores.cronRunning });
        return chores;
      }
      await time.sleep(JOBS_LOOK);
    }
  }

  /** Ends the sandbox. @param wakeAt when Hermes has to do something next. */
  async end(wakeAt: number | null): Promise<void> {
    await this.#parts.sandbox.destroy();
    this.#parts.recorder.leaves(wakeAt);
    this.#parts.log.info("asleep", { boot: this.#parts.record.bootId, wake_at: wakeAt });
    this.#parts.fallAsleep(wakeAt);
  }

  /** How long Hermes waits for its turns when it is ended. */
  get drainSeconds(): number {
    return Math.ceil(this.#parts.settings.drainTimeout / 1000);
  }
}
