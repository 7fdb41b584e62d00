// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Env, settingsOf } from "../src/config/settings.ts";
import { authorize } from "../src/gate/auth.ts";
import type { Deaths, TokenUse } from "../src/instance/token-rotation.ts";
import { anew, askWith, crash, env, instance, refusal, woken } from "./helpers.ts";

const OLD = "the-old-token-of-this-test";
const NEW = "the-new-token-of-this-test";
const during = { API_TOKEN: NEW, API_TOKEN_PREVIOUS: OLD };
const before = { API_TOKEN: OLD };

interface TokenView {
  which: string;
  previousUntil: string | null;
  proven: boolean;
}

const ask = (configured: Record<string, string>, token: string) =>
  askWith(configured, "/api/health", { authorization: `Bearer ${token}` });

async function told(configured: Record<string, string>, token: string): Promise<TokenView> {
  const answer = await ask(configured, token);
  expect(answer.status, await answer.clone().text()).toBe(200);
  return ((await answer.json()) as { token: TokenView }).token;
}

/** As if the overlap had begun so long ago, in milliseconds. */
async function later(ms: number): Promise<void> {
  await runInDurableObject(instance(), (_, { storage }) => {
    for (const [key, at] of [...storage.kv.list<number>({ prefix: "token-refused-from:" })])
      storage.kv.put(key, at - ms);
  });
}

beforeEach(anew);

describe("a rotation of the token", () => {
  it("leaves the old token alone until the new one was used", async () => {
    expect(await told(during, OLD)).toEqual({ which: "previous", previousUntil: null, proven: false });
    await later(24 * 3600_000);
    expect(await told(during, OLD)).toEqual({ which: "previous", previousUntil: null, proven: false });
  });

  it("takes both for the overlap that the first use of the new one begins, then the new one only", async () => {
    const { previousUntil } = await told(during, NEW);
    const left = Date.parse(previousUntil ?? "") - Date.now();
    expect(left).toBeGreaterThan(590_000);
    expect(left).toBeLessThanOrEqual(600_000);
    expect(await told(during, OLD)).toEqual({ which: "previous", previousUntil, proven: true });
    expect(await told(during, NEW)).toEqual({ which: "current", previousUntil, proven: true });
    await later(600_001);
    expect(await refusal(await ask(during, OLD))).toMatchObject({ status: 401, code: "retired_token" });
    expect((await told(during, NEW)).which).toBe("current");
  });

  it("refuses the old one for ever, even where an old version of the Worker comes back", async () => {
    await told(during, NEW);
    await later(600_001);
    await crash();
    expect(await refusal(await ask(before, OLD))).toMatchObject({ status: 401, code: "retired_token" });
    // Nor does it take the new one with it when both are swapped.
    const swapped = { API_TOKEN: OLD, API_TOKEN_PREVIOUS: NEW };
    expect(await refusal(await ask(swapped, OLD))).toMatchObject({ code: "retired_token" });
    expect(await told(swapped, NEW)).toMatchObject({ which: "previous", previousUntil: null });
  });

  it("can be taken back before the old one's end, which then never comes", async () => {
    const [mine, other] = ["taken-back-token", "token-that-did-not-last"];
    await told({ API_TOKEN: other, API_TOKEN_PREVIOUS: mine }, other);
    await later(300_000);
    const back = { API_TOKEN: mine };
    expect(await told(back, mine)).toEqual({ which: "current", previousUntil: null, proven: true });
    await later(600_001);
    await crash();
    expect((await told(back, mine)).which).toBe("current");
    expect(await refusal(await ask(back, other))).toMatchObject({ code: "wrong_token" });
  });

  it("is none when both are the same", async () => {
    expect(await told({ API_TOKEN: NEW, API_TOKEN_PREVIOUS: NEW }, NEW)).toMatchObject({ which: "current" });
    await later(600_001);
    expect(await told({ API_TOKEN: NEW, API_TOKEN_PREVIOUS: NEW }, NEW)).toMatchObject({ which: "current" });
  });

  it("does not wake Hermes", async () => {
    await told(during, OLD);
    await told(during, NEW);
    expect(await woken()).toBe(false);
  });
});

describe("what a Worker believes of the tokens, without asking each time", () => {
  const END = Date.now() + 600_000;
  let asked: TokenUse["used"][] = [];
  /** The one record of them, of which the first use of the new one begins the overlap. */
  const registry = async ({ used, previous }: TokenUse): Promise<Deaths> => {
    asked.push(used);
    const isOver = previous !== null && asked.includes("current");
    return { current: null, previous: isOver ? END : null };
  };

  /** Lets requests of one Worker in, which is configured so; tells until when the old token is good. */
  function worker(configured: Record<string, string>): (token: string) => Promise<number | null> {
    const settings = settingsOf({ ...env, ...configured } as Env);
    return async (token) => {
      const caller = await authorize(new Headers({ authorization: `Bearer ${token}` }), settings, registry);
      return caller?.previousUntil ?? null;
    };
  }

  beforeEach(() => {
    asked = [];
  });

  afterEach(() => {
    vi.restoreAllMocks();
  });

  it("is nothing while the old one has no end: the next use may be the one that gives it one", async () => {
    const use = worker(during);
    expect([await use(OLD), await use(OLD), await use(NEW)]).toEqual([null, null, END]);
    expect(asked).toEqual(["previous", "previous", "current"]);
  });

  it("is what it was told last, once the old one has an end, and where there is none", async () => {
    const use = worker(during);
    expect([await use(NEW), await use(OLD), await use(NEW)]).toEqual([END, END, END]);
    const alone = worker(before);
    expect([await alone(OLD), await alone(OLD)]).toEqual([null, null]);
    expect(asked).toEqual(["current", "current"]);
  });

  it("is asked for again after a minute", async () => {
    const use = worker(before);
    const now = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(now);
    await use(OLD);
    clock.mockReturnValue(now + 59_999);
    await use(OLD);
    expect(asked).toEqual(["current"]);
    clock.mockReturnValue(now + 60_000);
    await use(OLD);
    expect(asked).toEqual(["current", "current"]);
  });
});
