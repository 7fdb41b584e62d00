// SPDX-License-Identifier: Apache-2.0
/** What is longer than a platform takes in one message: Hermes knows the limit of one platform only. */
import { type Channel, type Outgoing, type OutgoingFile, SendRefused } from "./channel.ts";

const FENCE = "```";
/** Of how many that a platform refused in the middle it is known how far they came. */
const MOST_BEGUN = 100;

/** Sends a message in as many parts as it takes; one that was refused in the middle goes on where it was. */
export class InParts {
  readonly #channel: Channel;
  readonly #longest: number;
  readonly #begun = new Map<string, string[]>();

  constructor(channel: Channel, longest: number) {
    this.#channel = channel;
    this.#longest = longest;
  }

  /** Whether some of a message was taken, and the next attempt goes on with the rest. */
  hasBegun(message: Outgoing): boolean {
    return this.#begun.has(JSON.stringify(message));
  }

  /**
   * @param before stands before what is not the rest of something.
   * @returns what the platform calls the last part.
   * @throws SendRefused.
   */
  async send(message: Outgoing, before = ""): Promise<string> {
    if (message.file !== undefined) return this.#sendFile(message, message.file, before);
    const what = JSON.stringify(message);
    const { buttons, ...alone } = message;
    const parts = this.#begun.get(what) ?? partsOf(before + message.text, this.#longest);
    for (;;) {
      const [text = "", ...rest] = parts;
      const below = rest.length > 0 || buttons === undefined ? {} : { buttons };
      const id = await this.#channel.send({ ...alone, text, ...below });
      parts.shift();
      this.#begun.delete(what);
      if (rest.length === 0) return id;
      if (this.#begun.size >= MOST_BEGUN) this.#begun.clear();
      this.#begun.set(what, parts);
    }
  }

  async #sendFile(message: Outgoing, file: OutgoingFile, before: string): Promise<string> {
    const { file: _, ...alone } = message;
    const channel = this.#channel;
    if (channel.sendFile === undefined) throw new SendRefused("files are not sent here", true);
    const text = before + message.text;
    const isWithIt = text.length <= (channel.caption?.(file.kind) ?? 0);
    if (!isWithIt && before !== "") await channel.send({ ...alone, text: before.trimEnd() });
    return channel.sendFile({ ...alone, text: isWithIt ? text : message.text }, file);
  }
}

/** Cuts a text at ends of lines or words where it can; code that is cut is code in both parts. */
export function partsOf(text: string, longest: number): string[] {
  const parts: string[] = [];
  let rest = text;
  while (rest.length > longest) {
    const at = cutOf(rest, longest - FENCE.length - 1);
    const part = rest.slice(0, at).trimEnd();
    rest = rest.slice(at).replace(/^\n| +/, "");
    const isInCode = part.split(FENCE).length % 2 === 0;
    parts.push(isInCode ? `${part}\n${FENCE}` : part);
    if (isInCode) rest = `${FENCE}\n${rest}`;
  }
  return [...parts, rest];
}

function cutOf(text: string, longest: number): number {
  const head = text.slice(0, longest);
  const at = ["\n\n", "\n", " "].map((end) => head.lastIndexOf(end)).find((one) => one > longest / 2);
  if (at !== undefined) return at;
  // No character is cut.
  return /[\ud800-\udbff]$/.test(head) ? longest - 1 : longest;
}
