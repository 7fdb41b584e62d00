// SPDX-License-Identifier: Apache-2.0
/** The Worker's environment, read once and validated; a bad value names its variable. */
import * as z from "zod/mini";
import { ApiError } from "../base/errors.ts";
import { bots, type ChannelSettings, channelSecrets, channels, channelsOf } from "./channels.ts";
import {
  declaredAgent,
  httpUrl,
  json,
  type Model,
  OPAQUE_ORIGINS,
  required,
  text,
  variables,
} from "./kinds.ts";
import { PROVIDER_KEYS, type ProviderName } from "./providers.ts";
import { INVENTORY } from "./settings.generated.ts";

/** Bindings and variables as the platform hands them over. Unset secrets are `null` or absent. */
export interface Env {
  /** The one Durable Object; its class is known to those who ask it. */
  INSTANCE: DurableObjectNamespace;
  /** The process engine's socket; absent where the platform has containers. */
  ENGINE?: Fetcher;
  /** A network that reaches 127.0.0.1 only: the way to a process sandbox's ports. */
  LOOPBACK?: Fetcher;
  /** A network that reaches a provider on this machine. */
  PROVIDER?: Fetcher;
  /** A network that reaches a server of Telegram's API on this machine. */
  CHANNELS?: Fetcher;
  /** Sends mails to those who may write; only where e-mail is a channel. */
  EMAIL?: SendEmail;
  [name: string]: unknown;
}

/** Names of the secrets the Worker may hold, in the order of the proof. */
export const SECRETS = [
  "API_TOKEN",
  "API_TOKEN_PREVIOUS",
  ...PROVIDER_KEYS,
  "AI_GATEWAY_TOKEN",
  "GATEWAY_TOKEN",
  "BROWSER_URL",
  "HERMES_SECRETS",
  "HERMES_CHANNELS",
] as const;
/** One of {@link SECRETS}. */
export type SecretName = (typeof SECRETS)[number];

const schema = z.object({
  ...INVENTORY,
  HERMES_NAME: required,
  WORKER_VERSION: text,
  HERMES_VERSION: text,
  HERMES_IMAGE: required,
  HERMES_IMAGE_REFERENCE: text,
  HERMES_PLATFORM: z.enum(["workerd", "cloudflare"], "must be workerd or cloudflare"),
  HERMES_ENGINE: z.enum(["process", "docker", "cloudflare"], "must be process, docker or cloudflare"),
  HERMES_DASHBOARD: text,
  HERMES_AGENT: json(declaredAgent, "{}"),
  PROVIDERS_ADDRESS: httpUrl.check(z.refine((value) => value !== "", "must not be empty")),
  HERMES_SECRETS: json(variables, "{}"),
  HERMES_CHANNELS: channels,
  HERMES_BOTS: bots,
});

/** Names of the variables that the Worker reads, the secret one among them. */
export const VARIABLES: readonly string[] = Object.keys(schema.shape);

