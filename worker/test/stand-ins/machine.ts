// SPDX-License-Identifier: Apache-2.0
/**
 * STAND-IN for one machine: the process engine on its socket, the sandbox with its `sandbox` command, Hermes
 * on its port, and a model provider. Runs beside workerd and speaks the real wire protocols, strictly: an
 * unknown path, field or command is an error, not a shrug. Tests steer it by `POST /control`.
 */

/** What a test may set; everything has a harmless default. */
export interface Knobs {
  /** The engine's socket is not there. */
  engineGone: boolean;
  confined: boolean;
  /** Hermes exits with this code instead of getting ready. */
  dieAtGo: number | null;
  logTail: string;
  /** The status code of `start`, when it is not to succeed. */
  startFails: { status: number; code: string; message: string } | null;
  /** Exit code and sentence of a `sandbox` command by its name. */
  commandFails: Record<string, { exitCode: number; message: string }>;
  /** Chats are answered only after `release`. */
  hold: boolean;
  /** Hermes is begun only after `release`. */
  holdGo: boolean;
  /** What Hermes' dashboard answers to each call of its API, instead. */
  dashboardSays: { status: number; headers: Record<string, string>; body: string | null } | null;
  /** So many requests get 503 gateway_draining. */
  draining: number;
  /** So many requests find the connection cut. */
  cut: number;
  /** What Hermes answers instead, to everything. */
  says: { status: number; type: string; body: string } | null;
  /**
   * What Hermes tells of itself when it is asked: skills, and why its one server is not connected; null of one that
   * cannot be asked that.
   */
  tells: { skills: string[]; error: string | null } | null;
  nextCron: number | null;
  cronRunning: number;
  /** Bytes of padding in the state. */
  ballast: number;
}

/** What a test may look at. */
export interface Seen {
  starts: number;
  destroys: number;
  saves: number;
  restores: { empty: boolean; bytes: number }[];
  gatewayRestarts: number;
  dashboardStarts: number;
  goes: unknown[];
  inactivity: number[];
  running: boolean;
  labels: Record<string, string> | null;
  /** Requests that reached Hermes. */
  hermes: { method: string; path: string; headers: Record<string, string>; body: string }[];
  /** Requests that reached Hermes' dashboard. */
  dashboard: { method: string; path: string; headers: Record<string, string>; bytes: number }[];
  /** Requests that reached the provider. */
  provider: { method: string; url: string; headers: Record<string, string>; body: string }[];
  busiest: number;
}

/** What the provider answers instead of a stream. */
interface Canned {
  /** The body is said again and again. */
  endless?: true;
  status: number;
  headers: Record<string, string>;
  body: string;
}

interface Home {
  sessions: Record<string, string[]>;
}

interface Running {
  boot: string;
  image: string;
  labels: Record<string, string>;
  restored: boolean;
  key: string | null;
  configuration: unknown;
  stopped: boolean;
  dashboardToken: string | null;
  dashboardRuns: boolean;
  home: Home;
  end(exitCode: number): void;
  ended: Promise<number>;
}

const IMAGE = "image-1";
const PORT = 43121;
const DASHBOARD_PORT = 43122;
const PORTS = { "18789": PORT, "9119": DASHBOARD_PORT };

/** What a browser would take for the gate's own words. */
const STRICT = {
  "content-security-policy": "default-src 'self'",
  "clear-site-data": '"*"',
  "www-authenticate": 'Basic realm="inside"',
  "service-worker-allowed": "/",
  "timing-allow-origin": "*",
};

const quiet = (): Knobs => ({
  engineGone: false,
  confined: false,
  dieAtGo: null,
  logTail: "",
  startFails: null,
  commandFails: {},
  hold: false,
  holdGo: false,
  dashboardSays: null,
  draining: 0,
  cut: 0,
  says: null,
  tells: { skills: [], error: "no such host" },
  nextCron: null,
  cronRunning: 0,
  ballast: 0,
});

