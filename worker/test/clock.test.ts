// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { bootPause, type Happened, maySleep, nextDue, policyFor, savePause } from "../src/clock.ts";

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
    ["a short stay for a cron job", { wokenForCron: true }, { what: "sleep", at: NOW + 60_000 }],
  ])("is %s", (_, change, due) => {
    expect(nextDue(happened(change), POLICY)).toEqual(due);
  });
});

describe("sleeping", () => {
  it.each([
    ["with nothing to do", { cronRunning: 0, nextCron: null }, { sleep: true }],
    ["with a job far away", { cronRunning: 0, nextCron: NOW + 600_000 }, { sleep: true }],
    ["while a job runs", { cronRunning: 1, nextCron: null }, { sleep: false, askAgain: NOW + 15_000 }],
    [
      "just before a job",
      { cronRunning: 0, nextCron: NOW + 60_000 },
      { sleep: false, askAgain: NOW + 90_000 },
    ],
    [
      "with a job overdue",
      { cronRunning: 0, nextCron: NOW - 60_000 },
      { sleep: false, askAgain: NOW + 30_000 },
    ],
  ])("%s", (_, chores, verdict) => {
    expect(maySleep(NOW, chores)).toEqual(verdict);
  });
});

it("pauses longer after every failure, up to a limit", () => {
  expect([0, 1, 2, 3, 7, 50].map(bootPause)).toEqual([0, 1000, 2000, 4000, 60_000, 60_000]);
  expect([0, 1, 2, 7, 50].map(savePause)).toEqual([0, 5000, 10_000, 300_000, 300_000]);
});
