// SPDX-License-Identifier: Apache-2.0
/** How a platform's API is called. */
import { within } from "../base/time.ts";
import { type PlatformParts, SendRefused } from "./channel.ts";

/** An answer to a call comes within so long; milliseconds. */
const PATIENCE = 15_000;

/**
 * Sends something to a platform.
 * @param patience its answer comes within so many milliseconds.
 * @throws SendRefused: nothing of what it says holds a secret.
 */
export async function posted(
  { fetch, time }: PlatformParts,
  url: string,
  label: string,
  init: RequestInit,
  patience = PATIENCE,
): Promise<Response> {
  const left = new AbortController();
  const call = fetch(url, { method: "POST", redirect: "manual", signal: left.signal, ...init });
  const answer = await within(time, patience, call).catch(() => {
    // Its message may name the address, and with it what is secret in it.
    throw new SendRefused(`${label} could not be reached`, false, 0, true);
  });
  if (answer !== undefined) return answer;
  left.abort();
  throw new SendRefused(`${label} did not answer in time`, false, 0, true);
}
