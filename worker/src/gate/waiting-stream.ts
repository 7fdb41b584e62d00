// SPDX-License-Identifier: Apache-2.0
/** A stream that began with comments while it waited for Hermes, and goes on though the instance is started over. */
import { errorResponse } from "../base/errors.ts";
import { eventsOf, WAKING } from "../base/streams.ts";

/** How often it is asked for again: a new version, and each change of secrets after it, starts the instance over. */
const AGAIN = 5;

/**
 * Hands a stream on to its end. One that broke off before it said more than {@link WAKING} is asked for again: nothing
 * of an answer is lost then, and the client sees one stream.
 * @param again asks for it anew; as the same request, so that Hermes takes its turn once.
 * @param signal aborted when the client is gone: for nobody nothing is asked for.
 */
export function goingOn(
  answer: Response,
  again: () => Promise<Response>,
  requestId: string,
  signal: AbortSignal,
): Response {
  const { readable, writable } = new IdentityTransformStream();
  const writer = writable.getWriter();
  const sent = handOn(answer, again, writer, requestId, signal);
  sent.catch((why: unknown) => writer.abort(why).catch(() => undefined));
  return new Response(readable, answer);
}

async function handOn(
  first: Response,
  again: () => Promise<Response>,
  writer: WritableStreamDefaultWriter<Uint8Array>,
  requestId: string,
  signal: AbortSignal,
): Promise<void> {
  let answer = first;
  for (let left = AGAIN; ; left--) {
    const broken = await pass(await eventsOf(answer), writer);
    if (broken === null) return writer.close();
    if (signal.aborted || !broken.waits || left === 0) throw broken.why;
    // Ends a comment that was cut.
    await writer.write(new TextEncoder().encode("\n\n"));
    answer = await again().catch((error: unknown) => errorResponse(error, requestId));
  }
}

/** Hands a body on. @returns why it broke off, and whether it had said nothing yet; `null` at its good end. */
async function pass(
  body: ReadableStream<Uint8Array>,
  writer: WritableStreamDefaultWriter<Uint8Array>,
): Promise<{ why: unknown; waits: boolean } | null> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let waits = true;
  let heard = "";
  for (;;) {
    const read = await reader.read().catch((why: unknown) => ({ why }));
    if ("why" in read) return { why: read.why, waits };
    if (read.done) return null;
    if (waits) {
      heard += decoder.decode(read.value, { stream: true });
      waits = WAKING.repeat(Math.ceil(heard.length / WAKING.length)).startsWith(heard);
    }
    await writer.write(read.value).catch(async (gone: unknown) => {
      await reader.cancel(gone);
      throw gone;
    });
  }
}
