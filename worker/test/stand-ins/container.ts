// SPDX-License-Identifier: Apache-2.0
/**
 * STAND-IN for Cloudflare's `ctx.container`, as unkind as that is: a start takes its time and may be refused for the
 * moment, in Cloudflare's own words; commands wait for it, and get no environment but what they are given; an image is
 * started by its digest, whose name reaches an object late; a snapshot cannot be started from at once; a command that
 * has exited cannot be killed; an object that is torn down takes the inactivity timeout with it; a size that its
 * documentation does not list is not taken. Inside is a sandbox in memory. Whoever wants it kinder says so.
 */
import { streamOf } from "../../src/base/streams.ts";
import type { ManualTime, MemorySandbox } from "./sandbox.ts";

export const DIGEST = `sha256:${"d".repeat(64)}`;
export const REFERENCE = `registry.cloudflare.com/account/hermes@${DIGEST}`;

interface Box {
  ready: Promise<void>;
  /** Rejects when it ends, or does not start. */
  over: PromiseWithResolvers<never>;
  isReady: boolean;
}

interface Start {
  image?: string;
  containerSnapshot?: { id: string };
  env: Record<string, string>;
  labels: Record<string, string>;
  enableInternet: boolean;
  instance: string;
}

/** One container of one object. */
export class HardContainer {
  /** How long a start takes, in milliseconds; Cloudflare's first of a new image takes minutes. */
  startTakes = 60_000;
  /** What the next starts are refused with, one after the other. */
  refusals: string[] = [];
  /** The sizes that it starts. Its types name one more, `basic`. */
  sizes = ["lite", "standard-1", "standard-2", "standard-3", "standard-4"];
  /** Between a snapshot and the first start from it, in milliseconds. */
  snapshotTakes = 8000;
  /** Names of images; after a deploy it is empty for a while. */
  images: Record<string, string> = {};
  /** What was asked, in order. */
  readonly calls: string[] = [];
  readonly started: Start[] = [];
  readonly environments: Record<string, string>[] = [];
  /** Errors that Cloudflare would have recorded as its own. */
  internalErrors = 0;
  inactivity: number | null = null;
  /** What the next command fails with, before it began. */
  cuts: Error[] = [];
  #box: Box | null = null;
  readonly #snapshots = new Map<string, number>();

  constructor(
    readonly inside: MemorySandbox,
    readonly time: ManualTime,
  ) {
    inside.snapshotContainer = async () => ({ id: `snapshot-${this.#snapshots.size + 1}`, size: 1 });
  }

  get running(): boolean {
    return this.#box !== null;
  }

  /** The same as Cloudflare's own type. */
  get asContainer(): Container {
    return this as unknown as Container;
  }

  start(options: Start): void {
    if (this.#box !== null)
      throw new Error("start() cannot be called on a container that is already running.");
    if (!this.sizes.includes(options.instance)) throw new TypeError(`Invalid instance: ${options.instance}`);
    this.calls.push("start");
    this.started.push(options);
    const over = Promise.withResolvers<never>();
    over.promise.catch(() => undefined);
    const box: Box = { ready: Promise.resolve(), over, isReady: false };
    this.#box = box;
    box.ready = this.#bringUp(box, options).catch((error: unknown) => {
      over.reject(error);
      if (this.#box === box) this.#box = null;
    });
  }

  async #bringUp(box: Box, { image, containerSnapshot, env, labels, enableInternet }: Start): Promise<void> {
    const refusal = this.refusals.shift();
    if (refusal !== undefined) throw new Error(refusal);
    if (containerSnapshot !== undefined) {
      const usableAt = this.#snapshots.get(containerSnapshot.id) ?? Number.POSITIVE_INFINITY;
      if (this.time.now() < usableAt) throw new Error(`Snapshot ${containerSnapshot.id} was not found.`);
    } else if (image?.split("@")[1] !== DIGEST) throw new Error(`${image} is no image of this application.`);
    await this.time.sleep(this.startTakes);
    if (this.#box !== box) return;
    await this.inside.start({ env, labels, enableInternet });
    box.isReady = true;
    void this.inside.monitor().then(({ exitCode }) => {
      if (this.#box === box) this.#box = null;
      const why = `Container exited with unexpected exit code: ${exitCode}`;
      over(box, exitCode === 0 ? undefined : Object.assign(new Error(why), { exitCode }));
    });
  }

  /** The one way in: whoever asks a container that is starting waits for it. */
  async #open(name: string): Promise<void> {
    const box = this.#box;
    if (box === null) throw new Error(`${name}() cannot be called on a container that is not running.`);
    await Promise.race([box.ready, box.over.promise]);
    if (!box.isReady) await box.over.promise;
  }

  async exec(
    cmd: string[],
    options: { env?: Record<string, string>; stdin?: ReadableStream<Uint8Array> } = {},
  ): Promise<unknown> {
    await this.#open("exec");
    this.environments.push(options.env ?? {});
    const cut = this.cuts.shift();
    if (cut !== undefined) throw cut;
    const { stdin } = options;
    const process = await this.inside.exec(cmd, stdin === undefined ? {} : { stdin });
    let exited = false;
    void process.exitCode.then(() => {
      exited = true;
    });
    const kill = () => {
      if (!exited) return;
      this.internalErrors++;
      throw new Error("internal error; reference = 0123456789abcdef");
    };
    return {
      stdout: process.stdout,
      stderr: streamOf(await process.stderr),
      exitCode: process.exitCode,
      kill,
    };
  }

  async monitor(): Promise<void> {
    const box = this.#box;
    if (box === null) throw new Error("monitor() cannot be called on a container that is not running.");
    await box.over.promise;
  }

  async destroy(): Promise<void> {
    this.calls.push("destroy");
    const box = this.#box;
    this.#box = null;
    await this.inside.destroy();
    if (box !== null) over(box, Object.assign(new Error("destroyed"), { exitCode: 137 }));
  }

  async setInactivityTimeout(ms: number): Promise<void> {
    this.calls.push("setInactivityTimeout");
    await this.#open("setInactivityTimeout");
    this.inactivity = ms;
  }

  async snapshotContainer(): Promise<{ id: string; size: number }> {
    await this.#open("snapshotContainer");
    const taken = await this.inside.snapshotContainer();
    this.#snapshots.set(taken.id, this.time.now() + this.snapshotTakes);
    return taken;
  }

  getTcpPort(): unknown {
    return this.inside.getTcpPort();
  }

  async interceptOutboundHttp(): Promise<void> {}

  /** The object leaves memory: what it had told the platform of the timeout goes with it. */
  evict(): void {
    this.inactivity = null;
  }
}

function over(box: Box, why: Error | undefined): void {
  box.over.reject(why ?? Object.assign(new Error("exit"), { exitCode: 0 }));
}