const unseen = (): Seen => ({
  starts: 0,
  destroys: 0,
  saves: 0,
  restores: [],
  gatewayRestarts: 0,
  dashboardStarts: 0,
  goes: [],
  inactivity: [],
  running: false,
  labels: null,
  hermes: [],
  dashboard: [],
  provider: [],
  busiest: 0,
});

/** One machine. */
export class Machine {
  #knobs = quiet();
  #seen = unseen();
  #sandbox: Running | null = null;
  #held: (() => void)[] = [];
  #chatting = 0;
  #answer: Canned | null = null;

  /** The engine's socket. */
  async engine(request: Request): Promise<Response> {
    const url = new URL(request.url);
    if (url.host === "control") return this.#control((await request.json()) as Record<string, unknown>);
    if (this.#knobs.engineGone) return unreachable("connect ENOENT run/engine.sock");
    const route = `${request.method} ${url.pathname}`;
    switch (route) {
      case "GET /":
        return Response.json(this.#info());
      case "POST /start":
        return this.#start((await request.json()) as Record<string, unknown>);
      case "POST /exec":
        return this.#exec(request);
      case "POST /destroy":
        this.#seen.destroys++;
        this.#sandbox?.end(137);
        this.#sandbox = null;
        return Response.json({});
      case "GET /monitor":
        return this.#monitor();
      case "POST /inactivity-timeout":
        this.#seen.inactivity.push(((await request.json()) as { ms: number }).ms);
        return Response.json({});
      default:
        return refuse(404, "not_found", `The stand-in engine knows no ${route}.`);
    }
  }

  /** Everything on 127.0.0.1. */
  async loopback(request: Request): Promise<Response> {
    const url = new URL(request.url);
    if (url.hostname === "127.0.0.1" && url.port === String(DASHBOARD_PORT)) return this.#dashboard(request);
    if (url.hostname !== "127.0.0.1" || url.port !== String(PORT))
      return unreachable(`nobody listens on ${url.host}`);
    const sandbox = this.#sandbox;
    if (sandbox === null || sandbox.key === null || sandbox.stopped) return unreachable("connection refused");
    const path = url.pathname + url.search;
    const { method } = request;
    const body = await request.text();
    this.#seen.hermes.push({ method, path, headers: Object.fromEntries(request.headers), body });
    if (request.headers.get("origin") !== null) return new Response(null, { status: 403 });
    if (request.headers.get("authorization") !== `Bearer ${sandbox.key}`)
      return refuse(401, "invalid_api_key", "Invalid API key");
    // By this the instance sees that Hermes is ready.
    if (url.pathname === "/v1/models")
      return Response.json({ object: "list", data: [{ id: "hermes-agent" }] });
    const { says } = this.#knobs;
    if (says !== null)
      return new Response(says.body, { status: says.status, headers: { "content-type": says.type } });
    const told = this.#inForce(path);
    if (told instanceof Response) return told;
    if (told !== null) return Response.json(told);
    if (url.pathname !== "/v1/chat/completions") return Response.json({ path, body });
    return this.#chat(request, body, sandbox);
  }

  /** What Hermes tells of itself, where a test has it tell anything; its own words may quote what it was given. */
  #inForce(path: string): object | null {
    const { tells } = this.#knobs;
    if (tells === null) return null;
    if (path === "/v1/skills") return { data: tells.skills.map((name) => ({ name, description: "" })) };
    if (path === "/api/jobs?include_disabled=true")
      return {
        jobs: [{ id: "1", name: "morning", enabled: true, next_run_at: "2027-01-01T07:00:00+00:00" }],
      };
    if (path !== "/sandbox/in-force") return null;
    if (tells.error === null) return new Response("404: Not Found", { status: 404 });
    const failed = { name: "issues", transport: "http", status: "failed", error: tells.error, tools: [] };
    const packages = {
      python: { pandas: "2.2.3" },
      // The second one in the words of an earlier release.
      debian: {
        jq: { version: "1.6", other: ["usr/bin/jq"], gone: ["usr/bin/jq"] },
        git: { version: "2.39", other: [] },
      },
    };
    return { mcp_servers: [failed], environment: ["HOME", "PATH"], packages };
  }

  /** Hermes' dashboard as it is on loopback: whoever has its token is in, and its page hands it out. */
  async #dashboard(request: Request): Promise<Response> {
    const token = this.#sandbox?.dashboardToken ?? null;
    if (token === null || !this.#sandbox?.dashboardRuns) return unreachable("connection refused");
    const url = new URL(request.url);
    const bytes = (await request.arrayBuffer()).byteLength;
    const path = url.pathname + url.search;
    const headers = Object.fromEntries(request.headers);
    this.#seen.dashboard.push({ method: request.method, path, headers, bytes });
    const given = url.searchParams.get("token") ?? request.headers.get("x-hermes-session-token");
    if (request.headers.get("origin") !== null) return new Response(null, { status: 403 });
    if (url.pathname.startsWith("/api/")) {
      if (given !== token) return Response.json({ detail: "Unauthorized" }, { status: 401 });
      const says = this.#knobs.dashboardSays;
      if (says !== null) return new Response(says.body, says);
      if (url.pathname === "/api/strict") return new Response("strict", { headers: STRICT });
      if (url.pathname === "/api/moved")
        return new Response(null, { status: 307, headers: { location: `${url.origin}/api/there` } });
      return Response.json(
        { path, bytes },
        { headers: { server: "uvicorn", "set-cookie": "hermes=1", "x-hermes-worker-refusal": "asleep" } },
      );
    }
    if (url.pathname.startsWith("/assets/"))
      return new Response("x".repeat(5000), { headers: { "content-type": "text/javascript", etag: '"1"' } });
    const script = `window.__HERMES_SESSION_TOKEN__="${token}";window.__HERMES_AUTH_REQUIRED__=false;`;
    return new Response(`<html><head><script>${script}</script></head></html>`, {
      headers: { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" },
    });
  }

  /** A model provider. */
  async provider(request: Request): Promise<Response> {
    const headers = Object.fromEntries(request.headers);
    this.#seen.provider.push({
      method: request.method,
      url: request.url,
      headers,
      body: await request.text(),
    });
    const answer = this.#answer;
    if (answer !== null)
      return new Response(answer.endless ? endless(answer.body) : answer.body || null, {
        status: answer.status,
        headers: answer.headers,
      });
    return new Response("data: one\n\ndata: two\n\n", { headers: { "content-type": "text/event-stream" } });
  }

