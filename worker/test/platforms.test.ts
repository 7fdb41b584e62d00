// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { hex } from "../src/base/digests.ts";
import {
  type Call,
  type Outgoing,
  type OutgoingFile,
  type PlatformParts,
  SendRefused,
  type Update,
} from "../src/channels/channel.ts";
import { InParts, partsOf } from "../src/channels/in-parts.ts";
import { discord } from "../src/channels/platforms/discord.ts";
import { mrkdwnOf, slack } from "../src/channels/platforms/slack.ts";
import { sms } from "../src/channels/platforms/sms.ts";
import { whatsapp } from "../src/channels/platforms/whatsapp-cloud.ts";
import { hmacKey, plain } from "../src/channels/signatures.ts";
import { Ways } from "../src/channels/ways.ts";
import { channelSecrets } from "../src/config/channels.ts";
import { type Env, settingsOf } from "../src/config/settings.ts";
import { anew, askWith, env, refusal, woken } from "./helpers.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const NOW = 1_700_000_000_000;

const SLACK = {
  token: "xoxb-1111-2222-abcdefghijkl",
  signingSecrets: ["8f742231b10e8888abcd99yyyzzz85a5", "b".repeat(32)],
  allow: ["U0ANN00", "C0OPEN0"],
  apiUrl: "https://slack.com/api",
  pairing: false,
};
const DECLARED = {
  HERMES_CHANNELS: JSON.stringify({ slack: { ...SLACK, signingSecrets: ["b".repeat(32)] } }),
  HERMES_BOTS: '{"slack":"worker"}',
};

/** A call as a platform makes it. */
function call(body: string, headers: Record<string, string>, more: Partial<Call> = {}): Call {
  return {
    method: "POST",
    url: "https://hermes.example.com/channels/x",
    headers: new Headers(headers),
    body: async () => plain(body),
    now: NOW,
    ...more,
  };
}

/** What a call of a channel's was answered, and what it sent. */
interface Asked {
  url: string;
  method: string;
  body: string;
  headers: Headers;
}

/** An answer of a platform's: JSON, or a text. */
type Answer = [body: object | string, init?: ResponseInit];

/** What a channel works with; `answers` are given to its calls, one after the other, the last for ever. */
function inParts(
  answers: Answer[],
  test: (parts: PlatformParts, asked: Asked[], time: ManualTime) => Promise<void>,
): Promise<void> {
  const stub = env.PLAIN.getByName(`platforms ${crypto.randomUUID()}`);
  return runInDurableObject(stub, (_, { storage }) => {
    const asked: Asked[] = [];
    const time = new ManualTime();
    const fetch = async (url: string, init: RequestInit) => {
      asked.push({
        url,
        method: init.method ?? "",
        body: init.body instanceof ReadableStream ? await new Response(init.body).text() : String(init.body),
        headers: new Headers(init.headers),
      });
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (answer === undefined) throw new Error(`no answer from ${url}`);
      const [body, more] = answer;
      return new Response(typeof body === "string" ? body : JSON.stringify(body), more);
    };
    const given = { get: () => undefined, put: () => undefined };
    return test({ time, fetch, ways: new Ways(storage.kv, "it"), given }, asked, time);
  });
}

const message = (more: Partial<Outgoing> = {}): Outgoing => ({
  chat: "C0OPEN0",
  thread: null,
  text: "hello",
  replyTo: null,
  ...more,
});

/** A file that Hermes sends. */
const file = (more: Partial<OutgoingFile> = {}): OutgoingFile => ({
  ...{ kind: "photo", name: 'a "b".png', mime: "image/png", size: 9 },
  bytes: () => new Response("the bytes").body as ReadableStream<Uint8Array>,
  ...more,
});

/** What is in a file of so many bytes. */
const zeros = (size: number) => () => new Blob([new Uint8Array(size)]).stream() as ReadableStream<Uint8Array>;

/** A form that was sent, by its fields; of a file its name, its type and what is in it. */
async function formOf({ body, headers }: Asked): Promise<Record<string, unknown>> {
  const form = await new Response(body, { headers }).formData();
  const read = [...form].map(async ([name, value]) => {
    const it = value as string | File;
    return [name, typeof it === "string" ? it : [it.name, it.type, await it.text()]] as const;
  });
  return Object.fromEntries(await Promise.all(read));
}

/** How an attempt to send ends. */
const refused = (sending: Promise<unknown>) =>
  sending.then(
    () => "taken",
    (error: SendRefused) =>
      `${error.message}, ${error.isFinal ? "for good" : "for now"}, ${error.retryAfter}`,
  );

describe("what is longer than a platform takes", () => {
  it("is cut at ends of paragraphs, lines and words, and nothing of it is lost", () => {
    expect(partsOf("short", 10)).toEqual(["short"]);
    const text = Array.from({ length: 300 }, (_, n) => `word${n}${n % 40 === 39 ? "\n\n" : ""}`).join(" ");
    const parts = partsOf(text, 200);
    expect(parts.every((part) => part.length <= 200)).toBe(true);
    expect(parts.join(" ").split(/\s+/)).toEqual(text.split(/\s+/));
  });

  it("keeps characters whole, and code as code", () => {
    // One of the two is cut between the halves of a character, wherever that is.
    for (const text of ["😀".repeat(200), `a${"😀".repeat(200)}`]) {
      const smiles = partsOf(text, 100);
      expect(smiles.join("")).toBe(text);
      expect(smiles.every((part) => part.isWellFormed() && part.length <= 100)).toBe(true);
    }
    const code = partsOf(`look:\n\`\`\`\n${"let x = 1;\n".repeat(40)}\`\`\`\ndone`, 200);
    expect(code.length).toBeGreaterThan(2);
    expect(code.every((part) => part.split("```").length % 2 === 1 && part.length <= 200)).toBe(true);
  });

  it("goes on where it was refused", async () => {
    const sent: string[] = [];
    let isBusy = false;
    const channel = {
      send: async ({ text }: Outgoing) => {
        if (isBusy) throw new SendRefused("busy", false);
        isBusy = sent.push(text) === 2;
        return String(sent.length);
      },
    };
    const parts = new InParts(channel as never, 30);
    const long = message({ text: "one two three four five six seven eight nine ten eleven twelve thirteen" });
    expect(await refused(parts.send(long))).toBe("busy, for now, 0");
    isBusy = false;
    expect(await parts.send(long)).toBe(String(sent.length));
    expect(sent.join(" ")).toBe(long.text);
  });
});

