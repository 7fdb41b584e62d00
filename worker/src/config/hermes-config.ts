// SPDX-License-Identifier: Apache-2.0
/**
 * What Hermes is told at `go`: pins for its managed configuration and its environment. Both stay in memory
 * there. The only "provider key" among them is this boot's capability for the `Providers` entrypoint, unless
 * the owner chose to hand out the keys themselves.
 */

import { homesOf, OWN_MESSAGES, relayed } from "./channels.ts";
import type { Model } from "./kinds.ts";
import { PROVIDERS, type ProviderName } from "./providers.ts";
import { ownBaseUrl, providersOf, type Settings } from "./settings.ts";

/** Input of `sandbox go`. */
export interface Go {
  config: Record<string, unknown>;
  env: Record<string, string>;
}

/** Keys of one boot. */
export interface BootKeys {
  /** Between the Worker and Hermes. */
  gatewayKey: string;
  /** What the gateway key was made of besides the owner's token; absent where the owner has none. */
  gatewayStart?: string;
  /** Between Hermes and the `Providers` entrypoint. */
  capability: string;
  /** Between the Worker and Hermes' dashboard. */
  dashboardToken: string;
}

/** For those who look at the configuration alone. */
export const NO_KEYS: BootKeys = { gatewayKey: "", capability: "", dashboardToken: "" };

/** Tools that reach the machine Hermes runs on. */
const HOST_TOOLSETS = [
  "terminal",
  "file",
  "code_execution",
  "browser",
  "computer_use",
  "delegation",
  "vision",
];

/** What the entries under `providers` read the capability from. */
const CAPABILITY_VARIABLE = "HERMES_PROVIDER_CAPABILITY";

/** In which the bridge of Hermes' relay finds the bots that it speaks as. */
const RELAY_VARIABLE = "HERMES_RELAY_BOTS";

/** Where Hermes gives what it sends on its own account. */
const OWN_MESSAGES_VARIABLE = "HERMES_OWN_MESSAGES_URL";

/** Models that no table knows; the number also spares Hermes its probing of the endpoint. */
const UNKNOWN_CONTEXT = 200_000;

/**
 * Hermes takes the Worker's address for a model server on its own machine, and waits half an hour for the next word of
 * such a one (`agent/chat_completion_helpers.py` of 0.19). A provider has as many seconds as Hermes gives the slowest
 * of the models that think (`agent/reasoning_timeouts.py`).
 */
const PATIENCE = { HERMES_STREAM_READ_TIMEOUT: "600" };

/** What Hermes is given for an endpoint that takes no key: without any it would not call. */
const NO_KEY = "none";

/**
 * Whether Hermes may have tools that touch the machine: always in a container; as a process only when the
 * owner said so, for even a confined one shares the host's network.
 */
function hostToolsAllowed(settings: Settings): boolean {
  return settings.engine !== "process" || settings.hostTools;
}

/** Builds the input of `sandbox go`. */
export function buildGo(settings: Settings, keys: BootKeys): Go {
  const tools = hostToolsAllowed(settings);
  return {
    config: {
      model: { ...mainModel(settings), ...contextLength(settings) },
      providers: namedProviders(settings),
      platforms: { api_server: { enabled: true, extra: { model_routes: routes(settings) } } },
      gateway: { api_server: { max_concurrent_runs: 0 } },
      security: { tirith_enabled: false },
      agent: {
        restart_drain_timeout: Math.ceil(settings.drainTimeout / 1000),
        ...(tools ? {} : { disabled_toolsets: HOST_TOOLSETS }),
      },
      ...(tools ? {} : { kanban: { dispatch_in_gateway: false } }),
    },
    env: {
      ...patience(settings),
      ...settings.hermesEnv,
      ...settings.hermesSecrets,
      ...providerEnvironment(settings, keys.capability),
      ...relay(settings),
      ...browser(settings),
      HERMES_LAZY_INSTALLS: String(settings.lazyInstalls),
      API_SERVER_ENABLED: "true",
      API_SERVER_KEY: keys.gatewayKey,
      HERMES_DASHBOARD_SESSION_TOKEN: keys.dashboardToken,
    },
  };
}

/** How long Hermes waits for a provider that has fallen silent; a small server of the owner's own may take its time. */
function patience(settings: Settings): Record<string, string> {
  const isSlow = providersOf(settings).some((provider) => ownBaseUrl(settings, provider).startsWith("http:"));
  return settings.keysInEnvironment || isSlow ? {} : PATIENCE;
}