/** Everything the Worker needs to know about its deployment. Durations are milliseconds. */
export interface Settings {
  name: string;
  workerVersion: string;
  hermesVersion: string;
  image: string;
  /** The same image by its digest in Cloudflare's registry; empty elsewhere. */
  imageReference: string;
  platform: "workerd" | "cloudflare";
  engine: "process" | "docker" | "cloudflare";
  defaultModel: Model;
  /** Further models that a request may name, without the default. */
  models: readonly Model[];
  /** See {@link ownBaseUrl}; empty = every provider's own. */
  providerBaseUrl: string;
  /** Of the models behind it, in tokens; 0 when nobody said. */
  contextLength: number;
  sleepAfter: number;
  drainTimeout: number;
  /** How long a replaced API token outlives the first use of the one that replaced it. */
  tokenOverlap: number;
  /** Whether a turn that Hermes has begun goes on without the client that asked for it. */
  finishesAlone: boolean;
  hostTools: boolean;
  /** Whether Hermes may fetch packages that it asks for later. */
  lazyInstalls: boolean;
  /** Size of the container, where the platform offers several. */
  instanceType: string;
  allowUnauthenticated: boolean;
  /** Web pages that may call the API. */
  corsOrigins: readonly string[];
  /** Why there is no dashboard; `null` when there is one. */
  dashboardOff: string | null;
  /** Where the dashboard is; empty = on a socket of its own only. */
  dashboardHostname: string;
  /** Where people see it, when a proxy before it tells something else; empty when nobody said. */
  dashboardOrigin: string;
  /** How long what Hermes sends to an open dashboard counts as activity, after the last sign of a person. */
  dashboardIdle: number;
  /** Cloudflare Access before the dashboard, or `null`. */
  access: { issuer: string; audiences: string[] } | null;
  /** Whether Hermes gets the providers' keys themselves instead of a capability. */
  keysInEnvironment: boolean;
  /** Cloudflare's AI Gateway before the known providers, or an empty text. */
  aiGateway: string;
  /** The hosts that a container may reach besides the providers. */
  egress: "open" | readonly string[];
  /** Where the sandbox finds the `Providers` entrypoint. */
  providersAddress: string;
  /** Further settings for Hermes. */
  hermesEnv: Readonly<Record<string, string>>;
  /** Further secrets for Hermes. */
  hermesSecrets: Readonly<Record<string, string>>;
  /** What the agent is declared to be: SHA-256 of its archive, and digests of its parts by their variables. */
  agent: { archive: string; parts: Readonly<Record<string, string>> };
  /** By which people write to Hermes. */
  channels: ChannelSettings;
  /** The bots that Hermes speaks as there: the platform's name -> the bot's number. */
  bots: Readonly<Record<string, string>>;
  /** Secrets that are set, verbatim. */
  secrets: Partial<Record<SecretName, string>>;
}

const known = new WeakMap<object, Settings>();

/**
 * Reads and validates the environment; the result is kept for as long as the environment lives.
 * @throws ApiError 503 `bad_configuration`, naming the variable and what it must be.
 */
export function settingsOf(env: Env): Settings {
  const kept = known.get(env);
  if (kept !== undefined) return kept;
  const settings = parse(env);
  known.set(env, settings);
  return settings;
}

function parse(env: Env): Settings {
  const result = schema.safeParse(env);
  if (!result.success) throw badConfiguration(result.error.issues);
  const out = result.data;
  const settings: Settings = {
    name: out.HERMES_NAME,
    workerVersion: out.WORKER_VERSION,
    hermesVersion: out.HERMES_VERSION,
    image: out.HERMES_IMAGE,
    imageReference: out.HERMES_IMAGE_REFERENCE,
    platform: out.HERMES_PLATFORM,
    engine: out.HERMES_ENGINE,
    defaultModel: out.HERMES_DEFAULT_MODEL,
    models: out.HERMES_MODELS.filter((model) => model.id !== out.HERMES_DEFAULT_MODEL.id),
    providerBaseUrl: out.HERMES_PROVIDER_BASE_URL,
    contextLength: out.HERMES_CONTEXT_LENGTH,
    sleepAfter: out.HERMES_SLEEP_AFTER,
    drainTimeout: out.HERMES_DRAIN_TIMEOUT,
    tokenOverlap: out.HERMES_TOKEN_OVERLAP,
    finishesAlone: out.HERMES_ON_DISCONNECT === "finish",
    hostTools: out.HERMES_HOST_TOOLS,
    lazyInstalls: out.HERMES_LAZY_INSTALLS,
    instanceType: out.HERMES_INSTANCE_TYPE,
    allowUnauthenticated: out.HERMES_ALLOW_UNAUTHENTICATED,
    corsOrigins: out.HERMES_CORS_ORIGINS,
    dashboardOff: dashboardOff(out.HERMES_DASHBOARD),
    dashboardHostname: out.HERMES_DASHBOARD_HOSTNAME,
    dashboardOrigin: out.HERMES_DASHBOARD_ORIGIN,
    dashboardIdle: out.HERMES_DASHBOARD_IDLE,
    access: accessOf(out.HERMES_ACCESS_TEAM_DOMAIN, out.HERMES_ACCESS_AUDIENCES),
    keysInEnvironment: out.HERMES_PROVIDER_KEYS === "environment",
    aiGateway: out.HERMES_AI_GATEWAY,
    egress: out.HERMES_EGRESS,
    providersAddress: out.PROVIDERS_ADDRESS,
    hermesEnv: out.HERMES_ENV,
    hermesSecrets: out.HERMES_SECRETS,
    agent: out.HERMES_AGENT,
    channels: channelsOf(
      out.HERMES_CHANNELS,
      out.HERMES_PUBLIC_URL,
      out.HERMES_PLATFORM === "cloudflare" || out.HERMES_PUBLIC_URL !== "",
      out.HERMES_TELEGRAM_API_URL,
    ),
    bots: out.HERMES_BOTS,
    secrets: secretsOf(env),
  };
  if (settings.allowUnauthenticated && settings.corsOrigins.some((one) => OPAQUE_ORIGINS.includes(one)))
    throw configurationError("HERMES_CORS_ORIGINS lists pages of any site, and no token keeps them out");
  const speaks = [settings.defaultModel, ...settings.models].map((model) => model.provider);
  if (speaks.includes("custom") && settings.providerBaseUrl === "")
    throw configurationError("HERMES_PROVIDER_BASE_URL must be set to use the provider custom");
  return settings;
}