describe("Slack", () => {
  const signed = async (body: string, at = NOW, secret = "b".repeat(32)) => {
    const moment = String(Math.floor(at / 1000));
    const made = await crypto.subtle.sign(
      "HMAC",
      await hmacKey(plain(secret)),
      plain(`v0:${moment}:${body}`),
    );
    return { "x-slack-request-timestamp": moment, "x-slack-signature": `v0=${hex(made)}` };
  };
  const sent = async (body: object, at = NOW) => {
    const text = JSON.stringify(body);
    return slack.receive(call(text, await signed(text, at)), SLACK);
  };
  const event = (more: object, around: object = {}) => ({
    type: "event_callback",
    team_id: "T0",
    event_id: "Ev1",
    authorizations: [{ user_id: "U0BOT00", is_bot: true }],
    event: {
      type: "message",
      channel_type: "im",
      user: "U0ANN00",
      channel: "D0ANN00",
      ts: "1.2",
      text: "hi",
      ...more,
    },
    ...around,
  });
  const updateOf = async (body: object) =>
    ((await sent(body)).told as { update: Update } | null)?.update ?? null;
  const mention = {
    type: "app_mention",
    channel: "C0X",
    channel_type: "channel",
    text: "<@U0BOT00> what &amp; why",
  };

  // What Slack's own documentation shows.
  const SHOWN =
    "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar" +
    "&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com" +
    "%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d" +
    "10d2c447fce8b6703c";
  const SHOWN_HEADERS = {
    "content-type": "application/x-www-form-urlencoded",
    "x-slack-request-timestamp": "1531420618",
    "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
  };

  it("proves itself as its documentation shows, within five minutes, and in no other way", async () => {
    const at = { now: 1531420618_000 };
    const app = { ...SLACK, allow: ["U2CERLKJA"] };
    const { told } = await slack.receive(call(SHOWN, SHOWN_HEADERS, at), app);
    expect((told as { update: { message: { event: object } } }).update.message.event).toMatchObject({
      text: "/webhook-collect",
      source: { chat_id: "G8PSS9T3V", user_id: "U2CERLKJA", chat_type: "group" },
    });
    const forged: [string, Record<string, string>, number][] = [
      [`${SHOWN}x`, SHOWN_HEADERS, at.now],
      [SHOWN, SHOWN_HEADERS, at.now + 301_000],
      [SHOWN, SHOWN_HEADERS, at.now - 301_000],
      [SHOWN, { ...SHOWN_HEADERS, "x-slack-signature": "v0=" }, at.now],
      [SHOWN, { ...SHOWN_HEADERS, "x-slack-request-timestamp": "1531420619" }, at.now],
      [SHOWN, { ...SHOWN_HEADERS, "x-slack-request-timestamp": "" }, at.now],
      [SHOWN, {}, at.now],
    ];
    for (const [body, headers, now] of forged)
      await expect(slack.receive(call(body, headers, { now }), app)).rejects.toMatchObject({ status: 401 });
    const another = { ...app, signingSecrets: ["c".repeat(32)] };
    await expect(slack.receive(call(SHOWN, SHOWN_HEADERS, at), another)).rejects.toMatchObject({
      status: 401,
    });
  });

  it("has its body read only with something like a signature of now", async () => {
    const body = () => Promise.reject(new Error("it was read"));
    const old = await signed("{}", NOW - 400_000);
    await expect(slack.receive(call("", old, { body }), SLACK)).rejects.toMatchObject({ status: 401 });
  });

  it("is given back its challenge, and told nothing else", async () => {
    const { answer, told } = await sent({ type: "url_verification", challenge: "abc" });
    expect([await answer.text(), told]).toEqual(["abc", null]);
    expect((await sent({ type: "app_rate_limited" })).told).toBeNull();
    await expect(sent({ type: "event_callback" })).rejects.toMatchObject({ status: 400 });
  });

  it("brings a message of a talk, and of a channel what names the bot, to be answered in its thread", async () => {
    expect(await updateOf(event({}))).toEqual({
      kind: "message",
      message: {
        id: "D0ANN00 1.2",
        event: {
          text: "hi",
          message_type: "text",
          message_id: "1.2",
          source: {
            platform: "slack",
            chat_id: "D0ANN00",
            chat_type: "dm",
            user_id: "U0ANN00",
            scope_id: "T0",
            message_id: "1.2",
          },
        },
      },
    });
    expect(await updateOf(event(mention))).toMatchObject({
      message: { event: { text: "what & why", source: { chat_type: "group", thread_id: "1.2" } } },
    });
    expect(await updateOf(event({ ...mention, thread_ts: "0.9" }))).toMatchObject({
      message: { event: { message_id: "1.2", source: { thread_id: "0.9" } } },
    });
    const written =
      "<@U7|bob> in <#C7|general>: <https://a.example|here> <http://b.example|b.example> &lt;x&gt; <!here>";
    expect(await updateOf(event({ text: written }))).toMatchObject({
      message: { event: { text: "@bob in #general: here (https://a.example) b.example <x> @here" } },
    });
  });

  it.each([
    ["a stranger's", { user: "U0EVE00" }],
    ["a stranger's mention", { ...mention, user: "U0EVE00" }],
    ["a bot's", { bot_id: "B1" }],
    ["a changed, of which it is not told how,", { subtype: "message_changed" }],
    ["a message with a link that is shown below it", { subtype: "message_changed", message: { text: "hi" } }],
    ["a channel's", { channel: "C0OPEN0", channel_type: "channel" }],
  ])("%s message is for nobody", async (_name, more) => {
    expect(await updateOf(event(more))).toBeNull();
  });

  it("brings what a message says since its author changed it, and nobody else's", async () => {
    const changed = (said: object, more: object = {}) => {
      const edited = { user: "U0ANN00", ts: "9.9" };
      const now = { type: "message", user: "U0ANN00", ts: "1.2", text: "ho", edited, ...said };
      const { event: of, ...around } = event({
        subtype: "message_changed",
        message: now,
        ts: "9.9",
        ...more,
      });
      return updateOf({ ...around, event: { ...of, user: undefined, text: undefined } });
    };
    const as = (text: string, of: object = {}) => ({
      kind: "edit",
      of: { message: { event: { text, ...of } } },
    });
    expect(await changed({})).toMatchObject(as("ho", { message_id: "1.2" }));
    const elsewhere = { channel: "C0X", channel_type: "channel" };
    expect(await changed({ text: "<@U0BOT00> ha" }, elsewhere)).toMatchObject(
      as("ha", { message_id: "1.2", source: expect.objectContaining({ thread_id: "1.2" }) }),
    );
    expect(await changed({}, elsewhere)).toBeNull();
    expect(await changed({ user: "U0EVE00" })).toBeNull();
    expect(await changed({ bot_id: "B0" })).toBeNull();
  });

  const pressed = async (more: object = {}, value = "hp1:c1:red") => {
    const payload = {
      ...{ type: "block_actions", user: { id: "U0ANN00" }, team: { id: "T0" }, channel: { id: "C0X" } },
      message: { ts: "5.6", text: "Which *way*?", thread_ts: "1.2" },
      actions: [{ type: "button", value, action_ts: "7.8" }],
      response_url: "https://hooks.slack.com/actions/1",
      ...more,
    };
    const body = new URLSearchParams({ payload: JSON.stringify(payload) }).toString();
    const headers = { "content-type": "application/x-www-form-urlencoded", ...(await signed(body)) };
    return slack.receive(call(body, headers), SLACK);
  };

  it("brings a press below a question, which shows what it answered", async () => {
    const { answer, told } = await pressed();
    expect([answer.status, await answer.text()]).toEqual([200, ""]);
    const press = { id: "press C0X 5.6 U0ANN00 7.8", message: "5.6", text: "Which *way*?" };
    expect(told).toMatchObject({
      update: {
        message: {
          id: press.id,
          event: {
            press: { ...press, prompt: "c1", option: "red" },
            source: { chat_id: "C0X", user_id: "U0ANN00", thread_id: "1.2" },
          },
        },
      },
    });
    for (const of of [
      pressed({ user: { id: "U0EVE00" } }),
      pressed({}, "another's"),
      pressed({ type: "view_submission" }),
      pressed({ actions: [] }),
    ])
      expect((await of).told).toBeNull();
    const taken: Answer = [{ ok: true }];
    await inParts([taken, ["expired_url", { status: 404 }], taken], async (parts, asked) => {
      const channel = slack.open(SLACK, parts);
      await channel.read(told ?? {});
      const it = { ...press, prompt: "c1", option: "red" };
      await channel.settle?.("C0X", it, "→ a & b");
      await channel.settle?.("C0X", it, "→ a & b");
      const said = { text: "Which *way*?\n\n→ a &amp; b", blocks: [] };
      expect(asked.map(({ url, body }) => [url, JSON.parse(body)])).toEqual([
        ["https://hooks.slack.com/actions/1", { replace_original: true, ...said }],
        ["https://hooks.slack.com/actions/1", { replace_original: true, ...said }],
        ["https://slack.com/api/chat.update", { channel: "C0X", ts: "5.6", ...said }],
      ]);
    });
  });

  it("tells of a stranger who writes to the bot alone, by whatever way, and of nobody else", async () => {
    const open = { ...SLACK, pairing: true };
    const form = async (fields: Record<string, string>) => {
      const body = new URLSearchParams(fields).toString();
      const headers = { "content-type": "application/x-www-form-urlencoded", ...(await signed(body)) };
      return (await slack.receive(call(body, headers), open)).told as { update: Update } | null;
    };
    const written = async (more: object) => {
      const text = JSON.stringify(event({ user: "U0EVE00", ...more }));
      return (await slack.receive(call(text, await signed(text)), open)).told as { update: Update } | null;
    };
    const command = (channel: string, more: object = {}) =>
      form({ command: "/hermes", channel_id: channel, user_id: "U0EVE00", trigger_id: "1", ...more });
    const press = (channel: string) =>
      form({
        payload: JSON.stringify({
          ...{ type: "block_actions", user: { id: "U0EVE00" }, channel: { id: channel } },
          message: { ts: "5.6", text: "Which?" },
          actions: [{ type: "button", value: "hp1:c1:red", action_ts: "7.8" }],
        }),
      });
    const stranger = { update: { kind: "stranger", user: "U0EVE00" } };
    for (const told of [await written({}), await command("D0EVE00"), await press("D0EVE00")])
      expect(told).toMatchObject(stranger);
    for (const told of [await written(mention), await command("C0X"), await press("C0X")])
      expect(told).toBeNull();
    // What says nothing asks for help.
    expect(await command("D0EVE00")).toMatchObject({
      update: { said: { message: { event: { text: "/help" } } } },
    });
    for (const missing of ["channel_id", "user_id", "trigger_id"])
      await expect(command("D0EVE00", { [missing]: "" })).rejects.toMatchObject({ code: "bad_update" });
    await expect(form({})).rejects.toMatchObject({ code: "bad_update" });
  });

  it("brings files without a name or a text, and refuses a change that is none", async () => {
    const files = [{ id: "F1", url_private_download: "https://files.slack.com/1", size: 3 }];
    const shared = event({ subtype: "file_share", text: undefined, files }, { authorizations: undefined });
    expect(await updateOf(shared)).toMatchObject({
      message: { event: { text: "", files: [{ name: "", kind: "document" }] } },
    });
    const change = (message: object) =>
      updateOf(event({ subtype: "message_changed", message: { edited: {}, user: "U0ANN00", ...message } }));
    await expect(change({ ts: 7 })).rejects.toMatchObject({ code: "bad_update" });
  });

  it("is asked with buttons below, and a question of any length above", () =>
    inParts([[{ ok: true, ts: "1" }]], async (parts, asked) => {
      const buttons = [{ data: "hp1:c1:red", label: "the red" }];
      await slack.open(SLACK, parts).send(message({ text: `**${"&".repeat(3000)}**`, buttons }));
      const { blocks } = JSON.parse(asked[0]?.body ?? "");
      const above = blocks.slice(0, -1);
      expect(above.length).toBeGreaterThan(1);
      for (const { type, text } of above) {
        expect(type).toBe("section");
        expect(text.text.length).toBeLessThanOrEqual(3000);
      }
      expect(blocks.at(-1)).toMatchObject({
        type: "actions",
        elements: [{ type: "button", text: { type: "plain_text", text: "the red" }, value: "hp1:c1:red" }],
      });
    }));

  it("may be for everybody of a channel; may be files at Slack, and no others, nor too large ones", async () => {
    expect(await updateOf(event({ ...mention, channel: "C0OPEN0", user: "U0EVE00" }))).toMatchObject({
      kind: "message",
    });
    const url = "https://files.slack.com/files-pri/T1-F1/download/a.png";
    const files = [{ name: "a.png", mimetype: "image/png", size: 7, url_private_download: url }, {}];
    const shared = (more: object) => updateOf(event({ subtype: "file_share", text: "", ...more }));
    expect(await shared({ files })).toMatchObject({
      kind: "message",
      message: {
        event: {
          message_type: "photo",
          files: [{ ref: url, kind: "photo", name: "a.png", mime: "image/png" }],
        },
      },
    });
    const answer = (words: string) => ({
      kind: "answer",
      chat: "D0ANN00",
      text: expect.stringContaining(words),
    });
    expect(await shared({ files: [{}] })).toMatchObject(answer("text and files only"));
    const most = 25 * 1024 * 1024;
    expect(await shared({ files: [{ ...files[0], size: most }] })).toMatchObject({ kind: "message" });
    const large = { ...files[0], size: most + 1 };
    expect(await shared({ files: [large] })).toMatchObject(answer("up to 25 MB"));
  });

  it.each([
    ["https://files.slack.com/x", {}, "taken"],
    ["https://files.slack.com.evil.example/x", {}, "Slack: a file is somewhere else, for good, 0"],
    ["http://files.slack.com/x", {}, "Slack: a file is somewhere else, for good, 0"],
    ["nonsense", {}, "Slack: a file is somewhere else, for good, 0"],
    [
      "https://files.slack.com/x",
      { headers: { "content-type": "text/html; charset=utf-8" } },
      "Slack: a file may not be read, for good, 0",
    ],
    [
      "https://files.slack.com/x",
      { status: 302, headers: { location: "https://slack.com/login" } },
      "Slack: a file may not be read, for good, 0",
    ],
    ["https://files.slack.com/x", { status: 404 }, "Slack: a file was refused with 404, for good, 0"],
    ["https://files.slack.com/x", { status: 500 }, "Slack: a file was refused with 500, for now, 0"],
  ])("fetches a file at %s with its token, which goes nowhere else (%j)", (ref, init, ends) =>
    inParts([["the bytes", init]], async (parts, asked) => {
      const file = { ref, kind: "photo", name: "", mime: "image/png" } as const;
      const fetched = Promise.resolve().then(() => slack.open(SLACK, parts).file?.(file));
      if (ends === "taken") expect(await new Response(await fetched).text()).toBe("the bytes");
      else expect(await refused(fetched)).toBe(ends);
      expect(asked.map(({ headers }) => headers.get("authorization"))).toEqual(
        ref.startsWith("https://files.slack.com/") ? [`Bearer ${SLACK.token}`] : [],
      );
    }),
  );

  it("is told what it shows as Hermes meant it", () => {
    const cases: [string, string][] = [
      ["**bold** and *thin* and ~~gone~~", "*bold* and _thin_ and ~gone~"],
      ["# Title **x**\n- one\n* two", "*Title x*\n• one\n• two"],
      ["[docs](https://a.example/x?y=1&z) & <b>", "<https://a.example/x?y=1&amp;z|docs> &amp; &lt;b&gt;"],
      ["`**a**` ```\n**b** <i>\n``` 2*3*4", "`**a**` ```\n**b** &lt;i&gt;\n``` 2*3*4"],
      ["> said\nsnake_case_name", "> said\nsnake_case_name"],
    ];
    for (const [text, shown] of cases) expect(mrkdwnOf(text)).toBe(shown);
  });

  it("takes an answer in a thread, and says for how long it takes none", () =>
    inParts([[{ ok: true, ts: "9.9" }]], async (parts, asked) => {
      expect(await slack.open(SLACK, parts).send(message({ thread: "1.2", text: "**a**" }))).toBe("9.9");
      expect(asked[0]?.url).toBe("https://slack.com/api/chat.postMessage");
      expect(asked[0]?.headers.get("authorization")).toBe(`Bearer ${SLACK.token}`);
      expect(JSON.parse(asked[0]?.body ?? "")).toMatchObject({
        channel: "C0OPEN0",
        text: "*a*",
        thread_ts: "1.2",
      });
    }));

  it.each([
    [
      [
        { ok: false, error: "ratelimited" },
        { status: 429, headers: { "retry-after": "7" } },
      ] as Answer,
      "ratelimited, for now, 7000",
    ],
    [[{ ok: false, error: "not_in_channel" }] as Answer, "not_in_channel, for good, 0"],
    [[{ ok: false, error: "invalid_auth" }] as Answer, "invalid_auth, for now, 0"],
    [["<html>", { status: 502 }] as Answer, "chat.postMessage failed, for now, 0"],
  ])("refuses a message %#", (answer, words) =>
    inParts([answer], async (parts) => {
      expect(await refused(slack.open(SLACK, parts).send(message()))).toBe(`Slack: ${words}`);
    }),
  );

  it("takes the answer to a command where it was given, while it does, and nowhere else", () => {
    const command = async (url: string) => {
      const body = new URLSearchParams({
        ...{
          command: "/hermes",
          text: "what is new",
          user_id: "U0ANN00",
          channel_id: "C0X",
          trigger_id: "7.8",
        },
        response_url: url,
      }).toString();
      const headers = { "content-type": "application/x-www-form-urlencoded", ...(await signed(body)) };
      return (await slack.receive(call(body, headers), SLACK)).told ?? {};
    };
    const taken: Answer = [{ ok: true, ts: "1" }];
    return inParts([taken, ["expired_url", { status: 404 }], taken], async (parts, asked, time) => {
      const channel = slack.open(SLACK, parts);
      const answer = message({ chat: "C0X", replyTo: "command-7.8" });
      expect(await channel.read(await command("https://hooks.slack.com/commands/1"))).toMatchObject([
        { message: { id: "7.8", event: { text: "what is new" } } },
      ]);
      await channel.send(answer);
      await channel.send(answer);
      await time.pass(30 * 60_000);
      await channel.send(answer);
      await channel.read(await command("https://evil.example/commands/1"));
      await channel.send(answer);
      const api = "https://slack.com/api/chat.postMessage";
      const hook = "https://hooks.slack.com/commands/1";
      expect(asked.map(({ url }) => url)).toEqual([hook, hook, api, api, api]);
    });
  });

  it("tells who the bot is, and what its token may not", () => {
    const scoped = (scopes: string): Answer => [
      { ok: true, user: "hermes" },
      { headers: { "x-oauth-scopes": scopes } },
    ];
    const answers = [scoped("chat:write,im:history,app_mentions:read"), scoped("chat:write")];
    return inParts(answers, async (parts) => {
      const channel = slack.open(SLACK, parts);
      expect(await channel.register("https://h.example", false)).toMatchObject({
        bot: "hermes",
        address: "https://h.example/channels/slack",
        changed: false,
      });
      expect(await refused(channel.register("https://h.example", false))).toContain(
        "lacks the scopes app_mentions",
      );
    });
  });

  it("hides its secrets, and wakes nobody for strangers and forgers", async () => {
    expect(channelSecrets(settingsOf({ ...env, ...DECLARED } as Env).channels)).toEqual([
      SLACK.token,
      "b".repeat(32),
    ]);
    await anew();
    const post = (body: string, headers: Record<string, string>) =>
      askWith(DECLARED, "/channels/slack", headers, { method: "POST", body });
    const stranger = JSON.stringify(event({ user: "U0EVE00" }));
    for (let n = 0; n < 20; n++) {
      expect((await post(stranger, await signed(stranger, Date.now()))).status).toBe(200);
      const mine = JSON.stringify(event({}));
      const forged = await post(mine, await signed(mine, Date.now(), "c".repeat(32)));
      expect(await refusal(forged)).toMatchObject({ status: 401, code: "bad_signature" });
    }
    expect(await woken()).toBe(false);
    const large = "x".repeat(300_000);
    expect((await post(large, await signed(large, Date.now()))).status).toBe(413);
    expect((await askWith({ HERMES_CHANNELS: "" }, "/channels/slack", {}, { method: "POST" })).status).toBe(
      404,
    );
    expect((await askWith(DECLARED, "/channels/slack", {})).status).toBe(401);
  });
});

