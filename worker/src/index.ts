// SPDX-License-Identifier: Apache-2.0
/** Routes and exports. What is not exactly a public route needs the token, whatever its spelling. */
import { type Context, Hono } from "hono";
import { cors } from "hono/cors";
import { ApiError, errorResponse } from "./base/errors.ts";
import { innerHeaders, WAITING } from "./base/headers.ts";
import type { Call } from "./channels/channel.ts";
import {
  codeOf,
  fetched,
  hookMessage,
  LARGEST,
  LARGEST_HOOK,
  mailed,
  received,
  registrationOf,
  tooManyWait,
} from "./channels/gate.ts";
import { archiveOf, deployedAgent } from "./config/agent.ts";
import { changesOf } from "./config/configuration.ts";
import { deployedDigest } from "./config/deployed-digest.ts";
import { type Env, type Settings, settingsOf } from "./config/settings.ts";
import { dashboard } from "./dashboard/gate.ts";
import { authorize, type TokenCaller } from "./gate/auth.ts";
import {
  isStream,
  modelList,
  modelNamed,
  POLLED,
  ROUTES,
  sessionOf,
  unknownPath,
  wrongMethod,
} from "./gate/hermes-api.ts";
import { askInstance } from "./gate/instance-stub.ts";
import { once, readBody, steady } from "./gate/request-body.ts";
import { readJson } from "./gate/request-json.ts";
import {
  accompany,
  addressed,
  type Base,
  countFailure,
  endTunnel,
  noteFailure,
  rawPath,
  unwrap,
} from "./gate/requests.ts";
import { IDENTITY, identify, prove } from "./gate/secret-proof.ts";
import { goingOn } from "./gate/waiting-stream.ts";
import { TURN_HEADERS } from "./instance/chat-turns.ts";
import type { HermesInstance } from "./instance/instance.ts";
import { CREDENTIAL, type Credential } from "./instance/leases.ts";
import { partOf, partsOf } from "./state/uploads.ts";

export { Dashboard } from "./dashboard/gate.ts";
export { HermesInstance } from "./instance/instance.ts";
export { Egress } from "./providers/egress.ts";
export { Providers } from "./providers/outbound.ts";

interface App extends Base {
  Variables: Base["Variables"] & { caller: TokenCaller | null };
}

/** For the pages of the origins that were named. */
const crossOrigin = cors({
  origin: (origin) => origin,
  allowMethods: ["GET", "POST", "PUT", "PATCH", "DELETE"],
  exposeHeaders: ["x-request-id", "x-hermes-session-id", "x-hermes-model", "retry-after"],
  maxAge: 600,
});

type Stub = DurableObjectStub<HermesInstance>;

const app = new Hono<App>({ getPath: (request) => rawPath(request) });

app.use(accompany);