  #control(order: Record<string, unknown>): Response {
    switch (order["do"]) {
      case "reset":
        this.#sandbox?.end(137);
        this.#sandbox = null;
        this.#knobs = quiet();
        this.#seen = unseen();
        this.#held = [];
        this.#chatting = 0;
        this.#answer = null;
        break;
      case "set":
        Object.assign(this.#knobs, order["knobs"]);
        break;
      case "provider":
        this.#answer = order["answer"] as Canned | null;
        break;
      case "release":
        this.#knobs.hold = false;
        this.#knobs.holdGo = false;
        for (const go of this.#held.splice(0)) go();
        break;
      case "kill":
        this.#sandbox?.end(Number(order["exitCode"] ?? 137));
        this.#sandbox = null;
        break;
      case "look":
        break;
      default:
        return refuse(400, "bad_order", `The stand-in does not understand ${JSON.stringify(order)}.`);
    }
    this.#seen.running = this.#sandbox !== null;
    this.#seen.labels = this.#sandbox?.labels ?? null;
    return Response.json(this.#seen);
  }

  #info(): object {
    const sandbox = this.#sandbox;
    return {
      engine: "process",
      confined: this.#knobs.confined,
      running: sandbox !== null,
      labels: sandbox?.labels ?? null,
      image: sandbox?.image ?? null,
      ports: sandbox === null ? null : PORTS,
    };
  }

  #start(options: Record<string, unknown>): Response {
    only(options, ["image", "env", "labels", "enableInternet", "entrypoint", "containerSnapshot"]);
    if (this.#knobs.startFails !== null) {
      const { status, code, message } = this.#knobs.startFails;
      return refuse(status, code, message);
    }
    if (this.#sandbox !== null) return refuse(409, "already_running", "The sandbox is already running.");
    if (options["image"] !== IMAGE)
      return refuse(404, "unknown_image", `There is no image ${options["image"]}.`);
    const env = options["env"] as Record<string, string>;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.#seen.starts++;
    this.#sandbox = {
      boot: env["HERMES_BOOT_ID"] ?? "",
      image: IMAGE,
      labels: options["labels"] as Record<string, string>,
      restored: false,
      key: null,
      configuration: null,
      stopped: false,
      dashboardToken: null,
      dashboardRuns: false,
      home: { sessions: {} },
      ended: promise,
      end: resolve,
    };
    return Response.json({ ports: PORTS });
  }

