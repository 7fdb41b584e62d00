// SPDX-License-Identifier: Apache-2.0
/**
 * Files that come with messages. What is kept of one is its platform's name for it; when Hermes is given its message, its
 * bytes go from the platform through here to the bridge, in pieces and one file after the other.
 */
import { type Time, within } from "../base/time.ts";
import type { PlatformName } from "../config/channels.ts";
import { type Attachment, type FileKind, SendRefused } from "./channel.ts";
import { inMegabytes, LARGEST, largestGiven } from "./sizes.ts";

/** The longest piece, in bytes: the bridge takes no longer frames than twice that. */
const PIECE = 512 * 1024;
/** A file is with Hermes within so long; milliseconds. */
const PATIENCE = 120_000;

/** What Hermes' contract calls kinds of files; what is none of these is a document. */
export const FILE_KINDS: Readonly<Record<string, FileKind>> = {
  image: "photo",
  voice: "voice",
  audio: "audio",
  video: "video",
};

/** What a file is by its media type alone. */
export function kindOf(mime: string): FileKind {
  if (mime.startsWith("image/")) return "photo";
  if (mime.startsWith("audio/")) return "audio";
  return mime.startsWith("video/") ? "video" : "document";
}

/** What is said to who sends a file that is too large for what comes by a platform. */
export function tooLarge(platform: PlatformName): string {
  return `This file is too large for me: I can take up to ${inMegabytes(largestGiven(platform))} here.`;
}

/** What a carrier works with. */
export interface CarrierParts {
  time: Time;
  /** Says something to the bridge. @throws Error when it is gone. */
  say(what: object | Uint8Array): void;
  /** Leaves a bridge that does not answer. */
  leave(): void;
}

/** Brings files to the bridge. */
export class Carrier {
  readonly #parts: CarrierParts;
  #last: Promise<unknown> = Promise.resolve();
  #waiting: { name: string; taken: PromiseWithResolvers<string | null> } | null = null;

  constructor(parts: CarrierParts) {
    this.#parts = parts;
  }

  /**
   * Brings a file, after those before it.
   * @param open fetches its bytes.
   * @throws SendRefused when Hermes cannot take it, or it is too large; Error when the bridge is gone.
   */
  bring(name: string, file: Attachment, open: () => Promise<ReadableStream<Uint8Array>>): Promise<void> {
    const brought = this.#last.then(() => this.#inTime(name, file, open));
    this.#last = brought.catch(() => undefined);
    return brought;
  }

  /** The bridge says what became of a file. @param why it was not taken, or `null`. */
  heard(name: string, why: string | null): void {
    if (name === this.#waiting?.name) this.#waiting.taken.resolve(why);
  }

  /** The bridge is gone. */
  lost(): void {
    this.#waiting?.taken.reject(new Error("Hermes' relay hung up"));
    this.#waiting = null;
  }

  async #inTime(
    name: string,
    file: Attachment,
    open: () => Promise<ReadableStream<Uint8Array>>,
  ): Promise<void> {
    const why = await within(this.#parts.time, PATIENCE, this.#bring(name, file, await open()));
    if (why === null) return;
    if (why !== undefined) throw new SendRefused(why, true);
    // What of it is still to come must not be taken for the next one's.
    this.#parts.leave();
    throw new Error("a file did not come in time");
  }

  async #bring(
    name: string,
    { kind, mime, name: called }: Attachment,
    body: ReadableStream<Uint8Array>,
  ): Promise<string | null> {
    const { say } = this.#parts;
    const taken = Promise.withResolvers<string | null>();
    taken.promise.catch(() => undefined);
    const mine = { name, taken };
    this.#waiting = mine;
    say({ type: "file", name, kind, mime, called });
    let size = 0;
    for await (const chunk of body) {
      // Whoever comes instead knows nothing of it.
      if (this.#waiting !== mine) return taken.promise;
      size += chunk.byteLength;
      if (size > LARGEST) return "a file is too large";
      for (let at = 0; at < chunk.byteLength; at += PIECE) say(chunk.subarray(at, at + PIECE));
    }
    say({ type: "file_end", name });
    return taken.promise;
  }
}
