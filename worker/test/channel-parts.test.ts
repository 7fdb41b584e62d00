// SPDX-License-Identifier: Apache-2.0
/** What channels have in common, piece by piece. */
import { describe, expect, it } from "vitest";
import {
  buttonData,
  type Incoming,
  messageIn,
  messageOf,
  type Outgoing,
  type OutgoingFile,
} from "../src/channels/channel.ts";
import { kindOf } from "../src/channels/files.ts";
import { InParts } from "../src/channels/in-parts.ts";
import { wordsOf } from "../src/channels/mail/words.ts";
import { multipart, raw } from "../src/channels/multipart.ts";
import { channelSecrets, homesOf, longest } from "../src/config/channels.ts";
import { type Env, settingsOf } from "../src/config/settings.ts";
import { env } from "./helpers.ts";

const FILE: OutgoingFile = {
  kind: "photo",
  name: "a.png",
  mime: "",
  size: 5,
  bytes: () => new Response("bytes").body as ReadableStream<Uint8Array>,
};

const TO: Outgoing = { chat: "77", thread: null, text: "what it is", replyTo: null };

describe("a file", () => {
  it.each([
    ["image/png", "photo"],
    ["audio/ogg", "audio"],
    ["video/mp4", "video"],
    ["text/plain", "document"],
    ["", "document"],
  ])("of the type %s is a %s", (mime, kind) => {
    expect(kindOf(mime)).toBe(kind);
  });

  it("of no type is sent as one of any, in a form and alone", async () => {
    const any = "application/octet-stream";
    const form = multipart({ chat: "77" }, "photo", FILE);
    expect(await new Response(form.body).text()).toContain(`content-type: ${any}\r\n\r\nbytes`);
    const alone = raw(FILE);
    expect([alone.headers["content-type"], await new Response(alone.body).text()]).toEqual([any, "bytes"]);
    expect(raw({ ...FILE, mime: "image/png" }).headers["content-type"]).toBe("image/png");
  });

  it("that breaks off is no whole one to who reads it", async () => {
    const broken = new ReadableStream<Uint8Array>({ pull: (to) => to.error(new Error("gone")) });
    await expect(new Response(raw({ ...FILE, bytes: () => broken }).body).text()).rejects.toThrow();
  });
});

describe("a file with words", () => {
  const sent: object[] = [];
  const channel = (more: object) => ({
    send: async ({ text }: Outgoing) => String(sent.push({ text })),
    sendFile: async ({ text }: Outgoing) => String(sent.push({ caption: text })),
    ...more,
  });
  const said = async (more: object, before?: string) => {
    sent.length = 0;
    await new InParts(channel(more) as never, 100).send({ ...TO, file: FILE }, before);
    return [...sent];
  };

  it("has them below it where they fit, else what stands before goes alone", async () => {
    expect(await said({ caption: () => 30 }, "(again) ")).toEqual([{ caption: "(again) what it is" }]);
    expect(await said({ caption: () => 12 }, "(again) ")).toEqual([
      { text: "(again)" },
      { caption: "what it is" },
    ]);
    expect(await said({ caption: () => 0 })).toEqual([{ caption: "what it is" }]);
    expect(await said({})).toEqual([{ caption: "what it is" }]);
  });

  it("is refused for good where none is sent", async () => {
    await expect(said({ sendFile: undefined })).rejects.toMatchObject({
      message: "files are not sent here",
      isFinal: true,
    });
  });
});

describe("the message in an update", () => {
  const read = messageOf("telegram", {
    ...{ message: "1", text: "hi", chat: "77", isGroup: false, user: "77" },
  });
  const { event } = (read as { message: Incoming }).message;

  it("is a stranger's, too, and one that was changed; in all else there is none", () => {
    const stranger = { kind: "stranger", chat: "77", user: "77", name: "", said: read } as const;
    expect(messageIn(read)).toBe(event);
    expect(messageIn(stranger)).toBe(event);
    expect(messageIn({ kind: "edit", of: stranger })).toBe(event);
    expect(messageIn({ kind: "nothing", why: "no message" })).toBeNull();
  });
});

describe("the button of an option", () => {
  it("has names that come back whole, or is none", () => {
    expect(buttonData("p1", "o1")).toBe("hp1:p1:o1");
    for (const [prompt, option] of [
      ["p:1", "o"],
      ["p", "o".repeat(27)],
    ] as const)
      expect(() => buttonData(prompt, option)).toThrow("bad name");
  });
});

describe("a mail that is a page alone", () => {
  it.each([
    ["a&nbsp;&lt;b&gt; &#38; &#x41;", "<b> & A"],
    ["&unheard;", "&unheard;"],
    ["x&#0;y&#9999999;z", "xyz"],
  ])("says with %s: %s", (html, text) => {
    expect(wordsOf("", undefined, html)).toContain(text);
  });
});

describe("what is declared of channels", () => {
  const declared = (platforms: object) =>
    settingsOf({ ...env, HERMES_CHANNELS: JSON.stringify(platforms) } as Env).channels;
  const token = `4242:${"x".repeat(35)}`;

  it("has the homes that were named, and hides all that is secret", () => {
    const hooks = { ci: { kind: "github", secrets: ["a secret of ci"] } };
    const at = declared({ telegram: { token, allow: ["77"], home: "77" }, hooks });
    expect(homesOf(at)).toEqual({ telegram: "77" });
    expect(channelSecrets(at).sort()).toEqual([token, "a secret of ci"].sort());
    expect(homesOf(declared({ telegram: { token, allow: ["77"] } }))).toEqual({});
    expect(channelSecrets(declared({ telegram: null }))).toEqual([]);
  });

  it("knows no limit of a platform that it does not know", () => {
    expect([longest("sms"), longest("pigeon")]).toEqual([1600, Number.POSITIVE_INFINITY]);
  });
});
