// Spans by OTLP over HTTP with protobuf, in a few lines: one span per request, below the router's.
//
// On where OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says where to; OTEL_SDK_DISABLED and
// OTEL_TRACES_EXPORTER=none say no. The caller's sampled flag decides, and a request without a trace starts none.
// Ids and outcomes go out, never content. A collector that is away costs spans and nothing else.
import { randomBytes } from "node:crypto";

const EVERY_MS = 1000;
const MAX_SPANS = 2048;
const TIMEOUT_MS = 5000;
const LAST_MS = 2000;
const TRACEPARENT = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]([0-9a-f])/;

// Undefined where nobody asked for spans.
export function tracerOf(id, kind, env = process.env) {
  const base = env.OTEL_EXPORTER_OTLP_ENDPOINT;
  const url = env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || (base && `${base.replace(/\/+$/, "")}/v1/traces`);
  if (!url || env.OTEL_TRACES_EXPORTER === "none" || env.OTEL_SDK_DISABLED === "true") return undefined;
  return new Tracer(url, id, kind, env);
}

class Tracer {
  constructor(url, id, kind, env) {
    Object.assign(this, { url, id, kind, spans: [], service: env.OTEL_SERVICE_NAME || `beamline-${id}` });
    this.headers = { "content-type": "application/x-protobuf" };
    for (const pair of (env.OTEL_EXPORTER_OTLP_HEADERS || "").split(",")) {
      const at = pair.indexOf("=");
      if (at > 0) this.headers[pair.slice(0, at).trim()] = pair.slice(at + 1).trim();
    }
    this.timer = setInterval(() => this.flush(TIMEOUT_MS), EVERY_MS).unref();
  }

  // Undefined where the request's trace is not sampled.
  begin(headers) {
    const found = TRACEPARENT.exec(headers?.get("traceparent") ?? "");
    if (found === null || parseInt(found[3], 16) % 2 === 0) return undefined;
    return { trace: found[1], parent: found[2], id: randomBytes(8), started: now() };
  }

  // Takes the span of a request that was answered; too many are dropped.
  end(span, failure) {
    if (span && this.spans.length < MAX_SPANS) this.spans.push(this.encode(span, failure));
  }

  async flush(timeout) {
    const spans = this.spans.splice(0);
    if (spans.length === 0) return;
    const resource = [text(1, "service.name", this.service), text(1, "beamline.extension_id", this.id)];
    const scope = [field(1, field(1, "beamline")), ...spans.map((span) => field(2, span))];
    const body = field(1, Buffer.concat([field(1, Buffer.concat(resource)), field(2, Buffer.concat(scope))]));
    try {
      const signal = AbortSignal.timeout(timeout);
      await (await fetch(this.url, { method: "POST", headers: this.headers, body, signal })).arrayBuffer();
    } catch {
      // nobody there: that costs these spans
    }
  }

  async close() {
    clearInterval(this.timer);
    await this.flush(LAST_MS);
  }

  // A Span of opentelemetry-proto, trace/v1.
  encode(span, failure) {
    const parts = [
      field(1, Buffer.from(span.trace, "hex")), field(2, span.id), field(4, Buffer.from(span.parent, "hex")),
      field(5, `router.extension.${this.kind}`), Buffer.from([6 << 3, 2]), // SPAN_KIND_SERVER
      fixed(7, span.started), fixed(8, now()),
      text(9, "beamline.extension_id", this.id), text(9, "beamline.extension_type", this.kind),
      text(9, "beamline.request_id", span.request?.request_id), text(9, "beamline.tenant_id", span.request?.tenant_id),
      text(9, "beamline.status", failure ? "error" : "ok"), text(9, "error.type", failure),
    ];
    if (failure) parts.push(field(15, Buffer.concat([field(2, failure), Buffer.from([3 << 3, 2])]))); // STATUS_CODE_ERROR
    return Buffer.concat(parts);
  }
}

const now = () => BigInt(Date.now()) * 1_000_000n;

// A KeyValue with a text.
function text(number, key, value) {
  if (!value) return Buffer.alloc(0);
  return field(number, Buffer.concat([field(1, key), field(2, field(1, String(value).slice(0, 128)))]));
}

// A length-delimited protobuf field.
function field(number, value) {
  const body = Buffer.from(value);
  const head = [(number << 3) | 2];
  let left = body.length;
  for (; left > 127; left = Math.floor(left / 128)) head.push((left % 128) | 128);
  return Buffer.concat([Buffer.from([...head, left]), body]);
}

function fixed(number, value) {
  const out = Buffer.alloc(9);
  out[0] = (number << 3) | 1;
  out.writeBigUInt64LE(value, 1);
  return out;
}
