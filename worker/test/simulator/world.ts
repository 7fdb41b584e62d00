// SPDX-License-Identifier: Apache-2.0
/** One simulated deployment: the real lifecycle, clock, turns and vault, and what must hold about them. */

import { AsyncLocalStorage } from "node:async_hooks";
import { hex } from "../../src/base/digests.ts";
import { ApiError, toApiError } from "../../src/base/errors.ts";
import { type Fields, Log, Redactor } from "../../src/base/log.ts";
import { messageOf } from "../../src/channels/channel.ts";
import { Channels } from "../../src/channels/channels.ts";
import type { TelegramUpdate } from "../../src/channels/platforms/telegram.ts";
import type { Settings } from "../../src/config/settings.ts";
import { ChatTurns, TURN_HEADERS } from "../../src/instance/chat-turns.ts";
import { Lifecycle } from "../../src/instance/lifecycle.ts";
import type { InstanceRecord } from "../../src/instance/record.ts";
import { INACTIVITY_LIMIT } from "../../src/sandbox/sandbox.ts";
import { Vault } from "../../src/state/vault.ts";
import { archiveOf, type Begun, type Box, type Home, SimulatedEngine, type Witness } from "./engine.ts";
import { HEARD, SimulatedPlatform } from "./people.ts";
import { type Dice, Disk, ObjectGone, SimulatedTime, settled, sha256 } from "./platform.ts";

const encode = (text: string) => new TextEncoder().encode(text);

const HOUR = 3600_000;
/** A chat of nobody who may write. */
export const STRANGER = "666";
/** The chat that is one of Slack's where people send things: its messages bring several files. */
const IN_SLACK = "3";
/** Longer than all the patience of the code under test together. */
const PATIENCE = 60 * 60_000;
const SETTINGS: Settings = {
  name: "simulated",
  workerVersion: "1",
  hermesVersion: "1",
  image: "image-1",
  imageReference: "",
  platform: "cloudflare",
  engine: "cloudflare",
  defaultModel: { id: "rehearsal/rehearsal", provider: "rehearsal", name: "rehearsal" },
  models: [],
  providerBaseUrl: "",
  contextLength: 0,
  sleepAfter: 2 * HOUR,
  drainTimeout: 10_000,
  tokenOverlap: 600_000,
  corsOrigins: [],
  dashboardOff: null,
  dashboardHostname: "",
  dashboardOrigin: "",
  dashboardIdle: HOUR,
  access: null,
  finishesAlone: false,
  hostTools: false,
  lazyInstalls: false,
  allowUnauthenticated: false,
  instanceType: "standard-1",
  keysInEnvironment: false,
  aiGateway: "",
  egress: "open",
  providersAddress: "http://127.0.0.1:1",
  hermesEnv: {},
  hermesSecrets: {},
  agent: { archive: "", parts: {} },
  channels: {
    platforms: {
      telegram: {
        token: "4242:simulated",
        allow: ["1", "2", "3"],
        receive: "webhook",
        apiUrl: "http://t",
        pairing: false,
      },
      slack: {
        token: "xoxb-simulated",
        signingSecrets: ["simulated"],
        allow: [IN_SLACK],
        apiUrl: "http://s",
        pairing: false,
      },
    },
    address: "",
    hooks: {},
  },
  bots: {},
  secrets: {},
};

/** One life of the Durable Object. */
interface Life {
  alive: boolean;
  /** Rejects whoever waits for an answer when the object is torn down. */
  gone: Promise<never>;
  end: () => void;
  life: Lifecycle;
  turns: ChatTurns;
  vault: Vault;
  channels: Channels;
}

/** A request, an order or an alarm, which goes on for as long as it does itself or anything that it holds. */
class Origin implements Begun {
  #held = 0;

  constructor(readonly onOver: () => void) {}

