// SPDX-License-Identifier: Apache-2.0
/**
 * What the Worker itself does with a message: a platform has to prove itself, and who may not write is left here, without
 * an answer: the instance is not even asked.
 */
import * as z from "zod/mini";
import { ApiError } from "../base/errors.ts";
import type { Settings } from "../config/settings.ts";
import {
  badSignature,
  badUpdate,
  type Call,
  type FetchedFile,
  type Incoming,
  noChannel,
  type OwnFile,
  type OwnMessage,
  type Received,
} from "./channel.ts";
import { FILE_KINDS } from "./files.ts";
import { isGenuine, isSigned, messageOf } from "./hooks.ts";
import { mailOf } from "./mail/mail.ts";
import { noSuchCode } from "./pairing.ts";
import { receiver } from "./platforms/platforms.ts";
import { LARGEST as LARGEST_FILE } from "./sizes.ts";

/** The largest update that is read, in bytes; the platforms' own are far smaller. */
export const LARGEST = 256 * 1024;

/** The largest delivery to a webhook, in bytes, as Hermes' own take them. */
export const LARGEST_HOOK = 1024 * 1024;

/**
 * Takes what was sent to a platform's address.
 * @returns which file it fetches that it was offered; `null` where no platform sends, or fetches, anything.
 * @throws ApiError 404 `no_channel`; 401 `bad_signature`; 400 `bad_update`.
 */
export async function received(
  name: string,
  call: Call,
  settings: Settings,
): Promise<Received | { offered: string } | null> {
  const taken = receiver(name, settings);
  if (taken?.methods.includes(call.method)) return taken.receive(call);
  const offered = ["GET", "HEAD"].includes(call.method) ? await taken?.fetches(call) : null;
  return offered == null ? null : { offered };
}

/** What a platform is answered that fetches a file. */
export function fetched({ name, mime, bytes }: FetchedFile): Response {
  return new Response(bytes, {
    headers: {
      "content-type": mime,
      "content-length": String(bytes.byteLength),
      "content-disposition": `inline; filename="${name}"`,
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
    },
  });
}

/**
 * Reads a mail.
 * @returns `null` where nobody is told of it.
 */
export async function mailed(message: ForwardableEmailMessage, settings: Settings): Promise<object | null> {
  const { email } = settings.channels.platforms;
  return email === undefined ? null : mailOf(message, email);
}

/**
 * Reads what was sent to a webhook.
 * @param body is read only when there is a signature that may be one.
 * @param now milliseconds since the epoch.
 * @returns `null` for an event that the webhook does not want.
 * @throws ApiError 404 `no_channel`; 401 `bad_signature`; 400 `bad_update`.
 */
export async function hookMessage(
  name: string,
  headers: Headers,
  body: () => Promise<ArrayBuffer | null>,
  settings: Settings,
  now: number,
): Promise<Incoming | null> {
  const { hooks } = settings.channels;
  const hook = Object.hasOwn(hooks, name) ? hooks[name] : undefined;
  if (hook === undefined) throw noChannel();
  if (!isSigned(hook, headers)) throw badSignature();
  const delivery = { headers, body: new Uint8Array((await body()) ?? new ArrayBuffer(0)) };
  if (!(await isGenuine(hook, delivery, now))) throw badSignature();
  try {
    return await messageOf(name, hook, delivery);
  } catch (error) {
    throw badUpdate(error);
  }
}

/** The largest message that Hermes sends on its own account, in bytes. */
export const LARGEST_OWN = 256 * 1024;

const ownMessageSchema = z.object({
  name: z.string().check(z.regex(/^[\w-]{8,64}$/)),
  platform: z.string().check(z.maxLength(20)),
  chat: z.string().check(z.minLength(1), z.maxLength(200)),
  thread: z._default(z.nullable(z.string().check(z.maxLength(200))), null),
  text: z.string().check(z.minLength(1)),
});

/**
 * Reads what Hermes sends on its own account: `{"name": ..., "platform": "telegram", "chat": ..., "text": ...}`.
 * @throws ApiError 400 `bad_message`.
 */
export function ownMessageOf(body: ArrayBuffer | null): OwnMessage {
  try {
    return ownMessageSchema.parse(JSON.parse(new TextDecoder().decode(body ?? new ArrayBuffer(0))));
  } catch (error) {
    throw new ApiError({ status: 400, code: "bad_message", message: "This is no message.", cause: error });
  }
}

/** The header in which Hermes tells of a file that it sends on its own account; the body is what is in it. */
export const OWN_FILE = "x-hermes-file";

const ownFileSchema = z.object({
  ...{ name: ownMessageSchema.shape.name, platform: ownMessageSchema.shape.platform },
  ...{ chat: ownMessageSchema.shape.chat, thread: ownMessageSchema.shape.thread },
  kind: z.string(),
  called: z.string().check(z.maxLength(300)),
  mime: z.string().check(z.regex(/^[\w.+/-]{0,100}$/)),
});

/**
 * Reads what Hermes tells of a file: JSON, percent-encoded, and the length of its body.
 * @throws ApiError 400 `bad_message`; 413 `body_too_large`.
 */
export function ownFileOf(headers: Headers): OwnFile {
  const size = Number(headers.get("content-length") ?? 0);
  if (size > LARGEST_FILE)
    throw new ApiError({ status: 413, code: "body_too_large", message: "This file is too large." });
  try {
    if (!(size > 0)) throw new Error("it is empty");
    const told = ownFileSchema.parse(JSON.parse(decodeURIComponent(headers.get(OWN_FILE) ?? "")));
    return { ...told, kind: FILE_KINDS[told.kind] ?? "document", size };
  } catch (error) {
    throw new ApiError({ status: 400, code: "bad_message", message: "This is no file.", cause: error });
  }
}

/** The refusal for what comes while too much waits: its sender tries again. */
export function tooManyWait(): ApiError {
  return new ApiError({
    status: 503,
    code: "channel_full",
    message: "Too much waits here. Try again later.",
    retryAfter: 60,
  });
}

/**
 * Reads `{"code": "..."}`.
 * @throws ApiError 404 `no_such_code`.
 */
export function codeOf(body: ArrayBuffer | null): string {
  try {
    return z.object({ code: z.string() }).parse(textOf(body)).code;
  } catch {
    throw noSuchCode();
  }
}

function textOf(body: ArrayBuffer | null): unknown {
  return JSON.parse(new TextDecoder().decode(body ?? new ArrayBuffer(0)));
}

const registrationSchema = z.object({
  address: z.string().check(z.regex(/^(?:https:\/\/[^\s?#]{1,300})?$/)),
  look: z._default(z.boolean(), false),
});

/**
 * Reads `{"address": "https://...", "look": false}`.
 * @throws ApiError 400 `bad_registration`.
 */
export function registrationOf(body: ArrayBuffer | null): z.infer<typeof registrationSchema> {
  try {
    return registrationSchema.parse(textOf(body));
  } catch (error) {
    throw new ApiError({
      status: 400,
      code: "bad_registration",
      message: 'Send {"address": "https://..."}: where this deployment is reached from outside.',
      cause: error,
    });
  }
}
