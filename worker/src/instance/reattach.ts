// SPDX-License-Identifier: Apache-2.0
/** Finding a sandbox again that this object remembers: ours and answering, ours and given up, or gone. */
import { type Configuration, startsAlike } from "../config/configuration.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import type { SandboxCommands } from "../sandbox/commands.ts";
import { engineReason, INACTIVITY_LIMIT } from "../sandbox/sandbox.ts";
import type { SharedParts } from "./parts.ts";
import { startedWith } from "./record.ts";
import type { Saving } from "./saving.ts";
import type { Watch } from "./watch.ts";

/** What finding a sandbox again works with. */
export interface ReattachParts extends SharedParts {
  watch: Watch;
  saving: Saving;
  commands(bootId: string, keys: BootKeys): SandboxCommands;
  /** Takes up with what a Hermes that was found runs; `null` when it does not tell. */
  found(running: Configuration | null): Promise<void>;
  /** Goes on with the boot that is remembered. */
  takeUp(): void;
  /** Waits for the turns that Hermes is at. */
  drain(): Promise<void>;
  /** The sandbox ended without having been told to. */
  died(): void;
}

/** Until a running Hermes that we found again answers, in milliseconds. */
const PATIENCE = 30_000;
/** How often, and after how long, the state of a Hermes that is given up is tried to be saved. */
const LAST_SAVES = 3;
const LAST_SAVES_PAUSE = 2000;

/** Looks for the sandbox of one instance. */
export class Reattach {
  readonly #parts: ReattachParts;

  constructor(parts: ReattachParts) {
    this.#parts = parts;
  }

  /**
   * Looks whether the sandbox that is remembered still runs and is ours; else the instance is asleep afterwards.
   * @throws ApiError `engine_unavailable` when nobody can tell.
   */
  async run(): Promise<void> {
    const { sandbox, log, record, recorder, watch, commands, died, takeUp } = this.#parts;
    const { bootId, keys, state } = record;
    const found = await sandbox.inspect();
    const label = found.labels?.["boot"];
    const ours =
      found.running && bootId !== null && keys !== null && (label === undefined || label === bootId);
    if (!ours) {
      if (found.running) await sandbox.destroy();
      log.warn("sandbox_lost", { boot: bootId, running: found.running });
      recorder.lost();
      return died();
    }
    // A boot that was cut off goes on, unless it would begin otherwise today; a stop that was has not happened.
    if (state === "booting" && this.#wouldStartAlike()) return takeUp();
    const answers = state !== "booting" && (await this.#answers(commands(bootId, keys)));
    if (record.bootId !== bootId) return;
    if (!answers) return this.#giveUp(commands(bootId, keys), state !== "booting");
    await sandbox.setInactivityTimeout(INACTIVITY_LIMIT);
    recorder.found();
    void watch.over(bootId).catch(() => undefined);
    log.info("reattached", { boot: bootId });
  }

  /** Ends a sandbox whose Hermes does not answer; what it knows is saved as well as it can be. */
  async #giveUp(commands: SandboxCommands, save: boolean): Promise<void> {
    const { sandbox, log, time, saving, drain, died } = this.#parts;
    let saved = false;
    // Turns under way may yet come to their end, and then belong to what is saved; none ends after that.
    if (save) {
      await drain().catch(() => undefined);
      await commands.stopGateway(0).catch(() => undefined);
    }
    for (let left = LAST_SAVES; save && !saved && left > 0; left--) {
      saved = await saving.save("before giving up").then(
        () => true,
        () => false,
      );
      if (!saved && left > 1) await time.sleep(LAST_SAVES_PAUSE);
    }
    await sandbox.destroy();
    log.warn("sandbox_given_up", { boot: commands.bootId, saved });
    died();
  }

  #wouldStartAlike(): boolean {
    const { settings, record } = this.#parts;
    const started = startedWith(record);
    return started !== null && startsAlike(settings, started);
  }

  async #answers(commands: SandboxCommands): Promise<boolean> {
    const { record, recorder, log, found } = this.#parts;
    try {
      // A command may fail for once; what has to be given up is lost.
      await commands.waitForCommands(PATIENCE);
      const { state, configuration } = await commands.status();
      await found(configuration);
      if (record.gatewayStopped || state === "stopped") {
        recorder.as(commands.bootId, (it) => it.gateway(false));
        return true;
      }
      await commands.ready(PATIENCE);
      return true;
    } catch (error) {
      log.warn("reattach_failed", { boot: commands.bootId, why: engineReason(error) });
      return false;
    }
  }
}