  hold(work: Promise<unknown>): void {
    this.#held++;
    const over = () => {
      if (--this.#held === 0) this.onOver();
    };
    work.then(over, over);
  }

  isOver(): boolean {
    return this.#held === 0;
  }
}

/** Something that was promised and not kept. */
export class Violation extends Error {}

/** A world that takes steps and checks itself after each. */
export class World implements Witness {
  readonly time = new SimulatedTime();
  readonly engine: SimulatedEngine;
  readonly disk = new Disk();
  readonly platform: SimulatedPlatform;
  /** What happened, for whoever has to understand a failure. */
  readonly story: string[] = [];
  #record: InstanceRecord | undefined;
  #alarm: number | null = null;
  #lateness = 0;
  /** `null` while the object is out of memory. */
  #inMemory: Life | null = null;
  #image = "image-1";
  #setting = "setting-1";
  /** What the agent is declared to be. */
  #content = "content-1";
  #count = 0;
  /** Requests that were not answered or refused yet, and since when. */
  #open = new Map<string, number>();
  /** Answered turns, and those of them that the vault has confirmed. */
  #answered = new Set<string>();
  #durable = new Set<string>();
  /** Turns that a crash may have taken. */
  #excused = new Set<string>();
  /** What `save` read, by its digest; and boots that saved without having been restored. */
  readonly #read = new Map<string, string[]>();
  readonly #unrestored = new Set<string>();
  /** Turns that went with a sandbox that was ended on purpose, by its boot. */
  readonly #ended = new Map<string, string[]>();
  /** Whether somebody waited for an answer when the sandbox was last asked to end, and no order explains that. */
  #disturbed = false;
  #newest = 0;
  readonly #damaged = new Set<number>();
  /** What was brought and may be started with. */
  #brought: string[][] = [];
  #forced = false;
  /** Whether a lost way to Hermes is being found again, by a restart that those who wait for it wait for. */
  #healing = false;
  #violation: string | null = null;

  /** When the object last left memory. */
  #left = 0;
  /** What was begun in this life of the object and goes on, which holds it. */
  readonly #held = new Set<Origin>();
  /** What people wrote, in their order, by chat -> the numbers of the messages. */
  readonly #written = new Map<string, string[]>();
  /** Which buttons were pressed: the names of the presses, and the numbers of the messages above. */
  readonly #pressed: [string, number][] = [];
  /** What the platform is about to deliver, one after the other in each chat. */
  readonly #delivering = new Map<string, Promise<void>>();

  readonly #origin = new AsyncLocalStorage<Origin>();

  /** @param withThings whether people send pictures, too, and are asked by buttons. */
  constructor(
    readonly dice: Dice,
    readonly withThings = false,
  ) {
    this.engine = new SimulatedEngine(this.time, dice, this);
    this.engine.asks = withThings;
    this.platform = new SimulatedPlatform(this.time, dice, (what) => void this.story.push(what));
    this.platform.onButton = (chat, message, data) => this.#press(chat, message, data);
    this.platform.onSlowFile = () => this.#killBetweenFiles();
    this.engine.begunBy = () => this.#origin.getStore();
  }

  /** Whoever asks for the object has it made. */
  get #object(): Life {
    this.#inMemory ??= this.#born();
    return this.#inMemory;
  }

  get life(): Lifecycle {
    return this.#object.life;
  }

  // What the engine sees

  wrong(what: string): void {
    this.#violation ??= what;
  }

