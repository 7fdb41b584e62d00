// SPDX-License-Identifier: Apache-2.0
/** The channels by which people write to Hermes, as the owner declared them. One secret holds them all. */
import * as z from "zod/mini";
import { json } from "./kinds.ts";

/** Where Telegram's bots are served. */
const TELEGRAM_API = "https://api.telegram.org";

/** The chat for what Hermes sends on its own account; without it there is none. */
const home = z.optional(z.string());

/** Whether a stranger who writes to the bot alone is given a code, by which its owner may let them in. */
const pairing = z._default(z.boolean(), false);

const telegram = z.object({
  home,
  /** As the platform's BotFather gave it: the bot's number, a colon, a secret. */
  token: z.string().check(z.regex(/^\d{1,20}:[\w-]{20,100}$/, "has no bot token for telegram")),
  /** Who may write: numbers of people, or (negative) of groups. */
  allow: z.array(z.string().check(z.regex(/^-?\d{1,20}$/, "lists no number of a person or group"))),
  /** How messages come: sent to the Worker, or asked for by it. Empty = as the deployment can be reached. */
  receive: z._default(z.enum(["", "webhook", "poll"], "must receive by webhook or poll"), ""),
  pairing,
});

const SLACK_API = "https://slack.com/api";

/** A platform's API, where the owner has one of its own. */
const apiUrl = (usual: string) => z._default(z.string().check(z.regex(/^https?:\/\/[^\s?#@]+$/)), usual);

const slack = z.object({
  home,
  token: z.string().check(z.regex(/^xoxb-[\w-]{10,250}$/, "has no bot token for slack")),
  /** Each is good: while Slack replaces one, there are two. */
  signingSecrets: z.array(z.string().check(z.regex(/^[0-9a-f]{32}$/, "has no signing secret of slack"))),
  /** Who may write: ids of people, or of channels. */
  allow: z.array(z.string().check(z.regex(/^[UWCGD][A-Z0-9]{2,20}$/, "lists no id of a person or channel"))),
  apiUrl: apiUrl(SLACK_API),
  pairing,
});

const whatsapp = z.object({
  home,
  token: z.string().check(z.minLength(20, "has no token for whatsapp_cloud")),
  appSecret: z.string().check(z.regex(/^[0-9a-f]{32}$/, "has no app secret for whatsapp_cloud")),
  verifyToken: z.string().check(z.minLength(8, "has a verify token shorter than 8 characters")),
  phoneNumberId: z.string().check(z.regex(/^\d{5,25}$/, "has no id of a phone number for whatsapp_cloud")),
  /** Who may write: phone numbers, without a plus. */
  allow: z.array(z.string().check(z.regex(/^\d{5,15}$/, "lists no phone number"))),
  apiUrl: apiUrl("https://graph.facebook.com/v23.0"),
  pairing,
});

const sms = z.object({
  home,
  accountSid: z.string().check(z.regex(/^AC[0-9a-f]{32}$/, "has no account SID for sms")),
  /** Each proves that a call is Twilio's; the first one is ours. */
  authTokens: z
    .array(z.string().check(z.regex(/^[0-9a-f]{32}$/, "has no auth token for sms")))
    .check(z.minLength(1, "has no auth token for sms")),
  /** Our own number. */
  number: z.string().check(z.regex(/^\+\d{5,15}$/, "has no phone number for sms")),
  /** Who may write: phone numbers with a plus. */
  allow: z.array(z.string().check(z.regex(/^\+\d{5,15}$/, "lists no phone number"))),
  apiUrl: apiUrl("https://api.twilio.com"),
  pairing,
});

const discord = z.object({
  home,
  token: z.string().check(z.regex(/^[\w.-]{50,200}$/, "has no bot token for discord")),
  applicationId: z.string().check(z.regex(/^\d{15,25}$/, "has no id of an application for discord")),
  publicKey: z.string().check(z.regex(/^[0-9a-f]{64}$/, "has no public key for discord")),
  /** Who may write: ids of people, channels or servers. */
  allow: z.array(z.string().check(z.regex(/^\d{15,25}$/, "lists no id"))),
  apiUrl: apiUrl("https://discord.com/api/v10"),
  pairing,
});

/** A mail address, in lower case. */
const MAIL_ADDRESS = /^[a-z0-9.!#$%'*+/=?^_`{|}~-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+$/;

const email = z.object({
  home,
  /** Our own, in a zone whose mails Cloudflare leads here. */
  address: z.string().check(z.regex(MAIL_ADDRESS, "has no mail address for email")),
  /** Who may write, and is written to. */
  allow: z.array(z.string().check(z.regex(MAIL_ADDRESS, "lists no mail address"))),
  /** What comes by mail says of itself whom it is from; so a stranger is told nothing. */
  pairing: z._default(z.literal(false, "lets no stranger ask by email"), false),
});

/** A name in an address. */
const HOOK_NAME = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/;

const hook = z.object({
  kind: z.enum(["github", "gitlab", "stripe", "svix", "hmac"], "has a webhook of a kind that there is not"),
  /** Each is good: while a secret is replaced, there are two. */
  secrets: z.array(z.string().check(z.minLength(8, "has a webhook's secret shorter than 8 characters"))),
  /** What Hermes is told; empty = that it came, and what. */
  prompt: z._default(z.string(), ""),
  /** Of which events; none = of all. */
  events: z._default(z.array(z.string()), []),
  /** The session that its deliveries share; empty = each has its own. */
  session: z._default(z.string(), ""),
  /** The chat in which Hermes answers it. */
  chat: z._default(z.nullable(z.object({ platform: z.string(), id: z.string() })), null),
  /** Whether the prompt itself goes to the chat, and Hermes is not asked. */
  deliverOnly: z._default(z.boolean(), false),
});

/** A webhook. */
export type HookSettings = z.infer<typeof hook>;

/** Reads the declaration; nothing declared is no channel. */
export const channels = json(
  z.object({
    telegram: z.nullish(telegram),
    slack: z.optional(slack),
    whatsapp_cloud: z.optional(whatsapp),
    sms: z.optional(sms),
    discord: z.optional(discord),
    email: z.optional(email),
    hooks: z._default(
      z.record(z.string().check(z.regex(HOOK_NAME, "has a webhook of a bad name")), hook),
      {},
    ),
  }),
  "{}",
);

/** A Telegram bot. */
export interface TelegramSettings {
  token: string;
  home?: string | undefined;
  allow: readonly string[];
  receive: "webhook" | "poll";
  apiUrl: string;
  pairing: boolean;
}

/** A Slack app. */
export type SlackSettings = z.infer<typeof slack>;

/** A number of WhatsApp's Cloud API. */
export type WhatsAppSettings = z.infer<typeof whatsapp>;

/** A number of Twilio's. */
export type SmsSettings = z.infer<typeof sms>;

/** An application of Discord's. */
export type DiscordSettings = z.infer<typeof discord>;

/** An address of Cloudflare's Email Routing. */
export type EmailSettings = z.infer<typeof email>;

/** What each platform needs; each is known by its name. */
export interface PlatformSettings {
  slack: SlackSettings;
  whatsapp_cloud: WhatsAppSettings;
  sms: SmsSettings;
  discord: DiscordSettings;
  email: EmailSettings;
  telegram: TelegramSettings;
}

/** A platform's name, as Hermes and the inventory call it. */
export type PlatformName = keyof PlatformSettings;

/** The channels of one deployment. */
export interface ChannelSettings {
  platforms: { readonly [N in PlatformName]?: PlatformSettings[N] | undefined };
  /** Where this deployment is reached from outside, where the request itself does not tell; empty = it does. */
  address: string;
  /** Webhooks, by their names. */
  hooks: Readonly<Record<string, HookSettings>>;
}

/**
 * @param address where a deployment on this machine is reached from outside; empty = nowhere.
 * @param reachable whether the platforms can send to this deployment.
 * @param api a server of Telegram's API in place of its own; empty = its own.
 */
export function channelsOf(
  declared: z.infer<typeof channels>,
  address: string,
  reachable: boolean,
  api: string,
): ChannelSettings {
  const { telegram: bot, hooks, ...others } = declared;
  const receive = bot?.receive || (reachable ? "webhook" : "poll");
  const apiUrl = api || TELEGRAM_API;
  const telegram = bot == null ? {} : { telegram: { ...bot, receive, apiUrl } };
  return { platforms: { ...others, ...telegram }, address, hooks };
}

/** Where Hermes gives what it sends on its own account, below the address of its providers. */
export const OWN_MESSAGES = "/channels/send";

/** The homes that are declared, by their platforms' names. */
export function homesOf({ platforms }: ChannelSettings): Record<string, string> {
  const all = Object.entries(platforms).map(([name, one]) => [name, one?.home ?? ""] as const);
  return Object.fromEntries(all.filter(([, home]) => home !== ""));
}

/** The number of a bot, which is the first part of its token and no secret. */
export function botNumber(token: string): string {
  return token.slice(0, token.indexOf(":"));
}

/** A bot that Hermes speaks as, and what it is told of its platform. Names are those of its relay contract, version 1. */
export interface Relayed {
  botId: string;
  descriptor: Descriptor;
}

/** What Hermes is told when it greets its connector. */
export interface Descriptor {
  contract_version: 1;
  platform: string;
  label: string;
  /** The longest message, in units of `len_unit`. */
  max_message_length: number;
  supports_draft_streaming: boolean;
  supports_edit: boolean;
  supports_threads: boolean;
  markdown_dialect: string;
  len_unit: "chars" | "utf16";
  /** What its connector does; a Hermes that asks does nothing else, and one of before this was asked looks at nothing. */
  supported_ops: readonly string[];
}

const PLAIN = {
  contract_version: 1,
  supports_draft_streaming: false,
  supports_edit: false,
  supports_threads: true,
  markdown_dialect: "plain",
  supported_ops: ["send", "typing", "get_chat_info"],
} as const;

/** Where Hermes reacts to messages, too. */
const REACTING = { ...PLAIN, supported_ops: [...PLAIN.supported_ops, "react"] } as const;

const DESCRIPTORS: readonly Descriptor[] = [
  {
    ...REACTING,
    platform: "telegram",
    label: "Telegram",
    max_message_length: 4096,
    len_unit: "utf16",
  },
  // Slack takes more, and cuts it at 4000 itself; its marks and escapes make a text longer.
  { ...REACTING, platform: "slack", label: "Slack", max_message_length: 3500, len_unit: "utf16" },
  { ...REACTING, platform: "whatsapp_cloud", label: "WhatsApp", max_message_length: 4096, len_unit: "utf16" },
  { ...PLAIN, platform: "sms", label: "SMS", max_message_length: 1600, len_unit: "utf16" },
  { ...PLAIN, platform: "discord", label: "Discord", max_message_length: 2000, len_unit: "utf16" },
  { ...PLAIN, platform: "email", label: "E-mail", max_message_length: 100_000, len_unit: "utf16" },
  { ...PLAIN, platform: "webhook", label: "Webhooks", max_message_length: 16_000, len_unit: "chars" },
];

/** The longest message of a platform, in UTF-16 units: no fewer than of others it has. */
export function longest(platform: string): number {
  return DESCRIPTORS.find((one) => one.platform === platform)?.max_message_length ?? Number.POSITIVE_INFINITY;
}

/** The bots that Hermes speaks as, by the platform's name -> the bot's number: no secret is in it. */
export const bots = json(z.record(z.string(), z.string()), "{}");

/** What Hermes is told of them. */
export function relayed(numbers: Readonly<Record<string, string>>): Relayed[] {
  return DESCRIPTORS.flatMap((descriptor) => {
    const botId = numbers[descriptor.platform];
    return botId === undefined ? [] : [{ botId, descriptor }];
  });
}

/** The keys of what a platform is given that must never be shown. */
const SECRET_KEYS = ["token", "signingSecrets", "appSecret", "verifyToken", "authTokens"];

/** What of the channels must never be shown. */
export function channelSecrets({ platforms, hooks }: ChannelSettings): string[] {
  const ofPlatforms = Object.values(platforms).flatMap((one) =>
    Object.entries(one ?? {}).flatMap(([key, value]) =>
      SECRET_KEYS.includes(key) ? (value as string | string[]) : [],
    ),
  );
  return [...ofPlatforms, ...Object.values(hooks).flatMap(({ secrets }) => secrets)];
}
