// SPDX-License-Identifier: Apache-2.0
/** The relay beside a bridge that is as good as it is told to be. */
import { describe, expect, it } from "vitest";
import type { Event } from "../src/channels/channel.ts";
import { type OfferedFile, Relay, type RelayParts } from "../src/channels/relay.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const EVENT: Event = {
  text: "hello",
  message_type: "text",
  message_id: "1",
  source: { platform: "telegram", chat_id: "77", chat_type: "dm", user_id: "77", message_id: "1" },
};

/** A relay, its bridge, and what each was told. */
function world(more: Partial<RelayParts> = {}) {
  const time = new ManualTime();
  const heard: object[] = [];
  const told: unknown[] = [];
  let lost = 0;
  let bridge: WebSocket | null = null;
  const relay = new Relay({
    time,
    port: () => ({
      fetch: async () => {
        const { 0: outside, 1: inside } = new WebSocketPair();
        inside.addEventListener("message", ({ data }) => heard.push(JSON.parse(String(data)) as object));
        inside.accept();
        bridge = inside;
        return new Response(null, { status: 101, webSocket: outside });
      },
    }),
    send: async (...all) => {
      told.push(["send", ...all]);
      return "m1";
    },
    sendFile: async (...all) => {
      told.push(["sendFile", ...all]);
      return "m2";
    },
    ask: async (...all) => {
      told.push(["ask", ...all]);
      return { id: "m3", after: 7 };
    },
    react: async (...all) => void told.push(["react", ...all]),
    waits: (...all) => void told.push(["waits", ...all]),
    processed: (id) => void told.push(["processed", id]),
    lost: () => {
      lost++;
    },
    ...more,
  });
  const says = async (frame: object | string | ArrayBuffer) => {
    const isRaw = typeof frame === "string" || frame instanceof ArrayBuffer;
    bridge?.send(isRaw ? frame : JSON.stringify(frame));
    await settle();
  };
  const connect = async (hello: object = { type: "hello" }) => {
    const connected = relay.connect("key");
    await settle();
    await says(hello);
    await connected;
  };
  return { relay, time, heard, told, lost: () => lost, says, connect };
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await scheduler.wait(0);
}

describe("a relay that is not connected", () => {
  it("takes nothing, and offers to nobody", async () => {
    const { relay, heard } = world();
    expect(() => relay.hand(EVENT, "1")).toThrow("Hermes' relay is gone");
    await expect(
      relay.press("1", { id: "1", prompt: "p", option: "o", message: "m", text: "" }),
    ).rejects.toThrow("Hermes' relay is gone");
    const open = async () => new Response("x").body as ReadableStream<Uint8Array>;
    const file = { ref: "r", kind: "document", name: "", mime: "", size: 1 } as const;
    await expect(relay.bring("1", 0, file, open)).rejects.toThrow("Hermes' relay is gone");
    relay.offer(EVENT, "1");
    expect([heard, relay.holds("1")]).toEqual([[], false]);
  });

  it("is not by a bridge that does not greet", async () => {
    const { relay, time } = world();
    const connected = relay.connect("key").catch((error: unknown) => error);
    await settle();
    await time.pass(10_000);
    expect(await connected).toMatchObject({ message: "Hermes' relay does not greet" });
  });
});

