// SPDX-License-Identifier: Apache-2.0
/**
 * Writes the record of an instance: what happened has a verb each, and nobody else writes. What may be lost with this
 * object, as that somebody just asked, is written with the next that may not.
 */
import type { Time } from "../base/time.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import type { JobTrouble, Restored } from "../sandbox/commands.ts";
import type { SnapshotRecord } from "../state/snapshots.ts";
import { type InstanceRecord, newRecord, type ProviderTrouble, type Trouble } from "./record.ts";
import { count } from "./running-time.ts";
import { LONGEST_PAUSE, savePause } from "./schedule.ts";

/** Keeps a record; a get returns what the last put stored. */
export interface RecordStore {
  get(): InstanceRecord | undefined;
  put(record: InstanceRecord): void;
}

/** What a sandbox is started as. */
type Start = Pick<InstanceRecord, "bootId" | "keys" | "image" | "started" | "startedFrom">;
/** The turns that no save contains. */
export type Unsaved = Pick<InstanceRecord, "firstUnsaved" | "lastUnsaved">;
type Failure = Omit<Trouble, "at">;

/** The one who writes the record of an instance. */
export class Recorder {
  readonly #store: RecordStore;
  readonly #time: Time;
  readonly #record: InstanceRecord;

  constructor(store: RecordStore, time: Time) {
    this.#store = store;
    this.#time = time;
    this.#record = { ...newRecord(time.now()), ...store.get() };
  }

  /** The living record. */
  get record(): Readonly<InstanceRecord> {
    return this.#record;
  }

