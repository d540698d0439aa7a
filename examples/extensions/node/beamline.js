// The extension's side of Beamline's wire contract, over the official NATS client.
//
// One event loop, a promise per request, at most `CONCURRENCY` of them at work. Before the work the deadline is
// checked, during it a signal fires at the deadline. Each request gets exactly one answer. On SIGTERM: no more
// requests, finish what was taken, then leave.
import { createServer } from "node:http";
import { connect, createInbox, credsAuthenticator, headers as newHeaders } from "nats";
import { readFileSync } from "node:fs";
import { Streams } from "./stream.js";
import { tracerOf } from "./trace.js";

const CONCURRENCY = 256;
const BACKLOG = 1024;
const MAX_REPLY_BYTES = 1024 * 1024 - 4096;
const MAX_DEPTH = 32;
const MAX_DEADLINE_MS = 600_000;
const GRACE_MS = 25_000;

// An error of the contract's closed list. The message reaches the caller: no payload, no key in it.
export class Failure extends Error {
  constructor(code, message, { retryable = false, retryAfterMs } = {}) {
    super(message);
    Object.assign(this, { code, retryable, retryAfterMs });
  }
}

// The prompt, or all texts of the messages.
export function textOf(request) {
  if (typeof request.prompt === "string") return request.prompt;
  const texts = [];
  for (const { content } of request.messages ?? []) {
    if (typeof content === "string") texts.push(content);
    else if (Array.isArray(content)) texts.push(...content.map((part) => part?.text).filter((t) => typeof t === "string"));
  }
  return texts.join("\n");
}

// A provider's answer; tokens are counted as characters divided by 4.
export function reply(request, output, model) {
  const prompt_tokens = Math.floor(textOf(request).length / 4);
  const completion_tokens = Math.floor(output.length / 4);
  return {
    provider_id: request.provider_id,
    output,
    usage: { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens },
    metadata: {
      model,
      finish_reason: "stop",
      trace_id: request.trace_id ?? "",
      latency_ms: Math.round(performance.now() - request.started),
    },
  };
}

// Serves until SIGTERM or SIGINT.
export async function run(extension) {
  const env = process.env;
  const id = env.BEAMLINE_EXTENSION_ID || extension.id;
  const subject = env.NATS_SUBJECT || extension.subject;
  const state = { extension, id, requests: 0, working: new Set(), waiting: [], ready: false };
  state.tracer = tracerOf(id, extension.kind);
  state.fallback = JSON.parse(env.BEAMLINE_CONFIG || "{}");
  const stopped = new Promise((resolve) => ["SIGTERM", "SIGINT"].forEach((name) => process.once(name, resolve)));
  const http = probes(state);
  const options = {
    servers: env.NATS_URL || "nats://127.0.0.1:4222",
    name: `extension ${id}`,
    maxReconnectAttempts: -1,
    waitOnFirstConnect: true,
    pingInterval: 2000,
  };
  if (env.NATS_CREDENTIALS_FILE) options.authenticator = credsAuthenticator(readFileSync(env.NATS_CREDENTIALS_FILE));
  const nc = await Promise.race([connect(options), stopped]);
  if (typeof nc === "string") process.exit(0);
  state.nc = nc;
  state.streams = new Streams(nc, createInbox());
  const metadata = {
    "beamline.type": extension.kind,
    "beamline.extension": extension.id,
    "beamline.config_schema": JSON.stringify(extension.configSchema),
  };
  if (extension.stream) metadata["beamline.streams"] = "true";
  const service = await nc.services.add({ name: id, version: "0.1.0", metadata });
  service.addEndpoint("handle", {
    subject,
    queue: env.NATS_QUEUE_GROUP || id,
    handler: (error, message) => error === null && accept(state, message),
  });
  await nc.flush();
  state.ready = true;
  log("info", "extension.ready", { extension_id: id, subject });
  await stopped;
  state.ready = false;
  log("info", "extension.draining", { extension_id: id });
  const giveUp = setTimeout(() => process.exit(1), GRACE_MS);
  await service.stop(); // drains: every message that the server has sent was handed over
  while (state.working.size > 0) await Promise.allSettled(state.working);
  await nc.drain();
  await state.tracer?.close();
  clearTimeout(giveUp);
  http.close();
  http.closeAllConnections();
}

// Returns at once; the answer comes from a promise.
function accept(state, message) {
  state.requests += 1;
  if (!message.reply) return;
  if (state.working.size >= CONCURRENCY) {
    if (state.waiting.length < BACKLOG) state.waiting.push(message);
    else fail(state, message, new Failure("RESOURCE_EXHAUSTED", "too many requests at once", { retryable: true, retryAfterMs: 100 }));
    return;
  }
  const work = answer(state, message).finally(() => {
    state.working.delete(work);
    const next = state.waiting.shift();
    if (next) accept(state, next);
  });
  state.working.add(work);
}

async function answer(state, message) {
  const leaving = new AbortController();
  const span = state.tracer?.begin(message.headers);
  let timer;
  let failed;
  try {
    const left = remaining(message.headers);
    if (left <= 0) throw new Failure("DEADLINE_EXCEEDED", `the deadline had passed before ${state.id} could start`);
    timer = setTimeout(() => leaving.abort(new Failure("DEADLINE_EXCEEDED", "not done in time", { retryable: true })), left);
    const request = decode(message.data, state.extension.kind);
    if (span) span.request = request;
    const config = checked(state.extension.configSchema, request.config ?? state.fallback);
    if (state.extension.stream && message.headers?.get("Beamline-Stream") === "1") {
      const parts = state.extension.stream(request, config, leaving.signal);
      failed = await state.streams.send(message, parts, leaving, { trace: traceOf(message.headers), encode, failure });
      return;
    }
    const result = await state.extension.handle(request, config, leaving.signal);
    send(state, message, encode(result));
  } catch (error) {
    failed = leaving.signal.aborted ? leaving.signal.reason : error;
    fail(state, message, failed);
  } finally {
    clearTimeout(timer);
    state.tracer?.end(span, failed && (failed instanceof Failure || failed.code === "CANCELLED" ? failed.code : "INTERNAL"));
  }
}

