// SPDX-License-Identifier: Apache-2.0
/** What stands in for a container in the probing Worker when no container is there; it behaves as a test says. */
const bytes = (text) => new TextEncoder().encode(text).buffer;

class StandIn {
  /** Its own time, in seconds; only what waits makes it pass. */
  now = 0;

  /** kv: of the object, so that what a test said outlives a new version. */
  constructor(kv) {
    const it = this;
    this.kv = kv;
    this.said = kv.get("said") ?? {};
    this.container = {
      running: false,
      get images() {
        return it.said.images ?? { hermes: "registry.cloudflare.com/account/hermes@sha256:00" };
      },
      start(options) {
        if (this.running) throw new Error("start() cannot be called on a container that is already running.");
        if (it.said.refusedSize === options.instance) throw new Error(`unknown instance ${options.instance}`);
        if (it.said.refusesDigests && options.image?.includes("@")) throw new Error("no such image");
        this.running = true;
        it.failing = options.containerSnapshot ? (it.said.snapshotFailures ?? 0) : 0;
        it.starting = it.said.execThrows ? 1 : 0;
        if (it.failing > 0) it.said.snapshotFailures -= 1;
      },
      async exec(words, options = {}) {
        if (it.failing > 0) {
          this.running = false;
          throw new Error("the container could not be started");
        }
        if (it.starting-- > 0) throw new Error("the container is not ready");
        it.now += it.said.startSeconds ?? 0;
        return it.process(words, options);
      },
      async destroy() {
        this.running = false;
      },
      signal() {
        if (!it.said.keepsOn) this.running = false;
      },
      async snapshotContainer() {
        return { id: "snapshot" };
      },
      async interceptOutboundHttp() {},
      async setInactivityTimeout() {},
    };
  }

  /** Forgets what was said before. */
  behave(said) {
    this.said = said;
    this.kv.put("said", said);
    this.container.running = false;
    return said;
  }

  pause(seconds) {
    this.now += seconds;
    return new Promise((done) => setTimeout(done, 1));
  }

  /** What of the object's own view is otherwise. */
  view() {
    const { lives, ...more } = this.said.view ?? {};
    return lives === undefined ? more : { ...more, life: lives.shift() };
  }

  process(words, options) {
    const [stdout, exitCode = 0] = this.output(words, options);
    return {
      output: async () => ({ exitCode, stdout: bytes(stdout), stderr: bytes("") }),
      kill: () => {
        if (this.said.killThrows) throw new Error("internal error");
      },
    };
  }

  output(words, { env = {} }) {
    const script = words.at(-1);
    if (words[0] === "/usr/bin/env")
      return [["PATH", ...Object.keys(env), ...(this.said.inherited ?? [])].map((name) => `${name}=1\n`).join("")];
    if (words[0].endsWith("python3"))
      return [JSON.stringify((script.includes("start_chromium") ? this.said.rights : this.said.network) ?? {})];
    if (words[0] === "cat") return [this.said.forgets ? "" : "kept\n"];
    if (script.includes("/proc/1/environ")) return [this.said.environ ?? ""];
    if (script.includes("tick")) return this.said.pipesGoOn ? ["tick\nend\n"] : ["tick\n", 141];
    return [""];
  }

  fetch = async (url) =>
    url.includes("trace")
      ? new Response(this.said.trace ?? "")
      : new Response(this.said.address?.text ?? "", { status: this.said.address?.status ?? 200 });
}

globalThis.standIn = (ctx) => new StandIn(ctx.storage.kv);
