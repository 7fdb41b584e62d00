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