  async #monitor(): Promise<Response> {
    const sandbox = this.#sandbox;
    if (sandbox === null) return refuse(409, "not_running", "The sandbox is not running.");
    const exitCode = await sandbox.ended;
    return Response.json({ exitCode, labels: sandbox.labels });
  }

  async #exec(request: Request): Promise<Response> {
    const bytes = new Uint8Array(await request.arrayBuffer());
    const cut = bytes.indexOf(10);
    const head = JSON.parse(new TextDecoder().decode(bytes.subarray(0, cut))) as Record<string, unknown>;
    only(head, ["cmd", "env", "cwd", "stdout", "stderr"]);
    const cmd = head["cmd"] as string[];
    if (this.#sandbox === null) return refuse(409, "not_running", "The sandbox is not running.");
    if (cmd[0] !== "sandbox") return refuse(404, "not_found", `There is no command ${cmd[0]}.`);
    const done = await this.#command(this.#sandbox, cmd.slice(1), bytes.subarray(cut + 1));
    return new Response(frames(done), { headers: { "content-type": "application/octet-stream" } });
  }

  async #command(sandbox: Running, words: string[], stdin: Uint8Array): Promise<Done> {
    const [name = "", ...rest] = words;
    const options = new Map<string, string>();
    for (let at = 0; at < rest.length; at++) {
      const flag = rest[at] ?? "";
      if (flag === "--empty" || flag === "--follow") options.set(flag, "");
      else options.set(flag, rest[++at] ?? "");
    }
    if (options.get("--boot") !== sandbox.boot) return fails(65, "This is another boot.");
    const failure = this.#knobs.commandFails[name];
    if (failure !== undefined) return fails(failure.exitCode, failure.message);
    switch (name) {
      case "status":
        return prints(
          JSON.stringify({
            state: sandbox.stopped ? "stopped" : sandbox.key === null ? "waiting" : "running",
            configuration: sandbox.configuration,
            nextCron: this.#knobs.nextCron,
            cronRunning: this.#knobs.cronRunning,
            processes: [{ pid: 7, name: "hermes", rssBytes: 1 }],
            version: "0.19.0",
            sqlite: "3.50.4",
          }),
        );
      case "logs":
        if (this.#knobs.dieAtGo !== null && options.has("--follow")) {
          await sandbox.ended;
          return prints(this.#knobs.logTail);
        }
        return prints(`first line\nkey sk-abcdefghijklmnop and ${sandbox.key}\n`);
      case "restore":
        return this.#restore(sandbox, options.has("--empty"), stdin);
      case "check":
        return (await homeOf(stdin)) === null ? fails(70, "The archive is damaged.") : prints("");
      case "go":
        if (this.#knobs.holdGo) await new Promise<void>((resolve) => this.#held.push(resolve));
        return this.#go(sandbox, stdin);
      case "save":
        return this.#save(sandbox, options.get("--unless"));
      case "declare": {
        const told = JSON.parse(new TextDecoder().decode(stdin)) as { configuration?: unknown };
        sandbox.configuration = told.configuration ?? null;
        return prints("");
      }
      case "restart-gateway":
        this.#seen.gatewayRestarts++;
        sandbox.stopped = false;
        return this.#go(sandbox, stdin);
      case "dashboard":
        this.#seen.dashboardStarts++;
        sandbox.dashboardRuns = true;
        return prints("");
      case "stop-gateway":
        sandbox.stopped = true;
        return prints("");
      default:
        return fails(64, `There is no command ${name}.`);
    }
  }

  async #restore(sandbox: Running, empty: boolean, stdin: Uint8Array): Promise<Done> {
    if (sandbox.key !== null) return fails(66, "Too late to restore.");
    this.#seen.restores.push({ empty, bytes: stdin.byteLength });
    if (!empty) {
      const home = await homeOf(stdin);
      if (home === null) return fails(70, "The archive is damaged.");
      sandbox.home = home;
    }
    sandbox.restored = true;
    return prints("");
  }

  #go(sandbox: Running, stdin: Uint8Array): Done {
    if (!sandbox.restored) return fails(67, "Nothing was restored.");
    const go = JSON.parse(new TextDecoder().decode(stdin)) as {
      env: Record<string, string>;
      configuration?: unknown;
    };
    this.#seen.goes.push(go);
    if (this.#knobs.dieAtGo !== null) {
      sandbox.end(this.#knobs.dieAtGo);
      this.#sandbox = null;
      return prints("");
    }
    sandbox.key = go.env["API_SERVER_KEY"] ?? null;
    sandbox.configuration = go.configuration ?? null;
    sandbox.dashboardToken = go.env["HERMES_DASHBOARD_SESSION_TOKEN"] ?? null;
    return prints("");
  }

  async #save(sandbox: Running, unless: string | undefined): Promise<Done> {
    if (!sandbox.restored) return fails(67, "Nothing was restored.");
    this.#seen.saves++;
    const state = { home: sandbox.home, ballast: "x".repeat(this.#knobs.ballast) };
    const bytes = new TextEncoder().encode(JSON.stringify(state));
    const digest = await sha256(bytes);
    if (unless === digest) return { ...prints(""), exitCode: 3 };
    const manifest = {
      format: 1,
      boot: sandbox.boot,
      digest,
      sha256: digest,
      bytes: bytes.byteLength,
      files: 1,
      databases: ["state.db"],
    };
    const line = new TextEncoder().encode(`${JSON.stringify(manifest)}\n`);
    const stdout = new Uint8Array(line.byteLength + bytes.byteLength);
    stdout.set(line);
    stdout.set(bytes, line.byteLength);
    return { stdout, stderr: "", exitCode: 0 };
  }

  async #chat(request: Request, sent: string, sandbox: Running): Promise<Response> {
    if (this.#knobs.draining > 0) {
      this.#knobs.draining--;
      return refuse(503, "gateway_draining", "Gateway is draining existing work; retry shortly.");
    }
    if (this.#knobs.cut > 0) {
      this.#knobs.cut--;
      return unreachable("connection lost");
    }
    const body = JSON.parse(sent) as { messages: { content: string }[]; stream?: boolean };
    const session = request.headers.get("x-hermes-session-id") ?? "none";
    this.#chatting++;
    this.#seen.busiest = Math.max(this.#seen.busiest, this.#chatting);
    if (this.#knobs.hold) await new Promise<void>((resolve) => this.#held.push(resolve));
    this.#chatting--;
    sandbox.home.sessions[session] ??= [];
    sandbox.home.sessions[session].push(body.messages.at(-1)?.content ?? "");
    const text = sandbox.home.sessions[session].join(" | ");
    const headers = {
      "x-hermes-session-id": session,
      server: "Python/3.11 aiohttp",
      "x-hermes-extra": "kept",
    };
    if (body.stream !== true)
      return Response.json({ choices: [{ message: { content: text }, finish_reason: "stop" }] }, { headers });
    const events = [...text].map(
      (letter) => `data: ${JSON.stringify({ choices: [{ delta: { content: letter } }] })}\n\n`,
    );
    const stream = streamOf([...events, "data: [DONE]\n\n"].map((event) => new TextEncoder().encode(event)));
    return new Response(stream, { headers: { ...headers, "content-type": "text/event-stream" } });
  }
}

