// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { hex } from "../src/base/digests.ts";
import {
  type Call,
  type Outgoing,
  type PlatformParts,
  SendRefused,
  type Update,
} from "../src/channels/channel.ts";
import { InParts, partsOf } from "../src/channels/in-parts.ts";
import { mrkdwnOf, slack } from "../src/channels/platforms/slack.ts";
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
      asked.push({ url, body: String(init.body), headers: new Headers(init.headers) });
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
    const smiles = partsOf("😀".repeat(200), 100);
    expect(smiles.join("")).toBe("😀".repeat(200));
    expect(smiles.every((part) => part.isWellFormed() && part.length <= 100)).toBe(true);
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
    ["an edited", { subtype: "message_changed" }],
    ["a channel's", { channel: "C0OPEN0", channel_type: "channel" }],
  ])("%s message is for nobody", async (_name, more) => {
    expect(await updateOf(event(more))).toBeNull();
  });

  it("may be for everybody of a channel; of files it says that it takes none", async () => {
    expect(await updateOf(event({ ...mention, channel: "C0OPEN0", user: "U0EVE00" }))).toMatchObject({
      kind: "message",
    });
    expect(await updateOf(event({ subtype: "file_share", files: [{}] }))).toMatchObject({
      kind: "answer",
      chat: "D0ANN00",
      text: expect.stringContaining("only text"),
    });
  });

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
