// SPDX-License-Identifier: Apache-2.0
/** The one alarm: checkpoint, idle, next cron job. Pure: what is due when, from what happened when. */

/** What happened, as far as the alarm cares. Times are milliseconds since the epoch. */
export interface Happened {
  /** Whether Hermes runs. */
  awake: boolean;
  /** Requests not yet answered to their end. */
  inFlight: number;
  /** End of the last turn that no save contains, or `null`. */
  lastUnsaved: number | null;
  /** End (or, while it lasts, beginning) of the first turn that no save contains, or `null`. */
  firstUnsaved: number | null;
  /** Last complete save of this boot, or its start. */
  lastSave: number;
  /** Last sign of life from outside. */
  lastActivity: number;
  /** Nothing before this: the pause after a failed save or a postponed sleep. */
  notBefore: number;
  /** When a cron job wants Hermes awake, while it sleeps; `null` for never. */
  wakeAt: number | null;
  /** Woken by the alarm for a cron job, and used by nobody since. */
  wokenForCron: boolean;
}

/** How long things may take, in milliseconds. */
export interface Policy {
  sleepAfter: number;
  /** A turn's end is saved so long after the last one, ... */
  settle: number;
  /** ... but so long after the first at the latest. */
  saveWithin: number;
  /** Between saves while requests are in flight. */
  saveEvery: number;
  /** How long Hermes stays after it was woken for a cron job and the job is done. */
  cronLinger: number;
}

/** The policy of the design with a deployment's own sleep timeout. */
export function policyFor(sleepAfter: number): Policy {
  return { sleepAfter, settle: 5000, saveWithin: 60_000, saveEvery: 600_000, cronLinger: 60_000 };
}

/** What to do next, and when. */
export interface Due {
  what: "save" | "sleep" | "wake";
  /** Milliseconds since the epoch; in the past means now. */
  at: number;
}

/** The next thing to do, or `null` when nothing ever needs doing: no timer without a purpose. */
export function nextDue(happened: Happened, policy: Policy): Due | null {
  if (!happened.awake)
    return happened.wakeAt === null ? null : { what: "wake", at: later(happened.wakeAt, happened) };
  const save = saveAt(happened, policy);
  const sleep = sleepAt(happened, policy);
  if (save !== null && (sleep === null || save <= sleep)) return { what: "save", at: later(save, happened) };
  return sleep === null ? null : { what: "sleep", at: later(sleep, happened) };
}

function later(at: number, happened: Happened): number {
  return Math.max(at, happened.notBefore);
}

function saveAt(happened: Happened, policy: Policy): number | null {
  const turns =
    happened.firstUnsaved === null || happened.lastUnsaved === null
      ? null
      : Math.min(happened.lastUnsaved + policy.settle, happened.firstUnsaved + policy.saveWithin);
  const busy = happened.inFlight > 0 ? happened.lastSave + policy.saveEvery : null;
  if (turns === null) return busy;
  return busy === null ? turns : Math.min(turns, busy);
}

function sleepAt(happened: Happened, policy: Policy): number | null {
  if (happened.inFlight > 0) return null;
  return happened.lastActivity + (happened.wokenForCron ? policy.cronLinger : policy.sleepAfter);
}

/** What Hermes says about its own work when it is asked before a sleep. */
export interface Chores {
  /** Cron jobs under way. */
  cronRunning: number;
  /** Next cron time, or `null`. */
  nextCron: number | null;
}

/** A sleep shorter than this is not worth a boot, in milliseconds. */
export const SHORTEST_SLEEP = 120_000;

/**
 * Whether to sleep now, and if not, when to ask again.
 * A job that is due or nearly due is waited for; one under way keeps Hermes awake.
 */
export function maySleep(now: number, chores: Chores): { sleep: true } | { sleep: false; askAgain: number } {
  if (chores.cronRunning > 0) return { sleep: false, askAgain: now + 15_000 };
  if (chores.nextCron !== null && chores.nextCron - now < SHORTEST_SLEEP)
    return { sleep: false, askAgain: Math.max(chores.nextCron, now) + 30_000 };
  return { sleep: true };
}

/** The pause after the n-th failed boot in a row: 1, 2, 4 ... 60 s, in milliseconds. */
export function bootPause(failures: number): number {
  return failures <= 0 ? 0 : Math.min(60_000, 1000 * 2 ** Math.min(failures - 1, 6));
}

/** The pause after the n-th failed save in a row: 5, 10, 20 ... 300 s, in milliseconds. */
export function savePause(failures: number): number {
  return failures <= 0 ? 0 : Math.min(300_000, 5000 * 2 ** Math.min(failures - 1, 6));
}