/** What makes Hermes speak to people by our channels; the bridge beside it reads it. Of the tokens nothing is in it. */
function relay({ bots, channels, providersAddress }: Settings): Record<string, string> {
  const speaks = relayed(bots);
  if (speaks.length === 0) return {};
  // By these names Hermes' jobs know where their results go.
  const homes = Object.entries(homesOf(channels)).map(([name, chat]) => [
    `${name.toUpperCase()}_HOME_CHANNEL`,
    chat,
  ]);
  return {
    [RELAY_VARIABLE]: JSON.stringify(speaks),
    [OWN_MESSAGES_VARIABLE]: `${providersAddress}${OWN_MESSAGES}`,
    ...Object.fromEntries(homes),
  };
}

/** The browser that Hermes opens pages in, wherever it runs; its address may hold the key to it. */
function browser({ secrets }: Settings): Record<string, string> {
  return secrets.BROWSER_URL === undefined ? {} : { BROWSER_CDP_URL: secrets.BROWSER_URL };
}

/** Whether Hermes speaks to a provider by itself, with the real key. */
function isDirect(settings: Settings, provider: ProviderName): boolean {
  return settings.keysInEnvironment && provider !== "rehearsal";
}

function baseUrl(settings: Settings, provider: ProviderName): string {
  if (isDirect(settings, provider)) return ownBaseUrl(settings, provider) || PROVIDERS[provider].base;
  return `${settings.providersAddress}/${provider}${PROVIDERS[provider].suffix}`;
}

/** Hermes' native provider where it has one: its prompts and caching are tuned for it. */
function mainModel(settings: Settings): Record<string, unknown> {
  const { provider, name } = settings.defaultModel;
  return {
    provider: PROVIDERS[provider].native ?? `custom:${sealed(provider)}`,
    default: name,
    base_url: baseUrl(settings, provider),
    ...(provider === "openai" ? { api_mode: apiMode(settings, provider) } : {}),
  };
}

/** What Hermes is told of a model's context; of those that it knows by itself, nothing. */
function contextLength(settings: Settings): { context_length?: number } {
  const { provider } = settings.defaultModel;
  const own = ownBaseUrl(settings, provider) !== "" ? settings.contextLength : 0;
  if (own > 0) return { context_length: own };
  return provider === "custom" || provider === "rehearsal"
    ? { context_length: settings.contextLength || UNKNOWN_CONTEXT }
    : {};
}

/** Name of the entry under `providers` that leads to a provider through the Worker. */
function sealed(provider: ProviderName): string {
  return `sealed-${provider}`;
}

/** One entry for each provider in use: further models are routed through these, each in its own protocol. */
function namedProviders(settings: Settings): Record<string, unknown> {
  const entries = providersOf(settings).map((provider) => [
    sealed(provider),
    {
      base_url: baseUrl(settings, provider),
      key_env: keyVariable(settings, provider),
      api_mode: apiMode(settings, provider),
    },
  ]);
  return Object.fromEntries(entries);
}

/** The variable in which Hermes finds what it authenticates with. */
function keyVariable(settings: Settings, provider: ProviderName): string {
  return (isDirect(settings, provider) ? PROVIDERS[provider].key : null) ?? CAPABILITY_VARIABLE;
}

/** OpenAI's newer models take tools only over its Responses API; compatible endpoints know Chat Completions. */
function apiMode(settings: Settings, provider: ProviderName): string {
  if (provider === "anthropic") return "anthropic_messages";
  return provider === "openai" && ownBaseUrl(settings, provider) === ""
    ? "codex_responses"
    : "chat_completions";
}

/** Requests choose among the further models by the whole id; the default needs no route. */
function routes(settings: Settings): Record<string, unknown> {
  const route = (model: Model) => ({ model: model.name, provider: `custom:${sealed(model.provider)}` });
  return Object.fromEntries(settings.models.map((model) => [model.id, route(model)]));
}

function providerEnvironment(settings: Settings, capability: string): Record<string, string> {
  const env: Record<string, string> = { [CAPABILITY_VARIABLE]: capability };
  for (const provider of providersOf(settings)) {
    const { key, addressVariable } = PROVIDERS[provider];
    if (key !== null && isDirect(settings, provider)) env[key] = settings.secrets[key] ?? NO_KEY;
    else if (key !== null && addressVariable !== null) env[key] = capability;
    if (addressVariable !== null) env[addressVariable] = baseUrl(settings, provider);
  }
  return env;
}
