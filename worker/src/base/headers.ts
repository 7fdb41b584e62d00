// SPDX-License-Identifier: Apache-2.0
/** Which headers pass the gate, inwards and outwards. */

/** Request headers that end at the Worker: credentials, and whatever describes the way here. */
const PRIVATE =
  /^(?:authorization|cookie|origin|referer|host|connection|upgrade|forwarded|via|expect|te|trailer|transfer-encoding|content-length|keep-alive|proxy-.*|cf-.*|cdn-loop|x-forwarded-.*|x-real-ip|true-client-ip|x-hermes-worker-.*|x-hermes-session-token|x-request-id|sec-websocket-(?:key|version|extensions|accept))$/;
/** Response headers that end at the Worker: what names the stack, sets cookies, or speaks for the gate, its whole origin or another host. */
const PRIVATE_ANSWER =
  /^(?:server|via|x-powered-by|x-aspnet-version|connection|keep-alive|transfer-encoding|upgrade|alt-svc|set-cookie|proxy-.*|cf-.*|x-hermes-worker-.*|x-hermes-session-token|access-control-.*|timing-allow-origin|strict-transport-security|clear-site-data|www-authenticate|service-worker-allowed|accept-ch|nel|report-to|reporting-endpoints|sec-websocket-(?:accept|extensions))$/;

/** Header by which the instance tells the Worker what Hermes was woken for while a request waited; it does not leave. */
export const BOOT_CAUSE = "x-hermes-worker-boot-cause";
/** Header by which it tells that a stream began with comments, and has said nothing yet; it does not leave. */
export const WAITING = "x-hermes-worker-waiting";

/** Copies the headers that Hermes may see. */
export function innerHeaders(outer: Headers): Headers {
  return copy(outer, PRIVATE);
}

/** Copies the headers that a client may see. */
export function outerHeaders(inner: Headers): Headers {
  const outer = copy(inner, PRIVATE_ANSWER);
  for (const name of ["location", "content-location"]) localise(outer, name);
  return outer;
}

/** Hermes names the address that it knows itself by. */
function localise(headers: Headers, name: string): void {
  const inner = /^https?:\/\/(?:127\.0\.0\.1|localhost|hermes)(?::\d+)?(\/.*)?$/i.exec(
    headers.get(name) ?? "",
  );
  if (inner !== null) headers.set(name, inner[1] ?? "/");
}

function copy(from: Headers, without: RegExp): Headers {
  const to = new Headers(from);
  for (const name of from.keys()) if (isOneOf(without, name)) to.delete(name);
  return to;
}

/** Whether a header is in a list, however it is written: there are servers that take `x_name` for `x-name`. */
export function isOneOf(list: RegExp, name: string): boolean {
  return list.test(name.replaceAll("_", "-"));
}

/** Whether a request of this method has a body that means anything. */
export function mayHaveBody(method: string): boolean {
  return method !== "GET" && method !== "HEAD";
}
