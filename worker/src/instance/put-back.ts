// SPDX-License-Identifier: Apache-2.0
/** Putting a backup that was kept elsewhere in the place of today's state. */
import { ApiError } from "../base/errors.ts";
import { asPublicError, engineReason, SandboxGone } from "../sandbox/sandbox.ts";
import type { Generation } from "../state/vault.ts";
import type { Stops, StopsParts } from "./stops.ts";

/** What putting a backup back works with. */
export interface PutBackParts extends StopsParts {
  stops: Stops;
  /** Whether Hermes can be asked at this very moment. */
  isReady(): boolean;
}

/** Puts backups back, one at a time. */
export class PutBack {
  readonly #parts: PutBackParts;
  #isUnderWay = false;

  constructor(parts: PutBackParts) {
    this.#parts = parts;
  }

  /**
   * Puts a backup that was kept elsewhere in the place of today's state, which is saved before that.
   * @returns the generation that Hermes runs with from now on.
   * @throws ApiError 400 `bad_backup` when it is none, and then nothing was stopped; 422 `backup_not_restored` when
   * Hermes could not be given it and runs with the state from before; 409 `busy`; the save's error.
   */
  async run(archive: ReadableStream<Uint8Array>): Promise<Generation> {
    if (this.#isUnderWay) throw oneIsPutBack();
    this.#isUnderWay = true;
    try {
      return await this.#run(archive);
    } finally {
      this.#isUnderWay = false;
    }
  }

  async #run(archive: ReadableStream<Uint8Array>): Promise<Generation> {
    const { vault, exclusively, record, recorder, seats, saving, stops, wake } = this.#parts;
    const upload = await this.#uploaded(archive);
    let offer: Generation | null = null;
    try {
      offer = await exclusively(async () => {
        const { state, nextCron } = record;
        if (state === "asleep") return vault.offer(upload);
        await seats.drain();
        await stops.jobsDone().catch(() => undefined);
        await saving.verified("restore");
        const offered = vault.offer(upload);
        await stops.end(nextCron);
        return offered;
      });
      recorder.postponed(0);
      await wake("restore");
    } finally {
      // Whoever is told that it failed must not find it in place later on.
      vault.withdraw(offer?.id ?? upload);
    }
    const { restored } = record;
    const { id } = offer;
    const proved = vault.good().find((generation) => generation.id === id);
    if (restored?.backup === id && proved !== undefined) return proved;
    throw new ApiError({
      status: 422,
      code: "backup_not_restored",
      message:
        `The backup could not be restored (${restored?.passedOver.join("; ") || "no reason was told"}); ` +
        "Hermes runs with the state from before, and the other backups are kept.",
    });
  }

  /** Takes an upload in; a Hermes that is awake goes on meanwhile, and its sandbox looks whether it can be restored. */
  async #uploaded(archive: ReadableStream<Uint8Array>): Promise<number> {
    const { vault } = this.#parts;
    const upload = await vault.upload(archive, this.#parts.record.image ?? "").catch((error: unknown) => {
      throw error instanceof ApiError ? error : badBackup(engineReason(error));
    });
    try {
      await this.#check(upload);
      return upload;
    } catch (error) {
      vault.withdraw(upload);
      throw asPublicError(error);
    }
  }

  /** @throws ApiError when an upload is found to be no good; there may be nobody who could be asked. */
  async #check(upload: number): Promise<void> {
    const commands = this.#parts.commands();
    if (commands === null || !this.#parts.isReady()) return;
    await commands.check(this.#parts.vault.read(upload)).catch((error: unknown) => {
      if (!(error instanceof SandboxGone)) throw error;
    });
  }
}

function badBackup(why: string): ApiError {
  return new ApiError({
    status: 400,
    code: "bad_backup",
    message: `This is not a whole backup of Hermes: ${why} Send one as GET /api/instance/backups/ID gives it.`,
  });
}

function oneIsPutBack(): ApiError {
  return new ApiError({
    status: 409,
    code: "busy",
    message: "Another backup is being put back at this moment. Try again when it is.",
    retryAfter: 30,
  });
}
