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
  return new Blob([text]).stream();
}

/** A stream with something before the rest of it. Errors and back-pressure pass through. */
export function startingWith(
  first: Uint8Array,
  rest: ReadableStreamDefaultReader<Uint8Array>,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => controller.enqueue(first),
      async pull(controller) {
        const { done, value } = await rest.read();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: (why) => rest.cancel(why),
    },
    { highWaterMark: 0 },
  );
}

/** What a stream says while it waits for Hermes: a comment, which clients skip. */
export const WAKING = ": Hermes is waking up\n\n";

/** Whether an answer is a stream of events. */
export function isEventStream(answer: Response): boolean {
  return answer.ok && (answer.headers.get("content-type") ?? "").startsWith("text/event-stream");
}

/** An answer as a stream of events; one that is none, such as a refusal, is the only event. */
export async function eventsOf(answer: Response): Promise<ReadableStream<Uint8Array>> {
  if (isEventStream(answer) && answer.body !== null) return answer.body;
  return streamOf(onlyEvent(await lineOf(answer)));
}

/** An answer that is no stream, as the data of one event. */
export async function lineOf(answer: Response): Promise<string> {
  return (await answer.text()).replaceAll(/\r?\n/g, " ");
}

/** A whole stream of one event. */
export function onlyEvent(data: string): string {
  return `data: ${data}\n\ndata: [DONE]\n\n`;
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
  return text.trim().replace(/^.*\n/s, "").trimStart();
}
