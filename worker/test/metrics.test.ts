// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { metricsOf } from "../src/instance/metrics.ts";
import { newRecord } from "../src/instance/record.ts";
import { anew, ask, chat, woken } from "./helpers.ts";

/** The samples of a page, by their names with labels; each line has the form that Prometheus reads. */
function samples(page: string): Record<string, number> {
  const found: Record<string, number> = {};
  const told = new Map<string, string>();
  expect(page.endsWith("\n")).toBe(true);
  for (const line of page.trimEnd().split("\n")) {
    const comment = /^# (HELP|TYPE) (hermes_[a-z_]+) (.+)$/.exec(line);
    if (comment !== null) {
      const [, kind, name, text] = comment as unknown as [string, string, string, string];
      // Each is told of once, before its samples.
      expect(told.has(`${kind} ${name}`)).toBe(false);
      told.set(`${kind} ${name}`, text);
      continue;
    }
    const sample = /^(hermes_[a-z_]+)(\{[a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*\})? ([0-9.]+)$/.exec(
      line,
    );
    expect(sample, line).not.toBeNull();
    const [, name, labels, value] = sample as unknown as [string, string, string | undefined, string];
    expect(told.get(`TYPE ${name}`), line).toMatch(name.endsWith("_total") ? /^counter$/ : /^gauge$/);
    found[`${name}${labels ?? ""}`] = Number(value);
  }
  return found;
}

describe("the metrics", () => {
  it("tell each number of an instance, and when each thing happened in seconds", () => {
    const at = (second: number) => second * 1000;
    const page = metricsOf({
      name: "alice",
      workerVersion: "v1",
      hermesVersion: "0.19.0",
      record: {
        ...newRecord(0),
        since: at(1),
        boots: 2,
        wakeAt: at(3),
        lastSave: at(4),
        firstUnsaved: at(5.5),
        lastError: { at: at(6), message: "no word of this" },
        lastJobError: { at: at(7), id: "1", name: "secret plans", error: "no word of this", kind: "model" },
      } as unknown as Parameters<typeof metricsOf>[0]["record"],
      running: { today: 8, month: 9, lastMonth: 10, atMost: false },
      requestsInFlight: 11,
      atRiskSince: at(12),
      backups: [at(14), at(13)],
      unanswered: 15,
      channels: {
        telegram: {
          ...{ receives: "webhook", waiting: 16, trouble: "no word of this", paired: [], asking: [] },
          ...{ lastIn: at(17), lastOut: at(18), dropped: 19, again: 20, twice: 21, refused: 22 },
        },
        "hooks/ci": {
          ...{ receives: "webhook", waiting: 0, trouble: null, paired: [], asking: [] },
          ...{ lastIn: 0, lastOut: 0, dropped: 0, again: 0, twice: 0, refused: 0 },
        },
      },
    });
    expect(page).not.toMatch(/no word of this|secret plans/);
    expect(samples(page)).toEqual({
      'hermes_info{name="alice",worker="v1",hermes="0.19.0"}': 1,
      'hermes_state{state="asleep"}': 1,
      'hermes_state{state="booting"}': 0,
      'hermes_state{state="awake"}': 0,
      'hermes_state{state="saving"}': 0,
      'hermes_state{state="stopping"}': 0,
      hermes_state_since_timestamp_seconds: 1,
      hermes_boots_total: 2,
      hermes_next_wake_timestamp_seconds: 3,
      hermes_last_save_timestamp_seconds: 4,
      hermes_unsaved_since_timestamp_seconds: 5.5,
      'hermes_last_error_timestamp_seconds{of="boot"}': 6,
      'hermes_last_error_timestamp_seconds{of="job"}': 7,
      'hermes_running_seconds{span="today"}': 8,
      'hermes_running_seconds{span="month"}': 9,
      'hermes_running_seconds{span="last_month"}': 10,
      hermes_requests_in_flight: 11,
      hermes_state_at_risk: 1,
      hermes_backups: 2,
      hermes_newest_backup_timestamp_seconds: 14,
      hermes_unanswered_messages: 15,
      'hermes_channel_up{channel="telegram"}': 0,
      'hermes_channel_up{channel="hooks/ci"}': 1,
      'hermes_channel_waiting{channel="telegram"}': 16,
      'hermes_channel_waiting{channel="hooks/ci"}': 0,
      'hermes_channel_last_in_timestamp_seconds{channel="telegram"}': 17,
      'hermes_channel_last_out_timestamp_seconds{channel="telegram"}': 18,
      'hermes_channel_dropped_total{channel="telegram"}': 19,
      'hermes_channel_dropped_total{channel="hooks/ci"}': 0,
      'hermes_channel_handed_over_again_total{channel="telegram"}': 20,
      'hermes_channel_handed_over_again_total{channel="hooks/ci"}': 0,
      'hermes_channel_sent_twice_total{channel="telegram"}': 21,
      'hermes_channel_sent_twice_total{channel="hooks/ci"}': 0,
      'hermes_channel_refused_total{channel="telegram"}': 22,
      'hermes_channel_refused_total{channel="hooks/ci"}': 0,
    });
  });

  it("of a sleeping Hermes are told without waking it, and of an awake one follow what it does", async () => {
    await anew();
    const scrape = async () => {
      const answer = await ask("/metrics");
      expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
      return samples(await answer.text());
    };
    expect(await scrape()).toMatchObject({ 'hermes_state{state="asleep"}': 1, hermes_boots_total: 0 });
    expect(await woken()).toBe(false);
    await chat("hello");
    const before = (await (await ask("/api/instance/status")).json()) as { lastActivity: string };
    expect(await scrape()).toMatchObject({ 'hermes_state{state="awake"}': 1, hermes_boots_total: 1 });
    // A scrape is no sign of a person: it does not keep Hermes awake.
    expect(await (await ask("/api/instance/status")).json()).toMatchObject(before);
  });
});
