// SPDX-License-Identifier: Apache-2.0
/** What each thing that happens leaves in the record, and nothing else: all that an instance knows of itself later. */
import { describe, expect, it } from "vitest";
import { type InstanceRecord, newRecord } from "../src/instance/record.ts";
import { Recorder } from "../src/instance/recorder.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const NOW = new ManualTime().now();
/** When everything of {@link BUSY} was. */
const THEN = NOW - 1000;
const MINUTE = 60_000;

const KEYS = { capability: "c", gatewayKey: "g", dashboardToken: "d" } as unknown as InstanceRecord["keys"];
const EXIT = { at: THEN, exitCode: 1, logTail: "the log" };
const SNAPSHOT = { snapshot: { id: "s" }, renewed: THEN } as unknown as NonNullable<
  InstanceRecord["snapshot"]
>;
const TROUBLE = { at: THEN, code: "c", message: "m" };
const FAILURE = { code: "new", message: "just now" };
const DATED = { at: NOW, ...FAILURE };
const JOB = { name: "j" } as unknown as NonNullable<InstanceRecord["lastJobError"]>;
const PROVIDER = { provider: "p" } as unknown as NonNullable<InstanceRecord["lastProviderError"]>;
const RESTORED = { backup: 1, snapshot: null, passedOver: [] };
const STARTED = { instanceType: "i", open: true } as unknown as InstanceRecord["started"];

/** One of which nothing is as it is in the beginning. */
const BUSY: InstanceRecord = {
  state: "awake",
  since: THEN,
  bootId: "b",
  image: "image-1",
  confined: true,
  started: STARTED,
  keys: KEYS,
  starting: { since: THEN, why: "an image" },
  whyAwake: "cron",
  wokenForCron: true,
  gatewayStopped: true,
  lastActivity: THEN,
  firstUnsaved: THEN,
  lastUnsaved: THEN,
  lastSave: THEN,
  wakeAt: NOW + 1,
  nextCron: NOW + 2,
  notBefore: NOW + 3,
  bootFailures: 2,
  saveFailures: 3,
  failingSince: THEN,
  boots: 4,
  runningSince: THEN,
  meter: { day: "2025-12-01", today: 1, month: 1, lastMonth: 1 },
  learnedLate: THEN,
  lastError: TROUBLE,
  lastSaveError: TROUBLE,
  lastProviderError: PROVIDER,
  lastJobError: JOB,
  lastExit: EXIT,
  restored: RESTORED,
  snapshot: SNAPSHOT,
  startedFrom: SNAPSHOT,
  snapshotNote: "none",
};
const FRESH = newRecord(THEN);
/** What a sandbox that ended a second ago adds to the meter of {@link BUSY}, whose day is in the month before. */
const OVER = { runningSince: null, meter: { day: "2025-12-31", today: 1000, month: 1001, lastMonth: 1 } };

const START = { bootId: "b2", keys: KEYS, image: "image-2", started: STARTED, startedFrom: null };
const UNSAVED = { firstUnsaved: THEN - 1, lastUnsaved: THEN - 1 };

