// SPDX-License-Identifier: Apache-2.0
/** Which sandbox an instance has: what its platform hands over, told what the deployment says of it. */
import { ApiError } from "../base/errors.ts";
import type { Env, Settings } from "../config/settings.ts";
import { ContainerSandbox } from "../sandbox/container.ts";
import { NoContainer } from "../sandbox/no-container.ts";
import { ProcessSandbox } from "../sandbox/process-engine.ts";
import { CLOUD_START, LOCAL_START, type Sandbox } from "../sandbox/sandbox.ts";

/** When this object was last torn down for a broken way to the container engine. */
const HEALED = "healed";
/** Not again within so many milliseconds: what did not help then does not help now. */
const HEAL_PAUSE = 10_000;
/** Where the platform puts the authority that vouches for intercepted hosts, in each container anew. */
const INTERCEPTION_CA = "/etc/cloudflare/certs/cloudflare-containers-ca.crt";
/** How long a sandbox goes on at most that was told to stop, in milliseconds. */
const LONGEST_TERM = 840_000;

/** The platform's container where there is one, else the process engine. */
export function sandboxOf(ctx: DurableObjectState, env: Env, settings: Settings): Sandbox {
  const cloud = settings.platform === "cloudflare";
  if (ctx.container !== undefined) return containerOf(ctx, ctx.container, settings);
  if (env.ENGINE !== undefined && env.LOOPBACK !== undefined)
    return new ProcessSandbox(env.ENGINE, env.LOOPBACK, cloud ? CLOUD_START : LOCAL_START);
  if (cloud) return new NoContainer();
  throw new ApiError({
    status: 503,
    code: "bad_configuration",
    message:
      "There is neither a container nor an engine: bind ENGINE and LOOPBACK, or configure a container.",
  });
}

function containerOf(ctx: DurableObjectState, container: Container, settings: Settings): Sandbox {
  const entrypoints = ctx.exports as unknown as Record<"Providers" | "Egress", (options: object) => Fetcher>;
  const open = settings.egress === "open";
  return new ContainerSandbox({
    container,
    providers: entrypoints.Providers({}),
    providersHost: new URL(settings.providersAddress).host,
    egress: open ? null : entrypoints.Egress({}),
    instance: settings.instanceType,
    local: settings.engine === "docker",
    reference: settings.imageReference,
    // Docker's neighbours on the bridge must not reach Hermes; the runtime comes from inside.
    env: {
      ...(settings.engine === "docker" ? { SANDBOX_BIND: "127.0.0.1" } : {}),
      ...(open ? {} : { SANDBOX_EXTRA_CA: INTERCEPTION_CA }),
      // A host that goes away there leaves a quarter of an hour; what Hermes is at may come to its end, and be saved.
      ...(settings.platform === "cloudflare" ? { SANDBOX_TERM_PATIENCE: termPatience(settings) } : {}),
    },
    heal: async () => {
      const last = ctx.storage.kv.get<number>(HEALED) ?? 0;
      if (Math.abs(Date.now() - last) < HEAL_PAUSE) return;
      ctx.storage.kv.put(HEALED, Date.now());
      await ctx.storage.sync();
      ctx.abort("The way to the container engine is broken; this object starts over.");
    },
  });
}

function termPatience({ drainTimeout }: Settings): string {
  return String(Math.min(drainTimeout, LONGEST_TERM) / 1000);
}