function decode(data, kind) {
  let request;
  try {
    request = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch {
    throw malformed("the request is not JSON");
  }
  if (!isObject(request)) throw malformed("the request must be a JSON object");
  if (depth(request) > MAX_DEPTH) throw malformed(`the request is nested deeper than ${MAX_DEPTH} levels`);
  for (const [name, value] of Object.entries(request)) {
    if (value === null) delete request[name];
    else if (name in SHAPES && !SHAPES[name](value)) throw malformed(`${name} has the wrong type`);
  }
  if (kind === "post" && request.output === undefined) throw malformed("output is missing");
  if (kind !== "post" && request.prompt === undefined && request.messages === undefined) {
    throw malformed("prompt or messages is missing");
  }
  request.started = performance.now();
  return request;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isString = (value) => typeof value === "string";
const SHAPES = {
  trace_id: isString, request_id: isString, tenant_id: isString, extension_id: isString, provider_id: isString,
  prompt: isString, output: isString, parameters: isObject, context: isObject, config: isObject, usage: isObject,
  messages: (value) => Array.isArray(value) && value.every(isObject),
};

const TYPES = {
  string: isString, object: isObject, array: Array.isArray, boolean: (value) => typeof value === "boolean",
  number: (value) => typeof value === "number", integer: Number.isInteger,
};

// The configuration with its defaults; what breaks the schema is named, without its value.
export function checked(schema, raw) {
  const config = {};
  for (const [name, property] of Object.entries(schema.properties)) config[name] = property.default;
  for (const [name, value] of Object.entries(raw)) {
    const property = Object.hasOwn(schema.properties, name) ? schema.properties[name] : undefined;
    const fault = property === undefined ? "is not known" : TYPES[property.type](value) ? "" : `must be of type ${property.type}`;
    if (fault || value < property.minimum) {
      throw new Failure("INTERNAL", `the configuration is not valid: config.${name} ${fault || `must be at least ${property.minimum}`}`, { retryable: true });
    }
    config[name] = value;
  }
  return config;
}

// The earlier of the two deadlines: one needs no common clock, the other sees time in a buffer.
function remaining(headers) {
  let left = MAX_DEADLINE_MS;
  for (const [name, now] of [["Beamline-Deadline-Ms", 0], ["Beamline-Deadline-At", Date.now()]]) {
    const text = headers?.get(name);
    if (!text) continue;
    const stated = Number(text);
    if (!Number.isFinite(stated)) throw malformed(`${name} must be a number of milliseconds`);
    left = Math.min(left, stated - now);
  }
  return left;
}

function depth(root) {
  let level = [root];
  let found = 0;
  for (; level.length > 0 && found <= MAX_DEPTH + 1; found += 1) {
    level = level.flatMap((node) => (typeof node === "object" && node !== null ? Object.values(node) : []))
      .filter((node) => typeof node === "object" && node !== null);
  }
  return found;
}

function traceOf(headers) {
  const kept = newHeaders();
  for (const name of ["traceparent", "tracestate"]) {
    const value = headers?.get(name);
    if (value && value.length <= 512 && /^[ -~]+$/.test(value)) kept.set(name, value);
  }
  return kept;
}

function encode(result) {
  const text = JSON.stringify(result);
  if (Buffer.byteLength(text) > MAX_REPLY_BYTES) throw new Failure("INTERNAL", "the answer is larger than 1 MiB");
  return text;
}

// The reply for an error; the text of an unexpected one stays here, because it may hold a payload.
function failure(error) {
  let known = error;
  if (!(error instanceof Failure)) {
    log("error", "extension.failed", { error: error?.name ?? "unknown" });
    known = new Failure("INTERNAL", "the extension failed", { retryable: true });
  }
  const { code, message, retryable, retryAfterMs } = known;
  return JSON.stringify({ error: { code, message, retryable, retry_after_ms: retryAfterMs } });
}

function fail(state, message, error) {
  send(state, message, failure(error));
}

function send(state, message, text) {
  try {
    message.respond(text, { headers: traceOf(message.headers) });
  } catch (error) {
    log("warning", "reply.lost", { extension_id: state.id, error: error.name });
  }
}

function malformed(message) {
  return new Failure("INVALID_ARGUMENT", message);
}

function probes(state) {
  const server = createServer((request, response) => {
    if (request.url === "/metrics") {
      response.end(`# TYPE beamline_runtime_requests_total counter\nbeamline_runtime_requests_total{extension_id="${state.id}"} ${state.requests}\n`);
      return;
    }
    const known = request.url === "/healthz" || request.url === "/readyz";
    response.statusCode = !known ? 404 : request.url === "/healthz" || state.ready ? 200 : 503;
    response.end();
  });
  return server.listen(Number(process.env.METRICS_PORT || 9090));
}

function log(level, event, fields) {
  process.stderr.write(`${JSON.stringify({ timestamp: new Date().toISOString(), level, event, ...fields })}\n`);
}
