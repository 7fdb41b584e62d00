// SPDX-License-Identifier: Apache-2.0
/** What Hermes runs with, held against what it should run with, and the lightest way from one to the other. */
import * as z from "zod/mini";
import { digestOf, hex } from "../base/digests.ts";
import { ApiError } from "../base/errors.ts";
import { type AgentArchive, type PackedAgent, packedAgent } from "./agent.ts";
import { relayed } from "./channels.ts";
import { type BootKeys, buildGo, type Go, NO_KEYS } from "./hermes-config.ts";
import { DECLARED } from "./settings.generated.ts";
import { SECRETS, type Settings } from "./settings.ts";

/**
 * What brings a running Hermes to the deployed settings: nothing, content that is laid beside it, a restart of Hermes
 * alone, or a new sandbox.
 */
export type Restart = "nothing" | "content" | "hermes" | "sandbox";

/** What Hermes was given at its start, as digests: a running one reports it, and no secret can be read from it. */
export interface Configuration {
  /** Of everything that `go` fixes besides the keys of the boot, and content that Hermes reads when it needs it. */
  digest: string;
  /** Of what went into it, by the variable that people set. */
  parts: Record<string, string>;
}

/** What a sandbox was started with; only another one has something else. */
export interface Started {
  image: string;
  /** Whether it may reach the whole internet. */
  open: boolean;
  /** Size of the container. */
  instanceType: string;
}

/** What of the deployed settings a running Hermes does not have. */
export interface Difference {
  restart: Restart;
  /** Hermes' own settings differ, whatever else does. */
  hermes: boolean;
  /** What is laid beside Hermes differs, whatever else does. */
  content: boolean;
  /** The variables behind it, in the order of the alphabet. */
  because: string[];
}

/** A Hermes that has all that it should have, or none that runs. */
export const NO_DIFFERENCE: Difference = { restart: "nothing", hermes: false, content: false, because: [] };

const schema = z.object({ digest: z.string(), parts: z.record(z.string(), z.string()) });

/** Input of `sandbox go`, with the digests by which the Hermes that gets it can tell what it has. */
export interface LabelledGo extends Go {
  agent: PackedAgent;
  configuration: Configuration;
}

/** The input of `sandbox go` with today's settings. */
export async function goFor(settings: Settings, keys: BootKeys, archive: AgentArchive): Promise<LabelledGo> {
  const agent = await packedAgent(settings, archive);
  return { ...buildGo(settings, keys), agent, configuration: await configurationOf(settings) };
}

const known = new WeakMap<Settings, Promise<Configuration>>();

/** The digests of what Hermes would be given with these settings. */
export function configurationOf(settings: Settings): Promise<Configuration> {
  const kept = known.get(settings) ?? digestsOf(settings);
  known.set(settings, kept);
  return kept;
}

async function digestsOf(settings: Settings): Promise<Configuration> {
  const parts = Object.entries(inputsOf(settings)).map(
    async ([name, value]) => [name, await digest(value)] as const,
  );
  const { agent, secrets } = settings;
  const read = Object.entries(agent.parts).filter(([name]) => !isContent(name));
  // An agent of which nothing is declared is as one before there was anything to declare.
  const go = {
    ...buildGo(settings, NO_KEYS),
    ...(read.length === 0 ? {} : { read }),
    // Hermes has a key that is made of it.
    ...(secrets.GATEWAY_TOKEN === undefined ? {} : { token: secrets.GATEWAY_TOKEN }),
  };
  return {
    digest: await digest(go),
    parts: { ...Object.fromEntries(await Promise.all(parts)), ...agent.parts },
  };
}

/** What a sandbox would be started with now. */
export function startOf(settings: Settings): Started {
  const { image, egress, instanceType } = settings;
  return { image, open: egress === "open", instanceType };
}

/** Whether a sandbox would be started now as it was. */
export function startsAlike(settings: Settings, started: Started): boolean {
  return startDifference(startOf(settings), started).length === 0;
}

/** Reads what a sandbox reported; `null` when it reported none, as one of an earlier release does. */
export function parseConfiguration(told: unknown): Configuration | null {
  const result = schema.safeParse(told);
  return result.success ? result.data : null;
}

/**
 * Compares what runs with what should.
 * @param running `null` when it is not known: then it counts as another one.
 * @param started `null` when it is not known: then nothing is said of the sandbox.
 */
