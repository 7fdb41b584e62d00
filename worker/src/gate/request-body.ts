// SPDX-License-Identifier: Apache-2.0
/** Request bodies, read up to a limit. */
import { ApiError } from "../base/errors.ts";
import { mayHaveBody } from "../base/headers.ts";
import { realTime, type Time, within } from "../base/time.ts";

/** The largest body, in bytes; Hermes' own limit. */
export const BODY_LIMIT = 10 * 1024 * 1024;

/** What is too large is read and dropped up to this size: a client that is cut off in the middle of sending sees no answer. */
const DROPPED = 64 * 1024 * 1024;

/**
 * Reads a body so that it can be sent again.
 * @returns `null` when there is none, or none that means anything.
 * @throws ApiError 413 `body_too_large`.
 */
export async function readBody(request: Request, limit = BODY_LIMIT): Promise<ArrayBuffer | null> {
  if (!mayHaveBody(request.method)) return null;
  const announced = request.headers.get("content-length");
  try {
    // Looking for the stream makes one, which costs more than to read what is small.
    if (announced !== null && Number(announced) <= limit) return await request.arrayBuffer();
    return request.body === null ? null : await gathered(request.body, limit);
  } catch (error) {
    throw error instanceof ApiError ? error : broken(error);
  }
}

/**
 * Reads what has no length, or too great a one.
 * @throws ApiError 413 `body_too_large`.
 */
export async function gathered(body: ReadableStream<Uint8Array>, limit: number): Promise<ArrayBuffer> {
  const patience = limit === BODY_LIMIT ? DROPPED : limit;
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size <= limit) chunks.push(chunk);
    else chunks.length = 0;
    if (size > patience) break;
  }
  if (size > limit) throw tooLarge(limit);
  return new Blob(chunks).arrayBuffer();
}

/** What a person types arrives at once; who dribbles it holds a connection open, and is nobody yet. Milliseconds. */
const SOON = 10_000;

/**
 * Waits for what a stranger sends, but not for long.
 * @throws ApiError 408 `too_slow`.
 */
export async function soon<T>(read: Promise<T>, time: Time = realTime): Promise<T> {
  const result = await within(
    time,
    SOON,
    read.then((value) => ({ value })),
  );
  if (result === undefined) throw tooSlow();
  return result.value;
}

/** An upload that sends nothing for so many milliseconds is given up: everything else waits for it. */
const STALL = 30_000;

/**
 * An upload as a stream that fails when it stalls.
 * @throws ApiError 400 `body_missing` when there is none; through the stream 408 `upload_stalled`.
 */
export function steady(request: Request, patience: number = STALL): ReadableStream<Uint8Array> {
  if (request.body === null)
    throw new ApiError({
      status: 400,
      code: "body_missing",
      message: "Send the backup as the request's body.",
    });
  const reader = (request.body as ReadableStream<Uint8Array>).getReader();
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      const next = await within(realTime, patience, reader.read());
      if (next === undefined) {
        await reader.cancel();
        throw stalled(patience);
      }
      if (next.value !== undefined) controller.enqueue(next.value);
      if (next.done) {
        controller.close();
        controller.byobRequest?.respond(0);
      }
    },
    cancel: (why) => reader.cancel(why),
  });
}

/**
 * Hands a stream out once: what was begun to be read cannot be sent a second time.
 * @throws ApiError 503 `upload_cut` the second time.
 */
export function once<T>(stream: T): () => T {
  let rest: T | null = stream;
  return () => {
    if (rest === null)
      throw new ApiError({
        status: 503,
        code: "upload_cut",
        message:
          "The instance was started over during the upload. See whether it arrived, then send it again.",
        retryAfter: 3,
      });
    const now = rest;
    rest = null;
    return now;
  };
}

function tooLarge(limit: number): ApiError {
  return new ApiError({
    status: 413,
    code: "body_too_large",
    message: `The request is larger than ${Math.floor(limit / 1024)} KB, which is the limit here.`,
  });
}

function broken(cause: unknown): ApiError {
  return new ApiError({
    status: 400,
    code: "body_broken",
    message: "The request's body is broken: its length or its chunks are not what they say.",
    cause,
  });
}

function tooSlow(): ApiError {
  return new ApiError({
    status: 408,
    code: "too_slow",
    message: `The form took longer than ${SOON / 1000} s to arrive. Send it again.`,
  });
}

function stalled(patience: number): ApiError {
  return new ApiError({
    status: 408,
    code: "upload_stalled",
    message: `The upload sent nothing for ${patience / 1000} s and was given up; nothing was changed.`,
  });
}