type Happens = (recorder: Recorder) => unknown;
/** What happens, to whom, and what is otherwise in the record then. */
const WRITTEN: [string, InstanceRecord, Happens, Partial<InstanceRecord>][] = [
  ["a turn begins", BUSY, (it) => it.turnBegan(), { firstUnsaved: NOW, lastUnsaved: NOW }],
  ["a turn ends that a save passed", FRESH, (it) => it.turnEnded(), { firstUnsaved: NOW, lastUnsaved: NOW }],
  [
    "a boot begins",
    FRESH,
    (it) => it.bootBegan("cron", "an image"),
    { whyAwake: "cron", starting: { since: NOW, why: "an image" } },
  ],
  [
    "a boot begins before an appointment that was made at the end",
    { ...FRESH, wakeAt: 5, nextCron: 6 },
    (it) => it.bootBegan("cron", "an image"),
    { whyAwake: "cron", starting: { since: NOW, why: "an image" } },
  ],
  [
    "a boot begins of which Hermes told its next job",
    { ...FRESH, nextCron: 6 },
    (it) => it.bootBegan("cron", "an image"),
    { whyAwake: "cron", wakeAt: 6, starting: { since: NOW, why: "an image" } },
  ],
  [
    "a boot waits for something else",
    BUSY,
    (it) => it.waits("a machine"),
    { starting: { since: THEN, why: "a machine" } },
  ],
  [
    "a sandbox is started",
    { ...FRESH, restored: RESTORED },
    (it) => it.starting(START),
    { ...START, state: "booting", since: NOW, restored: null, runningSince: NOW },
  ],
  ["a command works", BUSY, (it) => it.commandsWork(), { starting: null }],
  ["it is told to be unconfined", BUSY, (it) => it.isConfined(false), { confined: false }],
  ["a state is restored", FRESH, (it) => it.restored(RESTORED), { restored: RESTORED }],
  [
    "Hermes is ready",
    { ...BUSY, saveFailures: 0, failingSince: null },
    (it) => it.booted(),
    {
      since: NOW,
      gatewayStopped: false,
      lastActivity: NOW,
      lastSave: NOW,
      firstUnsaved: null,
      lastUnsaved: null,
      wakeAt: null,
      notBefore: 0,
      bootFailures: 0,
      boots: 5,
      lastError: null,
    },
  ],
  [
    "Hermes is ready for somebody",
    { ...FRESH, state: "booting", whyAwake: "/v1/chat/completions", runningSince: THEN },
    (it) => it.booted(),
    { state: "awake", since: NOW, lastActivity: NOW, lastSave: NOW, boots: 1 },
  ],
  [
    "Hermes is ready for its job",
    { ...FRESH, state: "booting", whyAwake: "cron", runningSince: THEN },
    (it) => it.booted(),
    { state: "awake", since: NOW, lastActivity: NOW, lastSave: NOW, boots: 1, wokenForCron: true },
  ],
  [
    "a boot fails",
    BUSY,
    (it) => it.bootFailed(FAILURE, { ...EXIT, exitCode: 7 }),
    { lastExit: { ...EXIT, exitCode: 7 }, bootFailures: 3, lastError: DATED },
  ],
  ["a boot fails for the engine", BUSY, (it) => it.notBooted(FAILURE), { lastError: DATED }],
  ["a sandbox is found again", { ...BUSY, state: "saving" }, (it) => it.found(), { state: "awake" }],
  [
    "a sandbox is found of which nobody knows what is saved",
    { ...FRESH, runningSince: THEN },
    (it) => it.found(),
    { state: "awake", firstUnsaved: NOW, lastUnsaved: NOW },
  ],
  ["Hermes gets other keys", { ...FRESH, keys: null }, (it) => it.rekeyed(KEYS as never), { keys: KEYS }],
  ["Hermes alone runs again", BUSY, (it) => it.gateway(true), { gatewayStopped: false }],
  ["Hermes alone is stopped", FRESH, (it) => it.gateway(false), { gatewayStopped: true }],
  [
    "it is saved",
    BUSY,
    (it) => it.saved(THEN + 1),
    { lastSave: THEN + 1, saveFailures: 0, failingSince: null, lastSaveError: null },
  ],
  [
    "a save fails again",
    BUSY,
    (it) => it.saveFailed(FAILURE, "b", UNSAVED),
    { lastSaveError: DATED, firstUnsaved: THEN - 1, saveFailures: 4, notBefore: NOW + 40_000 },
  ],
  [
    "a save fails for the first time, and nothing ended meanwhile",
    { ...FRESH, bootId: "b" },
    (it) => it.saveFailed(FAILURE, "b", UNSAVED),
    { lastSaveError: DATED, ...UNSAVED, saveFailures: 1, failingSince: THEN - 1, notBefore: NOW + 5000 },
  ],
  [
    "a save fails that was for no turn",
    { ...FRESH, bootId: "b" },
    (it) => it.saveFailed(FAILURE, "b", { firstUnsaved: null, lastUnsaved: null }),
    { lastSaveError: DATED, saveFailures: 1, failingSince: NOW, notBefore: NOW + 5000 },
  ],
  [
    "a save fails of a sandbox that has a successor",
    BUSY,
    (it) => it.saveFailed(FAILURE, "a", UNSAVED),
    { lastSaveError: DATED },
  ],
  [
    "a snapshot is taken",
    { ...BUSY, snapshot: null },
    (it) => it.snapshotTaken(SNAPSHOT),
    { snapshot: SNAPSHOT, snapshotNote: null },
  ],
  ["no snapshot is to be had", BUSY, (it) => it.noSnapshot("no room"), { snapshotNote: "no room" }],
  [
    "a snapshot is started from",
    FRESH,
    (it) => it.snapshotUsed(SNAPSHOT),
    { snapshot: { ...SNAPSHOT, renewed: NOW } },
  ],
  ["a snapshot is no good", BUSY, (it) => it.snapshotDropped(), { snapshot: null }],
  ["a stop begins", BUSY, (it) => it.stopping(), { state: "stopping", since: NOW }],
  ["it is about to fall asleep", BUSY, (it) => it.fallingAsleep(), { state: "saving", since: NOW }],
  [
    "a stop is over and it stays",
    { ...BUSY, state: "stopping" },
    (it) => it.stays("stopping"),
    { state: "awake", since: NOW },
  ],
  ["it ends", BUSY, (it) => it.exited(137), { lastExit: { at: NOW, exitCode: 137, logTail: null } }],
  [
    "it ended, and nobody knows when",
    BUSY,
    (it) => it.lost(),
    { lastExit: { at: NOW, exitCode: null, logTail: null }, learnedLate: NOW },
  ],
  [
    "nothing runs any more",
    BUSY,
    (it) => it.asleep(8, 9),
    {
      ...OVER,
      state: "asleep",
      since: NOW,
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
      wakeAt: 8,
      notBefore: 9,
    },
  ],
  ["Hermes tells of its jobs", FRESH, (it) => it.jobs(7, JOB), { nextCron: 7, lastJobError: JOB }],
  ["Hermes is ended and leaves a job", BUSY, (it) => it.leaves(7), { nextCron: 7 }],
  ["something is put off", FRESH, (it) => it.postponed(7), { notBefore: 7 }],
  ["a provider refuses", FRESH, (it) => it.provider(PROVIDER), { lastProviderError: PROVIDER }],
  [
    "the clock was set back by an hour",
    Object.fromEntries(
      Object.entries(BUSY).map(([name, value]) => [
        name,
        typeof value === "number" && value > 1000 ? value + 60 * MINUTE : value,
      ]),
    ) as unknown as InstanceRecord,
    (it) => it.mendTimes(),
    {
      notBefore: NOW + 20_000,
      lastActivity: NOW,
      lastSave: NOW,
      firstUnsaved: NOW,
      lastUnsaved: NOW,
      failingSince: NOW,
    },
  ],
  [
    "the clock was set back during a pause",
    { ...BUSY, notBefore: NOW + 60 * MINUTE },
    (it) => it.mendTimes(),
    { notBefore: NOW + 20_000 },
  ],
  [
    "the clock was set back after a turn",
    { ...BUSY, lastUnsaved: NOW + 1 },
    (it) => it.mendTimes(),
    { lastUnsaved: NOW },
  ],
];