export async function differenceOf(
  settings: Settings,
  running: Configuration | null,
  started: Started | null,
): Promise<Difference> {
  const wanted = await configurationOf(settings);
  const hermes = running?.digest !== wanted.digest;
  const laid = contentThatDiffers(wanted, running);
  const content = laid.length > 0;
  const sandbox = started === null ? [] : startDifference(startOf(settings), started);
  const because = [...(hermes ? partsThatDiffer(wanted, running) : []), ...laid, ...sandbox].sort();
  const restart = sandbox.length > 0 ? "sandbox" : hermes ? "hermes" : content ? "content" : "nothing";
  return { restart, hermes, content, because };
}

/** Whether a part is content that Hermes reads when it needs it. */
function isContent(name: string): boolean {
  return DECLARED[name as keyof typeof DECLARED] === "content";
}

function partsThatDiffer(wanted: Configuration, running: Configuration | null): string[] {
  if (running === null) return ["it does not tell what it has"];
  const differ = differing(wanted, running).filter((name) => !isContent(name));
  return differ.length > 0 ? differ : ["a new release"];
}

function contentThatDiffers(wanted: Configuration, running: Configuration | null): string[] {
  return running === null ? [] : differing(wanted, running).filter(isContent);
}

function differing(wanted: Configuration, running: Configuration): string[] {
  const names = new Set([...Object.keys(wanted.parts), ...Object.keys(running.parts)]);
  return [...names].filter((name) => wanted.parts[name] !== running.parts[name]);
}

function startDifference(wanted: Started, started: Started): string[] {
  return [
    ...(wanted.image === started.image ? [] : ["a new image"]),
    ...(wanted.open === started.open ? [] : ["hermes_egress"]),
    ...(wanted.instanceType === started.instanceType ? [] : ["hermes_instance_type"]),
  ];
}

const changesSchema = z.object({
  variables: z.record(z.string().check(z.regex(/^[A-Z][A-Z0-9_]*$/)), z.string()),
  secrets: z.array(z.enum(SECRETS)),
});

/**
 * Reads `{"variables": {name: value}, "secrets": [name]}`: what the Worker would be given, the secrets by name only.
 * @throws ApiError 400 `bad_changes`.
 */
export function changesOf(body: ArrayBuffer | null): z.infer<typeof changesSchema> {
  try {
    return changesSchema.parse(JSON.parse(new TextDecoder().decode(body ?? new ArrayBuffer(0))));
  } catch (error) {
    throw new ApiError({
      status: 400,
      code: "bad_changes",
      message:
        'Send {"variables": {"NAME": "value"}, "secrets": ["NAME"]} with names that this Worker knows.',
      cause: error,
    });
  }
}

/** What goes into Hermes' configuration, by the variable that people set. */
function inputsOf(settings: Settings): Record<string, unknown> {
  const inputs: Record<string, unknown> = {
    hermes_default_model: settings.defaultModel.id,
    hermes_models: settings.models.map((model) => model.id),
    hermes_provider_base_url: settings.providerBaseUrl,
    hermes_context_length: settings.contextLength,
    hermes_providers_port: settings.providersAddress,
    hermes_provider_keys: settings.keysInEnvironment,
    hermes_host_tools: settings.hostTools,
    hermes_lazy_installs: settings.lazyInstalls,
    hermes_drain_timeout: settings.drainTimeout,
    hermes_env: settings.hermesEnv,
    hermes_secrets: settings.hermesSecrets,
  };
  if (Object.keys(settings.bots).length > 0) inputs["hermes_channels"] = relayed(settings.bots);
  // A sealed key is the Worker's alone, and Hermes has none of it.
  const { BROWSER_URL, GATEWAY_TOKEN } = settings.secrets;
  if (BROWSER_URL !== undefined) inputs["hermes_browser_url"] = BROWSER_URL;
  if (GATEWAY_TOKEN !== undefined) inputs["hermes_gateway_token"] = GATEWAY_TOKEN;
  if (settings.keysInEnvironment)
    for (const [name, value] of Object.entries(settings.secrets))
      if (name.endsWith("_API_KEY")) inputs[name.toLowerCase()] = value;
  return inputs;
}

async function digest(value: unknown): Promise<string> {
  return hex(await digestOf(JSON.stringify(value)));
}
