// SPDX-License-Identifier: Apache-2.0
/** Boots, sleeps and restarts against a container that is as unkind as Cloudflare's. */
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { Log, Redactor } from "../src/base/log.ts";
import { settingsOf } from "../src/config/settings.ts";
import { ChatTurns, TURN_HEADERS } from "../src/instance/chat-turns.ts";
import { Lifecycle } from "../src/instance/lifecycle.ts";
import type { InstanceRecord } from "../src/instance/record.ts";
import { ContainerSandbox } from "../src/sandbox/container.ts";
import { INACTIVITY_LIMIT } from "../src/sandbox/sandbox.ts";
import { Vault } from "../src/state/vault.ts";
import { env } from "./helpers.ts";
import { HardContainer, REFERENCE } from "./stand-ins/container.ts";
import { backupOf, ManualTime, MemorySandbox } from "./stand-ins/sandbox.ts";

interface World {
  container: HardContainer;
  inside: MemorySandbox;
  time: ManualTime;
  life: Lifecycle;
  /** What is held until it is over. */
  held: Promise<unknown>[];
  /** How often the object tore itself down. */
  healed: () => number;
  alarm: () => number | null;
  /** The object leaves memory, or is deployed anew; what it was at is cut off. */
  reborn: (change?: Record<string, unknown>) => Lifecycle;
}

const CLOUDFLARE = { HERMES_PLATFORM: "cloudflare", HERMES_ENGINE: "cloudflare", HERMES_IMAGE: "hermes:1" };
let rooms = 0;

function world(work: (world: World) => Promise<void>): Promise<void> {
  return runInDurableObject(env.PLAIN.getByName(`cloudflare ${rooms++}`), async (_, state) => {
    const time = new ManualTime();
    const inside = new MemorySandbox();
    const container = new HardContainer(inside, time);
    const vault = new Vault(state.storage, time);
    let kept: InstanceRecord | undefined;
    let alarm: number | null = null;
    let healed = 0;
    let life = 0;
    const held: Promise<unknown>[] = [];
    const born = (change: Record<string, unknown> = {}) => {
      const mine = ++life;
      const settings = settingsOf({
        ...env,
        ...CLOUDFLARE,
        HERMES_IMAGE_REFERENCE: REFERENCE,
        ...change,
      });
      const alive = <T>(value: Promise<T>) =>
        value.finally(() => (mine === life ? undefined : new Promise<never>(() => undefined)));
      const itsTime = {
        now: () => time.now(),
        sleep: (ms: number, signal?: AbortSignal) => alive(time.sleep(ms, signal)),
      };
      const parts = {
        container: mortal(container, alive),
        providers: {} as Fetcher,
        providersHost: "198.51.100.1",
        egress: null,
        instance: settings.instanceType,
        local: false,
        reference: settings.imageReference,
        env: { GIVEN: "to both" },
        heal: async () => void healed++,
      };
      return new Lifecycle({
        settings,
        agentArchive: async () => new ArrayBuffer(0),
        sandbox: new ContainerSandbox(parts, itsTime),
        vault,
        time: itsTime,
        log: new Log(new Redactor()),
        store: {
          get: () => structuredClone(kept),
          put: (record) => {
            if (mine === life) kept = structuredClone(record);
          },
        },
        setAlarm: (at) => {
          if (mine === life) alarm = at;
        },
        hold: (work) => void held.push(work),
      });
    };
    const w: World = {
      container,
      inside,
      time,
      life: born(),
      held,
      healed: () => healed,
      alarm: () => alarm,
      reborn: (change) => {
        container.evict();
        w.life = born(change);
        return w.life;
      },
    };
    await work(w);
  });
}

/** A container whose answers nobody hears who is dead. */
function mortal(container: HardContainer, alive: <T>(value: Promise<T>) => Promise<T>): Container {
  return new Proxy(container, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      return (...words: unknown[]) => {
        const result: unknown = value.apply(target, words);
        return result instanceof Promise ? alive(result) : result;
      };
    },
  }).asContainer;
}

/** What a wake ends with, when so much time passes. */
async function woken({ life, time }: World, ms: number): Promise<{ code: string; message: string } | null> {
  const waking = life.wake("test").then(
    () => null,
    (why: unknown) => why as { code: string; message: string },
  );
  await time.pass(ms);
  return waking;
}