/** What happens and is of no use to whoever comes after this object: it is written with the next that is. */
const KEPT: [string, InstanceRecord, Happens, Partial<InstanceRecord>][] = [
  ["somebody asks", BUSY, (it) => it.asked(), { lastActivity: NOW, wokenForCron: false }],
  ["somebody is answered", BUSY, (it) => it.answered(), { lastActivity: NOW }],
  ["a turn ends", BUSY, (it) => it.turnEnded(), { lastUnsaved: NOW }],
  ["a save begins", BUSY, (it) => it.saveBegan(), { firstUnsaved: null, lastUnsaved: null }],
];

const NOTHING_HAPPENS: [string, InstanceRecord, Happens][] = [
  ["a boot waits whose commands work", FRESH, (it) => it.waits("a machine")],
  ["a stop finds it asleep", FRESH, (it) => it.stopping()],
  ["a stop is over that ended it", FRESH, (it) => it.stays("stopping")],
  ["something belongs to another boot", BUSY, (it) => it.as("another", (own) => own.gateway(true))],
  ["the clock is as it was", BUSY, (it) => it.mendTimes()],
];

/** Have it happen; returns the record, and what is stored. */
function happened(before: InstanceRecord, happens: Happens) {
  let stored: InstanceRecord | undefined = structuredClone(before);
  let writes = 0;
  const put = (record: InstanceRecord) => {
    stored = structuredClone(record);
    writes++;
  };
  const recorder = new Recorder({ get: () => structuredClone(before), put }, new ManualTime());
  happens(recorder);
  return { record: recorder.record, stored, writes };
}

describe("the record", () => {
  it.each(WRITTEN)("tells when %s", (_, before, happens, change) => {
    const { record, stored } = happened(before, happens);
    expect(record).toEqual({ ...before, ...change });
    expect(stored).toEqual(record);
  });

  it.each(KEPT)("is not written when %s, and tells it", (_, before, happens, change) => {
    const { record, writes } = happened(before, happens);
    expect(record).toEqual({ ...before, ...change });
    expect(writes).toBe(0);
  });

  it.each(NOTHING_HAPPENS)("stays as it is when %s", (_, before, happens) => {
    expect(happened(before, happens)).toEqual({ record: before, stored: before, writes: 0 });
  });

  it("takes what belongs to the boot that runs", () => {
    const { record } = happened(BUSY, (it) => it.as("b", (own) => own.gateway(true)));
    expect(record.gatewayStopped).toBe(false);
  });

  it("gives a save the turns that it is for", () => {
    const { firstUnsaved, lastUnsaved } = BUSY;
    happened(BUSY, (it) => expect(it.saveBegan()).toEqual({ firstUnsaved, lastUnsaved }));
  });

  it("has all that an instance which never ran has to say, and takes what one of an earlier release kept", () => {
    const { lastJobError: _, ...earlier } = BUSY;
    const { record } = happened(earlier as InstanceRecord, () => undefined);
    expect(record).toEqual({ ...BUSY, lastJobError: null });
    const { state, since, lastActivity, lastSave, notBefore, meter, ...rest } = newRecord(NOW);
    expect({ state, since, lastActivity, lastSave, notBefore }).toEqual({
      state: "asleep",
      since: NOW,
      lastActivity: NOW,
      lastSave: 0,
      notBefore: 0,
    });
    expect(meter).toEqual({ day: "", today: 0, month: 0, lastMonth: 0 });
    expect(Object.keys(newRecord(NOW)).sort()).toEqual(Object.keys(BUSY).sort());
    expect(Object.values(rest).filter(Boolean)).toEqual([]);
  });
});
