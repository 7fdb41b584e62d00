// SPDX-License-Identifier: Apache-2.0
/** Why a provider refuses a call, as far as its owner can mend it: the key, or where the call comes from. */
import type { Refusal } from "../instance/record.ts";

/** Of a refusal, so much is looked at. */
const MOST_BYTES = 16 * 1024;

const ELSEWHERE =
  /unsupported_country|country, region,? or territory|(?:available|supported|allowed) in your (?:country|region|location|territory)|user location is not supported|request not allowed/i;
/** A text that is not taken says nothing of the key. */
const MODERATED = /"flagged_input"|requires moderation/i;

/** Why a provider answers so; `null` when that is no matter of key or place. */
export function whyRefused(status: number, body: string): Refusal | null {
  if (status === 401) return "key";
  if (status === 451) return "region";
  if (status !== 400 && status !== 403) return null;
  if (ELSEWHERE.test(body)) return "region";
  return status === 403 && !MODERATED.test(body) ? "key" : null;
}

/**
 * Judges an answer by a copy of its beginning.
 * @returns the answer, whose body is whole, and the verdict, which comes when enough of it has been read.
 */
export function judged(answer: Response): { answer: Response; why: Promise<Refusal | null> } {
  const { status, headers, body } = answer;
  if (status < 400 || status >= 500) return { answer, why: Promise.resolve(null) };
  if (body === null) return { answer, why: Promise.resolve(whyRefused(status, "")) };
  const [copy, whole] = body.tee();
  const why = beginningOf(copy).then((text) => whyRefused(status, text));
  return { answer: new Response(whole, { status, headers }), why };
}

async function beginningOf(body: ReadableStream<Uint8Array>): Promise<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    while (text.length < MOST_BYTES) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
    }
  } catch {
    // What was cut is judged by what came.
  }
  reader.cancel().catch(() => undefined);
  return text;
}
