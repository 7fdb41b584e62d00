// SPDX-License-Identifier: Apache-2.0
/** Saving: one at a time, read back where it matters, and the snapshot that goes with it. */
import { ApiError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Time } from "../base/time.ts";
import type { BoundedSandbox } from "../sandbox/bounded.ts";
import type { SandboxCommands, Saved } from "../sandbox/commands.ts";
import { engineReason } from "../sandbox/sandbox.ts";
import { SignIns } from "../state/sign-ins.ts";
import { DamagedGeneration, type Vault } from "../state/vault.ts";
import type { InstanceRecord } from "./record.ts";
import type { Recorder, Unsaved } from "./recorder.ts";

/** What saving works with. */
export interface SavingParts {
  sandbox: BoundedSandbox;
  vault: Vault;
  time: Time;
  log: Log;
  /** The living record, and the one who writes it. */
  record: Readonly<InstanceRecord>;
  recorder: Recorder;
  /** The sandbox of the current boot, or `null`. */
  commands(): SandboxCommands | null;
}

/** Turns are saved within a minute; a state of which that was not true for so long is at risk, in milliseconds. */
const RISKY = 900_000;
/** The alarm is raised again after so long, in milliseconds. */
const BETWEEN_ALARMS = 300_000;

/** Since when, and why, what Hermes knows would be lost with its sandbox; `null` when it would not. */
export function riskOf(
  { failingSince, firstUnsaved, lastSaveError, lastError }: Readonly<InstanceRecord>,
  now: number,
): { since: number; why: string } | null {
  const since = Math.min(failingSince ?? Number.POSITIVE_INFINITY, firstUnsaved ?? Number.POSITIVE_INFINITY);
  if (now - since < RISKY) return null;
  return { since, why: lastSaveError?.message ?? lastError?.message ?? "No save was through." };
}

/** Saves of one instance. */
export class Saving {
  readonly #parts: SavingParts;
  #running: Promise<Saved> | null = null;
  #next: Promise<Saved> | null = null;
  /** When the alarm was raised last. */
  #told = 0;

  constructor(parts: SavingParts) {
    this.#parts = parts;
  }

  /**
   * Saves the state. One save at a time: who asks while one runs gets the next one, shared with all who ask.
   * @throws ApiError or Error with the reason; the generations before stay.
   */
  save(why: string): Promise<Saved> {
    if (this.#running === null) {
      this.#running = this.#once(why).finally(() => {
        this.#running = null;
      });
      return this.#running;
    }
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = null;
        return this.save(why);
      });
    return this.#next;
  }

  /** A save whose bytes were read back; a damaged one is replaced, for its content is still here. */
  async verified(why: string): Promise<Saved> {
    const { vault, log } = this.#parts;
    const saved = await this.save(why);
    try {
      await vault.verify(saved.backup.id);
      return saved;
    } catch (error) {
      if (!(error instanceof DamagedGeneration)) throw error;
      log.error("backup_damaged", { backup: error.id, why: error.message });
      vault.condemn(error.id, error.message);
    }
    const again = await this.save(why);
    await vault.verify(again.backup.id);
    return again;
  }

  /**
   * Takes a snapshot of what was just saved, where the platform has them. Never throws: it is a cache.
   * @param isStillSo whether Hermes has done nothing since: else it holds more than what it would pass for.
   */
  async snapshot(saved: Saved, isStillSo = () => true): Promise<void> {
    const { sandbox, vault, time, log, record, recorder } = this.#parts;
    const { bootId, image, startedFrom } = record;
    const began = time.now();
    const taken = await sandbox.snapshotContainer({ name: `${bootId}` }).catch((error: unknown) => error);
    if (record.bootId !== bootId || !isStillSo()) return;
    if (!isSnapshot(taken)) {
      const why = engineReason(taken);
      log.info("no_snapshot", { boot: bootId, why });
      return recorder.noSnapshot(why);
    }
    const { digest, id: backup } = saved.backup;
    const { digest: signIns } = new SignIns(vault.storage);
    const depth = (startedFrom?.depth ?? 0) + 1;
    const { id, size } = taken;
    recorder.snapshotTaken({ id, size, image: image ?? "", digest, backup, signIns, renewed: began, depth });
    log.info("snapshot", { boot: bootId, snapshot: id, bytes: size, depth, ms: time.now() - began });
  }

  async #once(why: string): Promise<Saved> {
    const { time, log, record, recorder } = this.#parts;
    const commands = this.#parts.commands();
    if (commands === null) throw asleepError();
    const began = time.now();
    const turns = recorder.saveBegan();
    try {
      const saved = await commands.export(why, record.image ?? "");
      recorder.saved(began);
      log.info("saved", {
        boot: commands.bootId,
        why,
        backup: saved.backup.id,
        bytes: saved.backup.bytes,
        unchanged: saved.unchanged,
        ms: time.now() - began,
      });
      this.#tellShrinkage(saved);
      return saved;
    } catch (error) {
      this.#failed(commands, error, turns);
      throw error;
    }
  }

  #failed({ bootId }: SandboxCommands, error: unknown, turns: Unsaved): void {
    const { log, record, recorder } = this.#parts;
    const attempt = record.saveFailures + 1;
    const code = error instanceof ApiError ? error.code : "save_failed";
    const message = engineReason(error);
    log.error("save_failed", { boot: bootId, why: message, attempt });
    recorder.saveFailed({ code, message }, bootId, turns);
    if (record.bootId === bootId) this.tellRisk();
  }

  /** Raises the alarm when what Hermes knows was not saved for too long. */
  tellRisk(): void {
    const { time, log, record } = this.#parts;
    const now = time.now();
    const risk = riskOf(record, now);
    // Either way: the clock may have been set back.
    if (risk === null || Math.abs(now - this.#told) < BETWEEN_ALARMS) return;
    this.#told = now;
    const since = new Date(risk.since).toISOString();
    log.error("state_at_risk", { boot: record.bootId, since, why: risk.why });
  }

  #tellShrinkage({ backup, unchanged }: Saved): void {
    const { vault, log } = this.#parts;
    const { shrinkage } = vault;
    if (unchanged || shrinkage === null) return;
    const { from } = shrinkage;
    log.warn("state_shrank", {
      backup: backup.id,
      bytes: backup.bytes,
      before: { backup: from.id, bytes: from.bytes },
    });
  }
}

function isSnapshot(value: unknown): value is { id: string; size: number } {
  return !(value instanceof Error) && typeof (value as { id?: unknown } | null)?.id === "string";
}

/** What a save, and whoever needs a running Hermes, is told of one that sleeps. */
function asleepError(): ApiError {
  return new ApiError({
    status: 409,
    code: "asleep",
    message: "Hermes is asleep; its state is already in the newest backup.",
  });
}