describe("a reaction", () => {
  const reaction = { chat: "C0OPEN0", message: "1.2", emoji: "👀", isOver: false };

  it("has a name at Slack; one that is there already, or not any more, is no failure", () =>
    inParts(
      [[{ ok: true }], [{ ok: false, error: "already_reacted" }], [{ ok: false, error: "no_reaction" }]],
      async (parts, asked) => {
        const channel = slack.open(SLACK, parts);
        for (const isOver of [false, false, true]) await channel.react?.({ ...reaction, isOver });
        expect(asked.map(({ url }) => url.replace(SLACK.apiUrl, ""))).toEqual([
          ...["/reactions.add", "/reactions.add", "/reactions.remove"],
        ]);
        for (const { body } of asked)
          expect(JSON.parse(body)).toEqual({ channel: "C0OPEN0", timestamp: "1.2", name: "eyes" });
      },
    ));

  it.each(["missing_scope", "message_not_found", "channel_not_found"])(
    "is refused with the word of Slack: %s",
    (error) =>
      inParts([[{ ok: false, error }]], async (parts) => {
        const react = Promise.resolve(slack.open(SLACK, parts).react?.(reaction));
        expect(await refused(react)).toBe(`Slack: ${error}, for good, 0`);
      }),
  );

  it("that Slack has no name for is refused without asking it", () =>
    inParts([], async (parts, asked) => {
      const react = Promise.resolve(slack.open(SLACK, parts).react?.({ ...reaction, emoji: "🦩" }));
      expect(await refused(react)).toBe("Slack: a reaction is not known, for good, 0");
      expect(asked).toEqual([]);
    }));

  it("is a message of its own by WhatsApp; without an emoji it takes the one before away", () =>
    inParts([[{ messages: [{ id: "wamid.2" }] }]], async (parts, asked) => {
      const app = {
        ...{ token: "E".repeat(30), appSecret: "5".repeat(32), verifyToken: "made-up", phoneNumberId: "1" },
        ...{ allow: [], apiUrl: "https://graph.facebook.com/v23.0", pairing: false },
      };
      const channel = whatsapp.open(app, parts);
      for (const isOver of [false, true])
        await channel.react?.({ ...reaction, chat: "491701234567", message: "wamid.1", isOver });
      expect(asked.map(({ url, body }) => [url.replace(app.apiUrl, ""), JSON.parse(body)])).toEqual(
        ["👀", ""].map((emoji) => [
          "/1/messages",
          {
            ...{ messaging_product: "whatsapp", recipient_type: "individual", to: "491701234567" },
            ...{ type: "reaction", reaction: { message_id: "wamid.1", emoji } },
          },
        ]),
      );
    }));
});

