// SPDX-License-Identifier: Apache-2.0
/** Errors as callers see them: OpenAI's shape, a code, a sentence that says what to do, a request id. */

/** What a refusal is made of. */
export interface ApiErrorInit {
  /** HTTP status. */
  status: number;
  /** Stable, machine-readable name of the reason. */
  code: string;
  /** One sentence for a person: what happened and what to do. */
  message: string;
  /** OpenAI's coarse class; derived from the status when absent. */
  type?: string;
  /** What of the request is wrong, as OpenAI names it: `messages[0].role`. */
  param?: string;
  /** Seconds after which trying again makes sense. */
  retryAfter?: number;
  /** Methods that are taken instead. */
  allow?: readonly string[];
  /** The error beneath, for the log only. */
  cause?: unknown;
}

/** An error that is meant to be answered to the caller. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly type: string;
  readonly param: string | null;
  readonly retryAfter: number | undefined;
  readonly allow: readonly string[] | undefined;

  constructor(init: ApiErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.name = "ApiError";
    this.status = init.status;
    this.code = init.code;
    this.type = init.type ?? (init.status < 500 ? "invalid_request_error" : "server_error");
    this.param = init.param ?? null;
    this.retryAfter = init.retryAfter;
    this.allow = init.allow;
  }

  /** The same refusal in OpenAI's error shape. */
  toBody(requestId: string): { error: Record<string, unknown> } {
    return {
      error: {
        message: this.message,
        type: this.type,
        param: this.param,
        code: this.code,
        request_id: requestId,
      },
    };
  }
}

/** Turns anything thrown into an {@link ApiError}; what is not one already becomes `internal_error`. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError({
    status: 500,
    code: "internal_error",
    message: "The Worker failed unexpectedly; its log has the details under this request id.",
    cause: error,
  });
}

/** A short text for logs and status pages. Never includes a stack. */
export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Answers an error in OpenAI's shape with `X-Request-Id` and, where known, `Retry-After`. */
export function errorResponse(error: unknown, requestId: string): Response {
  const known = toApiError(error);
  const headers = new Headers({ "x-request-id": requestId, "cache-control": "no-store" });
  if (known.retryAfter !== undefined) headers.set("retry-after", String(Math.ceil(known.retryAfter)));
  if (known.allow !== undefined) headers.set("allow", known.allow.join(", "));
  if (known.status === 401) headers.set("www-authenticate", 'Bearer realm="hermes"');
  return Response.json(known.toBody(requestId), { status: known.status, headers });
}

/** The error of an answer that is not the Worker's own, in OpenAI's shape whatever shape it has. */
export function inShape(text: string, status: number, requestId: string): object {
  const told = errorIn(text);
  const code = { 404: "not_found", 405: "method_not_allowed" }[status] ?? "hermes_refused";
  const known = new ApiError(
    status < 500
      ? { status, code, message: text.trim().slice(0, 500) || `Hermes refused this with ${status}.` }
      : {
          status,
          code: "hermes_failed",
          message: `Hermes failed at this request with ${status}; GET /api/instance/logs has its reason.`,
        },
  );
  const { error } = known.toBody(requestId);
  return { error: told === null ? error : { ...error, code: null, ...told } };
}

/** What an error says in OpenAI's shape, or nearly so. */
function errorIn(text: string): { message: string } | null {
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === "string") return { message: error };
    return typeof (error as { message?: unknown } | undefined)?.message === "string"
      ? (error as { message: string })
      : null;
  } catch {
    return null;
  }
}
