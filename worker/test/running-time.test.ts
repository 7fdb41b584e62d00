// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { asOf, count, NOTHING } from "../src/instance/running-time.ts";

const HOUR = 3600_000;
const at = (time: string) => Date.parse(`${time}Z`);

describe("what a sandbox ran", () => {
  it("is told by day and month, of a run past midnight and past a month's end too", () => {
    let meter = count(NOTHING, at("2026-11-28T10:00"), at("2026-11-28T11:00"));
    expect(meter).toEqual({ day: "2026-11-28", today: HOUR, month: HOUR, lastMonth: 0 });
    meter = count(meter, at("2026-11-28T23:00"), at("2026-11-30T02:00"));
    expect(meter).toEqual({ day: "2026-11-30", today: 2 * HOUR, month: 28 * HOUR, lastMonth: 0 });
    meter = count(meter, at("2026-11-30T22:00"), at("2026-12-01T03:00"));
    expect(meter).toEqual({ day: "2026-12-01", today: 3 * HOUR, month: 3 * HOUR, lastMonth: 30 * HOUR });
    meter = count(meter, at("2026-12-31T23:00"), at("2027-01-01T01:00"));
    expect(meter).toEqual({ day: "2027-01-01", today: HOUR, month: HOUR, lastMonth: 4 * HOUR });
  });

  it("is nothing of today on the next day, and nothing of last month two months later", () => {
    const meter = count(NOTHING, at("2026-11-28T10:00"), at("2026-11-28T11:00"));
    expect(asOf(meter, at("2026-11-29T00:00"))).toMatchObject({ today: 0, month: HOUR });
    expect(asOf(meter, at("2026-12-01T00:00"))).toMatchObject({ today: 0, month: 0, lastMonth: HOUR });
    expect(asOf(meter, at("2027-01-01T00:00"))).toMatchObject({ today: 0, month: 0, lastMonth: 0 });
  });

  it("loses nothing when the clock is set back", () => {
    const meter = count(NOTHING, at("2026-12-01T10:00"), at("2026-12-01T11:00"));
    expect(count(meter, at("2026-12-01T12:00"), at("2026-12-01T09:00"))).toEqual(meter);
    expect(count(meter, at("2026-11-30T10:00"), at("2026-11-30T11:00"))).toMatchObject({ month: 2 * HOUR });
  });
});
