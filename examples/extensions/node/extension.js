// Hello node: what it does. How it is asked and answers is in beamline.js.
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Failure, reply, run, textOf } from "./beamline.js";

// Published, and checked against the custom resource's `config`; beamline.js checks each request's against it.
export const configSchema = {
  type: "object",
  additionalProperties: false,
  properties: {
    latency_ms: { type: "number", minimum: 0, default: 0, description: "Pretended work, milliseconds." },
    greeting: { type: "string", default: "You said: ", description: "Put before the answer." },
  },
};

// Answers one request. `signal` fires at the deadline.
export async function handle(request, config, signal) {
  await pretend(request, config, signal);
  return reply(request, config.greeting + textOf(request), "hello_node-1");
}

// The same in parts: yields text, returns the reply. It stands at `yield` until the reader has room.
export async function* stream(request, config, signal) {
  await pretend(request, config, signal);
  const output = config.greeting + textOf(request);
  for (const part of output.split(/(?<= )/)) yield part;
  return reply(request, output, "hello_node-1");
}

// Stands for the work: replace it by yours, and give `signal` to all that waits.
async function pretend(request, config, signal) {
  const ms = request.parameters?.latency_ms ?? config.latency_ms;
  if (!(ms >= 0 && ms <= 600_000)) throw new Failure("INVALID_ARGUMENT", "latency_ms must be 0 to 600000");
  if (ms > 0) await sleep(ms, undefined, { signal });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await run({
    id: "hello_node",
    kind: "provider",
    subject: "beamline.provider.hello_node.v1",
    configSchema,
    handle,
    stream,
  });
}
