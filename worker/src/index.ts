// SPDX-License-Identifier: Apache-2.0
/** Routes and exports. What is not exactly a public route needs the token, whatever its spelling. */
import { type Context, Hono } from "hono";
import { authorize, type TokenCaller } from "./auth.ts";
import { modelOf, once, readBody, steady } from "./body.ts";
import { ApiError, errorResponse, toApiError } from "./errors.ts";
import type { HermesInstance } from "./instance.ts";
import { Log, Redactor } from "./log.ts";
import { prove } from "./proof.ts";
import { type Env, type Settings, secretValues, settingsOf } from "./settings.ts";
import { askInstance } from "./stub.ts";
import { innerHeaders, TURN } from "./turns.ts";

export { HermesInstance } from "./instance.ts";
export { Providers } from "./providers.ts";

interface App {
  Bindings: Env;
  Variables: { requestId: string; settings: Settings; caller: TokenCaller | null };
}

type Stub = DurableObjectStub<HermesInstance>;

const app = new Hono<App>({ getPath: rawPath });

app.use(async (c, next) => {
  c.set("requestId", crypto.randomUUID());
  const began = Date.now();
  c.set("settings", settingsOf(c.env));
  await next();
  report(c, began);
});

app.get("/", (c) =>
  c.json({
    name: c.var.settings.name,
    description: "A private Hermes agent behind an OpenAI-compatible API.",
    api: "/v1",
    health: "/api/health",
    authentication: "Authorization: Bearer <API token>",
  }),
);

app.use(async (c, next) => {
  const caller = await authorize(c.req.raw.headers, c.var.settings, (use) =>
    hermes(c, (it) => it.tokenUsed(use)),
  );
  c.set("caller", caller);
  await next();
});

app.get("/api/health", async (c) => {
  const { name, workerVersion, platform, engine, hermesVersion, image, defaultModel, models } =
    c.var.settings;
  const { gateway, confined, ...instance } = await hermes(c, (it) => it.health());
  return c.json({
    status: "ok",
    token: tokenView(c.var.caller),
    worker: { name, version: workerVersion, platform, engine },
    instance,
    hermes: { version: hermesVersion, gateway },
    image,
    confined,
    models: { default: defaultModel.id, further: models.map((model) => model.id) },
  });
});

app.post("/api/secrets/proof", async (c) =>
  c.json(await prove(await readBody(c.req.raw), c.var.settings.secrets)),
);

app.get("/api/instance/status", (c) => hermes(c, (it) => it.status(c.var.requestId)));
app.post("/api/instance/wake", (c) => hermes(c, (it) => it.wake(c.var.requestId)));
app.post("/api/instance/sleep", (c) => hermes(c, (it) => it.sleep(c.var.requestId)));
app.post("/api/instance/restart", (c) =>
  hermes(c, (it) => it.restart(c.var.requestId, c.req.query("force") === "true")),
);
app.post("/api/instance/restart-gateway", (c) => hermes(c, (it) => it.restartGateway(c.var.requestId)));
app.post("/api/instance/stop", (c) => hermes(c, (it) => it.stop(c.var.requestId)));
app.get("/api/instance/logs", (c) => {
  const lines = Math.min(Number(c.req.query("lines")) || 200, 5000);
  const follow = c.req.query("follow");
  if (follow !== undefined && follow !== "false")
    return hermes(c, (it) => it.followLogs(c.var.requestId, lines));
  return hermes(c, (it) => it.logs(c.var.requestId, lines));
});
app.get("/api/instance/backups", (c) => hermes(c, (it) => it.backups(c.var.requestId)));
app.post("/api/instance/backups", (c) => hermes(c, (it) => it.backUp(c.var.requestId)));
app.put("/api/instance/backups", (c) => {
  const upload = once(steady(c.req.raw));
  return hermes(c, (it) => it.putBack(c.var.requestId, upload()));
});
app.get("/api/instance/backups/:id{[0-9]{1,9}}", (c) =>
  hermes(c, (it) => it.backup(c.var.requestId, Number(c.req.param("id")))),
);

// Plain segments only: whatever would have to be decoded or normalised is no path of Hermes' API.
app.all("/v1/:rest{[A-Za-z0-9_][A-Za-z0-9_./:@~-]*}", async (c) => {
  if (/\/\.{0,2}(?:\/|$)/.test(rawPath(c.req.raw))) return c.notFound();
  const body = await readBody(c.req.raw);
  const headers = innerHeaders(c.req.raw.headers);
  headers.set(TURN.requestId, c.var.requestId);
  const named = modelOf(c.req.raw, body, c.var.settings);
  if (named !== null) {
    headers.set(TURN.model, named.model);
    if (named.stream) headers.set(TURN.stream, "1");
  }
  const init = { method: c.req.method, headers, body, signal: c.req.raw.signal };
  return hermes(c, (it) => it.fetch(c.req.url, init));
});

app.notFound(() => {
  throw new ApiError({
    status: 404,
    code: "not_found",
    message: "There is no such path here. GET / describes this Worker; Hermes' API is under /v1.",
  });
});

app.onError((error, c) => {
  const requestId = c.var.requestId ?? crypto.randomUUID();
  const known = toApiError(error);
  if (known.status >= 500)
    logOf(c.env).error("refused", { request_id: requestId, code: known.code, why: detail(known) });
  return errorResponse(known, requestId);
});

/** The path exactly as the client sent it (the URL parser has resolved dot segments already). */
function rawPath(request: Request): string {
  return /^[a-z]+:\/\/[^/?#]*([^?#]*)/i.exec(request.url)?.[1] || "/";
}

/** Where a rotation of the token stands. */
function tokenView(caller: TokenCaller | null) {
  if (caller === null) return null;
  const { which, previousUntil } = caller;
  return {
    which,
    previousUntil: previousUntil === null ? null : new Date(previousUntil).toISOString(),
    proven: which === "current" || previousUntil !== null,
  };
}

/** Asks the one instance of this deployment. */
function hermes<T>(c: Context<App>, work: (instance: Stub) => Promise<T>): Promise<T> {
  return askInstance(c.env, work, c.req.raw.signal);
}

/** One line for each request; the route, never the query. */
function report(c: Context<App>, began: number): void {
  logOf(c.env).info("request", {
    request_id: c.var.requestId,
    method: c.req.method,
    route: rawPath(c.req.raw).slice(0, 200),
    status: c.res.status,
    ms: Date.now() - began,
  });
  if (!c.res.headers.has("x-request-id")) c.res.headers.set("x-request-id", c.var.requestId);
}

const logs = new WeakMap<object, Log>();

function logOf(env: Env): Log {
  const kept = logs.get(env);
  if (kept !== undefined) return kept;
  const log = new Log(new Redactor(secretsOrNone(env)));
  logs.set(env, log);
  return log;
}

/** A configuration that cannot be read has to be reported, too. */
function secretsOrNone(env: Env): string[] {
  try {
    return secretValues(settingsOf(env));
  } catch {
    return [];
  }
}

function detail(error: ApiError): string {
  return error.cause === undefined ? error.message : String(error.cause);
}

export default app satisfies ExportedHandler<Env>;
