// SPDX-License-Identifier: Apache-2.0
/** `HermesInstance`, the Durable Object: the only place that starts, stops or asks the sandbox. */
import { DurableObject } from "cloudflare:workers";
import { digestOf, hex, isEqual } from "../base/digests.ts";
import { ApiError, errorResponse, toApiError } from "../base/errors.ts";
import { BOOT_CAUSE } from "../base/headers.ts";
import type { Lasting } from "../base/lasting.ts";
import { Log, Redactor } from "../base/log.ts";
import { realTime } from "../base/time.ts";
import type { FetchedFile, Incoming, OwnFile, OwnMessage } from "../channels/channel.ts";
import { Channels } from "../channels/channels.ts";
import type { Taken } from "../channels/inbox.ts";
import { RELAY_PORT } from "../channels/relay.ts";
import { deployedAgent } from "../config/agent.ts";
import { deployedDigest } from "../config/deployed-digest.ts";
import { buildGo, NO_KEYS } from "../config/hermes-config.ts";
import { type Env, type Settings, secretValues, settingsOf } from "../config/settings.ts";
import { BoundedSandbox } from "../sandbox/bounded.ts";
import { run } from "../sandbox/run.ts";
import { markOf, type StorageMark } from "../state/storage-mark.ts";
import { type Part, Uploads } from "../state/uploads.ts";
import { Vault } from "../state/vault.ts";
import { ChatTurns, TURN_HEADERS } from "./chat-turns.ts";
import { ASLEEP, DashboardProxy, PROXY_HEADERS, WAKING } from "./dashboard-proxy.ts";
import { DashboardSessions, type Opened } from "./dashboard-sessions.ts";
import { DashboardSockets, SOCKET_END } from "./dashboard-sockets.ts";
import { abortOf, CREDENTIAL, type Credential, Leases, TROUBLED, type Until } from "./leases.ts";
import { Lifecycle } from "./lifecycle.ts";
import { metricsOf } from "./metrics.ts";
import type { InstanceRecord, ProviderTrouble } from "./record.ts";
import { sandboxOf } from "./sandbox-of.ts";
import { type Deaths, TokenRotation, type TokenUse } from "./token-rotation.ts";
import {
  backupView,
  type ConfigurationView,
  dated,
  type Health,
  iso,
  isoOrNull,
  type RiskView,
  runningOf,
  type ShrinkageView,
  type StorageView,
  snapshotsOf,
  startingOf,
} from "./views.ts";

/** Where the record is stored: its name in the storages that there are. */
const RECORD = "memory";
/** What only looks into the sandbox takes no longer, in milliseconds. */
const LOOK = 30_000;
/** What a status waits for that has the rest without asking; in milliseconds. */
const GLANCE = 5_000;

/** What runs, by its own word; null as long as nothing does. */
interface Versions {
  hermesVersion: string | null;
  sqlite: string | null;
}

/** What is wrong with a backup itself, whoever sends it how often. */
const OF_THE_BACKUP = new Set(["bad_backup", "backup_not_restored", "state_too_large"]);