describe("a file that Slack is sent", () => {
  const place: Answer = [{ ok: true, upload_url: "https://files.slack.com/upload/v1/x", file_id: "F1" }];

  it("goes where Slack says, without the token, and is shown in its thread", () =>
    inParts([place, ["OK - 9"], [{ ok: true }]], async (parts, asked) => {
      const sent = slack
        .open(SLACK, parts)
        .sendFile?.(message({ thread: "1.2", text: "**look**" }), file({ name: "a.png" }));
      expect(await sent).toBe("F1");
      expect(asked.map(({ url }) => url)).toEqual([
        "https://slack.com/api/files.getUploadURLExternal",
        "https://files.slack.com/upload/v1/x",
        "https://slack.com/api/files.completeUploadExternal",
      ]);
      expect(asked[0]?.body).toBe("filename=a.png&length=9");
      expect(asked.map(({ headers }) => headers.get("authorization"))).toEqual([
        `Bearer ${SLACK.token}`,
        null,
        `Bearer ${SLACK.token}`,
      ]);
      expect([asked[1]?.body, asked[1]?.headers.get("content-type")]).toEqual(["the bytes", "image/png"]);
      expect(JSON.parse(asked[2]?.body ?? "")).toEqual({
        files: [{ id: "F1", title: "a.png" }],
        ...{ channel_id: "C0OPEN0", thread_ts: "1.2", initial_comment: "*look*" },
      });
    }));

  it.each<[string, Answer[], string]>([
    [
      "without its scope",
      [[{ ok: false, error: "missing_scope" }]],
      "Slack: the token lacks the scope files:write, for good, 0",
    ],
    [
      "at another's address",
      [[{ ok: true, upload_url: "https://files.slack.com.evil.example/x", file_id: "F1" }]],
      "Slack: a file is somewhere else, for good, 0",
    ],
    [
      "that does not get through",
      [place, ["", { status: 503 }]],
      "Slack: a file was refused with 503, for now, 0",
    ],
  ])("is refused %s", (_, answers, words) =>
    inParts([...answers], async (parts, asked) => {
      const sent = Promise.resolve(slack.open(SLACK, parts).sendFile?.(message(), file()));
      expect(await refused(sent)).toBe(words);
      expect(asked).toHaveLength(answers.length);
    }),
  );
});

