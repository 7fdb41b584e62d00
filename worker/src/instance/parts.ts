// SPDX-License-Identifier: Apache-2.0
/** What everything that belongs to the life of one sandbox works with. */
import type { Log } from "../base/log.ts";
import type { Time } from "../base/time.ts";
import type { AgentArchive } from "../config/agent.ts";
import type { Settings } from "../config/settings.ts";
import type { BoundedSandbox } from "../sandbox/bounded.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import type { Vault } from "../state/vault.ts";
import type { InstanceRecord } from "./record.ts";
import type { Recorder, RecordStore } from "./recorder.ts";

/** What the lifecycle works with. */
export interface LifecycleParts {
  settings: Settings;
  /** The archive of the declared agent. */
  agentArchive: AgentArchive;
  sandbox: Sandbox | BoundedSandbox;
  vault: Vault;
  time: Time;
  log: Log;
  store: RecordStore;
  /** Sets the one alarm, or clears it with `null`. Milliseconds since the epoch. */
  setAlarm(at: number | null): void;
  /** Keeps this object, and what commands print to it, until something is over that whoever began it may leave. */
  hold(work: Promise<unknown>): void;
}

/** What everything inside works with: a sandbox that is never waited for without end, and the record. */
export interface SharedParts extends LifecycleParts {
  sandbox: BoundedSandbox;
  /** The living record, and the one who writes it. */
  record: Readonly<InstanceRecord>;
  recorder: Recorder;
}
