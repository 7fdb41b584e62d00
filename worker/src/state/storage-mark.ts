// SPDX-License-Identifier: Apache-2.0
/** Which storage this is: an object that lost its own begins anew without a word, and must not pass for the old one. */

/** Made at the first use of a storage, and gone only with it. */
export interface StorageMark {
  id: string;
  /** Milliseconds since the epoch. */
  since: number;
}

const KEY = "storage";

/** The mark of a storage, which is made where there is none. */
export function markOf(kv: SyncKvStorage, now: number): StorageMark {
  const kept = kv.get<StorageMark>(KEY);
  if (kept !== undefined) return kept;
  const made = { id: crypto.randomUUID(), since: now };
  kv.put(KEY, made);
  return made;
}