describe("WhatsApp", () => {
  const APP = {
    token: "EAA".repeat(10),
    appSecret: "5".repeat(32),
    verifyToken: "made-up-word",
    phoneNumberId: "106540352242922",
    allow: ["491701234567"],
    apiUrl: "https://graph.facebook.com/v23.0",
    pairing: false,
  };
  const value = (messages: object[], more: object = {}) =>
    JSON.stringify({
      object: "whatsapp_business_account",
      entry: [
        {
          changes: [
            {
              field: "messages",
              value: { metadata: { phone_number_id: APP.phoneNumberId }, messages, ...more },
            },
          ],
        },
      ],
    });
  const written = { from: "491701234567", id: "wamid.1", type: "text", text: { body: "hi" } };
  const sent = async (body: string, secret = APP.appSecret) => {
    const made = await crypto.subtle.sign("HMAC", await hmacKey(plain(secret)), plain(body));
    return whatsapp.receive(call(body, { "x-hub-signature-256": `sha256=${hex(made)}` }), APP);
  };
  const updatesOf = async (body: string) =>
    ((await sent(body)).told as { updates: Update[] } | null)?.updates;

  it("is given its challenge for the right word only", async () => {
    const asked = (query: string) =>
      whatsapp.receive(
        call("", {}, { method: "GET", url: `https://h.example/channels/whatsapp_cloud?${query}` }),
        APP,
      );
    const right = "hub.mode=subscribe&hub.verify_token=made-up-word&hub.challenge=42";
    expect(await (await asked(right)).answer.text()).toBe("42");
    for (const query of ["", right.replace("made", "mode"), right.replace("subscribe", "unsubscribe")])
      await expect(asked(query)).rejects.toMatchObject({ status: 401 });
  });

  it("brings all messages of an update, of those who may write; of what became of ours only that it failed", async () => {
    const picture = { ...written, id: "wamid.2", type: "sticker", text: undefined };
    const stranger = { ...written, id: "wamid.3", from: "491709999999" };
    const contacts = [{ wa_id: "491701234567", profile: { name: "Ann" } }];
    const reply = { ...written, id: "wamid.4", context: { id: "wamid.0" } };
    const updates = await updatesOf(value([written, picture, stranger, reply], { contacts }));
    expect(updates).toMatchObject([
      {
        kind: "message",
        message: {
          id: "wamid.1",
          event: { text: "hi", source: { chat_id: "491701234567", user_name: "Ann" } },
        },
      },
      { kind: "answer", message: "wamid.2" },
      { message: { event: { reply_to_message_id: "wamid.0" } } },
    ]);
    expect(await updatesOf(value([], { statuses: [{ id: "wamid.0", status: "read" }] }))).toBeUndefined();
    const late = { code: 131047, title: "Re-engagement message" };
    const failed = [late, { code: 131026, title: "Message undeliverable" }, {}].map((error, n) => {
      return { id: `wamid.${n}`, status: "failed", errors: [error] };
    });
    expect(await updatesOf(value([], { statuses: [...failed, { id: "wamid.9", status: "sent" }] }))).toEqual([
      {
        ...{ kind: "undelivered", message: "wamid.0" },
        why: "WhatsApp: more than 24 hours have passed since they wrote (131047)",
      },
      { kind: "undelivered", message: "wamid.1", why: "WhatsApp: Message undeliverable (131026)" },
      { kind: "undelivered", message: "wamid.2", why: "WhatsApp: no reason was given (0)" },
    ]);
    expect(await updatesOf(value([written], { statuses: [{ odd: 1 }] }))).toHaveLength(1);
    expect(await updatesOf(value([written], { metadata: { phone_number_id: "1" } }))).toBeUndefined();
    await expect(sent(value([written]), "6".repeat(32))).rejects.toMatchObject({ status: 401 });
    await expect(whatsapp.receive(call(value([written]), {}), APP)).rejects.toMatchObject({ status: 401 });
    await expect(sent("{}")).rejects.toMatchObject({ status: 400 });
  });

  it.each([
    [{ type: "image", image: { id: "M1", mime_type: "image/jpeg", caption: "look" } }, "photo", "look", ""],
    [
      { type: "audio", audio: { id: "M1", mime_type: "audio/ogg; codecs=opus", voice: true } },
      "voice",
      "",
      "",
    ],
    [
      { type: "document", document: { id: "M1", mime_type: "image/png", filename: "a.png" } },
      "document",
      "",
      "a.png",
    ],
  ])("brings a file that is %j", async (more, kind, text, name) => {
    const [update] = (await updatesOf(value([{ ...written, text: undefined, ...more }]))) ?? [];
    expect(update).toMatchObject({
      message: { event: { text, message_type: kind, files: [{ ref: "M1", kind, name }] } },
    });
    expect(JSON.stringify(update)).not.toContain("codecs");
  });

  const there = { url: "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1", file_size: 9 };
  it.each([
    [there, "taken"],
    [{ ...there, url: "https://evil.example/" }, "WhatsApp: a file is somewhere else, for good, 0"],
    [{}, "WhatsApp: a file is somewhere else, for good, 0"],
    [{ ...there, file_size: 25 * 1024 * 1024 }, "taken"],
    [{ ...there, file_size: 25 * 1024 * 1024 + 1 }, "a file is too large, for good, 0"],
  ])("fetches a file that is %j", (told, ends) =>
    inParts([[told], ["the bytes"]], async (parts, asked) => {
      const file = { ref: "M1", kind: "photo", name: "", mime: "image/png" } as const;
      const fetched = Promise.resolve(whatsapp.open(APP, parts).file?.(file));
      if (ends === "taken") expect(await new Response(await fetched).text()).toBe("the bytes");
      else expect(await refused(fetched)).toBe(ends);
      expect(asked[0]?.url).toBe(`${APP.apiUrl}/M1`);
      expect(asked).toHaveLength(ends === "taken" ? 2 : 1);
      expect(asked.at(-1)?.headers.get("authorization")).toBe(`Bearer ${APP.token}`);
    }),
  );

  it.each([
    [131047, 400, "more than 24 hours have passed since they wrote (131047), for good, 0"],
    [131056, 400, "x (131056), for now, 0"],
    [190, 401, "x (190), for now, 0"],
    [100, 400, "x (100), for good, 0"],
  ])("refuses a message with %i", (code, status, words) =>
    inParts([[{ error: { code, message: "x" } }, { status }]], async (parts) => {
      expect(await refused(whatsapp.open(APP, parts).send(message()))).toBe(`WhatsApp: ${words}`);
    }),
  );
});

describe("a file that WhatsApp is sent", () => {
  const APP = {
    ...{ token: "EAAtoken0123456789abc", appSecret: "5".repeat(32), verifyToken: "made-up-word" },
    ...{ phoneNumberId: "106540352242922", allow: [], apiUrl: "https://graph.facebook.com/v23.0" },
    pairing: false,
  };
  const MB = 1024 * 1024;

  it.each<[Partial<OutgoingFile>, string, string, object]>([
    [{}, "image/png", "image", { caption: "look" }],
    [{ mime: "image/gif" }, "image/gif", "document", { caption: "look", filename: 'a "b".png' }],
    [{ kind: "document" }, "image/png", "document", { caption: "look", filename: 'a "b".png' }],
    [
      { kind: "document", mime: "text/csv" },
      "text/plain",
      "document",
      { caption: "look", filename: 'a "b".png' },
    ],
    [{ kind: "voice", mime: "audio/ogg" }, "audio/ogg", "audio", { voice: true }],
    [{ kind: "audio", mime: "audio/mpeg" }, "audio/mpeg", "audio", {}],
    [{ kind: "video", mime: "video/mp4" }, "video/mp4", "video", { caption: "look" }],
  ])("as %o is given before its message", (more, mime, type, shown) =>
    inParts([[{ id: "M1" }], [{ messages: [{ id: "wamid.1" }] }]], async (parts, asked) => {
      const channel = whatsapp.open(APP, parts);
      expect(await channel.sendFile?.(message({ text: "look" }), file(more))).toBe("wamid.1");
      expect(asked.map(({ url }) => url.replace(APP.apiUrl, ""))).toEqual([
        "/106540352242922/media",
        "/106540352242922/messages",
      ]);
      expect(await formOf(asked[0] as Asked)).toEqual({
        messaging_product: "whatsapp",
        type: mime,
        file: [expect.stringMatching(/^a (%22|")b(%22|")\.png$/), mime, "the bytes"],
      });
      expect(JSON.parse(asked[1]?.body ?? "")).toMatchObject({ type, [type]: { id: "M1", ...shown } });
      expect(Object.keys(JSON.parse(asked[1]?.body ?? "")[type]).sort()).toEqual(
        ["id", ...Object.keys(shown)].sort(),
      );
    }),
  );

  it.each([
    ["photo", "image/png", 5, "image"],
    ["audio", "audio/mpeg", 16, "audio"],
    ["video", "video/mp4", 16, "video"],
  ] as const)("that is larger than WhatsApp shows a %s (%s, %i MB) is a document", (kind, mime, most, type) =>
    inParts([[{ id: "M1" }], [{ messages: [{ id: "wamid.1" }] }]], async (parts, asked) => {
      const channel = whatsapp.open(APP, parts);
      await channel.sendFile?.(message(), file({ kind, mime, size: most * MB, bytes: zeros(most * MB) }));
      await channel.sendFile?.(
        message(),
        file({ kind, mime, size: most * MB + 1, bytes: zeros(most * MB + 1) }),
      );
      expect([1, 3].map((at) => JSON.parse(asked[at]?.body ?? "").type)).toEqual([type, "document"]);
    }),
  );

  it("is refused for good with the words of Meta", () =>
    inParts([[{ error: { code: 100, message: "no such type" } }, { status: 400 }]], async (parts) => {
      const sent = Promise.resolve(whatsapp.open(APP, parts).sendFile?.(message(), file()));
      expect(await refused(sent)).toBe("WhatsApp: no such type (100), for good, 0");
    }));
});