interface Done {
  stdout: Uint8Array;
  stderr: string;
  exitCode: number;
}

const prints = (text: string): Done => ({ stdout: new TextEncoder().encode(text), stderr: "", exitCode: 0 });
const fails = (exitCode: number, stderr: string): Done => ({
  stdout: new Uint8Array(0),
  stderr: `trace\n${stderr}\n`,
  exitCode,
});

function refuse(status: number, code: string, message: string): Response {
  return Response.json({ error: { code, message } }, { status });
}

/** Becomes a failed connection on the other side of the wire. */
function unreachable(why: string): Response {
  return new Response(null, { status: 500, headers: { "x-stand-in-refused": why } });
}

function only(fields: Record<string, unknown>, known: string[]): void {
  const odd = Object.keys(fields).filter((name) => !known.includes(name));
  if (odd.length > 0) throw new Error(`unknown fields: ${odd.join(", ")}`);
}

/** Frames cut at awkward places, so that nobody relies on where chunks end. */
function frames(done: Done): ReadableStream<Uint8Array> {
  const all = [
    frame(0, new TextEncoder().encode("4711")),
    frame(2, new TextEncoder().encode(done.stderr)),
    ...pieces(done.stdout, 64 * 1024).map((piece) => frame(1, piece)),
    frame(3, new TextEncoder().encode(String(done.exitCode))),
  ];
  const whole = new Uint8Array(all.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of all) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return streamOf(pieces(whole, whole.byteLength > 100_000 ? 70_001 : 3));
}

