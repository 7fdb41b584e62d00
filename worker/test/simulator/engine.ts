// SPDX-License-Identifier: Apache-2.0
/**
 * STAND-IN for an engine with a sandbox and a Hermes in it, whose calls may be slow, fail or never be
 * answered. It does what it is told even where the real one would refuse, so that the checks see it.
 */
import { ApiError } from "../../src/base/errors.ts";
import {
  EngineError,
  type ExecOptions,
  type Exit,
  type Sandbox,
  type SandboxProcess,
  START_REFUSED,
} from "../../src/sandbox/sandbox.ts";
import { SimulatedGateway } from "./people.ts";
import { type Dice, type SimulatedTime, sha256 } from "./platform.ts";

/** What lies in Hermes' home. */
export interface Home {
  turns: string[];
  /** Cron jobs: when each runs next, in milliseconds since the epoch. */
  jobs: { id: string; at: number }[];
  /** What nobody can restore, or Hermes cannot run with; only somebody's upload has it. */
  poison?: "archive" | "restore" | "go";
}

/** A sandbox. */
export interface Box {
  boot: string;
  image: string;
  home: Home;
  restored: boolean;
  went: boolean;
  stopped: boolean;
  key: string | null;
  /** What `go` or a restart of Hermes brought last. */
  input: { env: Record<string, string>; configuration: unknown; agent?: { archive: string } | undefined };
  /** The process of Hermes that runs in it. */
  gateway: SimulatedGateway | null;
  ended: PromiseWithResolvers<Exit>;
  /** Cuts the watch without an end. */
  lose: (() => void)[];
  /** Idempotency keys that were answered. */
  known: Set<string>;
  alive: boolean;
  /** Settles when it has started, or never will. */
  ready: Promise<void>;
}

/** What somebody began: a request or an alarm, and what it holds beyond its end. */
export interface Begun {
  /** Neither it nor anything that it holds goes on. */
  isOver(): boolean;
}

/** What the world is told. */
export interface Witness {
  wrong(what: string): void;
  /** Hermes starts with this state. */
  went(box: Box): void;
  /** `save` read this state. */
  read(box: Box, digest: string): void;
  /** Somebody asks to end what runs; that may take a while. */
  askedToDestroy(): void;
  /** It was told to end a living sandbox. */
  destroying(box: Box): void;
  /** It died by itself. */
  died(box: Box): void;
}

const hex = (bytes: Uint8Array) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const encode = (text: string) => new TextEncoder().encode(text);

/** As long as a start may take, and somewhat more; in milliseconds. */
const START_PATIENCE = 300_000;

/** The engine. */
export class SimulatedEngine {
  box: Box | null = null;
  readonly snapshots = new Map<string, { image: string; home: Home; usableAt: number }>();
  down = false;
  /** How likely a call fails, or is slow. */
  failing = 0;
  slow = 0;
  refusesSnapshots = false;
  /** How long a start takes at most, how likely one is refused for the moment, and when snapshots can be used. */
  startTakes: number;
  refusing = 0;
  snapshotTakes = 8000;
  /** Who began what is asked now: what a command prints to nobody ends it. */
  begunBy: () => Begun | undefined = () => undefined;
  /** How likely a restore fails for the machine's reasons, and a save is never done. */
  troubled = 0;
  hanging = 0;
  healthy = true;
  /** Whether Hermes asks people in the middle of turns. */
  asks = false;
  /** How long the sandbox goes on without its object, as the object that is in memory now has said; in milliseconds. */
  inactivity = 0;
  /** Jobs that were run, whatever became of the result. */
  readonly ran = new Set<string>();
  #count = 0;

  constructor(
    readonly time: SimulatedTime,
    readonly dice: Dice,
    readonly witness: Witness,
  ) {
    this.startTakes = dice.pick([
      [2, 0],
      [1, 30_000],
      [1, 290_000],
    ] as const);
  }