  went(box: Box): void {
    this.#mayBeBrought(box);
    const lost = [...this.#durable].filter((turn) => !box.home.turns.includes(turn));
    if (lost.length > 0) this.wrong(`a boot began without the saved turns ${lost.join(", ")}`);
  }

  /**
   * A backup that was brought takes the place of what was there, and gives up what it does not have. Until Hermes runs
   * with it, what was there before may come back.
   */
  #mayBeBrought(box: Box): void {
    const brought = this.#brought.find((turns) => turns.join() === box.home.turns.join());
    if (brought === undefined || [...this.#durable].every((turn) => brought.includes(turn))) return;
    for (const turn of [...this.#durable, ...this.#answered])
      if (!brought.includes(turn)) this.#excused.add(turn);
    this.#durable = new Set(brought.filter((turn) => this.#durable.has(turn)));
  }

  /** Hermes runs with what was brought. */
  #tookOver(brought: string[]): void {
    const turns = this.engine.box?.home.turns ?? [];
    if (brought.every((turn) => turns.includes(turn))) for (const turn of brought) this.#durable.add(turn);
  }

  read(box: Box, digest: string): void {
    this.#read.set(digest, [...box.home.turns]);
    if (!box.restored) this.#unrestored.add(box.boot);
  }

  askedToDestroy(): void {
    const isOrdered = [...this.#open.keys()].some((what) =>
      /^(sleep|restart|force|refresh|bring) /.test(what),
    );
    this.#disturbed = this.life.inFlight > 0 && !isOrdered && !this.#healing;
  }

  destroying(box: Box): void {
    this.#ended.set(box.boot, this.#unsaved(box));
  }

  died(box: Box): void {
    for (const turn of this.#unsaved(box)) this.#excused.add(turn);
  }

  #unsaved(box: Box): string[] {
    return box.home.turns.filter((turn) => !this.#durable.has(turn));
  }

  // The object

  #born(): Life {
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => undefined);
    const object = { alive: true, gone: promise } as Life;
    this.engine.inactivity = 0;
    object.end = () => {
      object.alive = false;
      reject(new ObjectGone("torn down"));
    };
    const alive = () => object.alive;
    const frozen = <T>(work: Promise<T>) =>
      work.finally(() => (alive() ? undefined : new Promise<never>(() => {})));
    const time = {
      now: () => this.time.now(),
      sleep: (ms: number, signal?: AbortSignal) => frozen(this.time.sleep(ms, signal)),
    };
    const log = new Witnessed((event, fields) => {
      if (alive()) this.#heard(event, fields);
    });
    object.vault = new Vault(this.disk.storage(alive), time);
    const settings = {
      ...SETTINGS,
      image: this.#image,
      hermesEnv: { SETTING: this.#setting },
      agent: {
        archive: hex(sha256(encode(this.#content)).buffer),
        parts: { hermes_skills: this.#content },
      },
    };
    const sandbox = this.engine.sandboxFor(alive, this.#setting);
    object.life = new Lifecycle({
      settings,
      agentArchive: async () => encode(this.#content).buffer as ArrayBuffer,
      sandbox,
      vault: object.vault,
      time,
      log,
      store: {
        get: () => structuredClone(this.#record),
        put: (record) => {
          if (alive()) this.#record = structuredClone(record);
        },
      },
      setAlarm: (at) => {
        if (alive()) this.#alarm = at;
      },
      hold: (work) => this.#origin.getStore()?.hold(work),
    });
    object.turns = new ChatTurns({
      lifecycle: object.life,
      time,
      log,
      drainTimeout: SETTINGS.drainTimeout,
      finishesAlone: false,
    });
    object.channels = new Channels({
      settings,
      storage: this.disk.storage(alive),
      life: object.life,
      time,
      log,
      port: () => sandbox.getTcpPort(18790),
      fetch: this.platform.apiFor(alive),
    });
    void this.#begun(async () => object.channels.resume());
    if (object.life.mustReattach) this.#begun(() => object.life.reattach()).catch(() => undefined);
    return object;
  }

  #heard(event: string, fields: Fields): void {
    this.story.push(`      ${event} ${JSON.stringify(fields)}`);
    if (event === "way_lost") this.#healing = true;
    if (event === "awake" || event === "way_not_found") this.#healing = false;
    const givenUp = event === "sandbox_given_up" && fields["saved"] === false;
    if (givenUp) for (const turn of this.#ended.get(String(fields["boot"])) ?? []) this.#excused.add(turn);
    if (event === "saved") this.#confirm();
    if (event === "asleep" && this.#disturbed) this.wrong("it fell asleep by itself under a request");
  }

  /** Whatever the newest good generation holds is confirmed from now on; the vault may not know yet which is damaged. */
  #confirm(): void {
    const newest = this.#object.vault.good().find(({ id }) => !this.#damaged.has(id));
    // An older one, where the newest is damaged, holds what a backup that was brought since may have given up.
    if (newest === undefined || newest.id <= this.#newest) return;
    this.#newest = newest.id;
    if (this.#unrestored.has(newest.boot))
      this.wrong(`backup ${newest.id} is of a boot that was not restored`);
    for (const turn of this.#read.get(newest.digest) ?? []) this.#durable.add(turn);
  }

  // What happens to it

  /**
   * The object is torn down and made anew, by a deploy or a crash; its storage stays. An update that the platform defers
   * is this at a later moment: until then nothing of the object is other than without it.
   */
  deploy(
    image: string = this.#image,
    setting: string = this.#setting,
    content: string = this.#content,
  ): void {
    this.#image = image;
    this.#content = content;
    this.#setting = setting;
    this.#inMemory?.end();
    this.#held.clear();
    this.#inMemory = this.#born();
  }

  /**
   * The object leaves memory, as one does that nobody asks for a minute or two; the platform ends its sandbox when
   * nobody asks it for longer than this life of it has said.
   * @returns whether it did.
   */
  leave(): boolean {
    if (this.#inMemory === null || this.#held.size > 0 || this.#open.size > 0) return false;
    this.#inMemory.end();
    this.#inMemory = null;
    this.#left = this.time.elapsed;
    return true;
  }

  /** When the platform ends the sandbox of an object that is out of memory; nobody is told. */
  #stopsAt(): number {
    if (this.#inMemory !== null || this.engine.box === null) return Number.POSITIVE_INFINITY;
    return Math.max(this.time.elapsed, this.#left + this.engine.inactivity);
  }

  /** A turn of somebody, answered some time. */
  request(stream: boolean, session: string | null): void {
    const id = `t${++this.#count}`;
    this.#open.set(id, this.time.elapsed);
    void this.#begun(() => this.#turn(id, stream, session)).finally(() => this.#open.delete(id));
  }

  async #turn(id: string, stream: boolean, session: string | null): Promise<void> {
    for (let attempt = 0; attempt < 2; attempt++) {
      const object = this.#object;
      try {
        const answer = await Promise.race([this.#ask(object, id, stream, session), object.gone]);
        if (answer.startsWith("[")) this.#answered.add(id);
        else if (!stream || !answer.includes("data:")) this.wrong(`${id} was answered with: ${answer}`);
        return;
      } catch (error) {
        if (error instanceof ObjectGone) continue;
        this.#refused(id, error);
        return;
      }
    }
  }

  async #ask(object: Life, id: string, stream: boolean, session: string | null): Promise<string> {
    const headers: Record<string, string> = { [TURN_HEADERS.requestId]: id, [TURN_HEADERS.model]: "m" };
    if (stream) headers[TURN_HEADERS.stream] = "1";
    if (session !== null) headers["x-hermes-session-id"] = session;
    const request = new Request("http://hermes/v1/chat/completions", { method: "POST", headers, body: "{}" });
    return (await object.turns.serve(request, new AbortController().signal)).value.text();
  }

  #refused(what: string, error: unknown): void {
    const { code } = toApiError(error);
    this.story.push(`      ${what} refused: ${code}`);
    if (code === "internal_error") this.wrong(`${what} got no reason but: ${String(error)}`);
  }

  /** Somebody writes a message. */
  write(chat: string): string {
    const id = ++this.#count;
    const text = `m${id}.`;
    const isInSlack = this.withThings && chat === IN_SLACK;
    const [by, told] = isInSlack ? this.#bySlack(chat, id, text) : this.#byTelegram(chat, id, text);
    if (chat !== STRANGER) this.#written.set(chat, [...(this.#written.get(chat) ?? []), String(id)]);
    const before = this.#delivering.get(chat) ?? Promise.resolve();
    this.#delivering.set(
      chat,
      before.then(() => this.#deliver(by, told)),
    );
    return text;
  }

  #byTelegram(chat: string, id: number, text: string): [string, TelegramUpdate] {
    const message = {
      message_id: id,
      from: { id: Number(chat) },
      chat: { id: Number(chat), type: "private" },
      ...(this.withThings && this.dice.chance(0.3)
        ? { photo: [{ file_id: `f${id}`, file_size: 9 }], caption: text }
        : { text }),
    };
    return ["telegram", { update_id: id, message }];
  }

  /** In a thread of its own, as what names the bot in a channel: so its answer says what it answers. */
  #bySlack(chat: string, id: number, text: string): [string, object] {
    const files = Array.from({ length: this.dice.between(0, 3) }, (_, n) => ({
      ...({ ref: `http://s/file/${id}.${n}`, kind: "photo", name: "", mime: "image/png" } as const),
    }));
    const message = String(id);
    const said = { message, text, chat, isGroup: true, user: chat, thread: message, files };
    return ["slack", { update: messageOf("slack", said), way: null }];
  }

  /** Hermes dies while a message waits for the next of its files, and another one has a line made to the next Hermes. */
  #killBetweenFiles(): void {
    if (!this.dice.chance(0.1)) return;
    this.story.push("      Hermes dies while a file is fetched");
    this.engine.killHermes();
    this.write("1");
  }

  /** Somebody presses a button, sooner or later. */
  #press(chat: string, message: number, data: string): void {
    const id = ++this.#count;
    this.#pressed.push([`press q${id}`, message]);
    const update: TelegramUpdate = {
      update_id: id,
      callback_query: {
        ...{ id: `q${id}`, from: { id: Number(chat) }, data },
        message: { message_id: message, date: 1, chat: { id: Number(chat), type: "private" }, text: "what" },
      },
    };
    void this.time.sleep(this.dice.between(0, 60_000)).then(() => this.#deliver("telegram", update));
  }

  /** Delivers an update until it was taken, and sometimes once more: that it was taken may not be heard. */
  async #deliver(by: string, update: object): Promise<void> {
    for (;;) {
      const object = this.#object;
      try {
        await Promise.race([this.#begun(() => object.channels.receive(by, update)), object.gone]);
        if (!this.dice.chance(0.1)) return;
      } catch (error) {
        if (!(error instanceof ObjectGone)) throw error;
      }
      await this.time.sleep(this.dice.between(0, 5000));
    }
  }

  /** Each message was answered, twice only where nobody could know better, in its order, and nothing of it is left. */
  #messagesWait(): boolean {
    return this.disk.sql("SELECT * FROM inbox_messages WHERE why IS NULL OR notice = 2").length > 0;
  }

  #checkMessages(): void {
    const rows = this.disk.sql("SELECT * FROM inbox_messages");
    // What Hermes answered stands in its message's place, and waits there for the owner, too.
    const named = (row: Record<string, unknown>) =>
      eventIn(row).reply_to_message_id ?? eventIn(row).message_id;
    const failed = new Set(rows.filter((row) => row["why"] !== null).map(named));
    if (rows.length > failed.size) this.wrong("a message still waits");
    const left = JSON.stringify(["known", "sent"].map((of) => this.disk.sql(`SELECT * FROM inbox_${of}`)));
    if (/m\d+\./.test(left)) this.wrong("words of a message are left");
    for (const [press, message] of this.#pressed)
      if (!this.platform.changed.has(message) && !failed.has(press)) this.wrong(`${press} changed nothing`);
    if (this.platform.accepted.some(({ chat }) => chat === STRANGER)) this.wrong("a stranger was answered");
    for (const [chat, messages] of this.#written) {
      const answered = messages.map((message) => this.#checkAnswers(chat, message, failed.has(message)));
      // What its platform does not take for a day nobody can be told: it waits for the owner.
      const order = answered.filter((at) => at >= 0);
      if (order.some((at, n) => at < (order[n - 1] ?? -1))) this.wrong(`not in their order: ${messages}`);
    }
  }

  /** @returns when its first answer was taken. */
  #checkAnswers(chat: string, message: string, isFailed: boolean): number {
    const all = this.platform.accepted.filter((one) => one.chat === chat && one.message === message);
    const isTold = all.some(({ text }) => text.includes("could not answer"));
    const answers = all.filter(({ text }) => text.includes(HEARD));
    const [first] = answers;
    if (first === undefined && !isFailed) this.wrong(`m${message} was never answered`);
    if (first !== undefined && isFailed && !first.isLost && !isTold)
      this.wrong(`m${message} was answered and failed`);
    answers.forEach(({ text, isLost }, n) => {
      const isLast = n === answers.length - 1;
      if (!isLast && !isLost) this.wrong(`m${message} was answered again although its answer was known`);
      if (n > 0 && !text.startsWith("(I do not know")) this.wrong(`m${message} was answered twice unmarked`);
    });
    return first === undefined ? -1 : this.platform.accepted.indexOf(first);
  }

  /** Something that the owner asks for. */
  order(what: "save" | "sleep" | "restart" | "force" | "stop" | "gateway" | "refresh" | "wake"): void {
    const id = `${what} ${++this.#count}`;
    const object = this.#object;
    const { life } = object;
    const before = [...this.#answered];
    // Whoever forces gives up what is not saved.
    if (what === "force") this.#forced = true;
    this.#open.set(id, this.time.elapsed);
    const work = {
      save: () => life.save("request"),
      sleep: () => life.sleep(),
      restart: () => life.restart(false),
      force: () => life.restart(true),
      stop: () => life.stopGateway(),
      gateway: () => life.restartGateway(),
      refresh: () => life.refresh(),
      wake: () => life.wake("api"),
    }[what];
    const done = this.#begun<unknown>(work);
    void Promise.race([done, object.gone])
      .then(
        () => {
          if (what === "save" || what === "sleep" || what === "restart") this.#promised(id, before);
        },
        (error: unknown) => {
          if (error instanceof ObjectGone) return;
          const plain =
            error instanceof ApiError || what === "save" || what === "sleep" || what === "restart";
          if (!plain && !/connection lost/i.test(String(error))) this.#refused(id, error);
        },
      )
      .finally(() => this.#open.delete(id));
  }

  /** Somebody puts a backup back: an older state of this Hermes, or one that cannot be had. */
  bring(poison: NonNullable<Home["poison"]> | null): void {
    const id = `bring ${++this.#count}`;
    const object = this.#object;
    const older = [...this.#read.values()].at(-2) ?? [];
    const home: Home = { turns: older, jobs: [], ...(poison === null ? {} : { poison }) };
    if (poison === null) this.#brought.push(older);
    this.#open.set(id, this.time.elapsed);
    const archive = new Response(archiveOf(home)).body as ReadableStream<Uint8Array>;
    void Promise.race([this.#begun(() => object.life.putBack(archive)), object.gone])
      .then(
        () => {
          if (poison !== null) this.wrong(`${id} succeeded although nobody can have it`);
          else this.#tookOver(older);
        },
        (error: unknown) => {
          if (!(error instanceof ObjectGone)) this.#refused(id, error);
        },
      )
      .finally(() => this.#open.delete(id));
  }

  /** A save that was acknowledged has every turn that was answered before it was asked for. */
  #promised(what: string, before: string[]): void {
    this.#confirm();
    const missing = before.filter((turn) => !this.#durable.has(turn) && !this.#excused.has(turn));
    if (missing.length > 0 && !this.#forced) this.wrong(`${what} succeeded without ${missing.join(", ")}`);
  }

  /** A cron job of the running Hermes. */
  schedule(ms: number): string | null {
    const { box } = this.engine;
    if (box === null || !box.went) return null;
    const id = `job${++this.#count}`;
    box.home.jobs.push({ id, at: this.time.now() + ms });
    // Jobs are made in chats.
    this.request(false, null);
    return id;
  }

  /** Cuts the watch over the sandbox. */
  loseWatch(): void {
    for (const lose of this.engine.box?.lose.splice(0) ?? []) lose();
  }

  /** The alarm rings although nobody set it. */
  ring(): void {
    void this.#begun(() => this.#object.life.onAlarm());
  }

  /** Something that comes from outside: what it begins ends with it, unless it is held. */
  #begun<T>(work: () => Promise<T>): Promise<T> {
    const origin = new Origin(() => this.#held.delete(origin));
    this.#held.add(origin);
    const done = this.#origin.run(origin, work);
    origin.hold(done);
    return done;
  }

  lateAlarms(ms: number): void {
    this.#lateness = ms;
  }

  /** Makes the newest generation unreadable. */
  damage(): void {
    const good = this.#object.vault.good();
    const [newest, older] = good;
    if (newest === undefined || older === undefined || this.#damaged.has(older.id)) return;
    this.#damaged.add(newest.id);
    this.disk.sql(
      `UPDATE chunks SET data = zeroblob(length(data))
       WHERE generation = (SELECT COALESCE(body, id) FROM generations WHERE id = ?)`,
      newest.id,
    );
    // The disk may lose what it likes; only the generation before is still promised.
    const left = new Set(this.#read.get(older.digest) ?? []);
    for (const turn of this.#durable) if (!left.has(turn)) this.#excused.add(turn);
    this.#durable = new Set([...this.#durable].filter((turn) => left.has(turn)));
  }

  // Time

  /** Lets time pass. */
  async pass(ms: number): Promise<void> {
    const end = this.time.elapsed + ms;
    for (;;) {
      await settled();
      this.#check();
      const next = Math.min(this.time.next, this.#ringsAt(), this.#jobAt(), this.#stopsAt());
      if (next > end) break;
      this.time.advance(next);
      this.engine.tick();
      if (this.#stopsAt() <= this.time.elapsed) this.engine.crash(0);
      if (this.#ringsAt() <= this.time.elapsed) {
        this.#alarm = null;
        void this.#begun(() => this.#object.life.onAlarm());
      }
    }
    this.time.advance(end);
    this.engine.tick();
    await settled();
    this.#check();
  }

  #ringsAt(): number {
    if (this.#alarm === null) return Number.POSITIVE_INFINITY;
    return Math.max(this.time.elapsed, this.time.elapsed + this.#alarm - this.time.now() + this.#lateness);
  }

  #jobAt(): number {
    const { box } = this.engine;
    if (box === null || !box.went || box.stopped || !this.engine.healthy) return Number.POSITIVE_INFINITY;
    const next = box.home.jobs.reduce((least, job) => Math.min(least, job.at), Number.POSITIVE_INFINITY);
    return Math.max(this.time.elapsed, this.time.elapsed + next - this.time.now());
  }

  // What must hold

  #check(): void {
    if (this.#violation === null) this.#checkTimer();
    if (this.#violation === null) this.#checkPatience();
    if (this.#violation !== null) throw new Violation(this.#violation);
  }

  #checkTimer(): void {
    if (this.#inMemory === null) return;
    const waits = this.disk.sql("SELECT 1 FROM inbox_messages WHERE why IS NULL OR notice = 2").length > 0;
    if (this.#alarm !== null && this.life.due === null && !this.life.mustReattach && !waits)
      this.wrong("an alarm is set although nothing is ever due");
  }

  /** Nobody waits without end, whatever happens around them. */
  #checkPatience(): void {
    for (const [what, since] of this.#open)
      if (this.time.elapsed - since > PATIENCE) this.wrong(`${what} waits for ${PATIENCE / 60_000} min`);
  }

  /** Without further trouble everything comes to a good end. */
  async goodEnd(): Promise<void> {
    const { engine } = this;
    Object.assign(engine, { down: false, failing: 0, slow: 0, healthy: true, troubled: 0, hanging: 0 });
    Object.assign(engine, { startTakes: 0, refusing: 0 });
    Object.assign(this.platform, { failing: 0, isDown: false });
    this.lateAlarms(0);
    await this.pass(20 * 60_000);
    // In a chat one is answered after the other, and much may have come together.
    for (let hour = 0; hour < 12 && this.#messagesWait(); hour++) await this.pass(HOUR);
    if (this.#open.size > 0) this.wrong(`never answered: ${[...this.#open.keys()].join(", ")}`);
    this.#checkEnded();
    this.#checkMessages();
    const last = `t${this.#count + 1}`;
    this.request(false, null);
    await this.pass(100_000);
    if (!this.#answered.has(last)) this.wrong("a Hermes without trouble did not answer");
    await this.pass(75_000);
    if (!this.#durable.has(last)) this.wrong("a turn was not saved within its time");
    this.#leaving();
    await this.#laying();
    this.#leaving();
    await this.#appointment();
    await this.pass(7 * HOUR);
    // An old job may have woken it just now.
    if (engine.box !== null) await this.pass(20 * 60_000);
    if (engine.box !== null || this.life.record.state !== "asleep") this.wrong("it never falls asleep");
    if (this.#alarm !== null && this.life.record.wakeAt === null)
      this.wrong("a timer is left without a purpose");
    if (this.time.timers > 0) this.wrong(`${this.time.timers} waits are left`);
    this.#check();
  }

  /** An object that nobody asks leaves memory, and its sandbox goes on, also when this object did not start it. */
  #leaving(): void {
    if (!this.leave()) this.wrong("something holds an object that nobody asks");
    if (this.engine.inactivity !== INACTIVITY_LIMIT) this.wrong("its sandbox would end with it");
  }

  /** What is newly declared is laid beside the Hermes that runs, which goes on. */
  async #laying(): Promise<void> {
    // What was deployed before may be another image.
    this.order("refresh");
    await this.pass(120_000);
    const { box } = this.engine;
    const before = box?.input.env;
    this.deploy(undefined, undefined, "content-last");
    await this.pass(10_000);
    this.order("refresh");
    await this.pass(60_000);
    const laid = box?.input.agent?.archive === hex(sha256(encode("content-last")).buffer);
    if (!laid || this.engine.box !== box) this.wrong("what is declared was not laid");
    if (box?.input.env !== before) this.wrong("Hermes was restarted for what it reads when it needs it");
  }

  /** A job that is due while Hermes sleeps runs within 90 s of its time. */
  async #appointment(): Promise<void> {
    const job = this.schedule(9 * HOUR);
    if (job === null) return this.wrong("Hermes is not running after a chat");
    await this.pass(8 * HOUR);
    // An old job may have woken it just now.
    const more = this.engine.box === null ? 0 : 20 * 60_000;
    await this.pass(more);
    if (this.engine.box !== null) this.wrong("it does not sleep between appointments");
    await this.pass(HOUR - more + 90_000);
    if (!this.engine.ran.has(job)) this.wrong("an appointment was not kept in time");
    await this.pass(300_000);
    this.#confirm();
    if (!this.#durable.has(`ran ${job}`)) this.wrong("a job's result was not saved");
  }

  /** Nothing that was ended on purpose took an answered turn with it. */
  #checkEnded(): void {
    if (this.#forced) return;
    for (const [boot, turns] of this.#ended) {
      const lost = turns.filter(
        (turn) => this.#answered.has(turn) && !this.#durable.has(turn) && !this.#excused.has(turn),
      );
      if (lost.length > 0)
        this.wrong(`boot ${boot} was ended on purpose with the unsaved turns ${lost.join(", ")}`);
    }
  }

  close(): void {
    this.#inMemory?.end();
    this.disk.close();
  }
}

function eventIn(row: Record<string, unknown>): { message_id: string; reply_to_message_id?: string } {
  return JSON.parse(String(row["event"])) as { message_id: string };
}

/** A log that tells instead of printing. */
class Witnessed extends Log {
  constructor(readonly tell: (event: string, fields: Fields) => void) {
    super(new Redactor());
  }

  override info(event: string, fields: Fields = {}): void {
    this.tell(event, fields);
  }

  override warn(event: string, fields: Fields = {}): void {
    this.tell(event, fields);
  }

  override error(event: string, fields: Fields = {}): void {
    this.tell(event, fields);
  }
}