describe("SMS", () => {
  const ACCOUNT = {
    accountSid: `AC${"7".repeat(32)}`,
    authTokens: ["12345", "e".repeat(32)],
    number: "+18005551212",
    allow: ["+14158675310"],
    apiUrl: "https://api.twilio.com",
    pairing: false,
  };
  // What Twilio's own documentation shows.
  const SHOWN = {
    CallSid: "CA1234567890ABCDE",
    Caller: "+14158675310",
    Digits: "1234",
    From: "+14158675310",
    To: "+18005551212",
  };
  const SHOWN_URL = "https://example.com/myapp.php?foo=1&bar=2";
  const sent = (fields: Record<string, string>, signature: string, url = SHOWN_URL) =>
    sms.receive(
      call(new URLSearchParams(fields).toString(), { "x-twilio-signature": signature }, { url }),
      ACCOUNT,
    );
  const signed = async (fields: Record<string, string>) => {
    const text =
      SHOWN_URL +
      Object.keys(fields)
        .sort()
        .map((name) => name + fields[name])
        .join("");
    const made = await crypto.subtle.sign("HMAC", await hmacKey(plain("e".repeat(32)), "SHA-1"), plain(text));
    return btoa(String.fromCharCode(...new Uint8Array(made)));
  };

  it("proves itself as its documentation shows, over address and fields", async () => {
    // It is genuine, and no message.
    const signature = "L/OH5YylLD5NRKLltdqwSvS0BnU=";
    await expect(sent(SHOWN, signature)).rejects.toMatchObject({ status: 400 });
    for (const [fields, given, url] of [
      [{ ...SHOWN, Digits: "1235" }, signature, SHOWN_URL],
      [SHOWN, signature, `${SHOWN_URL}x`],
      [SHOWN, "M/OH5YylLD5NRKLltdqwSvS0BnU=", SHOWN_URL],
      [SHOWN, "", SHOWN_URL],
    ] as const)
      await expect(sent(fields, given, url)).rejects.toMatchObject({ status: 401 });
  });

  it("brings a message of who may write, and nothing else", async () => {
    const fields = {
      ...{ MessageSid: "SM1", AccountSid: ACCOUNT.accountSid, From: "+14158675310", To: "+18005551212" },
      ...{ Body: "hi", NumMedia: "0" },
    };
    const updateOf = async (more: Record<string, string>) => {
      const { answer, told } = await sent({ ...fields, ...more }, await signed({ ...fields, ...more }));
      expect(await answer.text()).toContain("<Response/>");
      return (told as { updates: Update[] } | null)?.updates[0] ?? null;
    };
    expect(await updateOf({})).toMatchObject({ message: { id: "SM1", event: { text: "hi" } } });
    expect(await updateOf({ Body: " " })).toMatchObject({ kind: "answer" });
    expect(await updateOf({ From: "+14150000000" })).toBeNull();
    expect(await updateOf({ AccountSid: `AC${"8".repeat(32)}` })).toBeNull();
  });

  const there = "https://api.twilio.com/2010-04-01/Accounts/AC/Messages/MM1/Media/ME1";

  it("brings pictures and other files, with a text or without", async () => {
    const fields = {
      ...{ MessageSid: "MM1", AccountSid: ACCOUNT.accountSid, From: "+14158675310", To: "+18005551212" },
      ...{ Body: "", NumMedia: "2", MediaUrl0: there, MediaContentType0: "image/jpeg" },
      ...{ MediaUrl1: `${there}2`, MediaContentType1: "text/vcard" },
    };
    const { told } = await sent(fields, await signed(fields));
    expect((told as { updates: Update[] }).updates).toMatchObject([
      {
        kind: "message",
        message: {
          event: {
            ...{ text: "", message_type: "photo" },
            files: [
              { ref: there, kind: "photo", mime: "image/jpeg" },
              { ref: `${there}2`, kind: "document", mime: "text/vcard" },
            ],
          },
        },
      },
    ]);
  });

  const leads = (to: string): Answer => ["", { status: 307, headers: { location: to } }];
  it.each([
    [there, [["the bytes"]], [there], "taken"],
    [
      there,
      [leads("https://mms.twiliocdn.com/x"), ["the bytes"]],
      [there, "https://mms.twiliocdn.com/x"],
      "taken",
    ],
    [there, [leads("http://10.0.0.1/x")], [there], "Twilio: a file may not be read, for good, 0"],
    [there, [leads("")], [there], "Twilio: a file may not be read, for good, 0"],
    [
      there,
      [leads("https://a.example"), leads("https://b.example")],
      [there, "https://a.example/"],
      "Twilio: a file may not be read, for good, 0",
    ],
    [there, [["", { status: 404 }]], [there], "Twilio: a file was refused with 404, for good, 0"],
    ["https://evil.example/x", [], [], "Twilio: a file is somewhere else, for good, 0"],
  ] as [string, Answer[], string[], string][])(
    "fetches a file where Twilio leads to, and tells nobody else its token: %s %j",
    (ref, answers, urls, ends) =>
      inParts(answers, async (parts, asked) => {
        const file = { ref, kind: "photo", name: "", mime: "image/png" } as const;
        const fetched = Promise.resolve(sms.open(ACCOUNT, parts).file?.(file));
        if (ends === "taken") expect(await new Response(await fetched).text()).toBe("the bytes");
        else expect(await refused(fetched)).toBe(ends);
        expect(asked.map(({ url }) => url)).toEqual(urls);
        const proofs = asked.map(({ headers }) => headers.get("authorization"));
        const proof = `Basic ${btoa(`${ACCOUNT.accountSid}:12345`)}`;
        expect(proofs).toEqual(urls.map((_, at) => (at === 0 ? proof : null)));
      }),
  );

  it.each([
    ["as large as Twilio gives", 5 * 1024 * 1024, "taken"],
    ["a byte larger", 5 * 1024 * 1024 + 1, "a file is too large, for good, 0"],
  ])("gives a file that is %s as it says", (_, size, ends) =>
    inParts([["x".repeat(size)]], async (parts) => {
      const file = { ref: there, kind: "photo", name: "", mime: "image/png" } as const;
      const read = sms
        .open(ACCOUNT, parts)
        .file?.(file)
        .then((body) => new Response(body).arrayBuffer());
      expect(await refused(Promise.resolve(read))).toBe(ends);
    }),
  );

  const OURS = "https://h.example/channels/sms";
  const mine = (url = OURS): Answer => [{ incoming_phone_numbers: [{ sid: "PN1", sms_url: url }] }];
  const became = (status: string, code: number | null = null): Answer => [
    { sid: "MM1", status, error_code: code, error_message: null },
  ];
  const sending = (parts: PlatformParts, more: Partial<OutgoingFile> = {}) => {
    const channel = sms.open(ACCOUNT, parts);
    const to = message({ chat: "+12125550123", text: "" });
    return { channel, sent: Promise.resolve(channel.sendFile?.(to, file(more))) };
  };
  /** What Twilio is told to fetch. */
  const mediaIn = (asked: Asked[]) => new URLSearchParams(asked[1]?.body).get("MediaUrl") ?? "";

  it("has Twilio fetch a file that it sends, at an address that leads to it until it was sent", () =>
    inParts([mine(), became("queued"), became("sending"), became("sent")], async (parts, asked, time) => {
      const { channel, sent } = sending(parts);
      await time.pass(0);
      expect(Object.fromEntries(new URLSearchParams(asked[1]?.body))).toEqual({
        ...{ To: "+12125550123", From: "+18005551212", MediaUrl: expect.stringContaining(`${OURS}?file=`) },
      });
      const url = mediaIn(asked);
      const fetches = (one: string, more: Partial<Call> = {}) =>
        sms.fetches?.(call("", {}, { method: "GET", url: one, now: time.now(), ...more }), ACCOUNT);
      const name = await fetches(url);
      expect(name).toBe(url.split("?file=")[1]);
      const there = await channel.offered?.(name as string);
      expect(there).toEqual({ name: "a__b_.png", mime: "image/png", bytes: plain("the bytes").buffer });
      // Of a name that is none nobody is asked.
      for (const wrong of [OURS, `${url}0`, url.replace(/.$/, (last) => (last === "0" ? "1" : "0"))])
        expect(await fetches(wrong)).toBeNull();
      expect(await fetches(url.replace("file-1", "file-2"))).toBeNull();
      expect(await fetches(url, { now: time.now() + 300_000 })).toBeNull();
      // The second token is as good while it replaces the first, and no other is.
      const other = { ...ACCOUNT, authTokens: ["f".repeat(32)] };
      expect(await sms.fetches?.(call("", {}, { url, now: time.now() }), other)).toBeNull();
      await time.pass(3000);
      expect(await sent).toBe("MM1");
      expect(await channel.offered?.(name as string)).toBeNull();
      expect(asked.slice(2).map((one) => one.url.split("/").at(-1))).toEqual(["MM1.json", "MM1.json"]);
    }));

  const no = (code: number, why: string): Answer => [{ code, message: why }, { status: 400 }];
  it.each([
    [
      "of a type that it does not take",
      { mime: "text/plain" },
      [],
      "Twilio: it takes no files of the type text/plain",
    ],
    ["of no type", { mime: "" }, [], "Twilio: it takes no files of the type that this one has"],
    ["too large for a phone", { mime: "video/mp4", size: 600_001 }, [], "Twilio: it is larger than 600 KB"],
    [
      "where its number sends elsewhere",
      {},
      [mine("https://else.example")],
      "Twilio: it does not know where to fetch",
    ],
    ["to where it sends none", {}, [mine(), no(21612, "no such combination")], "Twilio: no such combination"],
    ["by a number that cannot", {}, [mine(), no(21621, "no MMS")], "Twilio: no MMS"],
    [
      "that it could not fetch",
      {},
      [mine(), became("queued"), became("failed", 11200)],
      "Twilio: it was not sent (11200)",
    ],
    ["that a phone does not take", {}, [mine(), became("queued"), became("undelivered", 30011)], "(30011)"],
  ] as [string, Partial<OutgoingFile>, Answer[], string][])(
    "refuses a file %s for good, in words",
    (_, more, answers, why) =>
      inParts(answers, async (parts, asked, time) => {
        const calls = answers.length;
        const ends = refused(sending(parts, more).sent);
        await time.pass(5000);
        expect(await ends).toContain(why);
        expect(await ends).toContain(", for good, ");
        expect(asked).toHaveLength(calls);
      }),
  );

  it.each([
    ["is sent as it is, up to 600 KB", { mime: "video/mp4", size: 600_000 }],
    ["is made smaller by Twilio, up to 5 MB", { mime: "image/jpeg", size: 5 * 1024 * 1024 }],
  ])("takes what %s", (_, more) =>
    inParts([mine(), became("queued"), became("delivered")], async (parts, _asked, time) => {
      const ends = refused(sending(parts, more).sent);
      await time.pass(5000);
      expect(await ends).toBe("taken");
    }),
  );

  it.each([
    ["gives up one that it does not fetch", false, "Twilio: a file was not fetched in time, for now, 0"],
    ["takes one that it has as sent", true, "taken"],
  ])("asks what became of a file while Twilio does not say, and %s", (_, isFetched, is) =>
    inParts([mine(), became("queued"), ["", { status: 503 }]], async (parts, asked, time) => {
      const { channel, sent } = sending(parts);
      const ends = refused(sent);
      await time.pass(0);
      if (isFetched) await channel.offered?.(mediaIn(asked).split("?file=")[1] ?? "");
      await time.pass(300_000 - 1000);
      expect(await Promise.race([ends, "waits"])).toBe("waits");
      await time.pass(20_000);
      expect(await ends).toBe(is);
    }),
  );

  it("has its number sent here, unless only looked at, and leaves what is another's", () => {
    const found = (url: string): Answer => [
      { incoming_phone_numbers: [{ sid: "PN1", sms_url: url, sms_method: "POST" }] },
    ];
    const ours = "https://h.example/channels/sms";
    const answers = [
      found("x"),
      found("x"),
      [{}] as Answer,
      found(ours),
      found(ours),
      [{}] as Answer,
      found("x"),
    ];
    return inParts([...answers, [{ incoming_phone_numbers: [] }]], async (parts, asked) => {
      const channel = sms.open(ACCOUNT, parts);
      expect(await channel.register("https://h.example", true)).toMatchObject({
        changed: true,
        address: "x",
      });
      expect(await channel.register("https://h.example", false)).toMatchObject({
        changed: true,
        address: ours,
      });
      expect(await channel.register("https://h.example", false)).toMatchObject({ changed: false });
      await channel.unregister();
      await channel.unregister();
      expect(asked.map(({ body }) => body).filter((body) => body !== "undefined")).toEqual([
        new URLSearchParams({ SmsUrl: ours, SmsMethod: "POST" }).toString(),
        new URLSearchParams({ SmsUrl: "", SmsMethod: "POST" }).toString(),
      ]);
      expect(await refused(channel.register("https://h.example", true))).toContain("no such number");
    });
  });
});

