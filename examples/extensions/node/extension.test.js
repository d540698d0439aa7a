// What Hello node does, without a server: `npm test`.
import assert from "node:assert/strict";
import test from "node:test";
import { checked } from "./beamline.js";
import { configSchema, handle } from "./extension.js";

const ask = (config, signal) =>
  handle(
    { prompt: "a forbidden word", output: "a forbidden word", started: 0 },
    checked(configSchema, config),
    signal,
  );

test("it uses its configuration", async () => {
  assert.equal((await ask({ greeting: "Hi, " })).output, "Hi, a forbidden word");
});

test("it gives up at the deadline", async () => {
  await assert.rejects(ask({ latency_ms: 60_000 }, AbortSignal.timeout(1)));
});

test("it refuses an unknown field", () => {
  assert.throws(() => checked(configSchema, { nonsense: 1 }), /config\.nonsense/);
});
