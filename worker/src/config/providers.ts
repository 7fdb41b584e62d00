// SPDX-License-Identifier: Apache-2.0
/** The model providers, a row each: whatever differs between them stands here. */

/** What is known about a provider. */
export interface Provider<Key extends string = string> {
  /** Its own base URL without a trailing slash; empty when only the configuration knows it. */
  readonly base: string;
  /** The variable with its key: a secret's name, by which Hermes knows it as well. `null` where there is none. */
  readonly key: Key | null;
  /** Whether calls are refused here when the key is not set. */
  readonly keyNeeded: boolean;
  /** What Hermes calls it, which then has prompts and caching for it; `null` where Hermes does not know it. */
  readonly native: string | null;
  /** Hermes' variable with the address of a provider that it knows by name. */
  readonly addressVariable: string | null;
  /** What the base URL that Hermes is given ends in, after the name. Hermes appends the API's own paths. */
  readonly suffix: string;
  /** `METHOD path` of everything that passes; the path is what follows `suffix`, and the base URL. */
  readonly allowed: readonly string[];
  /** Shape of its errors. */
  readonly errors: "openai" | "anthropic";
}

const OPENAI_CALLS = ["POST /chat/completions", "POST /responses", "POST /embeddings"];

// Model listings of the known providers are left out on purpose: Hermes has their context lengths in its own
// tables, and would otherwise ask over the network before every turn.
const ROWS = {
  anthropic: {
    base: "https://api.anthropic.com",
    key: "ANTHROPIC_API_KEY",
    keyNeeded: true,
    native: "anthropic",
    addressVariable: "ANTHROPIC_BASE_URL",
    // Hermes takes a base URL for Anthropic's protocol only when it ends in the name.
    suffix: "",
    allowed: ["POST /v1/messages", "POST /v1/messages/count_tokens"],
    errors: "anthropic",
  },
  openrouter: {
    base: "https://openrouter.ai/api/v1",
    key: "OPENROUTER_API_KEY",
    keyNeeded: true,
    native: "openrouter",
    addressVariable: "OPENROUTER_BASE_URL",
    suffix: "/v1",
    allowed: OPENAI_CALLS,
    errors: "openai",
  },
  openai: {
    base: "https://api.openai.com/v1",
    key: "OPENAI_API_KEY",
    keyNeeded: true,
    native: "openai-api",
    addressVariable: "OPENAI_BASE_URL",
    suffix: "/v1",
    allowed: OPENAI_CALLS,
    errors: "openai",
  },
  custom: {
    base: "",
    key: "CUSTOM_API_KEY",
    keyNeeded: false,
    native: null,
    addressVariable: null,
    suffix: "/v1",
    allowed: [...OPENAI_CALLS, "GET /models"],
    errors: "openai",
  },
  // Answered by the Worker itself, by whatever path.
  rehearsal: {
    base: "",
    key: null,
    keyNeeded: false,
    native: null,
    addressVariable: null,
    suffix: "/v1",
    allowed: [],
    errors: "openai",
  },
} as const satisfies Record<string, Provider>;

/** What stands before the first slash of a model id. */
export type ProviderName = keyof typeof ROWS;
/** A variable with a provider's key. */
export type ProviderKey = NonNullable<(typeof ROWS)[ProviderName]["key"]>;

/** All providers, in the order of the documentation. */
export const PROVIDERS: {
  readonly [Name in ProviderName]: Provider<ProviderKey> & Pick<(typeof ROWS)[Name], "key">;
} = ROWS;
/** Their names. */
export const PROVIDER_NAMES = Object.keys(ROWS) as ProviderName[];
/** The variables with their keys. */
export const PROVIDER_KEYS = PROVIDER_NAMES.map((name) => PROVIDERS[name].key).filter((key) => key !== null);