describe("a platform that does not answer", () => {
  it.each([
    ["within a quarter of a minute", () => new Promise<Response>(() => undefined), "did not answer in time"],
    ["at all", () => Promise.reject(new Error(`no way to ${SLACK.token}`)), "could not be reached"],
  ] as const)("%s may have taken a message; the call is left, and no secret told", (_, fetch, words) =>
    inParts([], async (parts, _asked, time) => {
      const left: boolean[] = [];
      const watched = (_url: string, { signal }: RequestInit) => {
        signal?.addEventListener("abort", () => void left.push(true));
        return fetch();
      };
      const sending = slack.open(SLACK, { ...parts, fetch: watched }).send(message());
      const ends = sending.catch((error: SendRefused) => error);
      await time.pass(15_000);
      expect(await ends).toMatchObject({ message: `Slack ${words}`, isFinal: false, isUnsure: true });
      expect(left).toEqual(words.includes("in time") ? [true] : []);
    }),
  );
});

describe("strangers who may ask to be let in", () => {
  const update = (told: object | null) => (told as { updates: Update[] } | null)?.updates ?? [];

  it("are told of by WhatsApp with what they said, and by nobody where they may not", async () => {
    const app = {
      ...{ token: "x".repeat(30), appSecret: "a".repeat(32), verifyToken: "made-up-word", allow: [] },
      ...{ phoneNumberId: "1065403522", apiUrl: "https://graph.facebook.com/v23.0" },
    };
    const body = JSON.stringify({
      object: "whatsapp_business_account",
      entry: [
        {
          changes: [
            {
              value: {
                metadata: { phone_number_id: app.phoneNumberId },
                contacts: [{ wa_id: "49170", profile: { name: "Eve" } }],
                messages: [
                  { from: "49170", id: "wamid.1", type: "text", text: { body: "let me in" } },
                  { from: "49170", id: "wamid.2", type: "sticker" },
                ],
              },
            },
          ],
        },
      ],
    });
    const made = await crypto.subtle.sign("HMAC", await hmacKey(plain(app.appSecret)), plain(body));
    const signed = call(body, { "x-hub-signature-256": `sha256=${hex(made)}` });
    const { told } = await whatsapp.receive(signed, { ...app, pairing: true });
    const eve = { kind: "stranger", chat: "49170", user: "49170", name: "Eve" };
    expect(update(told)).toMatchObject([
      { ...eve, said: { kind: "message", message: { event: { text: "let me in" } } } },
      { ...eve, said: { kind: "answer" } },
    ]);
    expect((await whatsapp.receive(signed, { ...app, pairing: false })).told).toBeNull();
  });
});

