// SPDX-License-Identifier: Apache-2.0
/** The kinds of variables: how the text of one is read, and what it must be. */
import * as z from "zod/mini";
import { PROVIDER_NAMES, type ProviderName } from "./providers.ts";

/** A model id taken apart: `openrouter/anthropic/claude-sonnet-4.5` has provider `openrouter`. */
export interface Model {
  /** The whole id, as people write it. */
  id: string;
  provider: ProviderName;
  /** The provider's own name for it. */
  name: string;
}

/** Any text, without the blanks around it; empty when nobody said. */
export const text = z.pipe(
  z.nullish(z.string()),
  z.transform((value) => (value ?? "").trim()),
);
/** A text that somebody has to say. */
export const required = text.check(z.refine((value) => value !== "", "must not be empty"));
/** `true` or `false`; false when nobody said. */
export const flag = z.pipe(
  text.check(z.refine((value) => ["", "true", "false"].includes(value), 'must be "true" or "false"')),
  z.transform((value) => value === "true"),
);

/** Milliseconds in each unit of a duration. */
const UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3600_000 };

/** `90`, `90s`, `10m` or `4h` as milliseconds; bare numbers are seconds. */
const milliseconds = (value: string) => Number.parseInt(value, 10) * (UNITS[value.slice(-1)] ?? 1000);

/** A time between two others; `usual` when nobody said. */
export const duration = (usual: string, least: string, most: string) =>
  z
    .pipe(
      text.check(
        z.refine(
          (value) => /^(?:\d{1,7}[smh]?)?$/.test(value),
          "must be seconds, or a number with s, m or h",
        ),
      ),
      z.transform((value) => milliseconds(value === "" ? usual : value)),
    )
    .check(
      z.refine(
        (found) => found >= milliseconds(least) && found <= milliseconds(most),
        `must be between ${least} and ${most}`,
      ),
    );

/** One of some words; the first when nobody said. */
export const choice = <const Words extends readonly [string, ...string[]]>(...words: Words) =>
  z._default(
    z.enum(
      words,
      `must be ${new Intl.ListFormat("en", { type: "disjunction" }).format(words.filter(Boolean))}`,
    ),
    words[0],
  );

/** A whole number; 0 when nobody said. */
export const number = (least: number, most: number) =>
  z
    .pipe(
      text.check(z.refine((value) => /^\d{0,9}$/.test(value), "must be a whole number")),
      z.transform(Number),
    )
    .check(
      z.refine(
        (value) => value === 0 || (value >= least && value <= most),
        `must be between ${least} and ${most}`,
      ),
    );

/** `provider/model`. */
export const model = z.pipe(
  z
    .string()
    .check(
      z.regex(
        new RegExp(`^(?:${PROVIDER_NAMES.join("|")})/[\\w.:@/+-]{1,200}$`),
        `must be provider/model with a provider of ${PROVIDER_NAMES.join(", ")}`,
      ),
    ),
  z.transform((id): Model => {
    const cut = id.indexOf("/");
    return { id, provider: id.slice(0, cut) as ProviderName, name: id.slice(cut + 1) };
  }),
);

/** JSON in a text variable. */
export const json = <T extends z.ZodMiniType>(schema: T, fallback: string) =>
  z.pipe(
    z.pipe(
      text,
      z.transform((value, context): unknown => {
        try {
          return JSON.parse(value === "" ? fallback : value);
        } catch {
          context.issues.push({ code: "custom", message: "must be JSON", input: "" });
          return z.NEVER;
        }
      }),
    ),
    schema,
  );

/** Names and values of an environment. */
export const variables = z.record(
  z.string().check(z.regex(/^[A-Za-z_]\w*$/, "has a name no variable may have")),
  z.string(),
);

/** What an agent is declared to be, by its digests; of none both are empty. */
export const declaredAgent = z.object({
  archive: z._default(
    z.string().check(z.regex(/^(?:[0-9a-f]{64})?$/, "has an archive without a digest")),
    "",
  ),
  parts: z._default(z.record(z.string(), z.string()), {}),
});

/** A base URL, without a slash at its end; empty when nobody said. */
export const httpUrl = z.pipe(
  text.check(
    z.refine(
      (value) => value === "" || (URL.canParse(value) && /^https?:$/.test(new URL(value).protocol)),
      "must be an http or https URL",
    ),
    z.refine((value) => !/[?#@\s]/.test(value), "must have no query, fragment or credentials"),
  ),
  z.transform((value) => value.replace(/\/+$/, "")),
);

/** Several values in one text, separated by commas. */
export const list = <T extends z.ZodMiniType<unknown, string>>(item: T) =>
  z.pipe(
    z.pipe(
      text,
      z.transform((value) =>
        value
          .split(",")
          .map((one) => one.trim())
          .filter((one) => one !== ""),
      ),
    ),
    z.array(item),
  );

/** As browsers send it: scheme, name and port, nothing behind. */
const isWebOrigin = (value: string) =>
  /^https?:/.test(value) && URL.canParse(value) && new URL(value).origin === value;

/** What pages send that have no origin of their own: files, and frames that are kept apart, of any site. */
export const OPAQUE_ORIGINS = ["null", "file://"];
/** What desktop programs and browsers' extensions send for their pages. */
const APP_ORIGIN = /^(?!https?:)[a-z][a-z0-9+.-]*:\/\/[A-Za-z0-9._-]+(?::[1-9]\d{0,4})?$/;

/** What a browser or a desktop program sends as the origin of its pages. */
export const origin = z
  .string()
  .check(
    z.refine(
      (value) =>
        isWebOrigin(value) ||
        OPAQUE_ORIGINS.includes(value) ||
        (APP_ORIGIN.test(value) && value.length <= 300),
      "must list origins like https://app.example.com",
    ),
  );

/** A web origin; empty when nobody said. */
export const ownOrigin = text.check(
  z.refine(
    (value) => value === "" || isWebOrigin(value),
    "must be an origin like https://hermes.example.com",
  ),
);

/** A hostname in lower case; empty when nobody said. */
export const hostname = z.pipe(
  text.check(
    z.refine((value) => /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.|$))*$/i.test(value), "must be a hostname"),
  ),
  z.transform((value) => value.toLowerCase()),
);

/** `open`, `providers`, or hosts separated by commas. */
export const egress = z.pipe(
  text.check(
    z.refine(
      (value) => /^(?:[a-z0-9.-]+(?:,[a-z0-9.-]+)*)?$/.test(value),
      "must be open, providers, or hosts separated by commas",
    ),
  ),
  z.transform((value): "open" | readonly string[] => {
    if (value === "" || value === "open") return "open";
    return value === "providers" ? [] : value.split(",");
  }),
);

/** The audience tag of an application of Cloudflare Access. */
export const audience = z.string().check(z.regex(/^[\w-]{8,128}$/, "must list audience tags"));
