// Spans by OTLP over HTTP with protobuf, in a few lines: one span per request, below the router's.
//
// On where OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says where to; OTEL_SDK_DISABLED and
// OTEL_TRACES_EXPORTER=none say no. The caller's sampled flag decides, and a request without a trace starts none.
// Ids and outcomes go out, never content. A collector that is away costs spans and nothing else.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"
)

const spanQueue = 2048

var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f])([0-9a-f])`)

type span struct {
	trace, id, parent []byte
	started, ended    time.Time
	request           *Request
	failure           string
}

type tracer struct {
	url, service, id, kind string
	headers                map[string]string
	queue                  chan *span
	done                   chan struct{}
}

// newTracer is nil where nobody asked for spans; all that is called on nil does nothing.
func newTracer(id, kind string) *tracer {
	url := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
	if base := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"); url == "" && base != "" {
		url = strings.TrimRight(base, "/") + "/v1/traces"
	}
	if url == "" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" || os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return nil
	}
	t := &tracer{url: url, service: env("OTEL_SERVICE_NAME", "beamline-"+id), id: id, kind: kind,
		headers: map[string]string{}, queue: make(chan *span, spanQueue), done: make(chan struct{})}
	for _, pair := range strings.Split(os.Getenv("OTEL_EXPORTER_OTLP_HEADERS"), ",") {
		if name, value, found := strings.Cut(pair, "="); found {
			t.headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	go t.run()
	return t
}

// begin is nil where the request's trace is not sampled.
func (t *tracer) begin(headers micro.Headers) *span {
	if t == nil {
		return nil
	}
	found := traceparent.FindStringSubmatch(traceOf(headers).Get("traceparent"))
	if found == nil || !strings.ContainsAny(found[4], "13579bdf") {
		return nil
	}
	trace, _ := hex.DecodeString(found[1])
	parent, _ := hex.DecodeString(found[2])
	id := binary.BigEndian.AppendUint64(nil, rand.Uint64()|1)
	return &span{trace: trace, id: id, parent: parent, started: time.Now()}
}

// failed notes the code of err, if it is one.
func (s *span) failed(err error) {
	if s == nil || err == nil {
		return
	}
	var known *Failure
	switch {
	case errors.As(err, &known):
		s.failure = known.Code
	case errors.Is(err, context.DeadlineExceeded):
		s.failure = "DEADLINE_EXCEEDED"
	case errors.Is(err, context.Canceled):
		s.failure = "CANCELLED"
	default:
		s.failure = "INTERNAL"
	}
}

// end takes the span of a request that was answered; a full queue drops it.
func (t *tracer) end(s *span) {
	if t == nil || s == nil {
		return
	}
	s.ended = time.Now()
	select {
	case t.queue <- s:
	default:
	}
}

// close sends what is left, for at most two seconds.
func (t *tracer) close() {
	if t == nil {
		return
	}
	close(t.queue)
	select {
	case <-t.done:
	case <-time.After(2 * time.Second):
		slog.Warn("tracing.incomplete", "extension_id", t.id)
	}
}

// run gathers spans for up to a second and sends them together.
func (t *tracer) run() {
	defer close(t.done)
	var gathered []*span
	client, tick := &http.Client{Timeout: 5 * time.Second}, time.NewTicker(time.Second)
	defer tick.Stop()
	for open := true; open; {
		var one *span
		select {
		case one, open = <-t.queue:
			if open {
				gathered = append(gathered, one)
			}
		case <-tick.C:
		}
		if len(gathered) == 0 || (open && one != nil && len(gathered) < 512) {
			continue
		}
		asked, err := http.NewRequest(http.MethodPost, t.url, bytes.NewReader(t.encode(gathered)))
		gathered = nil
		if err != nil {
			continue
		}
		asked.Header.Set("Content-Type", "application/x-protobuf")
		for name, value := range t.headers {
			asked.Header.Set(name, value)
		}
		if answer, err := client.Do(asked); err == nil {
			_ = answer.Body.Close()
		}
	}
}

// encode is an ExportTraceServiceRequest (opentelemetry-proto, trace/v1).
func (t *tracer) encode(spans []*span) []byte {
	resource := attribute(nil, 1, "service.name", t.service)
	resource = attribute(resource, 1, "beamline.extension_id", t.id)
	scope := field(nil, 1, field(nil, 1, []byte("beamline")))
	for _, s := range spans {
		scope = field(scope, 2, t.encodeSpan(s))
	}
	return field(nil, 1, field(field(nil, 1, resource), 2, scope))
}

func (t *tracer) encodeSpan(s *span) []byte {
	out := field(field(field(nil, 1, s.trace), 2, s.id), 4, s.parent)
	out = field(out, 5, []byte("router.extension."+t.kind))
	out = append(out, 6<<3, 2) // SPAN_KIND_SERVER
	out = binary.LittleEndian.AppendUint64(append(out, 7<<3|1), uint64(s.started.UnixNano()))
	out = binary.LittleEndian.AppendUint64(append(out, 8<<3|1), uint64(s.ended.UnixNano()))
	out = attribute(out, 9, "beamline.extension_id", t.id)
	out = attribute(out, 9, "beamline.extension_type", t.kind)
	if s.request != nil {
		out = attribute(out, 9, "beamline.request_id", short(s.request.RequestID))
		out = attribute(out, 9, "beamline.tenant_id", short(s.request.TenantID))
	}
	if s.failure == "" {
		return attribute(out, 9, "beamline.status", "ok")
	}
	out = attribute(out, 9, "beamline.status", "error")
	out = attribute(out, 9, "error.type", s.failure)
	return field(out, 15, append(field(nil, 2, []byte(s.failure)), 3<<3, 2)) // STATUS_CODE_ERROR
}

// attribute appends a KeyValue with a text.
func attribute(to []byte, number int, key, value string) []byte {
	if value == "" {
		return to
	}
	return field(to, number, field(field(nil, 1, []byte(key)), 2, field(nil, 1, []byte(value))))
}

// field appends a length-delimited protobuf field.
func field(to []byte, number int, value []byte) []byte {
	to = append(to, byte(number<<3|2))
	return append(binary.AppendUvarint(to, uint64(len(value))), value...)
}

func short(text string) string { return strings.ToValidUTF8(text[:min(len(text), 128)], "") }
