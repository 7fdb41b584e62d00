// SPDX-License-Identifier: Apache-2.0
/**
 * The way to Hermes' gateway: its relay, by the bridge beside it (container/sandbox/in_hermes/relay_bridge.py), which
 * greets it in our place and keeps what it says while we are away. Frames are those of Hermes' relay contract, version 1.
 */
import { type Time, within } from "../base/time.ts";
import type { Attachment, Event, FileKind, Outgoing, Press, Reaction } from "./channel.ts";
import { Carrier, FILE_KINDS } from "./files.ts";

/** Port of the bridge in the sandbox. */
export const RELAY_PORT = 18790;
/** The bridge answers within so long; milliseconds. */
const PATIENCE = 10_000;
/** How Hermes says something. */
export interface Manner {
  /** Its own name for this; it says it again under it until it is told that it was taken. */
  name: string;
  /** Whether it is the answer to a message. */
  isLast: boolean;
  /** Whether files are part of that answer, and come after it. */
  hasMore: boolean;
}

/** A file that Hermes has for somebody. */
export interface OfferedFile {
  chat: string;
  thread: string | null;
  /** The message of whose answer it is a part, and which of its files; `null` = of none. */
  answers: string | null;
  part: number;
  caption: string;
  kind: FileKind;
  name: string;
  mime: string;
  /** In bytes. */
  size: number;
  /** What is in it, from the bridge. @throws Error when that is gone, or has it no more. */
  pieces(): AsyncIterable<ArrayBuffer>;
}

/** What Hermes asks somebody in the middle of a turn. */
export interface Asked {
  chat: string;
  thread: string | null;
  text: string;
  /** Its name, by which it is answered. */
  prompt: string;
  /** What may be chosen; nothing = the answer is to be written. */
  options: { id: string; label: string }[];
  /** How it is answered where there are no buttons; empty = its text says so. */
  typed: string;
}

/** What the relay works with. */
export interface RelayParts {
  time: Time;
  /** The way to the bridge's port. */
  port(): { fetch(url: string, init?: RequestInit): Promise<Response> };
  /**
   * Hermes sends something.
   * @returns what the platform calls it.
   */
  send(platform: string, message: Outgoing, manner: Manner): Promise<string>;
  /** Hermes sends a file. */
  sendFile(platform: string, file: OfferedFile, name: string): Promise<string>;
  /** Hermes reacts to a message. */
  react(platform: string, reaction: Reaction): Promise<void>;
  /**
   * Hermes asks something.
   * @returns what the platform calls it, and the number of the last message that came before it.
   */
  ask(platform: string, asked: Asked): Promise<{ id: string; after: number }>;
  /** Hermes waits for an answer from now on. */
  waits(platform: string, chat: string): void;
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
  /** What a question was answered by a press; `null` when nobody waits for that. */
  answer?: string | null;
  action?: {
    op?: string;
    chat_id?: string;
    content?: string;
    reply_to?: string | null;
    metadata?: { notify?: boolean; thread_id?: string | number | null; files_follow?: boolean } | null;
    /** Of a file: its name at the bridge, what it is, of which message's answer it is a part, and which one of that. */
    source_url?: string;
    media_kind?: string;
    filename?: string;
    mime?: string;
    size?: number;
    answers?: string | null;
    part?: number;
    /** Of a reaction. */
    message_id?: string;
    emoji?: string;
    remove?: boolean;
    /** Of a question. */
    prompt_id?: string;
    options?: { id: string; label: string }[];
    typed?: string;
  };
}

/** The way to a bridge, until it ends. */
interface Line {
  key: string;
  socket: WebSocket;
  /** What Hermes is at. */
  held: Set<string>;
  /** Which files it has. */
  files: Set<string>;
  /** Who waits for a piece of a file of Hermes', in the order in which they asked. */
  asked: PromiseWithResolvers<ArrayBuffer>[];
  /** Who waits to hear what a press answered, by its name. */
  pressed: Map<string, PromiseWithResolvers<string | null>>;
}

/** The relay of one instance. */
export class Relay {
  readonly #parts: RelayParts;
  #line: Line | null = null;
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

  /** Lets a message be the answer to what Hermes asked in its chat; where nothing was asked, nothing becomes of it. */
  offer(event: Event, id: string): void {
    try {
      this.#line?.socket.send(JSON.stringify({ type: "answer", event, bufferId: id }));
    } catch {
      // It is closed; whoever comes next offers it again.
    }
  }

