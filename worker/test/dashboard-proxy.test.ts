// SPDX-License-Identifier: Apache-2.0
import { expect, it } from "vitest";
import { Log, Redactor } from "../src/base/log.ts";
import { DashboardProxy, PROXY_HEADERS } from "../src/instance/dashboard-proxy.ts";
import { DashboardSockets } from "../src/instance/dashboard-sockets.ts";
import type { Lifecycle } from "../src/instance/lifecycle.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const IDLE = 3600_000;

/** A page with an open WebSocket, Hermes' end of it, and how often the lifecycle was told of activity. */
async function tab() {
  const time = new ManualTime();
  const { 0: far, 1: hermes } = new WebSocketPair();
  hermes.accept();
  let touches = 0;
  const lifecycle = {
    isAsleep: false,
    arrive: (_: boolean, answer: () => Promise<unknown>) => answer(),
    withSeat: (_: string, __: boolean, turn: (at: object) => Promise<unknown>) =>
      turn({ keys: { dashboardToken: "t" }, bootId: "b" }),
    startDashboard: async () => undefined,
    dashboardPort: { fetch: async () => new Response(null, { status: 101, webSocket: far }) },
    touch: () => {
      touches++;
    },
  } as unknown as Lifecycle;
  const log = new Log(new Redactor([]));
  const sockets: DashboardSockets = new DashboardSockets({ time, fetchEnd: async (id) => sockets.end(id) });
  const proxy = new DashboardProxy({ lifecycle, time, log, idle: IDLE, sockets });
  const headers = { upgrade: "websocket", [PROXY_HEADERS.by]: "page" };
  const request = new Request("http://dashboard/api/events", { headers });
  const { webSocket: person } = (await proxy.serve(request, new AbortController().signal)).value;
  if (person === null) throw new Error("no socket");
  person.accept();
  return {
    time,
    touches: () => touches,
    /** A frame of one end, once the other has it. */
    speaks: async (who: "person" | "hermes") => {
      const [from, to] = who === "person" ? [person, hermes] : [hermes, person];
      const arrived = new Promise((resolve) => to.addEventListener("message", resolve, { once: true }));
      from.send("a frame");
      await arrived;
    },
  };
}

/** A request to a dashboard of which this is known, and what it was asked. */
function call(fetch: () => Promise<Response>, keys: object = { dashboardToken: "t" }) {
  const time = new ManualTime();
  const lifecycle = {
    isAsleep: false,
    arrive: (_: boolean, answer: () => Promise<unknown>) => answer(),
    withSeat: (_: string, __: boolean, turn: (at: object) => Promise<unknown>) => turn({ keys, bootId: "b" }),
    startDashboard: async () => undefined,
    dashboardPort: { fetch },
  } as unknown as Lifecycle;
  const sockets = new DashboardSockets({ time, fetchEnd: async () => new Response(null) });
  const proxy = new DashboardProxy({ lifecycle, time, log: new Log(new Redactor()), idle: IDLE, sockets });
  const ask = async (init: RequestInit = {}) => {
    const headers = { [PROXY_HEADERS.by]: "person", ...(init.headers as object) };
    const request = new Request("http://dashboard/api/x", { ...init, headers });
    const answer = proxy.serve(request, new AbortController().signal).catch((error: unknown) => error);
    await time.pass(60_000);
    return answer;
  };
  return { ask, time };
}

it("asks a dashboard that is just started again, but sends nothing twice", async () => {
  let calls = 0;
  const { ask } = call(async () => {
    calls++;
    throw new Error("connection refused");
  });
  expect(await ask()).toMatchObject({ status: 502, code: "dashboard_unreachable" });
  expect(calls).toBe(9);
  expect(await ask({ method: "POST", body: "{}" })).toMatchObject({ code: "dashboard_unreachable" });
  expect(calls).toBe(10);
});

it("says that a boot of an earlier version has none", async () => {
  const { ask } = call(async () => new Response(), {});
  expect(await ask()).toMatchObject({ status: 503, code: "dashboard_unavailable" });
});

it("opens no socket whose end is gone with the object, and keeps no room for it", async () => {
  const { ask } = call(async () => {
    const { 0: webSocket } = new WebSocketPair();
    return new Response(null, { status: 101, webSocket });
  });
  for (let socket = 0; socket <= 100; socket++)
    expect(await ask({ headers: { upgrade: "websocket" } })).toMatchObject({
      message: "this object was started over",
    });
  const sockets = new DashboardSockets({ time: new ManualTime(), fetchEnd: async () => new Response(null) });
  expect(sockets.end("nobody's").status).toBe(404);
});

it("lets a forgotten tab keep Hermes awake for its time, and no longer, whatever Hermes sends it", async () => {
  const { time, touches, speaks } = await tab();
  await time.pass(IDLE);
  await speaks("hermes");
  expect(touches()).toBe(1);
  for (let hour = 0; hour < 5; hour++) {
    await time.pass(IDLE);
    await speaks("hermes");
  }
  expect(touches()).toBe(1);
  await speaks("person");
  expect(touches()).toBe(2);
  await time.pass(IDLE);
  await speaks("hermes");
  expect(touches()).toBe(3);
});

it("counts what a person does although the clock was set back", async () => {
  const { time, touches, speaks } = await tab();
  await speaks("person");
  time.jump(-6 * IDLE);
  await speaks("person");
  expect(touches()).toBe(2);
});
