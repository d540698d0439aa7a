// The extension's side of Beamline's wire contract, over the official NATS client.
//
// What runs: the subscription hands over one message at a time, so each becomes a goroutine, at most
// `concurrency` of them at work. Before the work the deadline is checked, during it the context ends with it.
// Each request gets exactly one answer. On SIGTERM: no more requests, finish what was taken, then leave.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

const (
	concurrency   = 256
	backlog       = 1024
	maxReplyBytes = 1024*1024 - 4096
	maxDepth      = 32
	maxDeadlineMs = 600_000
	grace         = 25 * time.Second
)

// Request is one call. Prompt or Messages is set; Output for a post step.
type Request struct {
	TraceID    string           `json:"trace_id"`
	RequestID  string           `json:"request_id"`
	TenantID   string           `json:"tenant_id"`
	ProviderID string           `json:"provider_id"`
	Prompt     *string          `json:"prompt"`
	Messages   []map[string]any `json:"messages"`
	Output     *string          `json:"output"`
	Parameters map[string]any   `json:"parameters"`
	Context    map[string]any   `json:"context"`
	Config     json.RawMessage  `json:"config"`
	started    time.Time
}

// Failure is an error of the contract's closed list. Message reaches the caller: no payload, no key in it.
type Failure struct {
	Code         string `json:"code"`
	Message      string `json:"message"`
	Retryable    bool   `json:"retryable"`
	RetryAfterMs int    `json:"retry_after_ms,omitempty"`
}

func (f *Failure) Error() string { return f.Code + ": " + f.Message }

// Text is the prompt, or all texts of the messages.
func (r *Request) Text() string {
	if r.Prompt != nil {
		return *r.Prompt
	}
	var found []string
	for _, message := range r.Messages {
		switch content := message["content"].(type) {
		case string:
			found = append(found, content)
		case []any:
			for _, part := range content {
				if object, ok := part.(map[string]any); ok {
					if text, ok := object["text"].(string); ok {
						found = append(found, text)
					}
				}
			}
		}
	}
	return strings.Join(found, "\n")
}

// Reply is a provider's answer; tokens are counted as bytes divided by 4.
func (r *Request) Reply(output, model string) map[string]any {
	asked, answered := len(r.Text())/4, len(output)/4
	return map[string]any{
		"provider_id": r.ProviderID,
		"output":      output,
		"usage": map[string]any{
			"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered},
		"metadata": map[string]any{"model": model, "finish_reason": "stop", "trace_id": r.TraceID,
			"latency_ms": float64(time.Since(r.started).Microseconds()) / 1000},
	}
}

type handler func(context.Context, *Request, Config) (any, error)
type streamer func(context.Context, *Request, Config, *Sender) (any, error)

type server struct {
	id, kind string
	nc       *nats.Conn
	handle   handler
	stream   streamer
	fallback json.RawMessage
	places   chan struct{}
	taken    atomic.Int64
	working  sync.WaitGroup
	ready    atomic.Bool
	requests atomic.Int64
	control  string
	senders  sync.Map
	last     atomic.Int64
	tracer   *tracer
}

func run(id, kind, subject, schema string, handle handler, stream streamer) {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	id, subject = env("BEAMLINE_EXTENSION_ID", id), env("NATS_SUBJECT", subject)
	s := &server{id: id, kind: kind, handle: handle, stream: stream, places: make(chan struct{}, concurrency),
		fallback: json.RawMessage(env("BEAMLINE_CONFIG", "{}")), tracer: newTracer(id, kind)}
	if err := s.serve(subject, schema); err != nil {
		slog.Error("extension.failed", "extension_id", id, "error", err.Error())
		os.Exit(1)
	}
}

func (s *server) serve(subject, schema string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go s.probes()
	options := []nats.Option{nats.Name("extension " + s.id), nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), nats.PingInterval(2 * time.Second), nats.RetryOnFailedConnect(true)}
	if file := os.Getenv("NATS_CREDENTIALS_FILE"); file != "" {
		options = append(options, nats.UserCredentials(file))
	}
	connected := make(chan struct{}, 1)
	options = append(options, nats.ConnectHandler(func(*nats.Conn) { connected <- struct{}{} }))
	nc, err := nats.Connect(env("NATS_URL", nats.DefaultURL), options...)
	if err != nil {
		return err
	}
	defer nc.Close()
	s.nc = nc
	select {
	case <-connected:
	case <-stop:
		return nil
	}
	s.control = nc.NewInbox()
	controls, err := nc.Subscribe(s.control+".*", s.heard)
	if err != nil {
		return err
	}
	metadata := map[string]string{"beamline.type": s.kind, "beamline.extension": s.id, "beamline.config_schema": schema}
	if s.stream != nil {
		metadata["beamline.streams"] = "true"
	}
	service, err := micro.AddService(nc, micro.Config{Name: s.id, Version: "0.1.0", Metadata: metadata})
	if err != nil {
		return err
	}
	err = service.AddEndpoint("handle", micro.HandlerFunc(s.accept),
		micro.WithEndpointSubject(subject), micro.WithEndpointQueueGroup(env("NATS_QUEUE_GROUP", s.id)))
	if err != nil {
		return err
	}
	if err = nc.Flush(); err != nil {
		return err
	}
	s.ready.Store(true)
	slog.Info("extension.ready", "extension_id", s.id, "subject", subject)
	<-stop
	s.ready.Store(false)
	return s.leave(service, controls)
}