  /** The sandbox ends by itself. */
  crash(exitCode: number): void {
    const { box } = this;
    if (box === null) return;
    this.witness.died(box);
    this.#end(box, exitCode);
  }

  /** Hermes dies, and what watches over it in the sandbox starts another. */
  killHermes(): void {
    if (this.box?.went === true && !this.box.stopped) this.#startHermes(this.box);
  }

  #startHermes(box: Box): void {
    box.gateway?.die();
    box.gateway = new SimulatedGateway(
      this.time,
      this.dice,
      (what) => this.witness.wrong(what),
      () => ++this.#count,
      this.asks,
    );
  }

  /** Runs the jobs that are due. */
  tick(): void {
    const { box } = this;
    if (box === null || !box.went || box.stopped || !this.healthy) return;
    for (const job of box.home.jobs.filter((one) => one.at <= this.time.now())) {
      box.home.jobs = box.home.jobs.filter((other) => other !== job);
      box.home.turns.push(`ran ${job.id}`);
      this.ran.add(job.id);
    }
  }

  /** The engine as one life of the object sees it: its calls are never answered after its death. */
  sandboxFor(alive: () => boolean, setting: string): Sandbox {
    const guarded = async <T>(work: () => T | Promise<T>, spared = false): Promise<T> => {
      if (!alive()) return new Promise<T>(() => undefined);
      try {
        await this.#trouble(spared);
        // What was not yet begun when its caller was torn down never is.
        if (!alive()) return await new Promise<T>(() => undefined);
        return await work();
      } finally {
        if (!alive()) await new Promise<never>(() => undefined);
      }
    };
    return {
      startPatience: START_PATIENCE,
      inspect: () =>
        guarded(() => ({
          running: this.box !== null,
          labels: this.box === null ? null : { boot: this.box.boot },
          image: null,
          confined: false,
        })),
      start: (options) =>
        guarded(async () => {
          this.#start(options.env["HERMES_BOOT_ID"] ?? "", options.image, options.containerSnapshot?.id);
          await this.#delay();
        }),
      exec: (cmd, options) => guarded(() => this.#exec(cmd, options, alive)),
      getTcpPort: () => ({
        fetch: (url, init) => guarded(() => this.#fetch(url, init, setting, alive), true),
      }),
      signal: () => guarded(() => undefined),
      destroy: () => {
        if (alive()) this.witness.askedToDestroy();
        return guarded(async () => {
          const { box } = this;
          if (box === null) return;
          this.witness.destroying(box);
          this.#end(box, 137);
          await this.#delay();
        });
      },
      monitor: () => guarded(() => this.#monitor(), true),
      setInactivityTimeout: (ms) =>
        guarded(() => {
          this.inactivity = ms;
        }),
      snapshotContainer: () => guarded(() => this.#snapshot()),
    };
  }

  async #trouble(spared: boolean): Promise<void> {
    await this.#delay();
    if (this.down)
      throw new ApiError({ status: 503, code: "engine_unavailable", message: "The engine does not answer." });
    if (!spared && this.dice.chance(this.failing)) throw new Error("Network connection lost.");
  }

  async #delay(): Promise<void> {
    if (this.dice.chance(this.slow)) await this.time.sleep(this.dice.between(10, 20_000));
  }

  #start(boot: string, image: string | undefined, snapshot: string | undefined): void {
    if (this.box !== null) this.witness.wrong("a second sandbox was started");
    const source = snapshot === undefined ? undefined : this.snapshots.get(snapshot);
    if (this.dice.chance(this.refusing))
      throw new EngineError(503, START_REFUSED, "There is no container instance that can be provided.");
    if (snapshot !== undefined && (source === undefined || this.time.elapsed < source.usableAt))
      throw new EngineError(404, "snapshot_not_found", "There is no such snapshot.");
    this.box = {
      boot,
      image: image ?? source?.image ?? "",
      home: structuredClone(source?.home ?? { turns: [], jobs: [] }),
      restored: false,
      went: false,
      stopped: false,
      key: null,
      input: { env: {}, configuration: null },
      gateway: null,
      ended: Promise.withResolvers<Exit>(),
      lose: [],
      known: new Set(),
      alive: true,
      ready: Promise.resolve(),
    };
    const { box } = this;
    if (this.startTakes === 0) return;
    const started = this.time.sleep(this.dice.between(0, this.startTakes));
    box.ready = Promise.race([started, box.ended.promise.then(() => undefined)]);
  }

  #end(box: Box, exitCode: number): void {
    box.alive = false;
    box.gateway?.die();
    this.box = null;
    box.ended.resolve({ exitCode, labels: null });
  }

  #running(): Box {
    if (this.box === null) throw new EngineError(409, "not_running", "No sandbox is running.");
    return this.box;
  }

  #monitor(): Promise<Exit> {
    const box = this.#running();
    const lost = new Promise<never>((_, reject) => {
      box.lose.push(() => reject(new Error("Network connection lost.")));
    });
    return Promise.race([box.ended.promise, lost]);
  }

  async #snapshot(): Promise<{ id: string; size: number }> {
    const box = this.#running();
    if (this.refusesSnapshots) throw new EngineError(501, "unsupported", "No snapshots here.");
    const id = `snapshot-${++this.#count}`;
    const usableAt = this.time.elapsed + this.snapshotTakes;
    const taken = { image: box.image, home: structuredClone(box.home), usableAt };
    await this.#delay();
    this.snapshots.set(id, taken);
    return { id, size: 1 };
  }

  async #exec(
    cmd: readonly string[],
    options: ExecOptions | undefined,
    alive: () => boolean,
  ): Promise<SandboxProcess> {
    const box = this.#running();
    const begun = this.begunBy();
    const [, name = "", , boot = ""] = cmd;
    const { stdin = "" } = options ?? {};
    // A command waits for a sandbox that is still to start.
    await box.ready;
    const input = typeof stdin === "string" ? stdin : await textOf(stdin);
    if (!box.alive) throw new Error("Network connection lost.");
    if (boot !== box.boot) return finished("", 65);
    if (name === "logs") return follow(box);
    if (name === "save" && this.dice.chance(this.hanging)) return new Promise<never>(() => undefined);
    const done = this.#command(box, name, cmd, input);
    await this.#delay();
    if (!box.alive || !alive()) return finished("", 137);
    if (begun?.isOver()) return finished("", 141);
    return finished(...done);
  }

  #command(box: Box, name: string, cmd: readonly string[], input: string): [string, number] {
    switch (name) {
      case "status":
        return [JSON.stringify(this.#status(box)), 0];
      case "check":
        return ["", homeIn(input).poison === "archive" ? 70 : 0];
      case "restore":
        return ["", this.#restore(box, cmd, input)];
      case "go":
        if (box.home.poison === "go") {
          this.crash(1);
          return ["", 1];
        }
        return this.#go(box, name, input);
      case "restart-gateway":
        return this.#go(box, name, input);
      case "declare": {
        const { agent, configuration } = JSON.parse(input) as Box["input"];
        box.input = { ...box.input, agent, configuration };
        return ["", 0];
      }
      case "stop-gateway":
        box.stopped = true;
        box.gateway?.die();
        return ["", 0];
      case "save":
        return this.#save(box, cmd[cmd.indexOf("--unless") + 1] ?? "");
      default:
        return ["", 64];
    }
  }

  #restore(box: Box, cmd: readonly string[], input: string): number {
    if (this.dice.chance(this.troubled))
      return this.dice.pick([
        [1, 74],
        [1, 1],
        [1, 137],
      ] as const);
    if (cmd.includes("--empty")) box.home = { turns: [], jobs: [] };
    else if (!cmd.includes("--keep")) {
      const home = homeIn(input);
      if (home.poison === "archive") return 70;
      if (home.poison === "restore") return 74;
      box.home = home;
    }
    box.restored = true;
    return 0;
  }

  #go(box: Box, name: string, input: string): [string, number] {
    box.input = JSON.parse(input) as Box["input"];
    box.key = box.input.env["API_SERVER_KEY"] ?? null;
    if (name === "go") this.witness.went(box);
    box.went = true;
    box.stopped = false;
    this.#startHermes(box);
    return ["", 0];
  }

  #status(box: Box): object {
    const next = box.home.jobs.reduce((least, job) => Math.min(least, job.at), Number.POSITIVE_INFINITY);
    return {
      state: box.stopped ? "stopped" : box.went ? "running" : "waiting",
      configuration: box.input.configuration,
      nextCron: Number.isFinite(next) ? Math.floor(next / 1000) : null,
      cronRunning: 0,
    };
  }

  #save(box: Box, unless: string): [string, number] {
    const state = JSON.stringify(box.home);
    const digest = hex(sha256(encode(state)));
    this.witness.read(box, digest);
    if (digest === unless) return ["", 3];
    const bytes = encode(state).byteLength;
    const manifest = { format: 1, boot: box.boot, digest, sha256: digest, bytes };
    return [`${JSON.stringify(manifest)}\n${state}`, 0];
  }

  async #fetch(
    url: string,
    init: RequestInit = {},
    setting: string,
    alive: () => boolean,
  ): Promise<Response> {
    const { box } = this;
    const headers = new Headers(init.headers);
    const refused = () => new Error("connection refused");
    if (box === null || !box.went || box.stopped || !this.healthy) throw refused();
    if (headers.get("authorization") !== `Bearer ${box.key}`) return new Response(null, { status: 401 });
    const { pathname } = new URL(url);
    if (pathname === "/connector") return { webSocket: box.gateway?.connect(alive) } as unknown as Response;
    if (pathname !== "/v1/chat/completions") return Response.json({});
    const turn = headers.get("x-request-id") ?? "";
    if (box.input.env["SETTING"] !== setting)
      this.witness.wrong(
        `${turn} was given to a Hermes with the setting ${box.input.env["SETTING"]}, not ${setting}`,
      );
    if (this.dice.chance(0.3)) await this.time.sleep(this.dice.between(100, 90_000));
    if (!box.alive || box.stopped || init.signal?.aborted) throw new Error("Network connection lost.");
    if (!box.known.has(turn)) box.home.turns.push(turn);
    box.known.add(turn);
    return new Response(JSON.stringify(box.home.turns));
  }
}

