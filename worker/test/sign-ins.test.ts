// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { Log, Redactor } from "../src/base/log.ts";
import { BoundedSandbox } from "../src/sandbox/bounded.ts";
import { SandboxCommands } from "../src/sandbox/commands.ts";
import { SignIns } from "../src/state/sign-ins.ts";
import { Vault } from "../src/state/vault.ts";
import { env } from "./helpers.ts";
import { ManualTime, MemorySandbox } from "./stand-ins/sandbox.ts";

const NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
let rooms = 0;

interface World {
  sandbox: MemorySandbox;
  vault: Vault;
  kept: SignIns;
  commands: SandboxCommands;
  /** What is in the home beside the state; `null` for a sandbox of an earlier release. */
  home: { signIns: string | null };
}

/** A sandbox whose Hermes is signed in somewhere. */
function world(work: (world: World) => Promise<void>): Promise<void> {
  return runInDurableObject(env.PLAIN.getByName(`signed in ${rooms++}`), async (_, state) => {
    const sandbox = new MemorySandbox();
    const vault = new Vault(state.storage);
    const home: World["home"] = { signIns: "refresh token 1" };
    await sandbox.start({ env: { HERMES_BOOT_ID: "b" }, labels: {}, enableInternet: true });
    const usage = { exitCode: 64, stderr: "This is not a command of the sandbox." };
    sandbox.commands["save-sign-ins"] = async (_stdin, words) => {
      if (home.signIns === null) return usage;
      const digest = home.signIns === "" ? NOTHING : await sha256(home.signIns);
      if (words.at(-1) === digest) return { exitCode: 3 };
      const bytes = home.signIns.length;
      const line = JSON.stringify({
        format: 1,
        boot: "b",
        digest,
        sha256: await sha256(home.signIns),
        bytes,
      });
      return { stdout: `${line}\n${home.signIns}` };
    };
    sandbox.commands["restore-sign-ins"] = (stdin) => {
      if (home.signIns === null) return usage;
      home.signIns = stdin.slice(stdin.indexOf("\n") + 1);
      return {};
    };
    const time = new ManualTime();
    const parts = { sandbox: BoundedSandbox.of(sandbox, time), vault, time, log: new Log(new Redactor()) };
    const keys = { gatewayKey: "k", capability: "c", dashboardToken: "d" };
    const commands = new SandboxCommands(parts, "b", keys, () => true);
    await work({ sandbox, vault, kept: new SignIns(state.storage), commands, home });
  });
}

async function sha256(text: string): Promise<string> {
  const sum = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(sum)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const text = (stream: ReadableStream<Uint8Array>) => new Response(stream).text();

describe("keys and sign-ins", () => {
  it("are kept with each save and are in no backup", () =>
    world(async ({ sandbox, vault, kept, commands, home }) => {
      sandbox.state = "conversations";
      const { backup } = await commands.export("test", "i");
      expect(await text(kept.read())).toContain("refresh token 1");
      expect(await text(vault.read(backup.id))).not.toContain("refresh token");
      home.signIns = "refresh token 2";
      expect(await commands.export("test", "i")).toMatchObject({
        unchanged: true,
        backup: { id: backup.id },
      });
      expect(await text(kept.read())).toContain("refresh token 2");
    }));

  it("come back after a sleep, and over what a state or a snapshot brought", () =>
    world(async ({ kept, commands, home }) => {
      await commands.export("test", "i");
      home.signIns = "of somebody else";
      expect(await commands.restoreSignIns(null)).toBeNull();
      expect(home.signIns).toBe("refresh token 1");
      home.signIns = "refreshed after the snapshot's save";
      await commands.restoreSignIns(kept.digest);
      expect(home.signIns).toBe("refreshed after the snapshot's save");
    }));

  it("are left alone where none were ever kept", () =>
    world(async ({ kept, commands, home }) => {
      home.signIns = "";
      await commands.export("test", "i");
      expect(kept.isKept).toBe(false);
      home.signIns = "of a backup of an earlier release";
      await commands.restoreSignIns(null);
      expect(home.signIns).toBe("of a backup of an earlier release");
    }));

  it("stay away once somebody signed out", () =>
    world(async ({ commands, home }) => {
      await commands.export("test", "i");
      home.signIns = "";
      await commands.export("test", "i");
      home.signIns = "of a snapshot";
      await commands.restoreSignIns(null);
      expect(home.signIns).toBe("");
    }));

  it.each([
    ["a save that fails", { exitCode: 72, stderr: "too much" }, "too much"],
    ["one that fails at its end", { stdout: line({}), stderr: "a full disk", exitCode: 73 }, "a full disk"],
    ["another boot's", { stdout: line({ boot: "ghost" }) }, "of boot ghost"],
    ["fewer bytes than announced", { stdout: line({ bytes: 7 }) }, "not what their first line announces"],
    [
      "other bytes than announced",
      { stdout: line({ sha256: "0".repeat(64) }) },
      "not what their first line announces",
    ],
    ["more than there can be", { stdout: line({ bytes: 1 << 30 }) }, "more than sign-ins can be"],
  ])("stay as they were after %s, and the save says so", async (_, done, why) => {
    await world(async ({ sandbox, vault, kept, commands }) => {
      await commands.export("test", "i");
      sandbox.commands["save-sign-ins"] = () => done;
      sandbox.state = "more";
      await expect(commands.export("test", "i")).rejects.toThrow(why);
      expect(await text(kept.read())).toContain("refresh token 1");
      expect(vault.list()).toHaveLength(1);
    });
  });

  const wrong = { exitCode: 70, stderr: "its checksum is wrong." };

  it("are given up, and that is told, only when their bytes are proved bad twice", () =>
    world(async ({ sandbox, kept, commands }) => {
      await commands.export("test", "i");
      sandbox.commands["restore-sign-ins"] = () => ({ exitCode: 74, stderr: "out of memory" });
      await expect(commands.restoreSignIns(null)).rejects.toThrow("out of memory");
      expect(kept.isKept).toBe(true);
      let verdicts = 0;
      sandbox.commands["restore-sign-ins"] = () => (verdicts++ === 0 ? wrong : {});
      expect(await commands.restoreSignIns(null)).toBeNull();
      expect(kept.isKept).toBe(true);
      sandbox.commands["restore-sign-ins"] = () => wrong;
      expect(await commands.restoreSignIns(null)).toContain("its checksum is wrong");
      expect(kept.isKept).toBe(false);
    }));

  it("are no matter of a sandbox of an earlier release", () =>
    world(async ({ commands, home }) => {
      await commands.export("test", "i");
      home.signIns = null;
      await commands.export("again", "i");
      expect(await commands.restoreSignIns(null)).toBeNull();
    }));
});

/** The archive of no bytes, with changes. */
function line(change: object): string {
  const sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  return `${JSON.stringify({ format: 1, boot: "b", digest: "d", sha256, bytes: 0, ...change })}\n`;
}
