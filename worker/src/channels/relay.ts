// SPDX-License-Identifier: Apache-2.0
/**
 * The way to Hermes' gateway: its relay, by the bridge beside it (container/sandbox/in_hermes/relay_bridge.py), which
 * greets it in our place and keeps what it says while we are away. Frames are those of Hermes' relay contract, version 1.
 */
import { type Time, within } from "../base/time.ts";
import type { Attachment, Event, Outgoing } from "./channel.ts";
import { Carrier } from "./files.ts";

/** Port of the bridge in the sandbox. */
export const RELAY_PORT = 18790;
/** The bridge answers within so long; milliseconds. */
const PATIENCE = 10_000;
/** What the relay works with. */
export interface RelayParts {
  time: Time;
  /** The way to the bridge's port. */
  port(): { fetch(url: string, init?: RequestInit): Promise<Response> };
  /**
   * Hermes sends something.
   * @param name its own name for this; it says it again under it until it is told that it was taken.
   * @returns what the platform calls it.
   */
  send(platform: string, message: Outgoing, isLast: boolean, name: string): Promise<string>;
  /** Hermes is done with what it was given under this name, whatever it said to it. */
  processed(id: string): void;
  /** Nobody is heard any more: whoever waits for Hermes asks again what it holds. */
  lost(): void;
}

interface Outbound {
  type: string;
  requestId?: string;
  platform?: string;
  bufferId?: string;
  /** What Hermes was given and has not answered. */
  held?: string[];
  /** Why Hermes cannot take a file; `null` when it has it. */
  error?: string | null;
  action?: {
    op?: string;
    chat_id?: string;
    content?: string;
    reply_to?: string | null;
    metadata?: { notify?: boolean; thread_id?: string | number | null } | null;
  };
}

/** The relay of one instance. */
export class Relay {
  readonly #parts: RelayParts;
  /** To it, what Hermes is at, and which files it has. */
  #line: { key: string; socket: WebSocket; held: Set<string>; files: Set<string> } | null = null;
  #dialling: Promise<void> | null = null;
  readonly #carrier: Carrier;

  constructor(parts: RelayParts) {
    this.#parts = parts;
    this.#carrier = new Carrier({
      time: parts.time,
      say: (what) => {
        if (this.#line === null) throw new Error("Hermes' relay is gone");
        this.#line.socket.send(what instanceof Uint8Array ? what : JSON.stringify(what));
      },
      leave: () => this.#hangUp(),
    });
  }

  /**
   * Gives Hermes a message, unless it is at it.
   * @returns whether it was given it.
   * @throws Error when its bridge cannot be reached.
   */
  hand(event: Event, id: string): boolean {
    const line = this.#line;
    if (line === null) throw new Error("Hermes' relay is gone");
    if (line.held.has(id)) return false;
    const { files = [], ...said } = event;
    const names = files.map((_, at) => `${id}.${at}`);
    // Another Hermes may have come since they were brought.
    if (!names.every((name) => line.files.has(name))) throw new Error("Hermes has not its files");
    const media = files.length === 0 ? {} : { media_urls: names };
    try {
      line.socket.send(JSON.stringify({ type: "inbound", event: { ...said, ...media }, bufferId: id }));
    } catch (error) {
      // It is closed, and nobody has told: what is waited for by it nobody says any more.
      this.#hangUp();
      throw error;
    }
    line.held.add(id);
    return true;
  }

  /** Whether Hermes was given this. */
  holds(id: string): boolean {
    return this.#line?.held.has(id) === true;
  }

  /**
   * Brings Hermes a file of the message `id`, before it is given that.
   * @throws SendRefused when Hermes cannot take it; Error when the bridge is gone.
   */
  async bring(
    id: string,
    at: number,
    file: Attachment,
    open: () => Promise<ReadableStream<Uint8Array>>,
  ): Promise<void> {
    const name = `${id}.${at}`;
    const line = this.#line;
    await this.#carrier.bring(name, file, open);
    line?.files.add(name);
  }

  /** Sees to it that Hermes is heard. */
  connect(key: string): Promise<void> {
    if (this.#line?.key === key) return Promise.resolve();
    // That of a boot that is over, whether it was heard to end or not.
    this.#hangUp();
    this.#dialling ??= this.#dial(key).finally(() => {
      this.#dialling = null;
    });
    return this.#dialling;
  }

  /** Whoever waits for the one that is left learns it here: of a line that is given up nobody tells that it ended. */
  #hangUp(): void {
    const line = this.#line;
    if (line === null) return;
    this.#line = null;
    line.socket.close(1001, "");
    this.#ended();
  }

  #ended(): void {
    this.#carrier.lost();
    this.#parts.lost();
  }

  async #dial(key: string): Promise<void> {
    const { time, port } = this.#parts;
    const answer = port().fetch("http://relay/connector", {
      headers: { upgrade: "websocket", authorization: `Bearer ${key}` },
    });
    const socket = (await within(time, PATIENCE, answer))?.webSocket;
    if (socket == null) throw new Error("Hermes' relay does not answer");
    const greeted = Promise.withResolvers<string[]>();
    let isOver = false;
    const over = () => {
      isOver = true;
      greeted.reject(new Error("Hermes' relay hung up"));
      if (this.#line?.socket !== socket) return;
      this.#line = null;
      this.#ended();
    };
    socket.addEventListener("message", ({ data }) => {
      const frame = frameOf(data);
      if (frame?.type === "hello") greeted.resolve(frame.held ?? []);
      else if (frame?.type === "outbound") void this.#outbound(socket, frame);
      else if (frame?.type === "processed") this.#parts.processed(frame.bufferId ?? "");
      else if (frame?.type === "file_taken") this.#carrier.heard(frame.bufferId ?? "", frame.error ?? null);
    });
    socket.addEventListener("close", over);
    socket.addEventListener("error", over);
    socket.accept();
    const held = await within(time, PATIENCE, greeted.promise);
    if (held === undefined) {
      socket.close(1001, "");
      throw new Error("Hermes' relay does not greet");
    }
    // It may have ended since it greeted.
    if (isOver) throw new Error("Hermes' relay hung up");
    this.#line = { key, socket, held: new Set(held), files: new Set() };
  }

  async #outbound(socket: WebSocket, { requestId, platform, action }: Outbound): Promise<void> {
    const result = await this.#result(platform ?? "", action ?? {}, requestId ?? "");
    try {
      socket.send(JSON.stringify({ type: "outbound_result", requestId, result }));
    } catch {
      // It is closed; what waits for this asks again by the next one.
    }
  }

  async #result(platform: string, action: NonNullable<Outbound["action"]>, name: string): Promise<object> {
    const { op, chat_id: chat, content, reply_to: replyTo, metadata } = action;
    if (op === "get_chat_info") return { success: true, chat_info: { name: chat ?? "", type: "dm" } };
    if (op !== "send" || chat === undefined || content === undefined)
      return { success: false, error: `this connector has no ${op ?? "such"} operation` };
    const thread = metadata?.thread_id == null ? null : String(metadata.thread_id);
    try {
      const message = { chat, thread, text: content, replyTo: replyTo ?? null };
      return {
        success: true,
        message_id: await this.#parts.send(platform, message, metadata?.notify === true, name),
      };
    } catch (error) {
      return { success: false, error: error instanceof Error ? error.message : "it was not sent" };
    }
  }
}

function frameOf(data: unknown): Outbound | null {
  try {
    return typeof data === "string" ? (JSON.parse(data) as Outbound) : null;
  } catch {
    return null;
  }
}