/** The archive of a home, as somebody would upload it. */
export function archiveOf(home: Home): string {
  const state = JSON.stringify(home);
  const digest = hex(sha256(encode(state)));
  const bytes = encode(state).byteLength;
  const manifest = { format: 1, boot: "elsewhere", digest, sha256: digest, bytes, databases: ["state.db"] };
  return `${JSON.stringify(manifest)}\n${state}`;
}

function homeIn(archive: string): Home {
  return JSON.parse(archive.slice(archive.indexOf("\n") + 1)) as Home;
}

function finished(stdout: string, exitCode: number): SandboxProcess {
  return {
    stdout: new ReadableStream<Uint8Array>({
      start(controller) {
        if (stdout !== "") controller.enqueue(encode(stdout));
        controller.close();
      },
    }),
    stderr: Promise.resolve(exitCode === 0 ? "" : `exit ${exitCode}`),
    exitCode: Promise.resolve(exitCode),
  };
}

/** Output that ends with the sandbox. */
function follow(box: Box): SandboxProcess {
  const stdout = new ReadableStream<Uint8Array>({
    start(controller) {
      void box.ended.promise.then(() => {
        try {
          controller.close();
        } catch {
          // Nobody listens any more.
        }
      });
    },
  });
  return { stdout, stderr: Promise.resolve(""), exitCode: Promise.resolve(0) };
}

async function textOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) text += decoder.decode(chunk, { stream: true });
  return text + decoder.decode();
}
