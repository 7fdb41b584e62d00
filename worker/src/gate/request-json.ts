// SPDX-License-Identifier: Apache-2.0
/**
 * What clients send to Hermes' API, made well or refused: Hermes gets JSON in UTF-8, of a shape that it can read. What
 * is well already goes on as it came.
 */
import * as z from "zod/mini";
import { ApiError, reason } from "../base/errors.ts";
import { BODY_LIMIT, gathered, readBody } from "./request-body.ts";

/** A request's body. */
export interface Sent {
  /** `null` when there is none. */
  body: ArrayBuffer | null;
  /** What it says. */
  asked: Record<string, unknown>;
}

/** Deeper than anybody's tools, and far from what Hermes' own reader breaks at. */
const DEEPEST = 100;

const name = z.nullish(z.string("must be a text"));
const message = z.looseObject({ role: name }, "must be an object like {role, content}");
const input = z.union(
  [z.string(), z.array(z.union([z.string(), message]))],
  "must be a text, or a list of messages like {role, content}",
);

/** What must be as Hermes takes it for granted, by path. */
const SHAPES: Record<string, z.ZodMiniType<unknown>> = {
  "/v1/chat/completions": z.looseObject({
    model: name,
    messages: z
      .array(message, "must be a list of messages like {role, content}")
      .check(z.minLength(1, "must have a message")),
  }),
  "/v1/responses": z.looseObject({
    ...{ model: name, input, instructions: name, previous_response_id: name, conversation: name },
  }),
  "/v1/runs": z.looseObject({
    ...{ model: name, input, instructions: name, previous_response_id: name, session_id: name },
  }),
};

/**
 * Reads the body of a request to Hermes' API.
 * @throws ApiError 400, 413 or 415.
 */
export async function readJson(request: Request, path: string): Promise<Sent> {
  const raw = await readBody(request);
  const shape = SHAPES[path];
  if (raw === null || raw.byteLength === 0) {
    if (shape !== undefined) throw refused("body_missing", "The request has no body; JSON is wanted here.");
    return { body: null, asked: {} };
  }
  const plain = await unpacked(raw, request.headers.get("content-encoding") ?? "");
  const { text, isPlain } = decoded(plain, request.headers.get("content-type") ?? "");
  const whole = withoutHalves(text);
  const asked = checked(parsed(whole), shape);
  return { body: isPlain && whole === text ? plain : encoded(whole), asked };
}

const UNPACK: Record<string, "gzip" | "deflate"> = { gzip: "gzip", "x-gzip": "gzip", deflate: "deflate" };

/** Undoes a `Content-Encoding`. */
async function unpacked(raw: ArrayBuffer, codings: string): Promise<ArrayBuffer> {
  let plain = raw;
  for (const coding of codings
    .toLowerCase()
    .split(/\s*,\s*/)
    .reverse()) {
    if (coding.trim() === "" || coding.trim() === "identity") continue;
    const format = UNPACK[coding.trim()];
    if (format === undefined)
      throw refused("unsupported_encoding", "Send the body plain, or with gzip or deflate.", 415);
    const stream = new Blob([plain]).stream().pipeThrough(new DecompressionStream(format));
    plain = await gathered(stream, BODY_LIMIT).catch((error: unknown) => {
      throw error instanceof ApiError
        ? error
        : refused("body_broken", "The body is not what its Content-Encoding says.");
    });
  }
  return plain;
}

const MARKS: [string, number[]][] = [
  ["utf-8", [0xef, 0xbb, 0xbf]],
  ["utf-16le", [0xff, 0xfe]],
  ["utf-16be", [0xfe, 0xff]],
];

/** The text of a body, by its mark or by what the header says of it. */
function decoded(plain: ArrayBuffer, type: string): { text: string; isPlain: boolean } {
  const head = new Uint8Array(plain, 0, Math.min(3, plain.byteLength));
  const marked = MARKS.find(([, mark]) => mark.every((byte, at) => head[at] === byte))?.[0];
  const named = /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(type)?.[1];
  const charset = marked ?? (named || "utf-8");
  try {
    const decoder = new TextDecoder(charset, { fatal: true, ignoreBOM: false });
    return { text: decoder.decode(plain), isPlain: marked === undefined && decoder.encoding === "utf-8" };
  } catch {
    throw refused("bad_charset", `The body is no text in ${charset.slice(0, 40)}. Send JSON in UTF-8.`);
  }
}

const HALF = /\\u[dD][89a-fA-F]/;
const ESCAPES =
  /\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(u[dD][89a-fA-F][\da-fA-F]{2})|.)/gs;

/** JSON in which each half of a character, as a text has that was cut in an emoji, is the sign for a lost one. */
function withoutHalves(text: string): string {
  if (!HALF.test(text)) return text;
  return text.replace(ESCAPES, (whole, half?: string) => (half === undefined ? whole : "\\ufffd"));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw refused("invalid_json", `The body is no JSON: ${reason(error).slice(0, 200)}`);
  }
}

function checked(value: unknown, shape: z.ZodMiniType<unknown> | undefined): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw refused("invalid_body", "The body has to be a JSON object, like {...}.");
  if (isDeeper(value, DEEPEST))
    throw refused("invalid_body", `The body is nested deeper than ${DEEPEST} levels.`);
  const issue = shape?.safeParse(value).error?.issues[0];
  if (issue !== undefined) {
    const param = issue.path
      .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
      .join("");
    throw refused("invalid_body", `${param.slice(1)} ${issue.message}.`, 400, param.slice(1));
  }
  return value as Record<string, unknown>;
}

function isDeeper(value: unknown, than: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return than === 0 || Object.values(value).some((one) => isDeeper(one, than - 1));
}

function encoded(text: string): ArrayBuffer {
  const bytes = new TextEncoder().encode(text);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
}

function refused(code: string, message: string, status = 400, param?: string): ApiError {
  return new ApiError({ status, code, message, ...(param === undefined ? {} : { param }) });
}