/** One person's Hermes. Every answer carries the request id it was given. */
export class HermesInstance extends DurableObject<Env> {
  readonly #settings: Settings;
  readonly #log: Log;
  readonly #storage: StorageMark;
  readonly #vault: Vault;
  readonly #uploads: Uploads;
  readonly #sandbox: BoundedSandbox;
  #versions: { bootId: string; told: Versions } | null = null;
  readonly #lifecycle: Lifecycle;
  readonly #turns: ChatTurns;
  readonly #tokens: TokenRotation;
  readonly #sessions: DashboardSessions;
  readonly #leases = new Leases(realTime);
  readonly #sockets: DashboardSockets;
  readonly #dashboard: DashboardProxy;
  readonly #channels: Channels;
  /** Of the boot that is remembered. */
  #capability: string | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#settings = settingsOf(env);
    this.#log = new Log(new Redactor(secretValues(this.#settings)));
    this.#storage = markOf(ctx.storage.kv, Date.now());
    this.#vault = new Vault(ctx.storage);
    this.#uploads = new Uploads(ctx.storage);
    this.#sandbox = BoundedSandbox.of(sandboxOf(ctx, env, this.#settings), realTime);
    this.#lifecycle = new Lifecycle({
      settings: this.#settings,
      agentArchive: deployedAgent,
      sandbox: this.#sandbox,
      vault: this.#vault,
      time: realTime,
      log: this.#log,
      store: {
        get: () => ctx.storage.kv.get<InstanceRecord>(RECORD),
        put: (record) => this.#keep(record),
      },
      setAlarm: (at) => void (at === null ? ctx.storage.deleteAlarm() : ctx.storage.setAlarm(at)),
      hold: (work) => ctx.waitUntil(work),
    });
    this.#turns = new ChatTurns({
      lifecycle: this.#lifecycle,
      time: realTime,
      log: this.#log,
      drainTimeout: this.#settings.drainTimeout,
      finishesAlone: this.#settings.finishesAlone,
    });
    this.#tokens = new TokenRotation(ctx.storage.kv, this.#settings.tokenOverlap);
    this.#sessions = new DashboardSessions(ctx.storage, (token) => this.#tokens.until(token));
    this.#sockets = new DashboardSockets({
      time: realTime,
      fetchEnd: (id, signal) =>
        env.INSTANCE.get(ctx.id).fetch("http://instance/", {
          headers: { upgrade: "websocket", [SOCKET_END]: id },
          signal,
        }),
    });
    this.#dashboard = new DashboardProxy({
      lifecycle: this.#lifecycle,
      time: realTime,
      log: this.#log,
      idle: this.#settings.dashboardIdle,
      sockets: this.#sockets,
    });
    this.#channels = new Channels({
      settings: this.#settings,
      storage: ctx.storage,
      life: this.#lifecycle,
      time: realTime,
      log: this.#log,
      port: () => this.#sandbox.getTcpPort(RELAY_PORT),
      fetch: (url, init) => (env.CHANNELS ?? globalThis).fetch(url, init),
      mail: env.EMAIL,
    });
    this.#channels.resume();
    // A sandbox that outlived this object's restart is looked for at once, not at the next request.
    if (this.#lifecycle.mustReattach) ctx.waitUntil(this.#lifecycle.reattach().catch(() => undefined));
  }

  /** A request for Hermes' own API or dashboard, sent on by the Worker. */
  override async fetch(request: Request): Promise<Response> {
    const socket = request.headers.get(SOCKET_END);
    if (socket !== null) return this.#sockets.end(socket);
    if (request.headers.get(CREDENTIAL)?.startsWith("capability ")) return this.#untilBootEnds(request);
    const requestId = request.headers.get(TURN_HEADERS.requestId) ?? "";
    const toDashboard = request.headers.has(PROXY_HEADERS.by);
    const waits = !this.#lifecycle.isReady;
    try {
      const answer = await this.#lend(request.headers.get(CREDENTIAL), request.signal, (signal) =>
        toDashboard ? this.#dashboard.serve(request, signal) : this.#turns.serve(request, signal),
      );
      const { whyAwake } = this.#lifecycle.record;
      if (waits && whyAwake !== null && answer.status !== 101) answer.headers.set(BOOT_CAUSE, whyAwake);
      return answer;
    } catch (error) {
      const refusal = this.#refuse(error, requestId);
      if (toDashboard) refusal.headers.set(PROXY_HEADERS.refusal, toApiError(error).code);
      return refusal;
    }
  }

  /** Keeps the record; with a boot ends what its capability has open. */
  #keep(record: InstanceRecord): void {
    this.ctx.storage.kv.put(RECORD, record);
    const capability = record.keys?.capability ?? null;
    if (capability === this.#capability) return;
    this.#capability = capability;
    this.#leases.look();
  }

  override async alarm(): Promise<void> {
    await this.#lifecycle.onAlarm();
  }

  /** What a platform sent, from somebody who may write; it is stored when this returns. */
  async receive(name: string, told: object): Promise<void> {
    await this.#channels.receive(name, told);
  }

  /** A file that a platform fetches; `null` = it was offered none of this name, or not any more. */
  async offered(channel: string, name: string): Promise<FetchedFile | null> {
    return this.#channels.offered(channel, name);
  }

  /** What a webhook was sent by somebody who has its secret; it is stored when this returns. */
  async hook(name: string, message: Incoming): Promise<Taken> {
    return this.#channels.hook(name, message);
  }

  /** What Hermes sends on its own account; it is stored when this answers. */
  sendOwn(requestId: string, message: OwnMessage): Promise<Response> {
    return this.#answer(requestId, async () => ({ status: this.#channels.sendOwn(message) }));
  }

  /** A file that Hermes sends on its own account; it is stored when this answers. */
  sendOwnFile(requestId: string, file: OwnFile, body: ReadableStream<Uint8Array>): Promise<Response> {
    return this.#answer(requestId, async () => ({ status: await this.#channels.sendOwnFile(file, body) }));
  }

  /** What each channel did, and what could not be answered. Never wakes Hermes. */
  channels(requestId: string): Promise<Response> {
    return this.#answer(requestId, async () => this.#channelsView());
  }

  /** Has the platforms send messages to where this deployment is reached; changes nothing with `look`. */
  registerChannels(requestId: string, address: string, look: boolean): Promise<Response> {
    return this.#answer(requestId, () => this.#channels.register(address, look));
  }

  /** Has platforms send nothing here any more. */
  unregisterChannels(requestId: string, names: readonly string[]): Promise<Response> {
    return this.#answer(requestId, async () => ({ refused: await this.#channels.unregister(names) }));
  }

  /** Gives Hermes once more what it could not answer. */
  retryMessages(requestId: string): Promise<Response> {
    return this.#answer(requestId, async () => ({ retried: this.#channels.retry() }));
  }

  /** Lets in whoever was given a code. */
  pair(requestId: string, code: string): Promise<Response> {
    return this.#answer(requestId, async () => {
      const { channel, user, name } = await this.#channels.pair(code);
      return { channel, user, name };
    });
  }

  /** Lets in no longer whom a code let in. */
  unpair(requestId: string, channel: string, user: string): Promise<Response> {
    return this.#answer(requestId, async () => ({ removed: this.#channels.unpair(channel, user) }));
  }

  #channelsView(): object {
    const views = Object.entries(this.#channels.views()).map(([name, view]) => [
      name,
      {
        ...view,
        lastIn: isoOrNull(view.lastIn || null),
        lastOut: isoOrNull(view.lastOut || null),
        paired: view.paired.map(({ user, name, at }) => ({ user, name, since: iso(at) })),
        asking: view.asking.map(({ user, name, at }) => ({ user, name, until: iso(at) })),
      },
    ]);
    const failed = this.#channels.failed().map((one) => ({ ...one, received: iso(one.received) }));
    return { channels: Object.fromEntries(views), unanswered: failed };
  }

  /** For the `Providers` entrypoint: an answer whose body ends with the boot that the capability in it is of. */
  async #untilBootEnds(request: Request): Promise<Response> {
    try {
      return await this.#lend(request.headers.get(CREDENTIAL), request.signal, async (signal) => {
        const { readable, writable } = new IdentityTransformStream();
        const end = abortOf(signal).catch((why: unknown) => writable.abort(why));
        const troubled = this.#lifecycle.record.lastProviderError?.provider ?? "";
        return { value: new Response(readable, { headers: { [TROUBLED]: troubled } }), end };
      });
    } catch (error) {
      return this.#refuse(error, "");
    }
  }

  /**
   * Never wakes Hermes.
   * @param deployed what the asking Worker was deployed with, see {@link deployedDigest}.
   */
  async health(deployed?: string): Promise<Health> {
    return { ...this.#health(), inStep: deployed === (await deployedDigest(this.env)) };
  }

  #health(): Omit<Health, "inStep"> {
    const record = this.#lifecycle.record;
    const up = (record.state === "awake" || record.state === "saving") && !record.gatewayStopped;
    return {
      state: record.state,
      since: iso(record.since),
      bootId: record.bootId,
      starting: startingOf(record),
      image: record.image,
      gateway: up ? "running" : null,
      lastJobError: dated(record.lastJobError),
      // Of what runs: the next start decides anew.
      confined: record.state === "asleep" ? null : record.confined,
      version: this.#settings.workerVersion,
      configuration: this.#configuration(),
      storage: this.#storageView(),
      stateAtRisk: this.#risk(),
      stateShrank: this.#shrinkage(),
    };
  }

  #risk(): RiskView | null {
    const { risk } = this.#lifecycle;
    return risk === null ? null : { since: iso(risk.since), why: this.#log.redactor.clean(risk.why) };
  }

  #shrinkage(): ShrinkageView | null {
    const { shrinkage } = this.#vault;
    if (shrinkage === null) return null;
    const { from, now, since } = shrinkage;
    return { since: iso(since), bytes: now.bytes, before: { backup: from.id, bytes: from.bytes } };
  }

  #configuration(): ConfigurationView | null {
    const difference = this.#lifecycle.difference;
    if (difference === null) return null;
    const { restart, because } = difference;
    return { current: restart === "nothing", differs: because, restart };
  }

  /** State, why awake, what comes next, what went wrong. Never wakes Hermes. */
  status(requestId: string): Promise<Response> {
    return this.#answer(requestId, async () => {
      const record = this.#lifecycle.record;
      const due = this.#lifecycle.due;
      const backups = this.#vault.list();
      return {
        state: record.state,
        since: iso(record.since),
        bootId: record.bootId,
        starting: startingOf(record),
        boots: record.boots,
        running: runningOf(record, Date.now()),
        instanceType: this.#settings.platform === "cloudflare" ? this.#settings.instanceType : null,
        image: { running: record.bootId === null ? null : record.image, next: this.#settings.image },
        ...(await this.#versionsOf(record)),
        confined: record.confined,
        configurationIsCurrent: this.#configuration()?.current ?? null,
        configuration: this.#configuration(),
        gateway: this.#health().gateway,
        gatewayStart: record.keys?.gatewayStart ?? null,
        whyAwake: record.whyAwake,
        requestsInFlight: this.#lifecycle.inFlight,
        lastActivity: iso(record.lastActivity),
        // At the start of a boot what was restored counts as saved; of an empty home nothing was.
        lastSave: backups.length === 0 || record.lastSave === 0 ? null : iso(record.lastSave),
        unsavedSince: isoOrNull(record.firstUnsaved),
        next: due === null ? null : { what: due.what, at: iso(due.at) },
        nextWake: isoOrNull(record.wakeAt),
        nextCron: isoOrNull(record.nextCron),
        restored: record.restored,
        snapshots: snapshotsOf(record),
        snapshotNote: record.snapshotNote,
        backups: {
          count: backups.length,
          newest: backups[0] === undefined ? null : backupView(backups[0]),
          leftOut: this.#vault.leftOut,
        },
        storage: this.#storageView(),
        stateAtRisk: this.#risk(),
        stateShrank: this.#shrinkage(),
        lastExit: record.lastExit === null ? null : { ...record.lastExit, at: iso(record.lastExit.at) },
        lastError: dated(record.lastError),
        lastSaveError: dated(record.lastSaveError),
        lastProviderError: dated(record.lastProviderError),
        lastJobError: dated(record.lastJobError),
        ...this.#channelsView(),
      };
    });
  }

  /** What a monitor collects; asks nothing of Hermes, and never wakes it. */
  async metrics(): Promise<string> {
    const { record, risk, inFlight } = this.#lifecycle;
    const { name, workerVersion, hermesVersion } = this.#settings;
    return metricsOf({
      ...{ name, workerVersion, hermesVersion, record },
      running: runningOf(record, Date.now()),
      requestsInFlight: inFlight,
      atRiskSince: risk?.since ?? null,
      backups: this.#vault.list().map(({ created }) => created),
      unanswered: this.#channels.failed().length,
      channels: this.#channels.views(),
    });
  }

  /** Versions of the running Hermes and its SQLite, as its own process tells them; asked once a boot. */
  async #versionsOf({ bootId, state }: Readonly<InstanceRecord>): Promise<Versions> {
    const unknown = { hermesVersion: null, sqlite: null };
    if (bootId === null || state !== "awake") return unknown;
    if (this.#versions?.bootId === bootId) return this.#versions.told;
    const cmd = ["sandbox", "status", "--boot", bootId];
    const told = await run(this.#sandbox, cmd, { limit: GLANCE }).catch(() => null);
    if (told?.exitCode !== 0) return unknown;
    const found = JSON.parse(told.stdout) as { sqlite?: string | null; version?: string | null };
    const versions = { hermesVersion: found.version ?? null, sqlite: found.sqlite ?? null };
    if (versions.hermesVersion !== null) this.#versions = { bootId, told: versions };
    return versions;
  }

  /** Boots without a chat. */
  wake(requestId: string): Promise<Response> {
    return this.#change(requestId, async () => {
      await this.#lifecycle.wake("api");
      return {};
    });
  }

  /** Saves, verifies, destroys; by force also what cannot be saved, after a snapshot of it. */
  sleep(requestId: string, force: boolean): Promise<Response> {
    return this.#change(requestId, async () => {
      const saved = await this.#lifecycle.sleep(force);
      return saved === null ? {} : { backup: backupView(saved.backup) };
    });
  }

  /** Saves, destroys, boots from the current image. */
  restart(requestId: string, force: boolean): Promise<Response> {
    return this.#change(requestId, async () => {
      await this.#lifecycle.restart(force);
      return {};
    });
  }

  /** Hermes alone, with today's configuration. */
  restartGateway(requestId: string): Promise<Response> {
    return this.#change(requestId, async () => {
      await this.#lifecycle.restartGateway();
      return {};
    });
  }

  /** Brings a running Hermes to the deployed settings by the lightest restart; never wakes it. */
  refresh(requestId: string): Promise<Response> {
    return this.#change(requestId, async () => ({ restarted: await this.#lifecycle.refresh() }));
  }

  /**
   * Tells what a running Hermes would have to be restarted for if the Worker had other variables and secrets; of one
   * that is being started, what it would have to be once the start has given it the settings of now.
   * @param variables names and values of all text variables.
   * @param secrets names of those that would get another value.
   */
  preview(requestId: string, variables: Record<string, string>, secrets: string[]): Promise<Response> {
    return this.#answer(requestId, async () => {
      // Of the channels' secrets Hermes has none.
      const given = secrets.filter((name) => name !== "HERMES_CHANNELS");
      const changed = given.map((name) => [name, name === "HERMES_SECRETS" ? '{"CHANGED":""}' : "changed"]);
      const settings = settingsOf({ ...this.env, ...variables, ...Object.fromEntries(changed) });
      const found = await this.#lifecycle.differenceFrom(settings);
      if (found === null) return { restart: "nothing", because: [], starting: false };
      const { restart, because } = found.difference;
      return { restart, because, starting: found.starting };
    });
  }

  /** What the agent is declared to be, and what of it a running Hermes has. Never wakes Hermes. */
  agent(requestId: string): Promise<Response> {
    return this.#answer(requestId, async () => ({
      declared: this.#settings.agent,
      running: await this.#lifecycle.inForce(),
    }));
  }

  /**
   * Lets what is under way end and holds back what comes, until a new version starts or half a minute is over.
   * @param again what it was answered with, to hold back for another half a minute what is held back still.
   */
  hold(requestId: string, again: string | undefined): Promise<Response> {
    return this.#answer(requestId, async () =>
      again === undefined
        ? { held: true, hold: await this.#lifecycle.hold() }
        : { held: this.#lifecycle.holdOn(again), hold: again },
    );
  }

  /** Hermes alone; the sandbox stays. */
  stop(requestId: string): Promise<Response> {
    return this.#change(requestId, async () => {
      await this.#lifecycle.stopGateway();
      return {};
    });
  }

  /** Kept backups, newest first. */
  backups(requestId: string): Promise<Response> {
    return this.#answer(requestId, async () => ({ backups: this.#vault.list().map(backupView) }));
  }

  /** Takes a backup now; of a sleeping Hermes the newest one is its state. */
  backUp(requestId: string): Promise<Response> {
    return this.#answer(requestId, async () => {
      const saved = await this.#lifecycle.save("request");
      if (saved === null) return { ...this.#newest(), unchanged: true };
      return { backup: backupView(saved.backup), unchanged: saved.unchanged };
    });
  }

  /** One backup as it was written: a line of JSON, then a gzipped tar. */
  backup(requestId: string, id: number, credential: Credential): Promise<Response> {
    const headers = {
      "content-type": "application/octet-stream",
      "content-disposition": `attachment; filename="${this.#settings.name}-${id}.hermes"`,
      "cache-control": "no-store",
      "x-request-id": requestId,
    };
    return this.#stream(requestId, credential, headers, async () => this.#vault.read(id));
  }

  /** Which parts of a backup have yet to be sent. */
  missingParts(requestId: string, upload: string, parts: number): Promise<Response> {
    return this.#answer(requestId, async () => ({ missing: this.#uploads.missing(upload, parts) }));
  }

  /** Takes one part of a backup in. */
  takePart(
    requestId: string,
    part: Part,
    body: ReadableStream<Uint8Array>,
    credential: Credential,
  ): Promise<Response> {
    return this.#answer(requestId, async () => {
      const stream = await this.#lentUpload(body, credential);
      return { missing: await this.#uploads.take(part, stream) };
    });
  }

  /** Puts a backup back whose parts are all there. They are kept for another try where the fault is not theirs. */
  putBackParts(requestId: string, upload: string): Promise<Response> {
    return this.#change(requestId, async () => {
      const backup = await this.#lifecycle.putBack(this.#uploads.read(upload)).catch((error: unknown) => {
        if (error instanceof ApiError && OF_THE_BACKUP.has(error.code)) this.#uploads.forget(upload);
        throw error;
      });
      this.#uploads.forget(upload);
      return { backup: backupView(backup) };
    });
  }

  /** Puts an uploaded backup in the place of today's state, and wakes Hermes with it. */
  putBack(requestId: string, upload: ReadableStream<Uint8Array>, credential: Credential): Promise<Response> {
    return this.#change(requestId, async () => {
      const stream = await this.#lentUpload(upload, credential);
      return { backup: backupView(await this.#lifecycle.putBack(stream)) };
    });
  }

  /** An upload ends with what let it in; a restore that has it whole goes on. */
  #lentUpload(
    upload: ReadableStream<Uint8Array>,
    credential: Credential,
  ): Promise<ReadableStream<Uint8Array>> {
    return this.#lend(credential, undefined, async (signal) => {
      const { readable, writable } = new IdentityTransformStream();
      return { value: readable, end: upload.pipeTo(writable, { signal }) };
    });
  }

  /** Processes, configuration and the log's tail, without secrets; never wakes Hermes. */
  logs(requestId: string, lines: number): Promise<Response> {
    return this.#answer(requestId, async () => {
      const { record } = this.#lifecycle;
      const { bootId, state, lastExit, starting } = record;
      const config = buildGo(this.#settings, NO_KEYS).config;
      const common = { state, bootId, starting: startingOf(record), config };
      // A command would wait for the container, which may take minutes.
      if (starting !== null) return { ...common, processes: [], log: [] };
      if (bootId === null) return { ...common, processes: [], log: this.#lines(lastExit?.logTail ?? "") };
      const at = ["--boot", bootId];
      const [status, logs] = await Promise.all([
        run(this.#sandbox, ["sandbox", "status", ...at], { limit: LOOK }),
        run(this.#sandbox, ["sandbox", "logs", ...at, "--lines", String(lines)], { limit: LOOK }),
      ]);
      const told = status.exitCode === 0 ? (JSON.parse(status.stdout) as { processes?: unknown }) : null;
      return { ...common, sandbox: told, processes: told?.processes ?? [], log: this.#lines(logs.stdout) };
    });
  }

  /** The log as it grows, as plain text without secrets; of a start, first what it waits for. Never wakes Hermes. */
  followLogs(requestId: string, lines: number, credential: Credential): Promise<Response> {
    const headers = {
      "content-type": "text/plain; charset=utf-8",
      "cache-control": "no-store",
      "x-request-id": requestId,
    };
    return this.#stream(requestId, credential, headers, async () => {
      const log = await this.#lifecycle.followLog(lines);
      return log.pipeThrough(this.#log.redactor.stream());
    });
  }

  /** A Worker that was given a valid API token tells so, and learns how long the tokens live. */
  tokenUsed(use: TokenUse): Deaths {
    const deaths = this.#tokens.use(use, Date.now());
    this.#leases.look();
    return deaths;
  }

  /** @param token digest of the API token that was given. */
  async openDashboardSession(token: string): Promise<Opened> {
    const opened = await this.#sessions.open(token, Date.now());
    // The oldest may have given way.
    this.#leases.look();
    return opened;
  }

  /** @param tokens digests of the API tokens that the asking Worker is configured with. */
  hasDashboardSession(id: string, tokens: readonly string[]): Promise<boolean> {
    return this.#sessions.isOpen(id, tokens, Date.now());
  }

  /** Signs somebody out, of whatever the session has open as well. */
  async endDashboardSession(id: string): Promise<void> {
    await this.#sessions.end(id);
    this.#leases.look();
  }

  /** Signs everybody out. */
  revokeDashboardSessions(requestId: string): Promise<Response> {
    return this.#answer(requestId, async () => {
      const revoked = this.#sessions.endAll();
      this.#leases.look();
      this.#log.info("sessions_revoked", { request_id: requestId, revoked });
      return { revoked };
    });
  }

  /** How much is open by all credentials: requests under way, sockets, followed logs, calls of providers. */
  get held(): number {
    return this.#leases.size;
  }

  /** Signs the cookies of the dashboard's sessions. */
  dashboardKey(): ArrayBuffer {
    return this.#sessions.key;
  }

  /** A provider refused our key, or there is none, or it serves nobody from here. */
  providerRefused(trouble: Omit<ProviderTrouble, "at">): void {
    this.#lifecycle.noteProviderTrouble({ at: Date.now(), ...trouble });
  }

  /** A provider that refused us before serves us now. */
  providerServed(provider: string): void {
    if (this.#lifecycle.record.lastProviderError?.provider === provider)
      this.#lifecycle.noteProviderTrouble(null);
  }

  #storageView(): StorageView {
    const { id, since } = this.#storage;
    const backups = this.#vault.list();
    const newest = backups[0];
    return {
      id,
      since: iso(since),
      backups: backups.length,
      newestBackup:
        newest === undefined ? null : { id: newest.id, created: iso(newest.created), digest: newest.digest },
    };
  }

  /**
   * Does something for whoever was let in, for as long as what let them in is good.
   * @throws ApiError 401 `credential_over`.
   */
  async #lend<T>(
    credential: string | null,
    left: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<Lasting<T>>,
  ): Promise<T> {
    const until = await this.#untilOf(credential);
    return (await this.#leases.hold(until, left, work)).value;
  }

  /** Who is to be asked how long a credential is good. */
  async #untilOf(credential: string | null): Promise<Until> {
    // While a release comes in, a Worker of the one before may still let requests in, and does not say by what.
    const [by, what = ""] = (credential ?? "anyone").split(" ");
    if (by === "anyone") return () => Number.POSITIVE_INFINITY;
    if (by === "token") return () => this.#tokens.until(what);
    if (by === "access") return () => Number(what);
    if (by === "session") {
      const digest = hex(await digestOf(what));
      return () => this.#sessions.until(digest);
    }
    const { capability } = this.#lifecycle;
    if (by !== "capability" || capability === null || !isEqual(what, hex(await digestOf(capability))))
      return () => 0;
    return () => (this.#lifecycle.capability === capability ? Number.POSITIVE_INFINITY : 0);
  }

  /** Answers with a stream that ends with what let somebody in. */
  async #stream(
    requestId: string,
    credential: Credential,
    headers: Record<string, string>,
    open: () => Promise<ReadableStream<Uint8Array>>,
  ): Promise<Response> {
    try {
      return await this.#lend(credential, undefined, async (signal) => {
        const stream = await open();
        const { readable, writable } = new IdentityTransformStream();
        return { value: new Response(readable, { headers }), end: stream.pipeTo(writable, { signal }) };
      });
    } catch (error) {
      return this.#refuse(error, requestId);
    }
  }

  #newest(): { backup: ReturnType<typeof backupView> | null } {
    const newest = this.#vault.good()[0];
    return { backup: newest === undefined ? null : backupView(newest) };
  }

  #lines(text: string): string[] {
    const clean = this.#log.redactor.clean(text).trimEnd();
    return clean === "" ? [] : clean.split("\n");
  }

  /** Does something to the instance and answers with its state afterwards. */
  #change(requestId: string, work: () => Promise<object>): Promise<Response> {
    return this.#answer(requestId, async () => {
      const more = await work();
      const { state, since, bootId, image } = this.#health();
      return { state, since, bootId, image, ...more };
    });
  }

  async #answer(requestId: string, work: () => Promise<object>): Promise<Response> {
    try {
      const body = await work();
      return Response.json(body, { headers: { "x-request-id": requestId, "cache-control": "no-store" } });
    } catch (error) {
      return this.#refuse(error, requestId);
    }
  }

  #refuse(error: unknown, requestId: string): Response {
    const known = toApiError(error);
    if (known.status >= 500 && known.code !== WAKING && known.code !== ASLEEP)
      this.#log.error("request_failed", {
        request_id: requestId,
        code: known.code,
        why: String(known.cause ?? known.message),
      });
    return errorResponse(known, requestId);
  }
}
