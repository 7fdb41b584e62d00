// SPDX-License-Identifier: Apache-2.0
/** What may happen in a simulated world, and how often. */
import { Dice } from "./platform.ts";
import { STRANGER, Violation, World } from "./world.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

type Step = (world: World, dice: Dice) => string | Promise<string>;

const passes =
  (least: number, most: number): Step =>
  async (world, dice) => {
    const ms = dice.between(least, most);
    await world.pass(ms);
    return `${ms / SECOND} s pass`;
  };

/** Somebody comes just as it falls asleep, perhaps behind an order that has to be waited for. */
const atTheLastMoment: Step = async (world, dice) => {
  const due = world.life.due;
  if (due?.what !== "sleep") return "nobody is about to fall asleep";
  world.engine.slow = dice.next();
  world.lateAlarms(0);
  await world.pass(Math.max(0, due.at - world.time.now()));
  await world.pass(dice.between(0, 30 * SECOND));
  const order = dice.pick([
    [2, null],
    [1, "save"],
    [2, "gateway"],
    [2, "stop"],
  ] as const);
  if (order !== null) world.order(order);
  for (let more = dice.between(1, 3); more > 0; more--) {
    await world.pass(dice.between(0, 10 * SECOND));
    world.request(false, null);
  }
  return `a request as it falls asleep${order === null ? "" : `, after an order: ${order}`}`;
};

const STEPS: readonly (readonly [number, Step])[] = [
  [14, passes(0, 10 * SECOND)],
  [10, passes(10 * SECOND, 3 * MINUTE)],
  [4, passes(3 * MINUTE, 30 * MINUTE)],
  [3, passes(HOUR, 6 * HOUR)],
  [4, atTheLastMoment],
  [
    18,
    (world, dice) => {
      const stream = dice.chance(0.3);
      const session = dice.chance(0.5) ? `s${dice.between(1, 2)}` : null;
      world.request(stream, session);
      return `a request${stream ? ", streaming" : ""}${session === null ? "" : ` in ${session}`}`;
    },
  ],
  [
    3,
    (world, dice) => {
      const many = dice.between(2, 10);
      for (let n = 0; n < many; n++) world.request(false, null);
      return `${many} requests at once`;
    },
  ],
  [
    4,
    (world) => {
      world.engine.crash(137);
      return "the sandbox dies";
    },
  ],
  [
    5,
    (world, dice) => {
      const image = dice.chance(0.2) ? `image-${dice.between(1, 2)}` : undefined;
      const setting = dice.chance(0.3) ? `setting-${dice.between(1, 3)}` : undefined;
      const content = dice.chance(0.3) ? `content-${dice.between(1, 3)}` : undefined;
      world.deploy(image, setting, content);
      return `a deploy${image === undefined ? "" : ` of ${image}`}${setting === undefined ? "" : ` of setting ${setting}`}${content === undefined ? "" : ` of ${content}`}`;
    },
  ],
  [
    4,
    async (world, dice) => {
      await world.pass(dice.between(70 * SECOND, 140 * SECOND));
      return world.leave() ? "the object leaves memory" : "the object is held in memory";
    },
  ],
  [
    2,
    (world) => {
      world.order("refresh");
      return "the settings are brought into force";
    },
  ],
  [
    2,
    (world) => {
      world.loseWatch();
      return "the watch is lost";
    },
  ],
  [
    3,
    (world, dice) => {
      world.engine.down = dice.chance(0.4);
      return world.engine.down ? "the engine is down" : "the engine is up";
    },
  ],
  [
    4,
    (world, dice) => {
      world.engine.failing = dice.chance(0.5) ? 0 : dice.next() * 0.3;
      world.engine.slow = dice.chance(0.5) ? 0 : dice.next() * 0.5;
      return `calls fail ${world.engine.failing.toFixed(2)}, are slow ${world.engine.slow.toFixed(2)}`;
    },
  ],
  [
    2,
    (world, dice) => {
      world.engine.healthy = dice.chance(0.7);
      return `Hermes ${world.engine.healthy ? "answers" : "answers nobody"}`;
    },
  ],
  [
    9,
    (world, dice) => {
      const order = dice.pick([
        [3, "save"],
        [4, "sleep"],
        [2, "restart"],
        [0.2, "force"],
        [1, "stop"],
        [1, "gateway"],
        [1, "wake"],
      ] as const);
      world.order(order);
      return `order: ${order}`;
    },
  ],
  [
    3,
    (world) => {
      world.ring();
      return "an alarm that nobody set";
    },
  ],
  [
    2,
    (world, dice) => {
      const ms = dice.chance(0.5) ? 0 : dice.between(0, 5 * MINUTE);
      world.lateAlarms(ms);
      return `alarms ring ${ms / SECOND} s late`;
    },
  ],
  [
    2,
    (world, dice) => {
      const ms = dice.between(-24 * HOUR, 24 * HOUR);
      world.time.jump(ms);
      return `the clock is set ${ms / SECOND} s on`;
    },
  ],
  [
    2,
    (world, dice) => {
      const job = world.schedule(dice.between(MINUTE, 8 * HOUR));
      return job === null ? "nobody there to schedule a job" : `${job} is scheduled`;
    },
  ],
  [
    1,
    (world) => {
      world.engine.snapshots.clear();
      return "the snapshots vanish";
    },
  ],
  [
    1,
    (world, dice) => {
      world.engine.refusesSnapshots = dice.chance(0.5);
      return `snapshots are ${world.engine.refusesSnapshots ? "refused" : "taken"}`;
    },
  ],
  [
    3,
    (world, dice) => {
      world.engine.troubled = dice.chance(0.5) ? 0 : dice.next() * 0.5;
      world.engine.hanging = dice.chance(0.5) ? 0 : dice.next() * 0.2;
      return `restores fail ${world.engine.troubled.toFixed(2)}, saves hang ${world.engine.hanging.toFixed(2)}`;
    },
  ],
  [
    3,
    (world, dice) => {
      world.engine.startTakes = dice.pick([
        [2, 0],
        [1, 30 * SECOND],
        [1, 290 * SECOND],
      ] as const);
      world.engine.refusing = dice.chance(0.7) ? 0 : dice.next() * 0.6;
      return `starts take up to ${world.engine.startTakes / SECOND} s, are refused ${world.engine.refusing.toFixed(2)}`;
    },
  ],
  [
    1.5,
    (world, dice) => {
      const poison = dice.pick([
        [2, null],
        [1, "archive"],
        [1, "restore"],
        [1, "go"],
      ] as const);
      world.bring(poison);
      return `a backup is brought${poison === null ? "" : `, no good: ${poison}`}`;
    },
  ],
  [
    0.5,
    (world) => {
      world.damage();
      return "the newest backup is damaged";
    },
  ],
];