describe("Discord", () => {
  const discordOf = async () => {
    const keys = (await crypto.subtle.generateKey({ name: "Ed25519" }, true, [
      "sign",
      "verify",
    ])) as CryptoKeyPair;
    const raw = (await crypto.subtle.exportKey("raw", keys.publicKey)) as ArrayBuffer;
    const application = {
      token: `MTIz.${"x".repeat(60)}`,
      applicationId: "123456789012345678",
      publicKey: hex(raw),
      allow: ["111111111111111111"],
      apiUrl: "https://discord.com/api/v10",
      pairing: false,
    };
    const sent = async (body: object, at = NOW, forged = "") => {
      const text = JSON.stringify(body);
      const moment = String(at / 1000);
      const made = await crypto.subtle.sign("Ed25519", keys.privateKey, plain(moment + forged + text));
      const headers = { "x-signature-ed25519": hex(made), "x-signature-timestamp": moment };
      return discord.receive(call(text, headers), application);
    };
    return { application, sent };
  };
  const command = (
    user: string,
    data: object = { name: "hermes", options: [{ name: "text", value: "hi" }] },
  ) => ({
    ...{ type: 2, id: "900000000000000001", token: "the-token", channel_id: "333333333333333333" },
    ...{ guild_id: "777777777777777777", member: { user: { id: user, username: "ann" } }, data },
  });

  it("is answered its PING, and a command at once; a stranger's looks as if nobody was there", async () => {
    const { sent } = await discordOf();
    expect(await (await sent({ type: 1, id: "1" })).answer.json()).toEqual({ type: 1 });
    const { answer, told } = await sent(command("111111111111111111"));
    expect(await answer.json()).toEqual({ type: 5 });
    expect(told).toMatchObject({
      token: "the-token",
      update: {
        message: { id: "900000000000000001", event: { text: "hi", source: { chat_type: "group" } } },
      },
    });
    const stranger = await sent(command("222222222222222222"));
    expect([await stranger.answer.text(), stranger.told]).toEqual(["", null]);
    expect((await sent({ type: 3, id: "1" })).told).toBeNull();
    const other = (await sent(command("111111111111111111", { name: "new" }))).told;
    expect(other).toMatchObject({ update: { message: { event: { text: "/new" } } } });
  });

  it("brings what somebody says to the bot alone, by whatever command, and tells of a stranger only there", async () => {
    const { application, sent } = await discordOf();
    const alone = (user: object | null, data: object | null, more: object = {}) =>
      sent({ type: 2, id: "9", token: "t", channel_id: "333333333333333333", user, data, ...more });
    const ann = { id: "111111111111111111" };
    const textOf = async (data: object | null) =>
      ((await alone(ann, data)).told as { update: { message: { event: { text: string } } } }).update.message
        .event.text;
    expect(await textOf(null)).toBe("/");
    expect(await textOf({ name: "hermes", options: [{}] })).toBe("/help");
    expect(await textOf({ name: "new", options: [{ value: 7 }] })).toBe("/new 7");
    await expect(alone(null, {})).rejects.toMatchObject({ status: 400, code: "bad_update" });
    await expect(alone(ann, {}, { channel_id: undefined })).rejects.toMatchObject({ code: "bad_update" });
    const typed = await sent({ type: 4, id: "9" });
    expect([await typed.answer.json(), typed.told]).toEqual([{ type: 8, data: { choices: [] } }, null]);
    application.pairing = true;
    const eve = { id: "222222222222222222", username: "eve" };
    expect((await alone(eve, {})).told).toMatchObject({
      update: { kind: "stranger", user: eve.id, name: "eve" },
    });
    expect((await alone({ id: eve.id }, {})).told).toMatchObject({ update: { kind: "stranger", name: "" } });
    expect((await alone(eve, {}, { guild_id: "777777777777777777" })).told).toBeNull();
  });

  it("is asked with buttons in rows of five, and shows what a press answered", async () => {
    const { application, sent } = await discordOf();
    const press = (user: string, id: string) => ({
      ...command(user, { component_type: 2, custom_id: id }),
      type: 3,
      message: { id: "5", content: "Which?" },
    });
    const { answer, told } = await sent(press("111111111111111111", "hp1:c1:red"));
    expect(await answer.json()).toEqual({ type: 6 });
    const it = { id: "press 900000000000000001", prompt: "c1", option: "red", message: "5", text: "Which?" };
    expect(told).toMatchObject({ update: { message: { id: it.id, event: { press: it } } } });
    for (const of of [press("222222222222222222", "hp1:c1:red"), press("111111111111111111", "another's")]) {
      const heard = await sent(of);
      expect([await heard.answer.json(), heard.told]).toEqual([{ type: 6 }, null]);
    }
    await inParts([[{ id: "1" }]], async (parts, asked, time) => {
      const channel = discord.open(application, parts);
      await channel.read(told ?? {});
      const buttons = Array.from({ length: 6 }, (_, at) => ({ data: `hp1:c1:${at}`, label: `${at}` }));
      await channel.send(message({ chat: "333333333333333333", buttons }));
      await channel.settle?.("333333333333333333", it, "→ red");
      await time.pass(15 * 60_000);
      await channel.settle?.("333333333333333333", it, "→ red");
      const rows = JSON.parse(asked[0]?.body ?? "").components;
      expect(rows.map((row: { components: object[] }) => row.components.length)).toEqual([5, 1]);
      const said = { content: "Which?\n\n→ red", components: [] };
      const calls = asked
        .slice(1)
        .map(({ url, body }) => [url.replace(application.apiUrl, ""), JSON.parse(body)]);
      expect(calls).toEqual([
        ["/webhooks/123456789012345678/the-token/messages/@original", said],
        ["/channels/333333333333333333/messages/5", said],
      ]);
    });
  });

  it("is refused with another signature, or an old one", async () => {
    const { application, sent } = await discordOf();
    const mine = command("111111111111111111");
    for (const [at, forged] of [
      [NOW, "x"],
      [NOW - 301_000, ""],
      [NOW + 301_000, ""],
    ] as const)
      await expect(sent(mine, at, forged)).rejects.toMatchObject({ status: 401 });
    await expect(discord.receive(call("{}", {}), application)).rejects.toMatchObject({ status: 401 });
    await expect((await discordOf()).sent({ type: 2 })).rejects.toMatchObject({ status: 400 });
  });

  it("takes the answer to a command for a quarter of an hour, and later in its channel", async () => {
    const { application, sent } = await discordOf();
    const { told } = await sent(command("111111111111111111"));
    const gone: Answer = [{ message: "Unknown Webhook", code: 10015 }, { status: 404 }];
    await inParts([[{ id: "1" }], gone, [{ id: "2" }]], async (parts, asked, time) => {
      const channel = discord.open(application, parts);
      await channel.read(told ?? {});
      const answer = message({ chat: "333333333333333333", replyTo: "900000000000000001" });
      await channel.send(answer);
      await channel.send(answer);
      await time.pass(15 * 60_000);
      await channel.send(answer);
      const way = "/webhooks/123456789012345678/the-token?wait=true";
      const late = "/channels/333333333333333333/messages";
      expect(asked.map(({ url }) => url.replace(application.apiUrl, ""))).toEqual([way, way, late, late]);
      expect(JSON.parse(asked[0]?.body ?? "")).toEqual({ content: "hello", allowed_mentions: { parse: [] } });
    });
  });

  it("takes a file with the answer to a command, and refuses one that is too large for good", async () => {
    const { application, sent } = await discordOf();
    const { told } = await sent(command("111111111111111111"));
    const large: Answer = [{ message: "Request entity too large", code: 40005 }, { status: 413 }];
    await inParts([[{ id: "1" }], large, large], async (parts, asked) => {
      const channel = discord.open(application, parts);
      await channel.read(told ?? {});
      const answer = message({ chat: "333333333333333333", replyTo: "900000000000000001" });
      expect(await channel.sendFile?.(answer, file({ name: "a.png" }))).toBe("1");
      expect(asked[0]?.url).toBe(`${application.apiUrl}/webhooks/123456789012345678/the-token?wait=true`);
      expect(await formOf(asked[0] as Asked)).toEqual({
        payload_json: '{"content":"hello","allowed_mentions":{"parse":[]}}',
        "files[0]": ["a.png", "image/png", "the bytes"],
      });
      expect(await refused(Promise.resolve(channel.sendFile?.(answer, file())))).toBe(
        "Discord: Request entity too large, for good, 0",
      );
    });
  });

  const meOf =
    (application: { applicationId: string; publicKey: string }) =>
    (more: object = {}): Answer => [
      {
        ...{ id: application.applicationId, name: "Hermes", verify_key: application.publicKey },
        ...{ interactions_endpoint_url: null, ...more },
      },
    ];

  it("is told its address and its command, unless only looked at, and whose token it is", async () => {
    const { application } = await discordOf();
    const me = meOf(application);
    const ours = { interactions_endpoint_url: "https://h.example/channels/discord" };
    const there: Answer = [[{ name: "hermes" }]];
    const answers = [
      me(),
      [[]] as Answer,
      me(),
      [[]] as Answer,
      [{}] as Answer,
      [{}] as Answer,
      me(ours),
      there,
    ];
    const wrong = [me({ id: "1" }), me({ verify_key: "0".repeat(64) })];
    await inParts([...answers, ...wrong], async (parts, asked) => {
      const channel = discord.open(application, parts);
      const register = (look: boolean) => channel.register("https://h.example", look);
      expect(await register(true)).toMatchObject({ bot: "Hermes", changed: true, address: "" });
      expect(await register(false)).toMatchObject({ changed: true, address: ours.interactions_endpoint_url });
      expect(await register(false)).toMatchObject({ changed: false });
      expect(asked.map(({ body }) => body).filter((body) => body !== "undefined")).toHaveLength(2);
      expect(await refused(register(true))).toContain("another application");
      expect(await refused(register(true))).toContain("public key is not");
    });
  });

  it("keeps neither its address nor its command, unless it is another's by now", async () => {
    const { application } = await discordOf();
    const me = meOf(application);
    const ours = { interactions_endpoint_url: "https://h.example/channels/discord" };
    const known: Answer = [
      [
        { id: "1", name: "other" },
        { id: "2", name: "hermes" },
      ],
    ];
    await inParts([me(ours), known, ["{}"], [{}]], async (parts, asked) => {
      await discord.open(application, parts).unregister();
      const path = (url: string) => url.replace(application.apiUrl, "");
      expect(asked.map(({ url, method }) => `${method} ${path(url)}`)).toEqual([
        "GET /applications/@me",
        `GET /applications/${application.applicationId}/commands`,
        `DELETE /applications/${application.applicationId}/commands/2`,
        "PATCH /applications/@me",
      ]);
      expect(asked.at(-1)?.body).toBe('{"interactions_endpoint_url":null}');
    });
    const another = { interactions_endpoint_url: "https://elsewhere.example/" };
    await inParts([me(another)], async (parts, asked) => {
      await discord.open(application, parts).unregister();
      expect(asked).toHaveLength(1);
    });
  });
});