  /**
   * Answers a question by a button.
   * @returns what it was answered, by this press or by an earlier one; `null` when nobody waits for an answer.
   * @throws Error when the bridge is gone.
   */
  async press(id: string, { prompt, option }: Press): Promise<string | null> {
    const line = this.#line;
    if (line === null) throw new Error("Hermes' relay is gone");
    const answer = Promise.withResolvers<string | null>();
    line.pressed.set(id, answer);
    try {
      line.socket.send(JSON.stringify({ type: "press", bufferId: id, prompt, option }));
      const said = await within(this.#parts.time, PATIENCE, answer.promise);
      if (said !== undefined) return said;
    } finally {
      line.pressed.delete(id);
    }
    throw new Error("Hermes' relay does not answer");
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
    const asked: Line["asked"] = [];
    const pressed: Line["pressed"] = new Map();
    let isOver = false;
    const over = () => {
      isOver = true;
      for (const { reject } of [...asked.splice(0), ...pressed.values()]) reject(new LineEnded());
      greeted.reject(new Error("Hermes' relay hung up"));
      if (this.#line?.socket !== socket) return;
      this.#line = null;
      this.#ended();
    };
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }) => {
      if (data instanceof ArrayBuffer) return void asked.shift()?.resolve(data);
      const frame = frameOf(data);
      if (frame?.type === "hello") greeted.resolve(frame.held ?? []);
      else if (frame?.type === "outbound") void this.#outbound({ socket, asked }, frame);
      else if (frame?.type === "processed") this.#parts.processed(frame.bufferId ?? "");
      else if (frame?.type === "pressed") pressed.get(frame.bufferId ?? "")?.resolve(frame.answer ?? null);
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
    this.#line = { key, socket, held: new Set(held), files: new Set(), asked, pressed };
  }

  async #outbound(
    line: Pick<Line, "socket" | "asked">,
    { requestId, platform, action }: Outbound,
  ): Promise<void> {
    const result = await this.#result(line, platform ?? "", action ?? {}, requestId ?? "");
    // Of one whose line ended meanwhile it is not known what became of it: it is asked again by the next one.
    if (result === null) return;
    try {
      line.socket.send(JSON.stringify({ type: "outbound_result", requestId, result }));
      if (action?.op === "prompt") this.#parts.waits(platform ?? "", action.chat_id ?? "");
    } catch {
      // It is closed; what waits for this asks again by the next one.
    }
  }

  async #result(
    line: Pick<Line, "socket" | "asked">,
    platform: string,
    action: NonNullable<Outbound["action"]>,
    name: string,
  ): Promise<object | null> {
    const { op, chat_id: chat, content = "", reply_to: replyTo, metadata } = action;
    if (op === "get_chat_info") return { success: true, chat_info: { name: chat ?? "", type: "dm" } };
    // That an answer is being written is shown for as long as its turn goes on.
    if (op === "typing") return { success: true };
    const isFile = op === "send_media";
    const isSaid = (isFile || op === "send" || op === "prompt") && action.content !== undefined;
    if (!(isSaid || op === "react") || chat === undefined)
      return { success: false, error: `this connector has no ${op ?? "such"} operation` };
    const thread = metadata?.thread_id == null ? null : String(metadata.thread_id);
    try {
      if (op === "prompt") {
        const { prompt_id: prompt = "", options = [], typed = "" } = action;
        const asked = { chat, thread, text: content, prompt, options, typed };
        const { id, after } = await this.#parts.ask(platform, asked);
        return { success: true, message_id: id, after };
      }
      if (op === "react") {
        const { message_id: message = "", emoji = "", remove: isOver = false } = action;
        await this.#parts.react(platform, { chat, message, emoji, isOver });
        return { success: true };
      }
      const message = { chat, thread, text: content, replyTo: replyTo ?? null };
      const manner = {
        name,
        isLast: metadata?.notify === true,
        hasMore: metadata?.files_follow === true,
      };
      return {
        success: true,
        message_id: await (isFile
          ? this.#parts.sendFile(platform, this.#offered(line, chat, thread, action), name)
          : this.#parts.send(platform, message, manner)),
      };
    } catch (error) {
      if (error instanceof LineEnded) return null;
      return { success: false, error: error instanceof Error ? error.message : "it was not sent" };
    }
  }

  #offered(
    line: Pick<Line, "socket" | "asked">,
    chat: string,
    thread: string | null,
    action: NonNullable<Outbound["action"]>,
  ): OfferedFile {
    const { content: caption = "", media_kind: kind = "", filename: name = "", mime = "", size = 0 } = action;
    const { answers = null, part = 0, source_url: source = "" } = action;
    const what = { kind: FILE_KINDS[kind] ?? "document", name, mime, size };
    return { chat, thread, answers, part, caption, ...what, pieces: () => this.#pieces(line, source, size) };
  }

  /** Asks the bridge for a file, a piece after the other: it is given no more than is asked for. */
  async *#pieces(
    { socket, asked }: Pick<Line, "socket" | "asked">,
    name: string,
    size: number,
  ): AsyncGenerator<ArrayBuffer> {
    for (let at = 0; at < size; ) {
      const piece = Promise.withResolvers<ArrayBuffer>();
      try {
        socket.send(JSON.stringify({ type: "read", name, at }));
      } catch {
        throw new LineEnded();
      }
      asked.push(piece);
      const bytes = await within(this.#parts.time, PATIENCE, piece.promise);
      if (bytes === undefined) {
        // What comes later must not be taken for what somebody else asked for.
        this.#hangUp();
        throw new LineEnded();
      }
      if (bytes.byteLength === 0) throw new Error("a file cannot be read");
      at += bytes.byteLength;
      yield bytes;
    }
  }
}

/** A bridge is gone. */
class LineEnded extends Error {
  constructor() {
    super("Hermes' relay hung up");
    this.name = "LineEnded";
  }
}

function frameOf(data: unknown): Outbound | null {
  try {
    return typeof data === "string" ? (JSON.parse(data) as Outbound) : null;
  } catch {
    return null;
  }
}
