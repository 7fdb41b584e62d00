// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import type { Env } from "../src/config/settings.ts";
import { askInstance, instanceOf } from "../src/gate/instance-stub.ts";

/** A namespace whose n-th stub is `n`, on a machine with so much space on its disk. */
function numbered(diskFree?: number): Env {
  let stubs = 0;
  const ENGINE = diskFree === undefined ? undefined : { fetch: async () => Response.json({ diskFree }) };
  return { INSTANCE: { getByName: () => ++stubs }, ENGINE } as unknown as Env;
}

/** Work that fails until its stub is the n-th. */
const failsBefore = (n: number, error: unknown) => async (stub: unknown) => {
  if ((stub as number) < n) throw error;
  return `answered by ${stub}`;
};

describe("the instance", () => {
  it.each([
    ["weur", { locationHint: "weur" }],
    ["", {}],
    [undefined, {}],
  ])("is asked for near %s", (HERMES_LOCATION, options) => {
    const getByName = (...asked: unknown[]) => asked;
    const asked = instanceOf({ HERMES_LOCATION, INSTANCE: { getByName } } as unknown as Env);
    expect(asked).toEqual(["hermes", options]);
  });
});

describe("a call to the instance", () => {
  const torn = new Error("The object was torn down.");

  it("is made again, by a new stub, when the object was torn down under it", async () => {
    expect(await askInstance(numbered(), failsBefore(2, torn))).toBe("answered by 2");
  });

  it("is made twice at most, and then says why", async () => {
    await expect(askInstance(numbered(), failsBefore(3, torn))).rejects.toMatchObject({
      status: 503,
      code: "instance_unavailable",
      cause: torn,
    });
  });

  it("says that the disk is full where that is why", async () => {
    for (const [free, code] of [
      [4096, "disk_full"],
      [5_000_000_000, "instance_unavailable"],
    ] as const) {
      await expect(askInstance(numbered(free), failsBefore(3, torn))).rejects.toMatchObject({
        status: 503,
        code,
      });
    }
  });

  it("does not blame the disk where nobody can be asked about it", async () => {
    const ENGINE = { fetch: () => Promise.reject(new Error("There is no engine.")) } as unknown as Fetcher;
    await expect(askInstance({ ...numbered(), ENGINE }, failsBefore(3, torn))).rejects.toMatchObject({
      code: "instance_unavailable",
    });
  });

  it("says that the storage may be damaged when the runtime itself fails", async () => {
    // As workerd answers for a file that is no database, is malformed, or cannot be opened.
    const failed = new Error("internal error; reference = 24cu3vmdlgdh55g79e6ruh57");
    await expect(askInstance(numbered(5_000_000_000), failsBefore(3, failed))).rejects.toMatchObject({
      status: 503,
      code: "instance_broken",
      message: expect.stringMatching(/storage is damaged/),
    });
    // A container engine that is gone ends in the same words.
    await expect(askInstance(numbered(), failsBefore(3, failed))).rejects.toMatchObject({
      code: "instance_unavailable",
      message: expect.stringMatching(/container engine runs, and what the runtime's log says/),
    });
  });

  it("is not made again for a client that left", async () => {
    await expect(askInstance(numbered(), failsBefore(2, torn), AbortSignal.abort())).rejects.toBe(torn);
  });

  it("is not made again when the object has too much to do already", async () => {
    const overloaded = Object.assign(new Error("Too many requests."), { overloaded: true });
    await expect(askInstance(numbered(), failsBefore(2, overloaded))).rejects.toBe(overloaded);
  });
});
