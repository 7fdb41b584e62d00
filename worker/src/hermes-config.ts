// SPDX-License-Identifier: Apache-2.0
/**
 * What Hermes is told at `go`: pins for its managed configuration and its environment. Both stay in memory
 * there. The only "provider key" among them is this boot's capability for the `Providers` entrypoint.
 */
import { type Model, ownBaseUrl, type ProviderName, type Settings } from "./settings.ts";

/** Input of `sandbox go`. */
export interface Go {
  config: Record<string, unknown>;
  env: Record<string, string>;
}

/** Keys of one boot. */
export interface BootKeys {
  /** Between the Worker and Hermes. */
  gatewayKey: string;
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

/** Named by the entries under `providers`, which read their key from this variable. */
const CAPABILITY_VARIABLE = "HERMES_PROVIDER_CAPABILITY";

/** Models that no table knows; the number also spares Hermes its probing of the endpoint. */
const UNKNOWN_CONTEXT = 200_000;

/** Path of a provider under the `Providers` entrypoint; Hermes appends the API's own paths. */
const PATHS: Record<ProviderName, string> = {
  // Hermes takes a base URL for Anthropic's protocol only when it ends like this.
  anthropic: "/anthropic",
  openrouter: "/openrouter/v1",
  openai: "/openai/v1",
  custom: "/custom/v1",
  rehearsal: "/rehearsal/v1",
};

/** Hermes' own variables for the providers that it knows by name. */
const VARIABLES: Partial<Record<ProviderName, { key: string; base: string }>> = {
  anthropic: { key: "ANTHROPIC_API_KEY", base: "ANTHROPIC_BASE_URL" },
  openrouter: { key: "OPENROUTER_API_KEY", base: "OPENROUTER_BASE_URL" },
  openai: { key: "OPENAI_API_KEY", base: "OPENAI_BASE_URL" },
};

/**
 * Whether Hermes may have tools that touch the machine: always in a container; as a process only when the
 * owner said so, for even a confined one shares the host's network.
 */
export function hostToolsAllowed(settings: Settings): boolean {
  return settings.engine !== "process" || settings.hostTools;
}

/** Builds the input of `sandbox go`. */
export function buildGo(settings: Settings, keys: BootKeys): Go {
  const tools = hostToolsAllowed(settings);
  return {
    config: {
      model: mainModel(settings),
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
      ...settings.hermesEnv,
      ...settings.hermesSecrets,
      ...providerEnvironment(settings, keys.capability),
      API_SERVER_ENABLED: "true",
      API_SERVER_KEY: keys.gatewayKey,
      HERMES_DASHBOARD_SESSION_TOKEN: keys.dashboardToken,
    },
  };
}

/** Providers that a configured model speaks through. */
function providersOf(settings: Settings): ProviderName[] {
  return [...new Set([settings.defaultModel, ...settings.models].map((model) => model.provider))];
}

function baseUrl(settings: Settings, provider: ProviderName): string {
  return settings.providersAddress + PATHS[provider];
}

/** Hermes' native provider where it has one: its prompts and caching are tuned for it. */
function mainModel(settings: Settings): Record<string, unknown> {
  const { provider, name } = settings.defaultModel;
  const base_url = baseUrl(settings, provider);
  switch (provider) {
    case "anthropic":
      return { provider: "anthropic", default: name, base_url };
    case "openrouter":
      return { provider: "openrouter", default: name, base_url };
    case "openai":
      return { provider: "openai-api", default: name, base_url, api_mode: apiMode(settings, provider) };
    default:
      return {
        provider: `custom:${sealed(provider)}`,
        default: name,
        base_url,
        context_length: UNKNOWN_CONTEXT,
      };
  }
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
      key_env: CAPABILITY_VARIABLE,
      api_mode: apiMode(settings, provider),
    },
  ]);
  return Object.fromEntries(entries);
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
    const variables = VARIABLES[provider];
    if (variables === undefined) continue;
    env[variables.key] = capability;
    env[variables.base] = baseUrl(settings, provider);
  }
  return env;
}

/** Digest of everything that `go` fixes besides the keys: tells whether a running Hermes is behind. */
export async function configDigest(settings: Settings): Promise<string> {
  const text = JSON.stringify(buildGo(settings, NO_KEYS));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