// leave loses nothing: work ends after its source and before its way out.
func (s *server) leave(service micro.Service, controls *nats.Subscription) error {
	slog.Info("extension.draining", "extension_id", s.id)
	over := time.Now().Add(grace)
	if err := service.Stop(); err != nil {
		return err
	}
	// A drained subscription is removed once its last message was handed over; the one for controls stays.
	for s.nc.NumSubscriptions() > 1 && time.Now().Before(over) {
		time.Sleep(5 * time.Millisecond)
	}
	done := make(chan struct{})
	go func() { s.working.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Until(over)):
	}
	_ = controls.Unsubscribe()
	s.tracer.close()
	return s.nc.FlushTimeout(2 * time.Second)
}

// accept returns at once; the answer comes from a goroutine.
func (s *server) accept(message micro.Request) {
	s.requests.Add(1)
	if message.Reply() == "" {
		return
	}
	if s.taken.Add(1) > concurrency+backlog {
		s.taken.Add(-1)
		s.fail(message, &Failure{"RESOURCE_EXHAUSTED", "too many requests at once", true, 100})
		return
	}
	s.working.Add(1)
	go func() {
		defer s.working.Done()
		defer s.taken.Add(-1)
		s.places <- struct{}{}
		defer func() { <-s.places }()
		s.answer(message)
	}()
}

func (s *server) answer(message micro.Request) {
	span := s.tracer.begin(message.Headers())
	if err := s.attempt(message, span); err != nil {
		span.failed(err)
		s.fail(message, err)
	}
	s.tracer.end(span)
}

// attempt answers, or says why it can't.
func (s *server) attempt(message micro.Request, span *span) (failed error) {
	defer func() {
		if fault := recover(); fault != nil {
			slog.Error("extension.failed", "extension_id", s.id, "error", fmt.Sprintf("%T", fault))
			failed = &Failure{"INTERNAL", s.id + " failed", true, 0}
		}
	}()
	left, err := remaining(message.Headers())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	if ctx.Err() != nil {
		return &Failure{"DEADLINE_EXCEEDED", "the deadline had passed before " + s.id + " could start", false, 0}
	}
	request, err := s.decode(message.Data())
	if err != nil {
		return err
	}
	if span != nil {
		span.request = request
	}
	raw := request.Config
	if len(raw) == 0 || string(raw) == "null" {
		raw = s.fallback
	}
	config, err := readConfig(raw)
	if err != nil {
		return &Failure{"INTERNAL", "the configuration of " + s.id + " is not valid: " + fieldOf(err), true, 0}
	}
	if s.stream != nil && message.Headers().Get("Beamline-Stream") == "1" {
		span.failed(s.streamed(ctx, cancel, message, request, config))
		return nil
	}
	result, err := s.handle(ctx, request, config)
	if err != nil {
		return err
	}
	reply, err := encode(result)
	if err != nil {
		return err
	}
	s.respond(message, reply)
	return nil
}

func (s *server) decode(data []byte) (*Request, error) {
	if tooDeep(data) {
		return nil, malformed("the request is nested too deep")
	}
	request := &Request{started: time.Now()}
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' || !json.Valid(data) || !utf8.Valid(data) {
		return nil, malformed("the request must be a JSON object")
	}
	if err := json.Unmarshal(data, request); err != nil {
		return nil, malformed(fieldOf(err))
	}
	if config := bytes.TrimSpace(request.Config); len(config) > 0 && config[0] != '{' && string(config) != "null" {
		return nil, malformed("config must be an object")
	}
	if s.kind == "post" && request.Output == nil {
		return nil, malformed("output is missing")
	}
	if s.kind != "post" && request.Prompt == nil && request.Messages == nil {
		return nil, malformed("prompt or messages is missing")
	}
	return request, nil
}

func (s *server) fail(message micro.Request, err error) {
	s.respond(message, failure(err))
}

func (s *server) respond(message micro.Request, reply []byte) {
	if err := message.Respond(reply, micro.WithHeaders(micro.Headers(traceOf(message.Headers())))); err != nil {
		slog.Warn("reply.lost", "extension_id", s.id, "error", fmt.Sprintf("%T", err))
	}
}

func (s *server) probes() {
	answer := func(ok func() bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if !ok() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	}
	http.HandleFunc("/healthz", answer(func() bool { return true }))
	http.HandleFunc("/readyz", answer(func() bool { return s.ready.Load() && s.nc.IsConnected() }))
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE beamline_runtime_requests_total counter\nbeamline_runtime_requests_total{extension_id=%q} %d\n",
			s.id, s.requests.Load())
	})
	if err := http.ListenAndServe(":"+env("METRICS_PORT", "9090"), nil); err != nil {
		slog.Error("extension.probes_failed", "extension_id", s.id, "error", err.Error())
		os.Exit(2)
	}
}
