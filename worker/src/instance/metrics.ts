// SPDX-License-Identifier: Apache-2.0
/**
 * What a monitor collects of the instance, as Prometheus reads it: numbers and when things happened, no word of what
 * anybody wrote. https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
 */
import type { ChannelView } from "../channels/channels.ts";
import type { InstanceRecord, State } from "./record.ts";
import type { runningOf } from "./views.ts";

/** What is told; times in milliseconds since the epoch. */
export interface Measured {
  name: string;
  workerVersion: string;
  hermesVersion: string;
  record: Readonly<InstanceRecord>;
  running: ReturnType<typeof runningOf>;
  requestsInFlight: number;
  /** Since when what Hermes knows was not saved for too long. */
  atRiskSince: number | null;
  /** When each backup that is kept was made, newest first. */
  backups: readonly number[];
  /** Messages that could not be answered. */
  unanswered: number;
  channels: Record<string, ChannelView>;
}

type Labels = Record<string, string>;
/** Labels and value; one without a value is left out. */
type Sample = readonly [Labels, number | null];

const STATES: readonly State[] = ["asleep", "booting", "awake", "saving", "stopping"];

/** The page of a scrape. */
export function metricsOf(measured: Measured): string {
  const { record, running, channels } = measured;
  const { name, workerVersion: worker, hermesVersion: hermes } = measured;
  const each = (value: (view: ChannelView) => number | null): Sample[] =>
    Object.entries(channels).map(([channel, view]) => [{ channel }, value(view)]);
  return [
    family("info", "gauge", "Which deployment this is.", [[{ name, worker, hermes }, 1]]),
    family(
      "state",
      "gauge",
      "1 for the state that the instance is in.",
      STATES.map((state) => [{ state }, Number(record.state === state)]),
    ),
    family("state_since_timestamp_seconds", "gauge", "Since when it is in it.", one(seconds(record.since))),
    family("boots_total", "counter", "Starts of Hermes.", one(record.boots)),
    family("running_seconds", "gauge", "How long the sandbox ran: what Cloudflare bills for.", [
      [{ span: "today" }, running.today],
      [{ span: "month" }, running.month],
      [{ span: "last_month" }, running.lastMonth],
    ]),
    family("requests_in_flight", "gauge", "Requests under way.", one(measured.requestsInFlight)),
    family(
      "next_wake_timestamp_seconds",
      "gauge",
      "When a sleeping Hermes is woken for a job.",
      one(seconds(record.wakeAt)),
    ),
    family(
      "last_save_timestamp_seconds",
      "gauge",
      "When Hermes' state was saved last.",
      one(record.lastSave === 0 ? null : seconds(record.lastSave)),
    ),
    family(
      "unsaved_since_timestamp_seconds",
      "gauge",
      "Since when something is not saved.",
      one(seconds(record.firstUnsaved)),
    ),
    family(
      "state_at_risk",
      "gauge",
      "1 while saves fail for a quarter of an hour or longer.",
      one(Number(measured.atRiskSince !== null)),
    ),
    family("backups", "gauge", "Backups that the Worker keeps.", one(measured.backups.length)),
    family(
      "newest_backup_timestamp_seconds",
      "gauge",
      "When the newest backup was made.",
      one(seconds(measured.backups[0] ?? null)),
    ),
    family("last_error_timestamp_seconds", "gauge", "When something failed last, by what failed.", [
      [{ of: "boot" }, seconds(record.lastError?.at ?? null)],
      [{ of: "save" }, seconds(record.lastSaveError?.at ?? null)],
      [{ of: "provider" }, seconds(record.lastProviderError?.at ?? null)],
      [{ of: "job" }, seconds(record.lastJobError?.at ?? null)],
    ]),
    family(
      "unanswered_messages",
      "gauge",
      "Messages that could not be answered, and are kept.",
      one(measured.unanswered),
    ),
    family(
      "channel_up",
      "gauge",
      "0 for a channel that does not work.",
      each((view) => Number(view.trouble === null)),
    ),
    family(
      "channel_waiting",
      "gauge",
      "Messages that wait for Hermes.",
      each((view) => view.waiting),
    ),
    family(
      "channel_last_in_timestamp_seconds",
      "gauge",
      "When the last message came.",
      each((view) => seconds(view.lastIn || null)),
    ),
    family(
      "channel_last_out_timestamp_seconds",
      "gauge",
      "When the last one was sent.",
      each((view) => seconds(view.lastOut || null)),
    ),
    family(
      "channel_dropped_total",
      "counter",
      "Messages that were dropped.",
      each((view) => view.dropped),
    ),
    family(
      "channel_refused_total",
      "counter",
      "Messages that the platform never took.",
      each((view) => view.refused),
    ),
    family(
      "channel_handed_over_again_total",
      "counter",
      "Messages that Hermes was given once more.",
      each((view) => view.again),
    ),
    family(
      "channel_sent_twice_total",
      "counter",
      "Messages that somebody may see twice.",
      each((view) => view.twice),
    ),
  ].join("");
}

function one(value: number | null): Sample[] {
  return [[{}, value]];
}

function seconds(at: number): number;
function seconds(at: number | null): number | null;
function seconds(at: number | null): number | null {
  return at === null ? null : at / 1000;
}

/** One metric with its samples; nothing where it has none. */
function family(name: string, type: "counter" | "gauge", help: string, samples: readonly Sample[]): string {
  const lines = samples.flatMap(([labels, value]) =>
    value === null ? [] : [`hermes_${name}${labelled(labels)} ${value}\n`],
  );
  if (lines.length === 0) return "";
  return `# HELP hermes_${name} ${help}\n# TYPE hermes_${name} ${type}\n${lines.join("")}`;
}

function labelled(labels: Labels): string {
  // Names and versions hold nothing that JSON would write otherwise than Prometheus reads it.
  const written = Object.entries(labels).map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return written.length === 0 ? "" : `{${written.join()}}`;
}
