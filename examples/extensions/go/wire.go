// What is on the wire: deadlines, trace context, replies, failures, and what is no request.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// remaining is the earlier of the two deadlines: one needs no common clock, the other sees time in a buffer.
func remaining(headers micro.Headers) (time.Duration, error) {
	left := float64(maxDeadlineMs)
	for name, now := range map[string]float64{"Beamline-Deadline-Ms": 0, "Beamline-Deadline-At": float64(time.Now().UnixMilli())} {
		text := headers.Get(name)
		if text == "" {
			continue
		}
		stated, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(stated) {
			return 0, malformed(name + " must be a number of milliseconds")
		}
		left = math.Min(left, stated-now)
	}
	return time.Duration(math.Max(left, -1) * float64(time.Millisecond)), nil
}

func traceOf(headers micro.Headers) nats.Header {
	kept := nats.Header{}
	for _, name := range []string{"traceparent", "tracestate"} {
		for _, key := range []string{name, http.CanonicalHeaderKey(name)} {
			if values := headers[key]; len(values) > 0 && len(values[0]) <= 512 && isASCII(values[0]) {
				kept[name] = values[:1]
			}
		}
	}
	return kept
}

func isASCII(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

func encode(result any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(result); err != nil {
		return nil, err
	}
	if out.Len() > maxReplyBytes {
		return nil, &Failure{"INTERNAL", "the answer is larger than 1 MiB", false, 0}
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

// failure is the reply for err; the text of an unexpected error stays here, because it may hold a payload.
func failure(err error) []byte {
	known := &Failure{"INTERNAL", "the extension failed", true, 0}
	if errors.Is(err, context.DeadlineExceeded) {
		known = &Failure{"DEADLINE_EXCEEDED", "not done in time", true, 0}
	} else if errors.Is(err, context.Canceled) {
		known = &Failure{"CANCELLED", "the caller left", false, 0}
	} else if !errors.As(err, &known) {
		slog.Error("extension.failed", "error", fmt.Sprintf("%T", err))
	}
	reply, _ := json.Marshal(map[string]any{"error": known})
	return reply
}

func malformed(message string) error { return &Failure{"INVALID_ARGUMENT", message, false, 0} }

// strict reads JSON that may hold nothing unknown.
func strict(raw json.RawMessage, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// fieldOf names what is wrong, and never its value.
func fieldOf(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return wrong.Field + " has the wrong type"
	}
	if strings.HasPrefix(err.Error(), "json: unknown field ") {
		return "it has an unknown field"
	}
	return "it is not valid JSON"
}

func tooDeep(data []byte) bool {
	depth, quoted, escaped := 0, false, false
	for _, one := range data {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = one == '\\', one != '"'
		case one == '"':
			quoted = true
		case one == '{' || one == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case one == '}' || one == ']':
			depth--
		}
	}
	return false
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
