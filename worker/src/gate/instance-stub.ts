// SPDX-License-Identifier: Apache-2.0
/** The way to the one Durable Object of this deployment. */
import { ApiError, reason } from "../base/errors.ts";
import { INVENTORY } from "../config/settings.generated.ts";
import type { Env } from "../config/settings.ts";
import type { HermesInstance } from "../instance/instance.ts";

/** With less than this the storage soon takes no more rows. */
const LEAST_BYTES = 1024 * 1024;
const ENGINE_PATIENCE = 2000;

/** The one instance. Where it is made is decided by the first call; the hint of later ones is not looked at. */
export function instanceOf(env: Env): DurableObjectStub<HermesInstance> {
  const { data: locationHint } = INVENTORY.HERMES_LOCATION.safeParse(env["HERMES_LOCATION"]);
  const instances = env.INSTANCE as DurableObjectNamespace<HermesInstance>;
  return instances.getByName("hermes", locationHint ? { locationHint } : {});
}

/**
 * Asks the instance, and asks once more when the call itself fails. The instance answers its own failures, so
 * what is thrown here is the object being torn down under a request: by a deploy, or because it gave up a
 * broken way to the container engine. A turn carries its idempotency key, so that it is not taken twice.
 * @throws ApiError 503 `instance_unavailable` when that fails, too; `disk_full` when the disk is why, and
 * `instance_broken` when it is the runtime that fails.
 * @param work is called again with a new stub: one that failed stays broken.
 */
export async function askInstance<T>(
  env: Env,
  work: (instance: DurableObjectStub<HermesInstance>) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  try {
    return await work(instanceOf(env));
  } catch (error) {
    if (signal?.aborted || (error as { overloaded?: unknown }).overloaded === true) throw error;
    return work(instanceOf(env)).catch(async (again: unknown) => {
      if (await diskIsFull(env)) throw diskFull(again);
      // Where there is a container engine, it may as well be that which fails.
      throw env.ENGINE !== undefined && isRuntimeFailure(again) ? broken(again) : unavailable(again);
    });
  }
}

/** Whether nothing can be kept on this machine: an object whose storage refuses a write is torn down without a word. */
async function diskIsFull({ ENGINE }: Env): Promise<boolean> {
  try {
    const answer = await ENGINE?.fetch("http://engine/", { signal: AbortSignal.timeout(ENGINE_PATIENCE) });
    const told = await answer?.json<{ diskFree?: number }>();
    return told?.diskFree !== undefined && told.diskFree < LEAST_BYTES;
  } catch {
    return false;
  }
}

function diskFull(cause: unknown): ApiError {
  return new ApiError({
    status: 503,
    code: "disk_full",
    message:
      "The disk of this machine is full, so nothing of Hermes' state can be kept. Free some space where the " +
      "deployment's folder is; then it goes on by itself.",
    retryAfter: 30,
    cause,
  });
}

/** The runtime tells nothing of its own failures but that; a storage that it cannot read is one. */
function isRuntimeFailure(error: unknown): boolean {
  return /^internal error\b/.test(reason(error));
}

function broken(cause: unknown): ApiError {
  return new ApiError({
    status: 503,
    code: "instance_broken",
    message:
      "The runtime cannot run the instance: its storage is damaged, or its disk is full or gone. The runtime's log " +
      "(logs/workerd.log) has the reason; SQLITE_CORRUPT and SQLITE_NOTADB there mean damage. Nothing was changed.",
    retryAfter: 10,
    cause,
  });
}

function unavailable(cause: unknown): ApiError {
  return new ApiError({
    status: 503,
    code: "instance_unavailable",
    message:
      "The instance could not be reached, or was started over twice while it was asked. If that goes on, see " +
      "that the machine's disk has space, that the container engine runs, and what the runtime's log says of the " +
      "storage.",
    retryAfter: 3,
    cause,
  });
}
