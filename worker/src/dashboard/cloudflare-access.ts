// SPDX-License-Identifier: Apache-2.0
/** Cloudflare Access before the dashboard: its token names who is there, and is checked in full. */
import { createRemoteJWKSet, errors, type JWTVerifyGetKey, jwtVerify } from "jose";
import * as z from "zod/mini";
import { ApiError } from "../base/errors.ts";
import type { Settings } from "../config/settings.ts";

/** Header with the token; Access sets it on every request, and removes what a client sent. */
export const ACCESS_HEADER = "cf-access-jwt-assertion";
/** Where a browser ends its session with Access. */
export const ACCESS_SIGN_OUT = "/cdn-cgi/access/logout";

/** Who Access let in. */
export interface Visitor {
  /** E-mail address of a person, or the name of a service. */
  name: string;
  /** Milliseconds since the epoch. */
  expires: number;
}

const claims = z.object({
  exp: z.number(),
  email: z.optional(z.string()),
  common_name: z.optional(z.string()),
  sub: z.optional(z.string()),
});

const keySets = new Map<string, JWTVerifyGetKey>();

/**
 * Checks signature, issuer, audience and expiry.
 * @throws ApiError 403 `access_refused`; 503 `access_unreachable` when nobody can tell.
 */
export async function visitorOf(token: string, access: NonNullable<Settings["access"]>): Promise<Visitor> {
  const { issuer, audiences } = access;
  try {
    const { payload } = await jwtVerify(token, keysOf(issuer), {
      issuer,
      audience: audiences,
      algorithms: ["RS256"],
      requiredClaims: ["exp", "iat"],
      clockTolerance: 5,
    });
    const { exp, email, common_name, sub } = claims.parse(payload);
    return { name: email || common_name || sub || "a visitor", expires: exp * 1000 };
  } catch (error) {
    if (!isVerdict(error)) throw keysMissing(issuer, error);
    throw new ApiError({
      status: 403,
      code: "access_refused",
      message: "Cloudflare Access did not vouch for this request. Sign in again.",
      cause: error,
    });
  }
}

/** Whether an error says something about the token, and not about the way to the keys. */
function isVerdict(error: unknown): boolean {
  if (error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid) return false;
  // The library's plain error is what it throws when the keys are answered with anything but 200.
  if (error instanceof errors.JOSEError) return error.constructor !== errors.JOSEError;
  return error instanceof z.core.$ZodError;
}

function keysMissing(issuer: string, cause: unknown): ApiError {
  return new ApiError({
    status: 503,
    code: "access_unreachable",
    message: `The keys of Cloudflare Access cannot be fetched from ${issuer}. Check HERMES_ACCESS_TEAM_DOMAIN, then try again.`,
    retryAfter: 5,
    cause,
  });
}

/** The team's keys; fetched when one is needed that is not known, and not again at once. */
function keysOf(issuer: string): JWTVerifyGetKey {
  const kept = keySets.get(issuer);
  if (kept !== undefined) return kept;
  const made = createRemoteJWKSet(new URL("/cdn-cgi/access/certs", issuer), { timeoutDuration: 5000 });
  keySets.set(issuer, made);
  return made;
}
