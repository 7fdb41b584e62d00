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
  /** Seconds after which trying again makes sense. */
  retryAfter?: number;
  /** The error beneath, for the log only. */
  cause?: unknown;
}

/** An error that is meant to be answered to the caller. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly type: string;
  readonly retryAfter: number | undefined;

  constructor(init: ApiErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.name = "ApiError";
    this.status = init.status;
    this.code = init.code;
    this.type = init.type ?? (init.status < 500 ? "invalid_request_error" : "server_error");
    this.retryAfter = init.retryAfter;
  }

  /** The same refusal in OpenAI's error shape. */
  toBody(requestId: string): { error: Record<string, unknown> } {
    return {
      error: {
        message: this.message,
        type: this.type,
        param: null,
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
  if (known.status === 401) headers.set("www-authenticate", 'Bearer realm="hermes"');
  return Response.json(known.toBody(requestId), { status: known.status, headers });
}