app.use(async (c, next) => {
  const origin = c.req.header("origin");
  if (origin === undefined || !c.var.settings.corsOrigins.includes(origin)) return next();
  return crossOrigin(c, next);
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

app.get(IDENTITY, identify);

app.all("/channels/:name{[a-z_]{1,20}}", async (c, next) => {
  const name = c.req.param("name");
  const taken = await received(name, callOf(c), c.var.settings);
  if (taken === null) return next();
  if ("offered" in taken) {
    const file = await hermes(c, (it) => it.offered(name, taken.offered));
    return file === null ? next() : fetched(file);
  }
  const { answer, told } = taken;
  if (told !== null) await hermes(c, (it) => it.receive(name, told));
  return answer;
});

app.post("/hooks/:name{[a-z0-9-]{1,40}}", async (c) => {
  const name = c.req.param("name");
  const body = () => readBody(c.req.raw, LARGEST_HOOK);
  const message = await hookMessage(name, c.req.raw.headers, body, c.var.settings, Date.now());
  const taken = message === null ? "not wanted" : await hermes(c, (it) => it.hook(name, message));
  if (taken === "full") throw tooManyWait();
  return c.json({ status: taken });
});

app.use(async (c, next) => {
  const { settings } = c.var;
  const caller = await authorize(c.req.raw.headers, settings, (use) => hermes(c, (it) => it.tokenUsed(use)));
  // Where nothing else keeps strangers out, at least pages of other sites have to be named.
  if (caller === null) refuseUnknownOrigin(c.req.raw, settings);
  c.set("caller", caller);
  c.set("isLetIn", true);
  await next();
});

app.get("/api/health", async (c) => {
  const { name, workerVersion, platform, engine, hermesVersion, image, defaultModel, models } =
    c.var.settings;
  const deployed = await deployedDigest(c.env);
  const { gateway, lastJobError, confined, storage, stateAtRisk, stateShrank, ...instance } = await hermes(
    c,
    (it) => it.health(deployed),
  );
  return c.json({
    status: "ok",
    token: tokenView(c.var.caller),
    worker: { name, version: workerVersion, platform, engine },
    instance,
    hermes: { version: hermesVersion, gateway, lastJobError },
    image,
    confined,
    storage,
    stateAtRisk,
    stateShrank,
    models: { default: defaultModel.id, further: models.map((model) => model.id) },
  });
});

app.get("/metrics", async (c) => {
  const told = await hermes(c, (it) => it.metrics());
  return c.body(told, 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
});

app.post("/api/secrets/proof", async (c) =>
  c.json(await prove(await readBody(c.req.raw), c.var.settings.secrets)),
);

app.get("/api/instance/status", (c) => hermes(c, (it) => it.status(c.var.requestId)));
app.post("/api/instance/wake", (c) => hermes(c, (it) => it.wake(c.var.requestId)));
app.post("/api/instance/sleep", (c) =>
  hermes(c, (it) => it.sleep(c.var.requestId, c.req.query("force") === "true")),
);
app.post("/api/instance/restart", (c) =>
  hermes(c, (it) => it.restart(c.var.requestId, c.req.query("force") === "true")),
);
app.post("/api/instance/restart-gateway", (c) => hermes(c, (it) => it.restartGateway(c.var.requestId)));
app.post("/api/instance/refresh", (c) => hermes(c, (it) => it.refresh(c.var.requestId)));
app.post("/api/instance/preview", async (c) => {
  const { variables, secrets } = changesOf(await readBody(c.req.raw));
  return hermes(c, (it) => it.preview(c.var.requestId, variables, secrets));
});
app.get("/api/instance/agent", (c) => hermes(c, (it) => it.agent(c.var.requestId)));
app.get("/api/instance/agent/archive", async (c) => {
  const { agent } = c.var.settings;
  if (agent.archive === "") return c.body(null, 204);
  return c.body(await archiveOf(agent, deployedAgent), 200, { "content-type": "application/gzip" });
});
app.post("/api/instance/hold", (c) => hermes(c, (it) => it.hold(c.var.requestId, c.req.query("again"))));
app.post("/api/instance/stop", (c) => hermes(c, (it) => it.stop(c.var.requestId)));
app.get("/api/instance/logs", (c) => {
  const lines = Math.min(Math.max(1, Math.trunc(Number(c.req.query("lines"))) || 200), 5000);
  const follow = c.req.query("follow");
  if (follow !== undefined && follow !== "false")
    return hermes(c, (it) => it.followLogs(c.var.requestId, lines, credential(c)));
  return hermes(c, (it) => it.logs(c.var.requestId, lines));
});
app.get("/api/instance/channels", (c) => hermes(c, (it) => it.channels(c.var.requestId)));
app.post("/api/instance/channels/retry", (c) => hermes(c, (it) => it.retryMessages(c.var.requestId)));
app.post("/api/instance/channels/register", async (c) => {
  const { address, look } = registrationOf(await readBody(c.req.raw));
  return hermes(c, (it) => it.registerChannels(c.var.requestId, address, look));
});
app.post("/api/instance/channels/unregister", (c) =>
  hermes(c, (it) => it.unregisterChannels(c.var.requestId, c.req.queries("name") ?? [])),
);
app.post("/api/instance/channels/pair", async (c) => {
  const code = codeOf(await readBody(c.req.raw));
  return hermes(c, (it) => it.pair(c.var.requestId, code));
});
app.post("/api/instance/channels/unpair", (c) =>
  hermes(c, (it) => it.unpair(c.var.requestId, c.req.query("channel") ?? "", c.req.query("user") ?? "")),
);
app.get("/api/instance/backups", (c) => hermes(c, (it) => it.backups(c.var.requestId)));
app.post("/api/instance/backups", (c) => hermes(c, (it) => it.backUp(c.var.requestId)));
app.put("/api/instance/backups", (c) => {
  const upload = once(steady(c.req.raw));
  return hermes(c, (it) => it.putBack(c.var.requestId, upload(), credential(c)));
});
app.get("/api/instance/backups/uploads/:upload{[0-9a-f]{64}}", (c) =>
  hermes(c, (it) => it.missingParts(c.var.requestId, c.req.param("upload"), partsOf(c.req.query()))),
);
app.put("/api/instance/backups/uploads/:upload{[0-9a-f]{64}}/:n{[0-9]{1,2}}", (c) => {
  const part = partOf(c.req.param("upload"), c.req.param("n"), c.req.query());
  const body = once(steady(c.req.raw));
  return hermes(c, (it) => it.takePart(c.var.requestId, part, body(), credential(c)));
});
app.post("/api/instance/backups/uploads/:upload{[0-9a-f]{64}}", (c) =>
  hermes(c, (it) => it.putBackParts(c.var.requestId, c.req.param("upload"))),
);
app.get("/api/instance/backups/:id{[0-9]{1,9}}", (c) =>
  hermes(c, (it) => it.backup(c.var.requestId, Number(c.req.param("id")), credential(c))),
);

app.post("/api/dashboard/sessions/revoke", (c) =>
  hermes(c, (it) => it.revokeDashboardSessions(c.var.requestId)),
);

app.get("/v1/health", async (c) => {
  const { hermesVersion } = c.var.settings;
  const { state } = await hermes(c, (it) => it.health());
  return c.json({ status: "ok", platform: "hermes-agent", version: hermesVersion, state });
});
app.get("/v1/models", (c) => c.json(modelList(c.var.settings)));
app.get("/v1/models/:id{.+}", (c) => c.json(modelNamed(c.req.param("id"), c.var.settings)));
for (const path of [...POLLED, "/v1/models/:id{.+}"]) app.all(path, (c) => unserved(c, ["GET", "HEAD"]));

// Plain segments only: whatever would have to be decoded or normalised is no path of Hermes' API.
for (const [path, methods] of Object.entries(ROUTES))
  app.all(path.replaceAll(/\{(\w+)\}/g, ":$1{[A-Za-z0-9_][A-Za-z0-9_.:@~-]*}"), (c) =>
    methods.includes(c.req.method) ? toHermes(c) : unserved(c, methods),
  );

app.notFound((c) => {
  throw unknownPath(rawPath(c.req.raw));
});

app.onError((error, c) =>
  errorResponse(noteFailure(c, countFailure(c.req.raw, c.var.settings, error)), c.var.requestId),
);

/** A request that may be of a platform. */
function callOf(c: Context<App>): Call {
  const { method, headers } = c.req.raw;
  const { pathname, search, origin } = new URL(c.req.url);
  return {
    method,
    // What a tunnel or a proxy leads here has another address outside.
    url: `${c.var.settings.channels.address || origin}${pathname}${search}`,
    headers,
    body: async () => new Uint8Array((await readBody(c.req.raw, LARGEST)) ?? new ArrayBuffer(0)),
    now: Date.now(),
  };
}

/** Sends a request on to Hermes, and wakes it for that. */
async function toHermes(c: Context<App>): Promise<Response> {
  const { settings, requestId } = c.var;
  const { method, signal } = c.req.raw;
  const path = rawPath(c.req.raw);
  const { body, asked } = await readJson(c.req.raw, path);
  const headers = innerHeaders(c.req.raw.headers);
  headers.set(TURN_HEADERS.requestId, requestId);
  headers.set(CREDENTIAL, credential(c));
  headers.delete("content-encoding");
  if (body !== null) headers.set("content-type", "application/json");
  const isChat = path === "/v1/chat/completions";
  if (isChat || path === "/v1/responses") {
    const model = settings.models.find(({ id }) => id === asked["model"]) ?? settings.defaultModel;
    headers.set(TURN_HEADERS.model, model.id);
    if (isStream(asked["stream"])) headers.set(TURN_HEADERS.stream, "1");
  }
  if (isChat && headers.has(TURN_HEADERS.stream)) {
    const session = headers.get("x-hermes-session-id")?.trim() || (await sessionOf(asked));
    if (session !== null) headers.set(TURN_HEADERS.session, session);
  }
  const init = { method, headers, body, signal, redirect: "manual" } as const;
  const send = () => hermes(c, (it) => it.fetch(c.req.url, init));
  const answer = await send();
  const bare = unwrap(c, answer);
  return answer.headers.has(WAITING) ? goingOn(bare, send, requestId, signal) : bare;
}

/** Answers a method that a path does not know. */
function unserved(c: Context<App>, allow: readonly string[]): Response {
  if (c.req.method !== "OPTIONS") throw wrongMethod(c.req.method, allow);
  return new Response(null, { status: 204, headers: { allow: [...allow, "OPTIONS"].join(", ") } });
}

/** What let a request in, as the instance is told. */
function credential(c: Context<App>): Credential {
  const { caller } = c.var;
  return caller === null ? "anyone" : `token ${caller.digest}`;
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

/** @throws ApiError 403 `wrong_origin` for a page that HERMES_CORS_ORIGINS does not list. */
function refuseUnknownOrigin(request: Request, settings: Settings): void {
  const origin = request.headers.get("origin");
  if (origin === null || settings.corsOrigins.includes(origin)) return;
  throw new ApiError({
    status: 403,
    code: "wrong_origin",
    message:
      "This was sent by a web page that may not call this API. HERMES_CORS_ORIGINS lists those that may.",
  });
}

/** Asks the one instance of this deployment. */
function hermes<T>(c: Context<App>, work: (instance: Stub) => Promise<T>): Promise<T> {
  return askInstance(c.env, work, c.req.raw.signal);
}

const entry: ExportedHandler<Env> = {
  connect: endTunnel,
  fetch(request, env, ctx) {
    const url = addressed(request);
    if (url instanceof Response) return url;
    if (isForDashboard(url, env)) return dashboard(request, env, ctx);
    return app.fetch(request, env, ctx);
  },
  /** What this throws has the sender's server try again. */
  async email(message, env) {
    const told = await mailed(message, settingsOf(env));
    if (told !== null) await askInstance(env, (it) => it.receive("email", told));
  },
};

/** A configuration that cannot be read is reported by the API. */
function isForDashboard({ hostname }: URL, env: Env): boolean {
  const name = env["HERMES_DASHBOARD_HOSTNAME"];
  if (typeof name !== "string" || name === "") return false;
  return hostname === name.trim().toLowerCase();
}

export default entry;
