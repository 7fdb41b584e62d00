// SPDX-License-Identifier: Apache-2.0
/** How large a file may be that comes with a message, or that Hermes sends: as its platform and Hermes' contract have it. */
import type { PlatformName } from "../config/channels.ts";
import { SendRefused } from "./channel.ts";

const MB = 1024 * 1024;
/** Hermes' relay contract, section 4: of any file, either way. In bytes, as all that follows. */
const CONTRACT = 25 * MB;

/** The largest file that a platform gives, and the largest that it takes; 0 = none. */
interface Sizes {
  gives: number;
  takes: number;
}

const PLATFORMS: Readonly<Record<PlatformName, Sizes>> = {
  // core.telegram.org/bots/api, "getFile" and "Sending files".
  telegram: { gives: 20 * MB, takes: 50 * MB },
  // slack.com/help/articles/201330736: a gigabyte.
  slack: { gives: 1024 * MB, takes: 1024 * MB },
  // developers.facebook.com/docs/whatsapp/cloud-api/reference/media, "Supported media types": a document.
  whatsapp_cloud: { gives: 100 * MB, takes: 100 * MB },
  // twilio.com/docs/messaging/guides/accepted-mime-types, "Media size limits".
  sms: { gives: 5 * MB, takes: 5 * MB },
  // docs.discord.com/developers/reference, "Uploading files". Of its commands, which are what comes, none has a file.
  discord: { gives: 0, takes: 10 * MB },
  // developers.cloudflare.com/email-service/platform/limits: a mail of 25 MiB, in which a file is a third longer.
  email: { gives: 7 * MB, takes: 17 * MB },
};

/** The largest pictures, sounds and films that a platform shows as such; what is larger goes as a document. */
export const SHOWN = {
  // core.telegram.org/bots/api, "sendPhoto".
  telegram: { photo: 10 * MB },
  // developers.facebook.com/docs/whatsapp/cloud-api/reference/media, "Supported media types".
  whatsapp_cloud: { image: 5 * MB, audio: 16 * MB, video: 16 * MB },
} as const;

/** The largest mail of which files are taken: a Worker has all of it in memory. */
export const LARGEST_MAIL = 10 * MB;

const NONE: Sizes = { gives: 0, takes: 0 };

function of(platform: string): Sizes {
  return Object.hasOwn(PLATFORMS, platform) ? PLATFORMS[platform as PlatformName] : NONE;
}

/** The largest file of a platform that Hermes is given. */
export function largestGiven(platform: string): number {
  return Math.min(of(platform).gives, CONTRACT);
}

/** The largest file that a platform is sent. */
export function largestTaken(platform: string): number {
  return Math.min(of(platform).takes, CONTRACT);
}

/** The largest file that Hermes is given, or sends, by whatever platform. */
export const LARGEST = CONTRACT;

/** What Twilio does not make smaller itself, which is all but a few kinds of pictures: its help centre, "Size Limits for MMS". */
export const LARGEST_AS_IT_IS = 600_000;

/** What comes of a file. @throws SendRefused, by whoever reads it, when it is longer than so many bytes. */
export function limited(body: ReadableStream<Uint8Array>, most: number): ReadableStream<Uint8Array> {
  let size = 0;
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        size += chunk.byteLength;
        if (size > most) controller.error(new SendRefused("a file is too large", true));
        else controller.enqueue(chunk);
      },
    }),
  );
}

/** Bytes, as they are said to people. */
export function inMegabytes(size: number): string {
  return `${Math.floor(size / MB)} MB`;
}
