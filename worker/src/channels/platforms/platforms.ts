// SPDX-License-Identifier: Apache-2.0
/** The platforms by which people write: one row here, one file beside, one row where settings are read. */
import type { PlatformName, PlatformSettings } from "../../config/channels.ts";
import type { Settings } from "../../config/settings.ts";
import {
  type Call,
  type Channel,
  noChannel,
  type Platform,
  type PlatformParts,
  type Received,
} from "../channel.ts";
import { discord } from "./discord.ts";
import { email } from "./email.ts";
import { slack } from "./slack.ts";
import { sms } from "./sms.ts";
import { telegram } from "./telegram.ts";
import { whatsapp } from "./whatsapp-cloud.ts";

const PLATFORMS: { readonly [N in PlatformName]: Platform<PlatformSettings[N]> } = {
  discord,
  email,
  slack,
  sms,
  telegram,
  whatsapp_cloud: whatsapp,
};

const NAMES = Object.keys(PLATFORMS) as PlatformName[];

/** What takes the calls of a platform. */
interface Receiver {
  methods: readonly string[];
  receive(call: Call): Promise<Received>;
  fetches(call: Call): Promise<string | null>;
}

/** Who takes what is sent to a platform's address; `undefined` for what is no platform. */
export function receiver(name: string, { channels }: Settings): Receiver | undefined {
  const of = <N extends PlatformName>(known: N) => {
    const declared = channels.platforms[known];
    const { methods, receive, fetches } = PLATFORMS[known];
    return {
      methods,
      receive: async (call: Call) => {
        if (declared === undefined) throw noChannel();
        return receive(call, declared);
      },
      fetches: async (call: Call) => (declared && (await fetches?.(call, declared))) ?? null,
    };
  };
  return Object.hasOwn(PLATFORMS, name) ? of(name as PlatformName) : undefined;
}

/** The channels that are declared, by their names. */
export function opened(
  { channels }: Settings,
  partsOf: (name: PlatformName) => PlatformParts,
): Map<string, Channel> {
  const found = new Map<string, Channel>();
  const open = <N extends PlatformName>(name: N) => {
    const declared = channels.platforms[name];
    if (declared !== undefined) found.set(name, PLATFORMS[name].open(declared, partsOf(name)));
  };
  for (const name of NAMES) open(name);
  return found;
}
