// SPDX-License-Identifier: Apache-2.0
/** What a running Hermes has of all that an inventory can declare, as it says itself. */
import * as z from "zod/mini";

/** What of the declared agent lies in Hermes' home. */
export interface Laid {
  /** SHA-256 of the archive. */
  archive: string;
  /** What is there as it was declared: `soul`, `skills/NAME`, ... */
  laid: string[];
  /** What is there otherwise, and stays, each with the reason. */
  kept: { item: string; why: string }[];
}

/** Before anything was declared. */
export const NOTHING_LAID: Laid = { archive: "", laid: [], kept: [] };

/** Packages that a Hermes has, by name. */
export interface Packages {
  /** Of Python: the version that an import finds. */
  python: Record<string, string>;
  /**
   * Of Debian, where an image brought them: the version, which of its files are not there as it has them, and which of
   * these are not there at all.
   */
  debian: Record<string, { version: string; other: string[]; gone: string[] }>;
  /** Names of what can be imported, and of the programs beside its own; null of an earlier release's. */
  modules: string[] | null;
  commands: string[] | null;
}

/** See above. */
export interface InForce extends Laid {
  skills: string[];
  jobs: { name: string; enabled: boolean; next: string | null }[];
  servers: { name: string; status: string; error: string | null; tools: string[] }[];
  /** Names in its environment; null of a Hermes that cannot be asked for them, nor for its servers. */
  environment: string[] | null;
  /** The same of its packages. */
  packages: Packages | null;
}

/** Where on its port Hermes tells of it; the last one is ours, and some other Hermes than the pinned one lack it. */
export const SOURCES = ["/v1/skills", "/api/jobs?include_disabled=true", "/sandbox/in-force"] as const;

const schema = z.tuple([
  z.object({ data: z.array(z.object({ name: z.string() })) }),
  z.object({
    jobs: z.array(
      z.object({
        name: z.string(),
        enabled: z._default(z.boolean(), true),
        next_run_at: z.nullish(z.string()),
      }),
    ),
  }),
  z.nullable(
    z.object({
      mcp_servers: z.array(
        z.object({
          name: z.string(),
          status: z.string(),
          error: z.nullish(z.string()),
          tools: z.array(z.string()),
        }),
      ),
      environment: z.array(z.string()),
      // One of an earlier release runs on until it is restarted.
      packages: z.nullish(
        z.object({
          python: z.record(z.string(), z.string()),
          debian: z.record(
            z.string(),
            z.object({
              version: z.string(),
              other: z.array(z.string()),
              gone: z._default(z.array(z.string()), []),
            }),
          ),
          modules: z._default(z.nullable(z.array(z.string())), null),
          commands: z._default(z.nullable(z.array(z.string())), null),
        }),
      ),
    }),
  ),
]);

/** Reads what Hermes told at {@link SOURCES}, null where it has no such address. @throws for what is no such answer. */
export function inForce(told: unknown[]): Omit<InForce, keyof Laid> {
  const [{ data }, { jobs }, own] = schema.parse(told);
  return {
    skills: data.map(({ name }) => name),
    jobs: jobs.map(({ name, enabled, next_run_at }) => ({ name, enabled, next: next_run_at ?? null })),
    servers: (own?.mcp_servers ?? []).map((server) => ({ ...server, error: server.error ?? null })),
    environment: own?.environment ?? null,
    packages: own?.packages ?? null,
  };
}
