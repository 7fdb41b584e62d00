// SPDX-License-Identifier: Apache-2.0
/** The gate's own pages: small, readable by everyone, without scripts, and with nothing from elsewhere. */
import { html, raw } from "hono/html";

const STYLE = `
:root { color-scheme: light dark; --ink: #1c1b19; --paper: #fbfaf7; --line: #8a867c; --accent: #1f5f5b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ece9e1; --paper: #161513; --line: #8f8b80; --accent: #8fd3cc; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { width: min(26rem, 100%); }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
label { display: block; font-weight: 600; margin-bottom: .25rem; }
input { width: 100%; padding: .6rem; font: inherit; color: inherit; background: transparent;
  border: 1px solid var(--line); border-radius: .4rem; }
button, .button { display: inline-block; margin-top: 1rem; padding: .6rem 1.2rem; font: inherit; font-weight: 600;
  color: var(--paper); background: var(--accent); border: 0; border-radius: .4rem; text-decoration: none; cursor: pointer; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
[role="alert"] { border-left: 4px solid currentColor; padding-left: .75rem; margin: 0 0 1rem; font-weight: 600; }
small { display: block; margin-top: 1.5rem; opacity: .8; }
`;

/** What a page needs besides its text. */
export interface PageOptions {
  status?: number;
  /** Loads `to` after so many seconds. */
  refresh?: { seconds: number; to: string };
}

/** The form that trades the API token for a session. */
export function signInPage(
  name: string,
  next: string,
  problem: string | null,
  options: PageOptions = {},
): Promise<Response> {
  const described = problem === null ? "hint" : "problem hint";
  return page(
    `Sign in to ${name}`,
    html`<h1>Sign in to ${name}</h1>
      ${problem === null ? "" : html`<p role="alert" id="problem">${problem}</p>`}
      <form method="post" action="/login">
        <input type="hidden" name="next" value="${next}">
        <input type="text" name="username" value="${name}" autocomplete="username" hidden>
        <label for="token">API token</label>
        <input id="token" name="token" type="password" autocomplete="current-password" required autofocus
          spellcheck="false" autocapitalize="none" aria-describedby="${described}"
          ${problem === null ? "" : raw('aria-invalid="true"')}>
        <button type="submit">Sign in</button>
      </form>
      <small id="hint">The token was made by the deployment and lies beside it, in the file
        <code>${name}/api_token</code> of its state folder.</small>`,
    options,
  );
}

/** Shown while Hermes starts; goes on by itself. */
export function waitingPage(name: string, to: string): Promise<Response> {
  return page(
    `${name} is waking up`,
    html`<h1>${name} is waking up</h1>
      <p role="status">This takes a few seconds; the page goes on by itself.</p>
      <a class="button" href="${to}">Go on now</a>`,
    { status: 503, refresh: { seconds: 1, to } },
  );
}

/** Where an open page ends up when Hermes has gone to sleep under it. */
export function asleepPage(name: string, to: string): Promise<Response> {
  return page(
    `${name} is asleep`,
    html`<h1>${name} is asleep</h1>
      <p>Nobody has used it for a while, so it was saved and stopped. Everything is kept.</p>
      <a class="button" href="${to}">Wake it</a>`,
  );
}

/** A refusal, for people. */
export function problemPage(
  title: string,
  message: string,
  again: string,
  status: number,
): Promise<Response> {
  return page(
    title,
    html`<h1>${title}</h1>
      <p role="alert">${message}</p>
      <a class="button" href="${again}">Try again</a>`,
    { status },
  );
}

async function page(title: string, content: unknown, options: PageOptions = {}): Promise<Response> {
  const nonce = crypto.randomUUID();
  const text = await html`<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="robots" content="noindex">
    <title>${title}</title>
    <style nonce="${nonce}">${raw(STYLE)}</style>
  </head>
  <body>
    <main>${content}</main>
  </body>
</html>`;
  const headers = new Headers({
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy":
      `default-src 'none'; style-src 'nonce-${nonce}'; form-action 'self'; ` +
      "base-uri 'none'; frame-ancestors 'none'",
  });
  const { status = 200, refresh } = options;
  if (refresh !== undefined) {
    headers.set("refresh", `${refresh.seconds};url=${refresh.to}`);
    headers.set("retry-after", String(refresh.seconds));
  }
  return new Response(String(text), { status, headers });
}
