// SPDX-License-Identifier: Apache-2.0
/** What the rooms of the channels work with: the instance that they serve, and what all of them share. */
import type { Lasting } from "../base/lasting.ts";
import type { Log } from "../base/log.ts";
import type { Time } from "../base/time.ts";
import type { BootKeys } from "../config/hermes-config.ts";
import type { Settings } from "../config/settings.ts";
import type { Channel } from "./channel.ts";
import type { Inbox } from "./inbox.ts";
import type { KeptFiles } from "./kept-files.ts";
import type { Pairing } from "./pairing.ts";

/** Pauses between attempts, in milliseconds. */
export const SHORTEST_PAUSE = 1000;
export const LONGEST_PAUSE = 60_000;

/** What the channels need of the instance's life. */
export interface Life {
  withSeat<T>(
    why: string,
    writes: boolean,
    turn: (at: { keys: BootKeys }) => Promise<Lasting<T>>,
  ): Promise<Lasting<T>>;
  arrive<T>(isActivity: boolean, answer: () => Promise<Lasting<T>>): Promise<Lasting<T>>;
  /** Whether a turn would have to wake Hermes. */
  readonly isAsleep: boolean;
  stay(work: Promise<unknown>): void;
}

/** What the channels work with. */
export interface ChannelsParts {
  settings: Settings;
  storage: DurableObjectStorage;
  life: Life;
  time: Time;
  log: Log;
  port(): { fetch(url: string, init?: RequestInit): Promise<Response> };
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** Sends mails, where that is a channel. */
  mail?: SendEmail | undefined;
}

/** What the rooms share. */
export interface Shared extends ChannelsParts {
  inbox: Inbox;
  files: KeptFiles;
  pairing: Pairing;
  platforms: ReadonlyMap<string, Channel>;
  /** Why a channel does not work, as far as is known. */
  troubles: Map<string, string>;
  /** Has what waits in a lane looked after. */
  answer(lane: string): void;
}

/** Why something failed, as its owner may be told. */
export function clean({ log }: Shared, why: string): string {
  return log.redactor.clean(why).slice(0, 300);
}