  /** The same for what belongs to one boot: it writes nothing any more when another has begun. */
  as(bootId: string, write: (recorder: Recorder) => void): void {
    if (this.#record.bootId === bootId) write(this);
  }

  // Requests

  /** Somebody asked for Hermes. */
  asked(): void {
    this.#record.lastActivity = this.#time.now();
    this.#record.wokenForCron = false;
  }

  /** What somebody asked was answered to its end. */
  answered(): void {
    this.#record.lastActivity = this.#time.now();
  }

  /** From its beginning a turn counts as unsaved, so that a crash of this object does not hide it. */
  turnBegan(): void {
    const now = this.#time.now();
    this.#write({ firstUnsaved: now, lastUnsaved: now });
  }

  turnEnded(): void {
    if (this.#record.firstUnsaved === null) this.turnBegan();
    else this.#record.lastUnsaved = this.#time.now();
  }

  // Boots

  /** A boot that never gets ready leaves the appointments where they were. */
  bootBegan(why: string, waitsFor: string): void {
    const { wakeAt, nextCron } = this.#record;
    this.#write({
      whyAwake: why,
      wakeAt: wakeAt ?? nextCron,
      starting: { since: this.#time.now(), why: waitsFor },
    });
  }

  /** What a boot waits for that has nothing yet in which a command works. */
  waits(why: string): void {
    const { starting } = this.#record;
    if (starting !== null) this.#write({ starting: { ...starting, why } });
  }

  /** A sandbox is started now. */
  starting(start: Start): void {
    this.#write({ ...start, state: "booting", since: this.#time.now(), restored: null });
  }

  /** A command worked. */
  commandsWork(): void {
    this.#write({ starting: null });
  }

  isConfined(confined: boolean | null): void {
    this.#write({ confined });
  }

  restored(restored: Restored): void {
    this.#write({ restored });
  }

  /** Hermes is ready. */
  booted(): void {
    const { whyAwake, boots } = this.#record;
    const now = this.#time.now();
    this.#write({
      state: "awake",
      since: now,
      gatewayStopped: false,
      wokenForCron: whyAwake === "cron",
      lastActivity: now,
      lastSave: now,
      firstUnsaved: null,
      lastUnsaved: null,
      wakeAt: null,
      notBefore: 0,
      bootFailures: 0,
      boots: boots + 1,
      lastError: null,
    });
  }

  /** @param lastExit how its sandbox ended, or the one before. */
  bootFailed(failure: Failure, lastExit: InstanceRecord["lastExit"]): void {
    this.#write({ lastExit, bootFailures: this.#record.bootFailures + 1, lastError: this.#dated(failure) });
  }

  /** It failed for nothing that is Hermes'. */
  notBooted(failure: Failure): void {
    this.#write({ lastError: this.#dated(failure) });
  }

  /** A sandbox that was found again is ours and answers; who knows what is not saved. */
  found(): void {
    const { firstUnsaved, lastUnsaved } = this.#record;
    const now = this.#time.now();
    this.#write({ state: "awake", firstUnsaved: firstUnsaved ?? now, lastUnsaved: lastUnsaved ?? now });
  }

  /** Hermes alone was given other keys. */
  rekeyed(keys: BootKeys): void {
    this.#write({ keys });
  }

  /** Hermes alone runs, or does not. */
  gateway(runs: boolean): void {
    this.#write({ gatewayStopped: !runs });
  }

  // Saves

  /**
   * Turns that end from here on are for the next save.
   * @returns those that are for this one.
   */
  saveBegan(): Unsaved {
    const { firstUnsaved, lastUnsaved } = this.#record;
    this.#record.firstUnsaved = null;
    this.#record.lastUnsaved = null;
    return { firstUnsaved, lastUnsaved };
  }

  /** @param began milliseconds since the epoch. */
  saved(began: number): void {
    this.#write({ lastSave: began, saveFailures: 0, failingSince: null, lastSaveError: null });
  }

  /** @param turns what {@link saveBegan} returned: they are unsaved still. */
  saveFailed(failure: Failure, bootId: string, turns: Unsaved): void {
    this.#write({ lastSaveError: this.#dated(failure) });
    const { firstUnsaved, lastUnsaved, failingSince, saveFailures } = this.#record;
    const now = this.#time.now();
    // What died in the meantime has nothing more to save, and its successor no reason to wait.
    if (this.#record.bootId !== bootId) return;
    this.#write({
      firstUnsaved: turns.firstUnsaved ?? firstUnsaved,
      lastUnsaved: lastUnsaved ?? turns.lastUnsaved,
      saveFailures: saveFailures + 1,
      failingSince: failingSince ?? turns.firstUnsaved ?? now,
      notBefore: now + savePause(saveFailures + 1),
    });
  }

  snapshotTaken(snapshot: SnapshotRecord): void {
    this.#write({ snapshot, snapshotNote: null });
  }

  noSnapshot(why: string): void {
    this.#write({ snapshotNote: why });
  }

  /** The platform renews a snapshot that is started from. */
  snapshotUsed(snapshot: SnapshotRecord): void {
    this.#write({ snapshot: { ...snapshot, renewed: this.#time.now() } });
  }

  /** The snapshot is not to be used any more. */
  snapshotDropped(): void {
    this.#write({ snapshot: null });
  }

  // Stops

  /** A stop, a restart or a sleep is under way. */
  stopping(): void {
    if (this.#record.state !== "asleep") this.#write({ state: "stopping", since: this.#time.now() });
  }

  /** An idle Hermes is saved, and ended unless somebody asks. */
  fallingAsleep(): void {
    this.#write({ state: "saving", since: this.#time.now() });
  }

  /** What was under way is over, and did not end the sandbox. */
  stays(was: "stopping" | "saving"): void {
    if (this.#record.state === was) this.#write({ state: "awake", since: this.#time.now() });
  }

  /** The sandbox ended; `null` when nobody knows how. */
  exited(exitCode: number | null): void {
    this.#write({ lastExit: { at: this.#time.now(), exitCode, logTail: null } });
  }

  /** It ended, and nobody knows when. */
  lost(): void {
    const now = this.#time.now();
    this.#write({ lastExit: { at: now, exitCode: null, logTail: null }, learnedLate: now });
  }

  /** Nothing runs any more. */
  asleep(wakeAt: number | null, notBefore: number): void {
    this.#write({
      state: "asleep",
      since: this.#time.now(),
      bootId: null,
      keys: null,
      started: null,
      starting: null,
      whyAwake: null,
      wokenForCron: false,
      gatewayStopped: false,
      firstUnsaved: null,
      lastUnsaved: null,
      saveFailures: 0,
      failingSince: null,
      startedFrom: null,
      wakeAt,
      notBefore,
    });
  }

  // Appointments

  /** What Hermes has to do next, and whether a job of it failed. */
  jobs(nextCron: number | null, lastJobError: JobTrouble | null): void {
    this.#write({ nextCron, lastJobError });
  }

  /** What a Hermes that is ended has to do next. */
  leaves(nextCron: number | null): void {
    this.#write({ nextCron });
  }

  /** Nothing is done by itself before. */
  postponed(until: number): void {
    this.#write({ notBefore: until });
  }

  /** A clock that was set back must not turn a pause of seconds into one of days. */
  mendTimes(): void {
    const now = this.#time.now();
    const { notBefore, lastActivity, lastSave, firstUnsaved, lastUnsaved, saveFailures, failingSince } =
      this.#record;
    const past = (at: number | null) => (at === null ? null : Math.min(at, now));
    if (notBefore <= now + LONGEST_PAUSE && Math.max(lastActivity, lastSave, lastUnsaved ?? 0) <= now) return;
    // How much is left of a pause is not known then: a save waits for one of its own at most, and a boot for none.
    this.#write({
      notBefore: Math.min(notBefore, now + savePause(saveFailures)),
      lastActivity: Math.min(lastActivity, now),
      lastSave: Math.min(lastSave, now),
      firstUnsaved: past(firstUnsaved),
      lastUnsaved: past(lastUnsaved),
      failingSince: past(failingSince),
    });
  }

  /** A provider refused us, or serves us again. */
  provider(trouble: ProviderTrouble | null): void {
    this.#write({ lastProviderError: trouble });
  }

  #dated(failure: Failure): Trouble {
    return { at: this.#time.now(), code: failure.code, message: failure.message };
  }

  #write(change: Partial<InstanceRecord>): void {
    Object.assign(this.#record, change);
    this.#meterRuns();
    this.#store.put(this.#record);
  }

  /** Counts each run of a sandbox, from the start of its boot to its end. */
  #meterRuns(): void {
    const record = this.#record;
    const runs = record.state !== "asleep";
    if (runs === (record.runningSince !== null)) return;
    const now = this.#time.now();
    if (record.runningSince !== null) record.meter = count(record.meter, record.runningSince, now);
    record.runningSince = runs ? now : null;
  }
}
