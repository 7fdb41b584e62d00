// SPDX-License-Identifier: Apache-2.0
/**
 * A throw-away Worker that asks Cloudflare's containers what the product assumes of them (see probes.py).
 *
 * `POST /ask/<question>` begins to find out, `GET /told` is what was found, `GET /life` is what runs. It is deployed
 * beside the product, from the same image, and taken away like the rest. Without ctx.container, at the stand-in, the
 * test brings a scripted one (stand_in.js).
 */
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";

const ADDRESS = "198.51.100.1";
const STAY = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"];

/** What the container sends to the intercepted address. */
export class Caught extends WorkerEntrypoint {
  fetch(request) {
    if (request.headers.get("upgrade") !== "websocket") return new Response("caught");
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.send("caught");
    return new Response(null, { status: 101, webSocket: client });
  }
}

/** Run by Python in a container without internet; prints what it saw of names and ways out. */
const NETWORK = `
import json, os, socket, ssl, struct, urllib.request
found = {}
def note(name, ask):
    try: found[name] = ask()
    except TimeoutError: found[name] = "timeout"
    except Exception as error: found[name] = f"{type(error).__name__}: {error}"
def resolve(name):
    return sorted({one[4][0] for one in socket.getaddrinfo(name, 80, socket.AF_INET)})
def query(kind):
    server = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
    name = b"".join(bytes([len(part)]) + part for part in (b"cloudflare", b"com")) + b"\\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(5)
        asked.sendto(struct.pack("!6H", 7, 256, 1, 0, 0, 0) + name + struct.pack("!2H", kind, 1), (server, 53))
        answer = asked.recv(2048)
    return {"code": answer[3] & 15, "answers": struct.unpack("!H", answer[6:8])[0]}
def connect(address, port):
    socket.create_connection((address, port), 8).close()
    return "connected"
def over_tls(address):
    with socket.create_connection((address, 443), 8) as plain:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.wrap_socket(plain).close()
    return "connected"
def websocket():
    with socket.create_connection(("${ADDRESS}", 80), 8) as way:
        way.sendall(b"GET / HTTP/1.1\\r\\nHost: ${ADDRESS}\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
            b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\\r\\n\\r\\n")
        answer = b""
        while b"caught" not in answer and (more := way.recv(4096)): answer += more
    return answer.split(b"\\r\\n")[0].decode() + (" and a message" if b"caught" in answer else "")
note("name", lambda: resolve("example.com"))
note("nonsense", lambda: resolve("no-such-name.invalid"))
note("mx", lambda: query(15))
note("port", lambda: connect("1.1.1.1", 22))
note("tls", lambda: over_tls("1.1.1.1"))
note("http", lambda: urllib.request.urlopen("http://${ADDRESS}/", timeout=8).read().decode())
note("websocket", websocket)
print(json.dumps(found))
`;

/** Run by the image's Python: what the browser's user is, by the program that starts the browser. */
const RIGHTS = `
import json, sys
sys.path.insert(0, "/opt/hermes")
open("/root/rights", "w").close()
__import__("os").chmod("/root/rights", 0o600)
from sandbox.in_hermes import start_chromium
start_chromium.become(start_chromium.USER)
rights = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff"))
try: open("/root/rights").close(); file = "read"
except PermissionError: file = "refused"
print(json.dumps({"rights": rights, "file": file}))
`;

/** Runs a command to its end. */
async function run(container, words, options = {}) {
  const process = await container.exec(words, options);
  const { exitCode, stdout, stderr } = await process.output();
  const text = (bytes) => new TextDecoder().decode(bytes);
  return { exitCode, stdout: text(stdout), stderr: text(stderr).slice(0, 500) };
}

/** Each question; what it returns is judged by the probes that name it. */
const QUESTIONS = {
  async start(prober) {
    const images = Object.keys(prober.container.images ?? {});
    const began = prober.now();
    await prober.start();
    const threw = await prober.ready();
    const first = prober.now() - began;
    await prober.end();
    const again = prober.now();
    await prober.start();
    await prober.ready();
    return { images, threw, seconds: first, again: prober.now() - again };
  },
  async environment(prober) {
    await prober.fresh({ env: { OF_THE_START: "1" } });
    const { stdout } = await run(prober.container, ["/usr/bin/env"], { env: { OF_THE_COMMAND: "1" } });
    return { names: stdout.split("\n").map((line) => line.split("=")[0]).filter((name) => name !== "") };
  },
  async network(prober) {
    await prober.fresh({ caught: true });
    const { stdout, stderr } = await run(prober.container, ["/opt/hermes/bin/python3", "-c", NETWORK]);
    if (stdout === "") throw new Error(stderr);
    return JSON.parse(stdout);
  },
  async rights(prober) {
    await prober.fresh();
    const { stdout, stderr } = await run(prober.container, ["/opt/hermes/bin/python3", "-c", RIGHTS]);
    if (stdout === "") throw new Error(stderr);
    return JSON.parse(stdout);
  },
  async place(prober) {
    await prober.fresh();
    const trace = await (await prober.ask("https://www.cloudflare.com/cdn-cgi/trace")).text();
    const { stdout } = await run(prober.container, ["sh", "-c", "tr '\\0' '\\n' </proc/1/environ"]);
    const read = (text, name) => new RegExp(`^${name}=(.*)$`, "m").exec(text)?.[1] ?? null;
    return {
      object: { country: read(trace, "loc"), colo: read(trace, "colo") },
      container: { country: read(stdout, "CLOUDFLARE_COUNTRY_A2"), region: read(stdout, "CLOUDFLARE_REGION") },
    };
  },
  async snapshot(prober) {
    await prober.fresh();
    await run(prober.container, ["sh", "-c", "echo kept >/root/mark"]);
    const containerSnapshot = await prober.container.snapshotContainer({ name: "probe" });
    await prober.end();
    const began = prober.now();
    const refused = [];
    for (;;) {
      try {
        await prober.start({ containerSnapshot });
        await prober.ready();
        break;
      } catch (error) {
        refused.push(String(error));
        if (prober.now() - began > 60) return { refused, seconds: null, kept: false };
        await prober.end();
        await prober.pause(2);
      }
    }
    const { stdout } = await run(prober.container, ["cat", "/root/mark"]);
    return { refused, seconds: prober.now() - began, kept: stdout.trim() === "kept" };
  },
  async size(prober) {
    await prober.fresh({ instance: "basic" });
    return {};
  },
  async digest(prober) {
    await prober.fresh({ image: prober.env.HERMES_IMAGE_REFERENCE });
    return {};
  },
  async kill(prober) {
    await prober.fresh();
    const process = await prober.container.exec(["true"]);
    await process.output();
    process.kill(15);
    return {};
  },
  async stop(prober) {
    await prober.fresh();
    prober.container.signal(15);
    for (const began = prober.now(); prober.now() - began < 60; await prober.pause(1))
      if (!prober.container.running) return { seconds: prober.now() - began };
    return { seconds: null };
  },
  async address(prober) {
    const answer = await prober.ask("http://1.1.1.1/");
    return { status: answer.status, text: (await answer.text()).slice(0, 200) };
  },
  /** Begun by a request that ends at once; its pipes belong to that. */
  async pipes(prober) {
    await prober.fresh();
    const script = `for i in $(seq 10); do echo tick || exit 141; sleep 1; done; echo end`;
    const process = await prober.container.exec(["sh", "-c", script]);
    prober.later = process.output().then(
      ({ exitCode, stdout }) => ({ exitCode, end: new TextDecoder().decode(stdout).includes("end") }),
      (error) => ({ error: String(error) }),
    );
    return {};
  },
};