/** The lines of a stream as they come, and whether it has ended. */
function read(stream: ReadableStream<Uint8Array>) {
  let text = "";
  let over = false;
  const reading = async () => {
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) text += chunk;
    over = true;
  };
  void reading();
  return { seen: () => text.split("\n").filter((line) => line !== ""), ended: () => over };
}

const destroys = ({ container }: World) => container.calls.filter((call) => call === "destroy").length;

describe("a boot on Cloudflare", () => {
  it.each([5, 21, 60, 200, 290])("waits for a start that takes %s s, and says so", (seconds) =>
    world(async (w) => {
      w.container.startTakes = seconds * 1000;
      const waking = w.life.wake("test");
      await w.time.pass(seconds * 1000 - 1000);
      const { state, starting } = w.life.record;
      expect(state).toBe("booting");
      expect(starting?.why).toBe("Cloudflare is still distributing the image");
      expect(w.time.now() - (starting?.since ?? 0)).toBe(seconds * 1000 - 1000);
      await w.time.pass(3000);
      await waking;
      expect(w.life.record).toMatchObject({ state: "awake", starting: null });
      expect([w.container.started.length, destroys(w), w.healed()]).toEqual([1, 0, 0]);
    }),
  );

  it("keeps nobody waiting who asks what it will have, or what other settings would restart", () =>
    world(async (w) => {
      const waking = w.life.wake("test");
      await w.time.pass(40_000);
      /** What is answered while no time passes. */
      const answered = async (asked: Promise<unknown>): Promise<unknown> => {
        let told: unknown = "nothing";
        void asked
          .catch((why: unknown) => why)
          .then((value) => {
            told = value;
          });
        await w.time.pass(0);
        return told;
      };
      const preview = (change: object) =>
        answered(w.life.differenceFrom(settingsOf({ ...env, ...CLOUDFLARE, ...change })));
      const starting = true;
      expect(await answered(w.life.inForce())).toMatchObject({ status: 409, code: "starting" });
      expect(await preview({})).toMatchObject({ starting, difference: { restart: "nothing" } });
      expect(await preview({ HERMES_ENV: '{"COLOUR":"blue"}' })).toMatchObject({
        starting,
        difference: { restart: "hermes", because: ["hermes_env"] },
      });
      expect(await preview({ HERMES_IMAGE: "hermes:2" })).toMatchObject({
        starting,
        difference: { restart: "sandbox", because: ["a new image"] },
      });
      await w.time.pass(70_000);
      await waking;
      expect(await preview({})).toMatchObject({ starting: false, difference: { restart: "nothing" } });
      // It is asked itself now; this one has no words for it.
      expect(await answered(w.life.inForce())).toMatchObject({ code: "not_told" });
    }));

  it("is told of at once to who follows the log, which comes once there is one", () =>
    world(async (w) => {
      const waking = w.life.wake("test");
      await w.time.pass(15_000);
      const { seen, ended } = read(await w.life.followLog(200));
      await w.time.pass(0);
      expect(seen()).toEqual(["Cloudflare is still distributing the image, 15 s"]);
      await w.time.pass(30_000);
      expect(seen()).toHaveLength(4);
      expect(seen().at(-1)).toBe("Cloudflare is still distributing the image, 45 s");
      expect(ended()).toBe(false);
      await w.time.pass(60_000);
      await waking;
      expect(seen().at(-1)).toBe("the log");
      expect(await w.life.followLog(200).then((log) => new Response(log).text())).toBe("the log\n");
    }));

  it("that fails is told of to who follows the log, as the last line", () =>
    world(async (w) => {
      w.container.startTakes = 1000_000;
      const waking = woken(w, 400_000);
      await w.time.pass(1000);
      const { seen, ended } = read(await w.life.followLog(200));
      const error = await waking;
      expect(seen().at(-1)).toBe(error?.message);
      expect(ended()).toBe(true);
      await expect(w.life.followLog(200)).rejects.toMatchObject({ status: 409, code: "asleep" });
    }));

  it("leaves no timer behind for who follows the log and leaves", () =>
    world(async (w) => {
      const waking = w.life.wake("test");
      await w.time.pass(15_000);
      const before = w.time.timers;
      const reader = (await w.life.followLog(200)).getReader();
      await reader.read();
      const more = reader.read();
      await w.time.pass(0);
      expect(w.time.timers).toBe(before + 1);
      await reader.cancel();
      await more;
      await w.time.pass(0);
      expect(w.time.timers).toBe(before);
      await w.time.pass(60_000);
      await waking;
    }));

  it("tells the end of the log when it fails, however long it took", () =>
    world(async (w) => {
      w.container.startTakes = 200_000;
      w.inside.commands["go"] = () => {
        w.inside.die(7);
        return new Promise(() => undefined);
      };
      const error = await woken(w, 260_000);
      expect(error?.message).toMatch(/exit code 7.*Its log ends with: the log/);
    }));

  it("ends when the image's first process does, however long others take", () =>
    world(async (w) => {
      w.container.startTakes = 1000;
      const waking = w.life.wake("test").catch((why: unknown) => why);
      w.inside.commands["status"] = () => {
        w.inside.die(64);
        return new Promise(() => undefined);
      };
      await w.time.pass(5000);
      expect(await waking).toMatchObject({
        code: "boot_failed",
        message: expect.stringMatching(/exit code 64.*probably not Hermes' image/),
      });
    }));

  it("does not blame an image that was not seen to run", () =>
    world(async (w) => {
      w.container.startTakes = 1000_000;
      const error = await woken(w, 400_000);
      expect(error?.message).toMatch(/Cloudflare did not bring its container up/);
      expect(error?.message).not.toContain("Hermes' image");
      expect(w.healed()).toBe(0);
    }));

  it("names the setting of a size that Cloudflare does not start, and goes on where it does", () =>
    world(async (w) => {
      w.reborn({ HERMES_INSTANCE_TYPE: "basic" });
      const error = await woken(w, 60_000);
      expect(error?.message).toMatch(/Invalid instance: basic.*hermes_instance_type: standard-1/);
      expect(w.container.started).toEqual([]);
      w.container.sizes.push("basic");
      expect(await woken(w, 120_000)).toBeNull();
      expect(w.container.started[0]?.instance).toBe("basic");
    }));

  it("has its inactivity timeout from the start on, and again in a new object", () =>
    world(async (w) => {
      const waking = w.life.wake("test");
      await w.time.pass(1000);
      expect(w.container.calls).toEqual(["start", "setInactivityTimeout"]);
      await w.time.pass(70_000);
      await waking;
      expect(w.container.inactivity).toBe(INACTIVITY_LIMIT);
      await w.reborn().reattach();
      expect(w.container.inactivity).toBe(INACTIVITY_LIMIT);
    }));

  it.each([
    "There is no container instance that can be provided to this Durable Object, try again later",
    "you are requesting too many containers per second",
    "The container service is unreachable",
    "Maximum number of running container instances exceeded. Try again later, or try configuring a higher value for max_instances",
  ])("is begun again for a while when Cloudflare refuses it: %s", (words) =>
    world(async (w) => {
      w.container.refusals = [words, words, words, words];
      const waking = w.life.wake("test");
      await w.time.pass(1500);
      expect(w.life.record.starting?.why).toContain(words);
      await w.time.pass(13_000);
      expect(w.life.record.starting?.why).toBe("Cloudflare is still distributing the image");
      await w.time.pass(90_000);
      await waking;
      expect(w.life.record).toMatchObject({ state: "awake", bootFailures: 0 });
      expect(w.container.started).toHaveLength(5);
    }),
  );

  it("is begun again when only the command that waits for it is told of the refusal", () =>
    world(async (w) => {
      w.container.startTakes = 100;
      w.container.cuts = [new Error("There is no container instance that can be provided to this object")];
      expect(await woken(w, 10_000)).toBeNull();
      expect(w.life.record).toMatchObject({ state: "awake", bootFailures: 0 });
      expect(w.container.started).toHaveLength(2);
    }));

  it("says what Cloudflare refuses when that lasts, and blames nothing of ours", () =>
    world(async (w) => {
      const words =
        "There is no container instance that can be provided to this Durable Object, try again later";
      w.container.refusals = Array(100).fill(words) as string[];
      const error = await woken(w, 60_000);
      expect(error?.message).toContain(words);
      expect(error?.message).not.toContain("image");
      expect(w.container.started.length).toBeLessThan(15);
    }));

  it.each([
    ["no name yet", {}],
    [
      "the name of the image before",
      { hermes: `registry.cloudflare.com/account/hermes@sha256:${"0".repeat(64)}` },
    ],
    ["the same one", { hermes: REFERENCE }],
  ])("starts the image by its digest, with %s in the map", (_, images) =>
    world(async (w) => {
      w.container.images = images as Record<string, string>;
      expect(await woken(w, 70_000)).toBeNull();
      expect(w.container.started[0]?.image).toBe(REFERENCE);
    }),
  );

  it("passes on to commands what differs from what the image knows", () =>
    world(async (w) => {
      await woken(w, 70_000);
      expect(w.container.environments.length).toBeGreaterThan(0);
      for (const given of w.container.environments) expect(given).toEqual({ GIVEN: "to both" });
    }));

  it("is begun again when a command of it is cut off", () =>
    world(async (w) => {
      w.container.startTakes = 100;
      let cut = false;
      const { restore } = w.inside.commands;
      w.inside.commands["restore"] = (stdin, words) => {
        if (cut) return restore?.(stdin, words) ?? {};
        cut = true;
        return { exitCode: 141 };
      };
      expect(await woken(w, 10_000)).toBeNull();
      expect(w.container.started).toHaveLength(2);
    }));

  it("goes on without the request that asked for it, and the object with it", () =>
    world(async (w) => {
      const waking = w.life.wake("test");
      await w.time.pass(1000);
      let over = false;
      void Promise.all(w.held).then(() => {
        over = true;
      });
      await w.time.pass(1000);
      expect(w.held.length).toBeGreaterThan(0);
      expect(over).toBe(false);
      expect((w.alarm() ?? Number.POSITIVE_INFINITY) - w.time.now()).toBeLessThanOrEqual(60_000);
      await w.time.pass(70_000);
      await waking;
      await w.time.pass(1000);
      expect(over).toBe(true);
    }));
});

describe.each([5, 21, 60, 200, 290])("where each start takes %s s", (seconds) => {
  /** Works when its first start has come so far, or, with 1, is over for a while. */
  const starting = (part: number, work: (w: World) => Promise<void>) =>
    world(async (w) => {
      w.container.startTakes = seconds * 1000;
      void w.life.wake("test").catch(() => undefined);
      await w.time.pass(part * seconds * 1000 + (part < 1 ? 0 : 30_000));
      await work(w);
    });
  /** What something ends with, given the time that one start needs and half a minute for all else. */
  const ended = async <T>({ time }: World, work: Promise<T>): Promise<T> => {
    let is: "pending" | "over" = "pending";
    const done = () => {
      is = "over";
    };
    work.then(done, done);
    await time.pass(seconds * 1000 + 30_000);
    expect(is).toBe("over");
    return work;
  };
  const mark = (value: string) => ({ HERMES_SECRETS: JSON.stringify({ MARK: value }) });
  const marked = ({ inside }: World) => inside.running?.input.env?.["MARK"];

  it("an upgrade runs the other image, by one start more", () =>
    starting(1, async (w) => {
      w.inside.state = "remembered";
      w.reborn({ HERMES_IMAGE: "hermes:2" });
      expect(await ended(w, w.life.refresh())).toBe("sandbox");
      expect(w.life.record).toMatchObject({ state: "awake", image: "hermes:2" });
      expect([w.inside.state, w.container.started.length]).toEqual(["remembered", 2]);
    }));

  it.each([0.3, 1])("a rotation is in force and taken back, begun at %s of the start", (part) =>
    starting(part, async (w) => {
      for (const value of ["new", "of before"]) {
        w.reborn(mark(value));
        await ended(w, w.life.refresh());
        expect([marked(w), w.life.record.state]).toEqual([value, "awake"]);
      }
      expect(w.container.started).toHaveLength(1);
    }),
  );

  it.each([0.3, 1])("a backup is put back, begun at %s of the start", (part) =>
    starting(part, async (w) => {
      const putting = w.life.putBack(await backupOf("brought"));
      // What is starting comes to its end first, and is saved.
      if (part < 1) await w.time.pass(seconds * 1000);
      await ended(w, putting);
      expect([w.inside.state, w.life.record.state]).toEqual(["brought", "awake"]);
      expect(w.container.started).toHaveLength(2);
    }),
  );

  it.each(["a backup", "a sleep"])("%s that is ordered meanwhile has what the start brings", (order) =>
    starting(0.3, async (w) => {
      const { go } = w.inside.commands;
      w.inside.commands["go"] = (stdin, words) => {
        w.inside.state = "remembered";
        return go?.(stdin, words) ?? {};
      };
      const saved = await ended(w, order === "a sleep" ? w.life.sleep() : w.life.save("request"));
      expect(saved?.backup.bytes).toBe("remembered".length);
      expect(w.life.record.state).toBe(order === "a sleep" ? "asleep" : "awake");
    }),
  );
});

describe("a turn that goes on without its client", () => {
  it("keeps the object, which looks again each minute until it is over", () =>
    world(async (w) => {
      w.container.startTakes = 100;
      expect(await woken(w, 1000)).toBeNull();
      const turns = new ChatTurns({
        lifecycle: w.life,
        time: w.time,
        log: new Log(new Redactor()),
        drainTimeout: 0,
        finishesAlone: true,
      });
      const client = new AbortController();
      const end = Promise.withResolvers<void>();
      w.inside.answer = (url) =>
        url.endsWith("/completions") ? new Response(untilItEnds(end.promise), EVENTS) : Response.json({});
      const request = new Request("http://hermes/v1/chat/completions", {
        method: "POST",
        headers: { [TURN_HEADERS.stream]: "1" },
        body: "{}",
      });
      const { value, end: over } = await turns.serve(request, client.signal);
      const before = w.held.length;
      client.abort();
      value.body?.cancel().catch(() => undefined);
      await w.time.pass(0);
      expect(w.held.length).toBe(before + 1);
      for (let minute = 0; minute < 3; minute++) {
        const next = (w.alarm() ?? Number.POSITIVE_INFINITY) - w.time.now();
        expect(next).toBeLessThanOrEqual(60_000);
        await w.time.pass(next);
        await w.life.onAlarm();
      }
      end.resolve();
      await over;
      await w.held[before];
    }));
});

const EVENTS = { headers: { "content-type": "text/event-stream" } };

/** A stream that says something, and then nothing until it ends. */
function untilItEnds(end: Promise<void>): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async start(controller) {
      controller.enqueue(new TextEncoder().encode("data: one\n\n"));
      await end;
      controller.enqueue(new TextEncoder().encode("data: [DONE]\n\n"));
      controller.close();
    },
  });
}