function frame(type: number, payload: Uint8Array): Uint8Array {
  const out = new Uint8Array(5 + payload.byteLength);
  out[0] = type;
  new DataView(out.buffer).setUint32(1, payload.byteLength);
  out.set(payload, 5);
  return out;
}

function pieces(bytes: Uint8Array, size: number): Uint8Array[] {
  const out: Uint8Array[] = [];
  for (let at = 0; at < bytes.byteLength; at += size) out.push(bytes.slice(at, at + size));
  return out;
}

function streamOf(chunks: Iterable<Uint8Array>): ReadableStream<Uint8Array> {
  const rest = chunks[Symbol.iterator]();
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const { done, value } = rest.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
}

async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>);
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What an archive holds; `null` when it is not what its first line says. */
async function homeOf(archive: Uint8Array): Promise<Home | null> {
  const cut = archive.indexOf(10);
  const manifest = JSON.parse(new TextDecoder().decode(archive.subarray(0, cut))) as { sha256: string };
  const bytes = archive.subarray(cut + 1);
  return (await sha256(bytes)) === manifest.sha256 ? homeIn(new TextDecoder().decode(bytes)) : null;
}

function homeIn(text: string): Home | null {
  try {
    return (JSON.parse(text) as { home: Home }).home;
  } catch {
    return null;
  }
}

/** Says the same again and again, for longer than any test listens. */
function endless(body: string): ReadableStream<Uint8Array> {
  const piece = new TextEncoder().encode(body);
  let left = 1000;
  return new ReadableStream({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (left-- > 0) controller.enqueue(piece);
      else controller.close();
    },
  });
}
