// SPDX-License-Identifier: Apache-2.0
/** Request bodies: read up to a limit, and looked into only where the model's name is needed. */
import { ApiError } from "./errors.ts";
import type { Settings } from "./settings.ts";

/** The largest body, in bytes; Hermes' own limit. */
export const BODY_LIMIT = 10 * 1024 * 1024;

/**
 * Reads a body so that it can be sent again.
 * @returns `null` when there is none.
 * @throws ApiError 413 `body_too_large`.
 */
export async function readBody(request: Request): Promise<ArrayBuffer | null> {
  if (request.body === null) return null;
  const announced = request.headers.get("content-length");
  if (announced !== null && Number(announced) > BODY_LIMIT) throw tooLarge();
  if (announced !== null) return request.arrayBuffer();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body as ReadableStream<Uint8Array>) {
    size += chunk.byteLength;
    if (size > BODY_LIMIT) throw tooLarge();
    chunks.push(chunk);
  }
  return new Blob(chunks).arrayBuffer();
}

/** What the Worker needs to know about a chat request. */
export interface Named {
  /** The model that will speak: the one that was asked for when it is configured, else the default. */
  model: string;
  stream: boolean;
}

/**
 * Looks into chat completions and responses; everything else stays closed. A body that is no JSON is left for
 * Hermes to refuse.
 */
export function modelOf(request: Request, body: ArrayBuffer | null, settings: Settings): Named | null {
  if (request.method !== "POST" || body === null) return null;
  if (!/^\/v1\/(?:chat\/completions|responses)$/.test(new URL(request.url).pathname)) return null;
  const asked = jsonOf(body);
  const known = settings.models.find((model) => model.id === asked["model"]) ?? settings.defaultModel;
  return { model: known.id, stream: asked["stream"] === true };
}

function jsonOf(body: ArrayBuffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(body));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function tooLarge(): ApiError {
  return new ApiError({
    status: 413,
    code: "body_too_large",
    message: `The request is larger than ${BODY_LIMIT / (1024 * 1024)} MB, which is Hermes' limit.`,
  });
}
