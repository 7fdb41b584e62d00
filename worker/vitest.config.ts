// SPDX-License-Identifier: Apache-2.0
import { cloudflareTest } from "@cloudflare/vitest-pool-workers";
import { kCurrentWorker } from "miniflare";
import { defineConfig } from "vitest/config";
import { Machine } from "./test/stand-ins/machine.ts";

const machine = new Machine();

const workerd = cloudflareTest({
  main: "./test/main.ts",
  miniflare: {
    compatibilityDate: "2026-08-15",
    compatibilityFlags: ["enable_request_signal"],
    durableObjects: {
      INSTANCE: { className: "HermesInstance", useSQLite: true },
      PLAIN: { className: "Plain", useSQLite: true },
    },
    serviceBindings: {
      ENGINE: { name: kCurrentWorker, entrypoint: "EngineWire" },
      LOOPBACK: { name: kCurrentWorker, entrypoint: "LoopbackWire" },
      PROVIDER: { name: kCurrentWorker, entrypoint: "ProviderWire" },
      MACHINE_ENGINE: (request: Request) => machine.engine(request),
      MACHINE_LOOPBACK: (request: Request) => machine.loopback(request),
      MACHINE_PROVIDER: (request: Request) => machine.provider(request),
    },
    outboundService: (request: Request) => machine.provider(request),
    bindings: {
      HERMES_NAME: "test",
      WORKER_VERSION: "v1",
      HERMES_VERSION: "0.19.0",
      HERMES_IMAGE: "image-1",
      HERMES_PLATFORM: "workerd",
      HERMES_ENGINE: "process",
      HERMES_DEFAULT_MODEL: "anthropic/claude-sonnet-4-5",
      HERMES_MODELS: '["openai/gpt-5-mini", "rehearsal/rehearsal"]',
      HERMES_PROVIDER_BASE_URL: "",
      HERMES_SLEEP_AFTER: "4h",
      HERMES_DRAIN_TIMEOUT: "2s",
      HERMES_HOST_TOOLS: "false",
      HERMES_ALLOW_UNAUTHENTICATED: "false",
      PROVIDERS_ADDRESS: "http://127.0.0.1:8799",
      HERMES_ENV: "{}",
      HERMES_CORS_ORIGINS: "https://app.example",
      HERMES_DASHBOARD: "on",
      HERMES_DASHBOARD_HOSTNAME: "hermes.example",
      HERMES_ACCESS_TEAM_DOMAIN: "team.cloudflareaccess.example",
      HERMES_ACCESS_AUDIENCES: "audience-one, audience-two",
      API_TOKEN: "correct-horse-battery-staple",
      ANTHROPIC_API_KEY: "sk-ant-the-real-key-0123456789",
    },
  },
});

export default defineConfig({
  test: {
    // On a machine with two cores vitest would use one.
    maxWorkers: 2,
    projects: [
      {
        plugins: [workerd],
        test: {
          name: "workerd",
          include: ["test/*.test.ts"],
          disableConsoleIntercept: true,
          // A busy machine is slow, and no test asks how fast anything is.
          testTimeout: 60_000,
          // The stand-in is one machine: files take turns with it.
          fileParallelism: false,
        },
      },
      // In plain Node, where a thousand lives take a minute.
      { test: { name: "simulator", include: ["test/simulator/*.test.ts"], environment: "node" } },
    ],
  },
});