/** `on`, or `off: <why>`. */
function dashboardOff(text: string): string | null {
  if (text === "on") return null;
  return text.replace(/^off:?\s*/, "") || "It is switched off.";
}

function accessOf(domain: string, audiences: string[]): Settings["access"] {
  if (domain === "" && audiences.length === 0) return null;
  if (domain === "")
    throw configurationError("HERMES_ACCESS_AUDIENCES is set, but not HERMES_ACCESS_TEAM_DOMAIN");
  if (audiences.length === 0)
    throw configurationError("HERMES_ACCESS_TEAM_DOMAIN is set, but not HERMES_ACCESS_AUDIENCES");
  return { issuer: `https://${domain}`, audiences };
}

function secretsOf(env: Env): Partial<Record<SecretName, string>> {
  const secrets: Partial<Record<SecretName, string>> = {};
  for (const name of SECRETS) {
    const value = env[name];
    if (typeof value === "string" && value !== "") secrets[name] = value;
  }
  return secrets;
}

function badConfiguration(issues: readonly z.core.$ZodIssue[]): ApiError {
  const told = issues.map((issue) => `${String(issue.path[0])} ${issue.message}`);
  return configurationError(told.join("; "));
}

function configurationError(problem: string): ApiError {
  return new ApiError({
    status: 503,
    code: "bad_configuration",
    message: `The Worker's configuration is not usable: ${problem}. Mend it and deploy again.`,
  });
}

/** The providers that a configured model speaks through. */
export function providersOf(settings: Settings): ProviderName[] {
  return [...new Set([settings.defaultModel, ...settings.models].map((model) => model.provider))];
}

/**
 * The base URL that the owner set for a provider, or an empty text. It belongs to `custom` when a configured
 * model is of it (that provider has no other), else to the default model's provider.
 */
export function ownBaseUrl(settings: Settings, provider: ProviderName): string {
  const custom = [settings.defaultModel, ...settings.models].some((model) => model.provider === "custom");
  const owner = custom ? "custom" : settings.defaultModel.provider;
  return provider === owner ? settings.providerBaseUrl : "";
}

/** Every value that must never be shown: the Worker's own secrets and Hermes' further ones. */
export function secretValues(settings: Settings): string[] {
  const { secrets, hermesSecrets, channels: declared } = settings;
  return [...Object.values(secrets), ...Object.values(hermesSecrets), ...channelSecrets(declared)];
}