export class HermesInstance extends DurableObject {
  life = crypto.randomUUID();
  told = null;
  later = null;

  constructor(ctx, env) {
    super(ctx, env);
    const standIn = globalThis.standIn?.(ctx);
    this.container = ctx.container ?? standIn?.container;
    this.ask = standIn?.fetch ?? ((url) => fetch(url));
    this.standIn = standIn;
  }

  now() {
    return this.standIn?.now ?? Date.now() / 1000;
  }

  pause(seconds) {
    return this.standIn?.pause(seconds) ?? new Promise((done) => setTimeout(done, seconds * 1000));
  }

  async fetch(request) {
    const { pathname } = new URL(request.url);
    const [, verb, question] = pathname.split("/");
    if (verb === "life") return Response.json(await this.view());
    if (verb === "told") return Response.json(this.told);
    if (verb === "later") return Response.json((await this.later) ?? null);
    if (verb === "size") return Response.json({ bytes: (await request.arrayBuffer()).byteLength });
    if (verb === "stand-in" && this.standIn) return Response.json(this.standIn.behave(await request.json()));
    if (verb === "timeout") return Response.json(await this.container.setInactivityTimeout(600_000) ?? null);
    if (verb === "leave") return this.leave(question);
    if (verb !== "ask" || !Object.hasOwn(QUESTIONS, question)) return new Response(null, { status: 404 });
    this.told = null;
    const work = this.answer(question);
    this.ctx.waitUntil(work);
    if (question === "pipes") await work;
    return new Response(null, { status: 202 });
  }

  async answer(question) {
    try {
      if (this.container === undefined) throw new Error("there is no ctx.container");
      this.told = { facts: await QUESTIONS[question](this) };
    } catch (error) {
      this.told = { error: String(error?.message ?? error) };
    }
  }

  async view() {
    const { VERSION, SECRET } = this.env;
    const left = await this.ctx.storage.get("left");
    const running = this.container?.running ?? null;
    return { life: this.life, running, VERSION, SECRET, left, ...this.standIn?.view() };
  }

  /** Work that a client begins, and whose answer it does not wait for. */
  async leave(ticks) {
    const work = async () => {
      for (let left = 1; left <= Number(ticks); left += 1) {
        if (this.standIn?.said.cuts && left > 1) return;
        await this.ctx.storage.put("left", left);
        await this.pause(1);
      }
    };
    await this.ctx.storage.put("left", 0);
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    writer.write(new TextEncoder().encode("begun")).catch(() => undefined);
    this.ctx.waitUntil(work());
    return new Response(readable);
  }

  /** Starts a container, whatever runs. */
  async fresh(options = {}) {
    await this.end();
    await this.start(options);
    await this.ready();
  }

  async start({ caught = false, ...options } = {}) {
    const { container } = this;
    if (caught) await container.interceptOutboundHttp(`${ADDRESS}:80`, this.ctx.exports?.Caught({ props: {} }));
    const image = options.containerSnapshot ? {} : { image: container.images?.hermes ?? this.env.HERMES_IMAGE_REFERENCE };
    container.start({ ...image, instance: "lite", enableInternet: false, entrypoint: STAY, ...options });
  }

  /** Waits for the first command; returns whether one was refused while the container was starting. */
  async ready() {
    let threw = null;
    for (const began = this.now(); ; await this.pause(1)) {
      try {
        await run(this.container, ["true"]);
        return threw;
      } catch (error) {
        if (!this.container.running || this.now() - began > 300) throw error;
        threw = String(error);
      }
    }
  }

  async end() {
    if (this.container.running) await this.container.destroy();
  }
}

export default {
  fetch(request, env) {
    if (request.headers.get("authorization") !== `Bearer ${env.TOKEN}`) return new Response(null, { status: 401 });
    return env.INSTANCE.getByName("probe", { locationHint: "weur" }).fetch(request);
  },
};
