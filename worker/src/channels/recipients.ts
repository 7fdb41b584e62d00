// SPDX-License-Identifier: Apache-2.0
/** To whom Hermes may write: the homes, those who may write to it, the chats in which they did, and those of webhooks. */
import { ApiError } from "../base/errors.ts";
import type { PlatformName } from "../config/channels.ts";
import { noChannel, SendRefused } from "./channel.ts";
import type { Shared } from "./parts.ts";

/** @throws SendRefused where Hermes may not write. */
export function refuseStrangers(shared: Shared, platform: string, chat: string): void {
  if (!isOurs(shared, platform, chat)) throw new SendRefused(notOurs(platform, chat), true);
}

/** The same for what Hermes sends on its own account. @throws ApiError 404 `no_channel`; 403 `no_chat`. */
export function checkPlace(shared: Shared, platform: string, chat: string): void {
  if (!shared.platforms.has(platform)) throw noChannel();
  if (!isOurs(shared, platform, chat))
    throw new ApiError({ status: 403, code: "no_chat", message: notOurs(platform, chat) });
}

function isOurs({ settings, inbox, pairing }: Shared, platform: string, chat: string): boolean {
  const { platforms, hooks } = settings.channels;
  const declared = platforms[platform as PlatformName];
  const allowed: readonly string[] = declared?.allow ?? [];
  return (
    chat === declared?.home ||
    [chat, ...inbox.whoWroteIn(platform, chat)].some(
      (one) => allowed.includes(one) || (declared?.pairing === true && pairing.has(platform, one)),
    ) ||
    Object.values(hooks).some(({ chat: to }) => to?.platform === platform && to.id === chat)
  );
}

function notOurs(platform: string, chat: string): string {
  return (
    `${platform}:${chat.slice(0, 100)} is no chat to write to: it is neither the channel's home nor in its allow, and ` +
    "nobody of those wrote there."
  );
}
