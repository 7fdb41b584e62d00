// SPDX-License-Identifier: Apache-2.0
/**
 * What was deployed: the variables, with the version of the code among them, and the secrets. A Worker is new at once,
 * while its object may keep what it was started with for minutes; by this they know of each other.
 */
import { digestOf, hex } from "../base/digests.ts";
import type { Env } from "./settings.ts";

const known = new WeakMap<Env, Promise<string>>();

/** A digest of all that was deployed. It stays between the Worker and its object: no secret can be guessed from it. */
export function deployedDigest(env: Env): Promise<string> {
  const kept = known.get(env) ?? digestOfAll(env);
  known.set(env, kept);
  return kept;
}

async function digestOfAll(env: Env): Promise<string> {
  const texts = Object.entries(env).filter(([, value]) => typeof value === "string");
  return hex(await digestOf(JSON.stringify(texts.sort(([one], [other]) => (one < other ? -1 : 1)))));
}