describe("what the bridge says", () => {
  it("of what Hermes holds is believed, so that it is given nothing twice", async () => {
    const { relay, heard, connect } = world();
    await connect({ type: "hello", held: ["1"] });
    expect([relay.hand(EVENT, "1"), relay.hand(EVENT, "2"), relay.hand(EVENT, "2")]).toEqual([
      false,
      true,
      false,
    ]);
    await settle();
    expect(heard).toMatchObject([{ type: "inbound", bufferId: "2", event: { text: "hello" } }]);
  });

  it("that is no frame, or is for nobody, changes nothing", async () => {
    const { told, heard, lost, says, connect } = world();
    await connect();
    await says("no JSON");
    await says({ type: "unheard of" });
    await says(new ArrayBuffer(3));
    await says({ type: "pressed" });
    await says({ type: "file_taken" });
    expect([told, heard, lost()]).toEqual([[], [], 0]);
    await says({ type: "processed" });
    await says({ type: "processed", bufferId: "4" });
    expect(told).toEqual([
      ["processed", ""],
      ["processed", "4"],
    ]);
  });

  it("is answered, whatever it asks for", async () => {
    const { told, heard, says, connect } = world();
    await connect();
    const results = async (action?: object) => {
      heard.length = 0;
      await says({
        type: "outbound",
        ...(action === undefined ? {} : { requestId: "r", platform: "telegram", action }),
      });
      return (heard[0] as { result: object }).result;
    };
    const none = (what: string) => ({ success: false, error: `this connector has no ${what} operation` });
    expect(await results()).toEqual(none("such"));
    expect(await results({ op: "edit" })).toEqual(none("edit"));
    expect(await results({ op: "send", content: "x" })).toEqual(none("send"));
    expect(await results({ op: "send", chat_id: "77" })).toEqual(none("send"));
    expect(told).toEqual([]);
    for (const chat of [undefined, "77"])
      expect(await results({ op: "get_chat_info", chat_id: chat })).toEqual({
        success: true,
        chat_info: { name: chat ?? "", type: "dm" },
      });
    const sent = { op: "send", chat_id: "77", content: "x" };
    expect(await results(sent)).toEqual({ success: true, message_id: "m1" });
    await results({ ...sent, reply_to: "5", metadata: { thread_id: 9, notify: true, files_follow: true } });
    expect(told).toEqual([
      [
        "send",
        "telegram",
        { chat: "77", thread: null, text: "x", replyTo: null },
        { name: "r", isLast: false, hasMore: false },
      ],
      [
        "send",
        "telegram",
        { chat: "77", thread: "9", text: "x", replyTo: "5" },
        { name: "r", isLast: true, hasMore: true },
      ],
    ]);
  });

  it("of a question and a file may leave out what goes without saying", async () => {
    const { told, heard, says, connect } = world();
    await connect();
    const action = { chat_id: "77", content: "Which?" };
    await says({ type: "outbound", platform: "telegram", action: { ...action, op: "prompt" } });
    expect(told).toEqual([
      ["ask", "telegram", { chat: "77", thread: null, text: "Which?", prompt: "", options: [], typed: "" }],
      ["waits", "telegram", "77"],
    ]);
    expect(heard).toMatchObject([{ result: { success: true, message_id: "m3", after: 7 } }]);
    told.length = 0;
    await says({ type: "outbound", platform: "telegram", action: { ...action, op: "send_media" } });
    expect(told).toMatchObject([
      [
        "sendFile",
        "telegram",
        { kind: "document", name: "", mime: "", size: 0, answers: null, part: 0, caption: "Which?" },
        "",
      ],
    ]);
  });

  it("is told that it was not sent, when nobody says why", async () => {
    const { heard, says, connect } = world({ send: () => Promise.reject("thrown") });
    await connect();
    await says({ type: "outbound", action: { op: "send", chat_id: "77", content: "x" } });
    expect(heard).toMatchObject([{ result: { success: false, error: "it was not sent" } }]);
  });
});

describe("a message with files", () => {
  it("is given to no Hermes that has them not", async () => {
    const { relay, connect } = world();
    await connect();
    const files = [{ ref: "r", kind: "document", name: "", mime: "" } as const];
    expect(() => relay.hand({ ...EVENT, files }, "1")).toThrow("Hermes has not its files");
  });
});

describe("a bridge that falls silent", () => {
  it("in the middle of a press has it asked again", async () => {
    const { relay, time, connect } = world();
    await connect();
    const pressed = relay
      .press("1", { id: "1", prompt: "p", option: "o", message: "m", text: "" })
      .catch((error: unknown) => error);
    await settle();
    await time.pass(10_000);
    expect(await pressed).toMatchObject({ message: "Hermes' relay does not answer" });
  });

  it("in the middle of a file is left, and whoever waits is told", async () => {
    let offered: OfferedFile | null = null;
    const { time, lost, says, connect } = world({
      sendFile: async (_, file) => {
        offered = file;
        return "m";
      },
    });
    await connect();
    const action = { op: "send_media", chat_id: "77", content: "", source_url: "f", size: 5 };
    await says({ type: "outbound", platform: "telegram", requestId: "r", action });
    const pieces = (offered as OfferedFile | null)?.pieces()[Symbol.asyncIterator]();
    const next = pieces?.next().catch((error: unknown) => error);
    await settle();
    await time.pass(10_000);
    expect(await next).toMatchObject({ message: "Hermes' relay hung up" });
    expect(lost()).toBe(1);
  });
});
