// SPDX-License-Identifier: Apache-2.0
/** How the instance is shown to who asks for its health or status, with times as people write them. */
import type { Restart } from "../config/configuration.ts";
import type { JobTrouble } from "../sandbox/commands.ts";
import type { Generation } from "../state/vault.ts";
import type { InstanceRecord } from "./record.ts";
import { asOf, count } from "./running-time.ts";

/** No month that is told of began before; in milliseconds. */
const LONGEST_MONTHS = 62 * 24 * 3600_000;

/** What `/api/health` says about the instance. */
export interface Health {
  state: InstanceRecord["state"];
  /** ISO 8601. */
  since: string;
  bootId: string | null;
  /** Since when (ISO 8601), and for what, a boot waits that has nothing yet in which a command works. */
  starting: { since: string; why: string } | null;
  image: string | null;
  gateway: "running" | null;
  lastJobError: (Omit<JobTrouble, "at"> & { at: string }) | null;
  confined: boolean | null;
  /** Version of the code and settings that this object runs with; the Worker before it may have another. */
  version: string;
  /** Whether this object runs with all that the asking Worker has, secrets among it. */
  inStep: boolean;
  configuration: ConfigurationView | null;
  storage: StorageView;
  stateAtRisk: RiskView | null;
  stateShrank: ShrinkageView | null;
}

/** What Hermes knows was not saved for too long. */
export interface RiskView {
  /** ISO 8601. */
  since: string;
  why: string;
}

/** The state is a fraction of what it was; the backup from before is kept. */
export interface ShrinkageView {
  since: string;
  bytes: number;
  before: { backup: number; bytes: number };
}

/** Which storage it is, and what is kept in it: whoever remembers another one knows that this one began anew. */
export interface StorageView {
  id: string;
  /** ISO 8601. */
  since: string;
  backups: number;
  newestBackup: { id: number; created: string; digest: string } | null;
}

/** Whether a running Hermes has the deployed settings; `null` where none runs, or while nobody knows. */
export interface ConfigurationView {
  current: boolean;
  /** The variables whose values are not in force. */
  differs: string[];
  /** The lightest restart that brings them. */
  restart: Restart;
}

export function startingOf({ starting }: Readonly<InstanceRecord>): Health["starting"] {
  return starting === null ? null : { ...starting, since: iso(starting.since) };
}

/** Seconds that the sandbox ran, with what it has run until now. */
export function runningOf(record: Readonly<InstanceRecord>, now: number) {
  const meter = asOf(count(record.meter, record.runningSince ?? now, now), now);
  const seconds = (ms: number) => Math.round(ms / 1000);
  return {
    today: seconds(meter.today),
    month: seconds(meter.month),
    lastMonth: seconds(meter.lastMonth),
    // A sandbox that ends while this object is not in memory tells nobody.
    atMost: record.learnedLate !== null && now - record.learnedLate < LONGEST_MONTHS,
  };
}

export function iso(at: number): string {
  return new Date(at).toISOString();
}

export function isoOrNull(at: number | null): string | null {
  return at === null ? null : iso(at);
}

export function dated<T extends { at: number }>(trouble: T | null): (Omit<T, "at"> & { at: string }) | null {
  return trouble === null ? null : { ...trouble, at: iso(trouble.at) };
}

/** The snapshots that are still needed; whoever tidies up the container engine may remove all others. */
export function snapshotsOf({ snapshot, startedFrom }: Readonly<InstanceRecord>) {
  const needed = [startedFrom, snapshot].filter((one) => one !== null);
  return [...new Map(needed.map((one) => [one.id, one])).values()].map(({ renewed, ...one }) => ({
    ...one,
    renewed: iso(renewed),
  }));
}

export function backupView(generation: Generation) {
  const { id, bytes, digest, sha256, reason, image, state, note } = generation;
  return { id, created: iso(generation.created), bytes, digest, sha256, reason, image, state, note };
}
