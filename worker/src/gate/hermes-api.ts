// SPDX-License-Identifier: Apache-2.0
/**
 * What is known of Hermes' API without asking it. Clients and monitors poll it for ever: what they ask is answered or
 * refused here, whether Hermes sleeps or not, so that it neither wakes Hermes nor keeps it awake.
 */
import { digestOf, hex } from "../base/digests.ts";
import { ApiError } from "../base/errors.ts";
import type { Settings } from "../config/settings.ts";

/** What Hermes serves below `/v1`, in its own spelling, and by which methods; everything else is unknown to it. */
export const ROUTES: Readonly<Record<string, readonly string[]>> = {
  "/v1/chat/completions": ["POST"],
  "/v1/responses": ["POST"],
  "/v1/responses/{response_id}": ["GET", "DELETE"],
  "/v1/runs": ["POST"],
  "/v1/runs/{run_id}": ["GET"],
  "/v1/runs/{run_id}/events": ["GET"],
  "/v1/runs/{run_id}/approval": ["POST"],
  "/v1/runs/{run_id}/stop": ["POST"],
  "/v1/capabilities": ["GET"],
  "/v1/skills": ["GET"],
  "/v1/toolsets": ["GET"],
};

/** What the Worker answers in Hermes' place. */
export const POLLED = ["/v1/models", "/v1/health"];

/** What Hermes calls the model that answers by default. */
const MODEL = "hermes-agent";

/** The models that a request may name, as Hermes lists them. */
export function modelList(settings: Settings) {
  const created = Math.floor(Date.now() / 1000);
  const model = (id: string, root: string, parent: string | null) => ({
    ...{ id, object: "model", created, owned_by: "hermes", permission: [], root, parent },
  });
  const further = settings.models.map(({ id, name }) => model(id, name, MODEL));
  return { object: "list", data: [model(MODEL, MODEL, null), ...further] };
}

/** @throws ApiError 404 `model_not_found`. */
export function modelNamed(id: string, settings: Settings) {
  const { data } = modelList(settings);
  const found = data.find((model) => model.id === id);
  if (found !== undefined) return found;
  throw new ApiError({
    status: 404,
    code: "model_not_found",
    param: "model",
    message: `There is no model of this name here. There are: ${data.map((model) => model.id).join(", ")}.`,
  });
}

/** The refusal of a path that nobody serves; mostly a base URL has one `/v1` too few, or too many. */
export function unknownPath(path: string): ApiError {
  const isHermes = (one: string) => one in ROUTES || POLLED.includes(one);
  let message = "There is no such path here. GET / describes this Worker; Hermes' API is under /v1.";
  if (path.startsWith("/v1/v1/")) message = "The client's base URL has one /v1 too many: it adds one itself.";
  else if (isHermes(`/v1${path}`)) message = "The client's base URL has to end in /v1.";
  else if (path.startsWith("/v1/"))
    message = `Hermes has no such path. It has ${[...POLLED, ...Object.keys(ROUTES)].join(", ")}.`;
  return new ApiError({ status: 404, code: "not_found", message });
}

/** The refusal of a method that a path does not know. */
export function wrongMethod(method: string, allow: readonly string[]): ApiError {
  return new ApiError({
    status: 405,
    code: "method_not_allowed",
    message: `This path takes no ${method.slice(0, 20)}, only ${allow.join(", ")}.`,
    allow,
  });
}

const TRUE = ["1", "true", "yes", "on"];

/** Whether a stream is asked for, as Hermes reads it: there are clients that write flags as texts and numbers. */
export function isStream(value: unknown): boolean {
  if (typeof value === "string") return TRUE.includes(value.trim().toLowerCase());
  return value === true || (typeof value === "number" && value !== 0);
}

/** The longest text of one message that Hermes reads, in characters. */
const LONGEST_TEXT = 65_536;

/**
 * The session that a chat without one belongs to, as Hermes derives it from how the chat begins.
 * @returns `null` where that takes more than texts.
 */
export async function sessionOf(asked: Record<string, unknown>): Promise<string | null> {
  const messages = asked["messages"] as { role?: unknown; content?: unknown }[];
  const first = messages.find(({ role }) => role === "user");
  const user = first === undefined ? null : textOf(first.content);
  const system = messages.filter(({ role }) => role === "system").map(({ content }) => textOf(content));
  if (user === null || system.includes(null)) return null;
  return `api-${hex(await digestOf(`${system.join("\n")}\n${user}`)).slice(0, 16)}`;
}

/** A message's text; `null` when it is more than that. */
function textOf(content: unknown): string | null {
  const parts = Array.isArray(content) ? content.map(partOf) : [content ?? ""];
  const text = parts.every((part) => typeof part === "string") ? parts.filter(Boolean).join("\n") : null;
  return text === null || text.length > LONGEST_TEXT ? null : text;
}

function partOf(part: unknown): unknown {
  if (typeof part !== "object" || part === null) return part;
  const { type, text } = part as { type?: unknown; text?: unknown };
  return /^(?:input_|output_)?text$/.test(String(type)) ? text : null;
}
