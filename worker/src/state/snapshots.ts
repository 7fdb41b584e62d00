// SPDX-License-Identifier: Apache-2.0
/**
 * Snapshots of the sandbox's disk: a cache for a fast wake that also keeps what lies outside Hermes' home.
 * The vault is the state of record; a snapshot is used only while it holds the same state.
 */
import type { Vault } from "./vault.ts";

/** A snapshot, and what has to be the same for it to be used. */
export interface SnapshotRecord {
  id: string;
  /** Bytes. */
  size: number;
  /** Image of the sandbox that it is of; the platform need not refuse it to another. */
  image: string;
  /** Digest of the state that was saved just before, and its generation. */
  digest: string;
  backup: number;
  /** Digest of the keys and sign-ins that were kept just before. */
  signIns?: string;
  /** When it was taken, or a sandbox was last started from it; milliseconds since the epoch. */
  renewed: number;
  /** How many snapshots lie below each other in it, itself included. */
  depth: number;
}

/** A platform lets a snapshot go 30 days after its last use; not relied on to the last day. */
const LONGEST_AGE = 29 * 24 * 3600_000;
/** File systems stack some 120 layers; a start from the image begins anew. */
const DEEPEST = 50;

/** The remembered snapshot, or why it is not to be used; `null` when there is none. */
export function chooseSnapshot(
  snapshot: SnapshotRecord | null,
  vault: Pick<Vault, "list">,
  image: string,
  now: number,
): { use: SnapshotRecord } | { why: string } | null {
  if (snapshot === null) return null;
  const newest = vault.list()[0];
  const why = whyNot(snapshot, newest?.digest, image, now);
  if (why !== null) return { why: `snapshot ${snapshot.id}: ${why}` };
  // An upload may have brought the same state again, as a generation of its own.
  return { use: { ...snapshot, backup: newest?.id ?? snapshot.backup } };
}

function whyNot(
  snapshot: SnapshotRecord,
  newest: string | undefined,
  image: string,
  now: number,
): string | null {
  if (snapshot.image !== image) return "it is of another image";
  if (snapshot.digest !== newest) return "the newest backup has a later state";
  if (snapshot.depth > DEEPEST) return `${snapshot.depth} snapshots lie on each other`;
  if (now - snapshot.renewed > LONGEST_AGE) return "it is older than 29 days";
  return null;
}
