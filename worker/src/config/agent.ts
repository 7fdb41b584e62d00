// SPDX-License-Identifier: Apache-2.0
/**
 * The agent as the inventory declares it: a variable names it by its digests, and a module of the Worker holds it, so
 * that it comes, goes back and is compared with the version that it was deployed with.
 */
import { hex } from "../base/digests.ts";
import { ApiError } from "../base/errors.ts";
import type { Settings } from "./settings.ts";

/** What `sandbox go` is given of it; both are empty where nothing is declared. */
export interface PackedAgent {
  /** SHA-256 of the archive. */
  archive: string;
  /** The archive, in base64. */
  content: string;
}

/** Returns the archive of the deployed agent; asked only where there is one. */
export type AgentArchive = () => Promise<ArrayBuffer>;

/** The archive that was deployed beside this code. */
export const deployedAgent: AgentArchive = async () => (await import("./agent.tar.gz")).default;

/**
 * The declared agent, packed.
 * @throws ApiError 503 `bad_configuration` when the archive is not the one that the variable names.
 */
export async function packedAgent({ agent }: Settings, archive: AgentArchive): Promise<PackedAgent> {
  if (agent.archive === "") return { archive: "", content: "" };
  const content = new Uint8Array(await archiveOf(agent, archive));
  let text = "";
  for (let at = 0; at < content.length; at += CHUNK)
    text += String.fromCharCode(...content.subarray(at, at + CHUNK));
  return { archive: agent.archive, content: btoa(text) };
}

/** The archive of the deployed agent. @throws as {@link packedAgent} does. */
export async function archiveOf(agent: Settings["agent"], archive: AgentArchive): Promise<ArrayBuffer> {
  const content = await archive().catch(() => null);
  if (content !== null && hex(await crypto.subtle.digest("SHA-256", content)) === agent.archive)
    return content;
  throw new ApiError({
    status: 503,
    code: "bad_configuration",
    message:
      "The Worker does not have the content of the agent that HERMES_AGENT names. Mend it and deploy again.",
  });
}

/** As many bytes as a function takes arguments, on every engine. */
const CHUNK = 0x2000;
