// SPDX-License-Identifier: Apache-2.0
/** The way to the one Durable Object of this deployment. */
import { ApiError } from "./errors.ts";
import type { HermesInstance } from "./instance.ts";
import type { Env } from "./settings.ts";

/** The one instance. */
export function instanceOf(env: Env): DurableObjectStub<HermesInstance> {
  return env.INSTANCE.getByName("hermes");
}

/**
 * Asks the instance, and asks once more when the call itself fails. The instance answers its own failures, so
 * what is thrown here is the object being torn down under a request: by a deploy, or because it gave up a
 * broken way to the container engine. A turn carries its idempotency key, so that it is not taken twice.
 * @throws ApiError 503 `instance_unavailable` when that fails, too.
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
    return work(instanceOf(env)).catch((again: unknown) => {
      throw unavailable(again);
    });
  }
}

function unavailable(cause: unknown): ApiError {
  return new ApiError({
    status: 503,
    code: "instance_unavailable",
    message:
      "The instance could not be reached, or was started over twice while it was asked. If that goes on, see " +
      "that the container engine runs.",
    retryAfter: 3,
    cause,
  });
}