describe("a boot that was cut with its object", () => {
  it("is given an inactivity timeout before anything in it answers", () =>
    world(async (w) => {
      void w.life.wake("test").catch(() => undefined);
      await w.time.pass(30_000);
      w.container.calls.length = 0;
      void w.reborn().reattach();
      await w.time.pass(1000);
      expect(w.life.record.starting).not.toBeNull();
      expect(w.container.calls).toEqual(["setInactivityTimeout"]);
      await w.time.pass(60_000);
      expect(w.life.record.state).toBe("awake");
      expect(w.container.inactivity).toBe(INACTIVITY_LIMIT);
    }));

  it.each([1, 30, 59])("is taken up %s s after its beginning", (seconds) =>
    world(async (w) => {
      w.container.startTakes = 200_000;
      void w.life.wake("test").catch(() => undefined);
      await w.time.pass(seconds * 1000);
      const { bootId } = w.life.record;
      const since = w.life.record.starting?.since;
      w.reborn();
      const waking = w.life.wake("again");
      await w.time.pass(100);
      expect(w.life.record.starting?.since).toBe(since);
      await w.time.pass(210_000);
      await waking;
      expect(w.life.record).toMatchObject({ state: "awake", bootId });
      expect([w.container.started.length, destroys(w), w.healed()]).toEqual([1, 0, 0]);
    }),
  );

  it("has run for at most so long when its end was learned of late", () =>
    world(async (w) => {
      w.container.startTakes = 100;
      expect(await woken(w, 1000)).toBeNull();
      expect(w.life.record.learnedLate).toBeNull();
      // As at the inactivity timeout: nobody is there to be told.
      w.reborn();
      w.inside.die(0);
      await w.time.pass(3600_000);
      await w.life.reattach();
      expect(w.life.record).toMatchObject({ state: "asleep", learnedLate: w.time.now() });
    }));

  it("is taken up where Hermes was started already", () =>
    world(async (w) => {
      w.container.startTakes = 100;
      w.inside.healthy = false;
      void w.life.wake("test").catch(() => undefined);
      await w.time.pass(1000);
      expect(w.inside.running?.went).toBe(true);
      w.reborn();
      const waking = w.life.wake("again");
      w.inside.commands["restore"] = () => ({ exitCode: 66, stderr: "Too late to restore." });
      await w.time.pass(1000);
      w.inside.healthy = true;
      await w.time.pass(1000);
      await waking;
      expect([w.container.started.length, destroys(w)]).toEqual([1, 0]);
    }));

  it.each([true, false])("gives Hermes the settings of now, told of them in time or not: %s", (inTime) =>
    world(async (w) => {
      const changed = { HERMES_ENV: '{"COLOUR":"blue"}' };
      const colour = () => w.inside.running?.input.env?.["COLOUR"];
      let restarts = 0;
      const restart = w.inside.commands["restart-gateway"];
      w.inside.commands["restart-gateway"] = async (stdin, words) => {
        restarts++;
        return (await restart?.(stdin, words)) ?? {};
      };
      w.container.startTakes = inTime ? 60_000 : 100;
      w.inside.healthy = inTime;
      void w.life.wake("test").catch(() => undefined);
      await w.time.pass(1000);
      expect(w.inside.running?.went ?? false).toBe(!inTime);
      const waking = w.reborn(changed).wake("again");
      w.inside.healthy = true;
      await w.time.pass(70_000);
      await waking;
      expect(colour()).toBe("blue");
      expect([w.container.started.length, restarts]).toEqual([1, inTime ? 0 : 1]);
    }),
  );

  it("is not taken up when it would begin with another image today", () =>
    world(async (w) => {
      void w.life.wake("test").catch(() => undefined);
      await w.time.pass(1000);
      w.reborn({ HERMES_IMAGE: "hermes:2" });
      const waking = w.life.wake("again");
      await w.time.pass(140_000);
      await waking;
      expect(w.life.record.image).toBe("hermes:2");
      expect(w.container.started).toHaveLength(2);
    }));
});

