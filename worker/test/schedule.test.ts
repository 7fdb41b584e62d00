// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import {
  bootPause,
  cronPause,
  type Happened,
  maySleep,
  nextDue,
  policyFor,
  savePause,
} from "../src/instance/schedule.ts";
import type { Chores } from "../src/sandbox/commands.ts";

const POLICY = policyFor(4 * 3600_000);
const NOW = 1_000_000_000;

/** An idle, saved Hermes, and what is different about it. */
function happened(change: Partial<Happened> = {}): Happened {
  return {
    awake: true,
    inFlight: 0,
    firstUnsaved: null,
    lastUnsaved: null,
    lastSave: NOW,
    lastActivity: NOW,
    notBefore: 0,
    wakeAt: null,
    wokenForCron: false,
    nextCron: null,
    ...change,
  };
}

describe("what is due", () => {
  it.each<[string, Partial<Happened>, ReturnType<typeof nextDue>]>([
    ["nothing while asleep without an appointment", { awake: false }, null],
    ["the appointment while asleep", { awake: false, wakeAt: NOW + 5 }, { what: "wake", at: NOW + 5 }],
    [
      "a pause before a second attempt",
      { awake: false, wakeAt: NOW, notBefore: NOW + 9 },
      { what: "wake", at: NOW + 9 },
    ],
    ["sleep when idle", {}, { what: "sleep", at: NOW + 4 * 3600_000 }],
    [
      "a save 5 s after the last turn",
      { firstUnsaved: NOW, lastUnsaved: NOW + 100 },
      { what: "save", at: NOW + 5100 },
    ],
    [
      "a save 60 s after the first turn",
      { firstUnsaved: NOW, lastUnsaved: NOW + 58_000 },
      { what: "save", at: NOW + 60_000 },
    ],
    ["a save every 10 min while busy", { inFlight: 1 }, { what: "save", at: NOW + 600_000 }],
    ["no sleep while busy", { inFlight: 1, lastActivity: 0 }, { what: "save", at: NOW + 600_000 }],
    [
      "a pause after a failed save",
      { firstUnsaved: 0, lastUnsaved: 0, notBefore: NOW + 7 },
      { what: "save", at: NOW + 7 },
    ],
    ["a save after a cron job's time", { nextCron: NOW + 5 }, { what: "save", at: NOW + 60_005 }],
    [
      "no save for one that will be put to sleep anyway",
      { nextCron: NOW - 5, wokenForCron: true },
      { what: "sleep", at: NOW + 60_000 },
    ],
    [
      "sleep before a job that is later",
      { nextCron: NOW + 5 * 3600_000 },
      { what: "sleep", at: NOW + 4 * 3600_000 },
    ],
    ["a save for a job that is overdue", { nextCron: NOW - 600_000 }, { what: "save", at: NOW + 60_000 }],
    [
      "a save for a job that was due before the last save alone",
      { nextCron: NOW - 700_000, lastActivity: NOW - 200_000 },
      { what: "save", at: NOW + 60_000 },
    ],
    [
      "a save for a job that was due before the last sign of life alone",
      { nextCron: NOW - 700_000, lastSave: NOW - 200_000 },
      { what: "save", at: NOW - 140_000 },
    ],
    [
      "no save for a time that does not move on",
      { nextCron: NOW - 700_000 },
      { what: "sleep", at: NOW + 4 * 3600_000 },
    ],
    ["a short stay for a cron job", { wokenForCron: true }, { what: "sleep", at: NOW + 60_000 }],
  ])("is %s", (_, change, due) => {
    expect(nextDue(happened(change), POLICY)).toEqual(due);
  });
});

describe("sleeping", () => {
  const HOUR = 3600_000;
  const quiet: Chores = { cronRunning: 0, background: 0, nextCron: null };
  const verdict = (change: Partial<Chores>, idle = HOUR) =>
    maySleep(NOW, NOW - idle, { ...quiet, ...change });

  it.each<[string, Partial<Chores>, ReturnType<typeof maySleep>]>([
    ["with nothing to do", {}, { sleep: true, wakeAt: null }],
    ["with a job far away", { nextCron: NOW + 600_000 }, { sleep: true, wakeAt: NOW + 600_000 }],
    ["while a job runs", { cronRunning: 1 }, { sleep: false, askAgain: NOW + 15_000 }],
    ["while its queues are not empty", { background: 2 }, { sleep: false, askAgain: NOW + 15_000 }],
    ["just before a job", { nextCron: NOW + 60_000 }, { sleep: false, askAgain: NOW + 90_000 }],
    ["too near a job", { nextCron: NOW + 119_999 }, { sleep: false, askAgain: NOW + 149_999 }],
    ["far enough from a job", { nextCron: NOW + 120_000 }, { sleep: true, wakeAt: NOW + 120_000 }],
    ["with a job overdue for long", { nextCron: NOW - 600_000 }, { sleep: false, askAgain: NOW + 30_000 }],
    ["with a job overdue for too long", { nextCron: NOW - 600_001 }, { sleep: true, wakeAt: null }],
    ["with a job overdue", { nextCron: NOW - 60_000 }, { sleep: false, askAgain: NOW + 30_000 }],
    ["with a job that will not run", { nextCron: NOW - 700_000 }, { sleep: true, wakeAt: null }],
  ])("%s", (_, chores, expected) => {
    expect(verdict(chores)).toEqual(expected);
  });

  it("is not put off for ever by work that waits for somebody", () => {
    expect(verdict({ background: 1 }, 6 * HOUR - 1)).toEqual({ sleep: false, askAgain: NOW + 15_000 });
    expect(verdict({ background: 1 }, 6 * HOUR)).toEqual({ sleep: true, wakeAt: null });
  });
});

it("pauses longer after every failure, up to a limit", () => {
  expect([0, 1, 2, 3, 7, 50].map(bootPause)).toEqual([0, 1000, 2000, 4000, 60_000, 60_000]);
  expect([1, 7, 8, 9, 50].map(cronPause)).toEqual([1000, 60_000, 120_000, 240_000, 3600_000]);
  expect([0, 1, 2, 7, 50].map(savePause)).toEqual([0, 5000, 10_000, 300_000, 300_000]);
});
