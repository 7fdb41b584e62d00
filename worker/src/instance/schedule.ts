// SPDX-License-Identifier: Apache-2.0
/** The one alarm: checkpoint, idle, next cron job. Pure: what is due when, from what happened when. */

/** What happened, as far as the alarm cares. Times are milliseconds since the epoch. */
import type { Chores } from "../sandbox/commands.ts";
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
  /** Next cron time, as Hermes told it last, or `null`. */
  nextCron: number | null;
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
  /** A cron job's result is saved so long after its time. */
  cronSettle: number;
}

/** The policy of the design with a deployment's own sleep timeout. */
export function policyFor(sleepAfter: number): Policy {
  return {
    sleepAfter,
    settle: 5000,
    saveWithin: 60_000,
    saveEvery: 600_000,
    cronLinger: 60_000,
    cronSettle: 60_000,
  };
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
  return earliest(turns, busy, cronSaveAt(happened, policy));
}

/** A job that Hermes runs while it is awake changes the state without any turn. */
function cronSaveAt(happened: Happened, policy: Policy): number | null {
  const { nextCron, lastSave, lastActivity, wokenForCron } = happened;
  // One woken for its job is about to be put to sleep, and saved by that.
  if (nextCron === null || wokenForCron) return null;
  // A time that does not move on is no reason to save for ever.
  if (nextCron < lastActivity - LONGEST_OVERDUE && nextCron < lastSave - LONGEST_OVERDUE) return null;
  return Math.max(nextCron, lastSave) + policy.cronSettle;
}

function earliest(...times: (number | null)[]): number | null {
  const known = times.filter((time) => time !== null);
  return known.length === 0 ? null : Math.min(...known);
}

function sleepAt(happened: Happened, policy: Policy): number | null {
  if (happened.inFlight > 0) return null;
  return happened.lastActivity + (happened.wokenForCron ? policy.cronLinger : policy.sleepAfter);
}

/** A sleep shorter than this is not worth a boot, in milliseconds. */
const SHORTEST_SLEEP = 120_000;

/** A job that is overdue for so long will not run; milliseconds. */
const LONGEST_OVERDUE = 600_000;
/** Background work (perhaps one that waits for an approval) keeps Hermes awake for so long at most, in ms. */
const LONGEST_BACKGROUND = 6 * 3600_000;
/** Between looks at work under way, in milliseconds. */
const LOOK_EVERY = 15_000;

/** What to do about an idle Hermes. */
export type Verdict = { sleep: true; wakeAt: number | null } | { sleep: false; askAgain: number };

/**
 * Whether to sleep now, and if not, when to ask again.
 * A job that is due or nearly due is waited for; one under way keeps Hermes awake, and so do its queues.
 * @param idleSince last sign of life from outside.
 */
export function maySleep(now: number, idleSince: number, chores: Chores): Verdict {
  const { cronRunning, background, nextCron } = chores;
  const busy = cronRunning > 0 || (background > 0 && now - idleSince < LONGEST_BACKGROUND);
  if (busy) return { sleep: false, askAgain: now + LOOK_EVERY };
  if (nextCron === null || nextCron < now - LONGEST_OVERDUE) return { sleep: true, wakeAt: null };
  if (nextCron - now < SHORTEST_SLEEP) return { sleep: false, askAgain: Math.max(nextCron, now) + 30_000 };
  return { sleep: true, wakeAt: nextCron };
}

/** The pause after the n-th failed boot in a row: 1, 2, 4 ... 60 s, in milliseconds. */
export function bootPause(failures: number): number {
  return failures <= 0 ? 0 : Math.min(60_000, 1000 * 2 ** Math.min(failures - 1, 6));
}

/** The pause after the n-th failed save in a row: 5, 10, 20 ... 300 s, in milliseconds. */
export function savePause(failures: number): number {
  return failures <= 0 ? 0 : Math.min(300_000, 5000 * 2 ** Math.min(failures - 1, 6));
}

/** The pause before a cron job's next attempt after the n-th failed boot: up to an hour, in milliseconds. */
export function cronPause(failures: number): number {
  return failures <= 7 ? bootPause(failures) : Math.min(3600_000, 60_000 * 2 ** Math.min(failures - 7, 6));
}

/** No pause is longer; one that seems to be is of a clock that was set back. Milliseconds. */
export const LONGEST_PAUSE = 300_000;