/** What happens besides where people write to it. */
const PEOPLE: readonly (readonly [number, Step])[] = [
  [
    16,
    (world, dice) => {
      const chat = String(dice.between(1, 3));
      const many = dice.between(1, 3);
      return `${chat} writes ${Array.from({ length: many }, () => world.write(chat)).join(" ")}`;
    },
  ],
  [1, (world) => `a stranger writes ${world.write(STRANGER)}`],
  [
    3,
    (world) => {
      world.engine.killHermes();
      return "Hermes dies";
    },
  ],
  [
    3,
    (world, dice) => {
      world.platform.isDown = dice.chance(0.3);
      world.platform.failing = dice.chance(0.5) ? 0 : dice.next() * 0.6;
      return `messages fail ${world.platform.isDown ? "all" : world.platform.failing.toFixed(2)}`;
    },
  ],
];

/**
 * Runs one seed.
 * @param withThings whether people send pictures, too, and are asked by buttons.
 * @throws Error with the seed, the steps and what did not hold.
 */
export async function simulate(
  seed: number,
  steps: number,
  hasPeople: boolean,
  withThings: boolean,
): Promise<void> {
  const dice = new Dice(seed);
  const possible = hasPeople ? [...STEPS.slice(0, 7), ...PEOPLE, ...STEPS.slice(7)] : STEPS;
  const world = new World(dice, withThings);
  let step = 0;
  try {
    for (; step < steps; step++) {
      world.story.push(`${step}`);
      const told = await dice.pick(possible)(world, dice);
      world.story.push(`  ${step}: ${told}`);
      await world.pass(0);
    }
    world.story.push("the good end");
    await world.goodEnd();
  } catch (error) {
    const why = error instanceof Violation ? error.message : String((error as Error).stack);
    throw new Error(
      `seed ${seed}, step ${step}: ${why}\n${world.story.slice(-(Number(process.env["SIMULATOR_LINES"]) || 400)).join("\n")}`,
    );
  } finally {
    world.close();
  }
}
