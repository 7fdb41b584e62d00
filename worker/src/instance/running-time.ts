// SPDX-License-Identifier: Apache-2.0
/** How long the sandbox ran: what Cloudflare bills for. Days and months are those of UTC, as on its bill. */

const DAY = 86_400_000;
/** What is further back than two months is on no month that is told of. */
const LONGEST = 62 * DAY;

/** Milliseconds that the sandbox ran, up to the last time that it ended. */
export interface Meter {
  /** The newest day that was counted, like `2026-11-25`; empty when none was. */
  day: string;
  /** On that day. */
  today: number;
  /** In its month. */
  month: number;
  /** In the month before. */
  lastMonth: number;
}

/** A meter that counted nothing. */
export const NOTHING: Meter = { day: "", today: 0, month: 0, lastMonth: 0 };

/**
 * The meter with a further run.
 * @param from when the run began, in milliseconds since the epoch.
 * @param to when it ended; a run that seems to end before it began, by a clock that was set back, is none.
 */
export function count(meter: Meter, from: number, to: number): Meter {
  let counted = meter;
  for (let at = Math.max(from, to - LONGEST); at < to; ) {
    const midnight = (Math.floor(at / DAY) + 1) * DAY;
    const ran = Math.min(midnight, to) - at;
    const { day, today, month, lastMonth } = asOf(counted, at);
    counted = { day, today: today + ran, month: month + ran, lastMonth };
    at = midnight;
  }
  return counted;
}

/** The meter on a later day: what was counted today was then counted on another day, or in another month. */
export function asOf(meter: Meter, now: number): Meter {
  const day = new Date(now).toISOString().slice(0, 10);
  if (day <= meter.day) return meter;
  if (monthOf(day) === monthOf(meter.day)) return { ...meter, day, today: 0 };
  const isNext = monthOf(meter.day) === monthOf(day) - 1;
  return { day, today: 0, month: 0, lastMonth: isNext ? meter.month : 0 };
}

/** Months since the year 0. */
function monthOf(day: string): number {
  const [year, month] = day.split("-").map(Number) as [number, number];
  return year * 12 + month;
}
