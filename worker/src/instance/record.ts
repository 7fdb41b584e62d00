// SPDX-License-Identifier: Apache-2.0
/** What an instance remembers over its own restarts. */
import type { Started } from "../config/configuration.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import type { JobTrouble, Restored } from "../sandbox/commands.ts";
import type { SnapshotRecord } from "../state/snapshots.ts";
import { type Meter, NOTHING } from "./running-time.ts";

/** Where an instance is in its life. */
export type State = "asleep" | "booting" | "awake" | "saving" | "stopping";

/** Something that went wrong, for the status page. */
export interface Trouble {
  /** Milliseconds since the epoch. */
  at: number;
  code: string;
  message: string;
}

/** `key`: it is not taken; `region`: nobody is served from where the call comes from. */
export type Refusal = "key" | "region";

/** A provider's refusal, as the `Providers` entrypoint saw it. */
export interface ProviderTrouble {
  at: number;
  provider: string;
  status: number;
  /** The variable that holds the key. */
  variable: string;
  /** What is refused: the key, or whoever asks from there. */
  why: Refusal;
}

/** What this instance remembers. Times are milliseconds since the epoch. */
export interface InstanceRecord {
  state: State;
  since: number;
  bootId: string | null;
  image: string | null;
  confined: boolean | null;
  /** What else than the image the sandbox that runs was started with; `null` when that is not known. */
  started: Omit<Started, "image"> | null;
  keys: BootKeys | null;
  /** Since when, and for what, a boot waits that has nothing yet in which a command works; `null` when none does. */
  starting: { since: number; why: string } | null;
  whyAwake: string | null;
  wokenForCron: boolean;
  gatewayStopped: boolean;
  lastActivity: number;
  firstUnsaved: number | null;
  lastUnsaved: number | null;
  lastSave: number;
  wakeAt: number | null;
  /** Next cron time as Hermes told it last; what is left of its appointments when it dies. */
  nextCron: number | null;
  notBefore: number;
  bootFailures: number;
  saveFailures: number;
  /** Since when what Hermes knows could not be saved, or `null`. */
  failingSince: number | null;
  boots: number;
  /** When the sandbox that runs was started; `null` while none does. */
  runningSince: number | null;
  meter: Meter;
  /** When an end was last learned of late: until then more was counted than ran. `null` when none was. */
  learnedLate: number | null;
  lastError: Trouble | null;
  lastSaveError: Trouble | null;
  /** The newest refusal of a provider that did not serve us since. */
  lastProviderError: ProviderTrouble | null;
  /** The newest failure of a job that no later run made good, as Hermes told it last. */
  lastJobError: JobTrouble | null;
  lastExit: { at: number; exitCode: number | null; logTail: string | null } | null;
  restored: Restored | null;
  /** The newest snapshot. */
  snapshot: SnapshotRecord | null;
  /** The snapshot that the current boot was started from. */
  startedFrom: SnapshotRecord | null;
  /** Why the last attempt to take a snapshot gave none. */
  snapshotNote: string | null;
}

/** All that the sandbox that runs was started with; `null` when that is not known. */
export function startedWith({ image, started }: Readonly<InstanceRecord>): Started | null {
  return image === null || started === null ? null : { image, ...started };
}

/** An instance that never ran. */
export function newRecord(now: number): InstanceRecord {
  return {
    state: "asleep",
    since: now,
    bootId: null,
    image: null,
    confined: null,
    started: null,
    keys: null,
    starting: null,
    whyAwake: null,
    wokenForCron: false,
    gatewayStopped: false,
    lastActivity: now,
    firstUnsaved: null,
    lastUnsaved: null,
    lastSave: 0,
    wakeAt: null,
    nextCron: null,
    notBefore: 0,
    bootFailures: 0,
    saveFailures: 0,
    failingSince: null,
    boots: 0,
    runningSince: null,
    meter: NOTHING,
    learnedLate: null,
    lastError: null,
    lastSaveError: null,
    lastProviderError: null,
    lastJobError: null,
    lastExit: null,
    restored: null,
    snapshot: null,
    startedFrom: null,
    snapshotNote: null,
  };
}