describe("a snapshot on Cloudflare", () => {
  it("is tried until it can be started from", () =>
    world(async (w) => {
      await woken(w, 70_000);
      const restarting = w.life.restart(false);
      await w.time.pass(120_000);
      await restarting;
      expect(w.life.record.restored?.snapshot).toBe("snapshot-1");
      expect(w.life.record.restored?.passedOver).toEqual([]);
    }));

  it("is passed over when it stays away", () =>
    world(async (w) => {
      w.container.snapshotTakes = 3600_000;
      await woken(w, 70_000);
      const restarting = w.life.restart(false);
      await w.time.pass(180_000);
      await restarting;
      expect(w.life.record.restored).toMatchObject({ snapshot: null });
      expect(w.life.record.restored?.passedOver[0]).toContain("snapshot-1");
    }));
});

describe("a command on Cloudflare", () => {
  it("is not killed when it has exited", () =>
    world(async (w) => {
      w.container.startTakes = 100;
      expect(await woken(w, 1000)).toBeNull();
      const sandbox = new ContainerSandbox(
        {
          container: w.container.asContainer,
          providers: {} as Fetcher,
          providersHost: "198.51.100.1",
          egress: null,
          instance: "standard-1",
          local: false,
          reference: REFERENCE,
          env: {},
          heal: async () => undefined,
        },
        w.time,
      );
      const stop = new AbortController();
      const boot = w.life.record.bootId ?? "";
      const process = await sandbox.exec(["sandbox", "logs", "--boot", boot], { signal: stop.signal });
      await process.exitCode;
      await w.time.pass(0);
      stop.abort();
      await process.stdout.cancel();
      expect(w.container.internalErrors).toBe(0);
    }));
});
