// Hello go: what it does. How it is asked and answers is in beamline.go.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Config is the `config` of the custom resource. Every request carries the current one.
type Config struct {
	LatencyMs float64 `json:"latency_ms"`
	Greeting  string  `json:"greeting"`
}

// ConfigSchema is published, and the operator checks custom resources against it.
const ConfigSchema = `{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "latency_ms": {"type": "number", "minimum": 0, "description": "Pretended work, milliseconds."},
    "greeting": {"type": "string", "description": "Put before the answer."}
  }
}`

func readConfig(raw json.RawMessage) (Config, error) {
	config := Config{Greeting: "You said: "}
	return config, strict(raw, &config)
}

// Handle answers one request. ctx ends at the deadline.
func Handle(ctx context.Context, request *Request, config Config) (any, error) {
	if err := pretend(ctx, request, config); err != nil {
		return nil, err
	}
	return request.Reply(config.Greeting+request.Text(), "hello_go-1"), nil
}

// Stream answers in parts; each Send waits until the reader has room.
func Stream(ctx context.Context, request *Request, config Config, stream *Sender) (any, error) {
	if err := pretend(ctx, request, config); err != nil {
		return nil, err
	}
	output := config.Greeting + request.Text()
	for _, part := range parts(output) {
		if err := stream.Send(ctx, part); err != nil {
			return nil, err
		}
	}
	return request.Reply(output, "hello_go-1"), nil
}

// pretend stands for the work: replace it by yours, and give ctx to all that waits.
func pretend(ctx context.Context, request *Request, config Config) error {
	ms := config.LatencyMs
	if asked, ok := request.Parameters["latency_ms"].(float64); ok && asked >= 0 {
		ms = asked
	}
	if ms > 600_000 {
		return &Failure{Code: "INVALID_ARGUMENT", Message: fmt.Sprintf("latency_ms is above %d", 600_000)}
	}
	select {
	case <-time.After(time.Duration(ms * float64(time.Millisecond))):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func main() {
	run("hello_go", "provider", "beamline.provider.hello_go.v1", ConfigSchema, Handle, Stream)
}
