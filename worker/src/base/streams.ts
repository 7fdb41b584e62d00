// SPDX-License-Identifier: Apache-2.0
/** Texts as streams of bytes, and streams as texts. */

/** Reads a text stream to its end; what exceeds `limit` bytes is dropped from the front. */
export async function textOf(stream: ReadableStream<Uint8Array>, limit = 1024 * 1024): Promise<string> {
  const tail = new Tail(limit);
  for await (const chunk of stream) tail.push(chunk);
  return tail.text();
}

/** A text as a stream of bytes. */
export function streamOf(text: string): ReadableStream<Uint8Array> {
  const { body } = new Response(text);
  if (body === null) throw new TypeError("a text body has a stream");
  return body;
}

/** Keeps the last bytes of a stream. */
export class Tail {
  #chunks: Uint8Array[] = [];
  #size = 0;
  constructor(readonly limit: number) {}

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#size += chunk.byteLength;
    while (this.#chunks.length > 1 && this.#size - (this.#chunks[0]?.byteLength ?? 0) >= this.limit)
      this.#size -= this.#chunks.shift()?.byteLength ?? 0;
  }

  text(): string {
    const decoder = new TextDecoder();
    const whole = this.#chunks.map((chunk) => decoder.decode(chunk, { stream: true })).join("");
    return (whole + decoder.decode()).slice(-this.limit);
  }
}

/** The last line that says something. */
export function lastLine(text: string): string {
  return text.trimEnd().split("\n").at(-1)?.trim() ?? "";
}
