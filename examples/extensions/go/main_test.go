package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"
)

func ask(t *testing.T, config string, ctx context.Context) (map[string]any, error) {
	t.Helper()
	text := "a forbidden word"
	typed, err := readConfig(json.RawMessage(config))
	if err != nil {
		t.Fatal(err)
	}
	result, err := Handle(ctx, &Request{Prompt: &text, Output: &text, started: time.Now()}, typed)
	if err != nil {
		return nil, err
	}
	return result.(map[string]any), nil
}

func TestItUsesItsConfiguration(t *testing.T) {
	reply, err := ask(t, `{"greeting": "Hi, "}`, context.Background())
	if err != nil || reply["output"] != "Hi, a forbidden word" {
		t.Fatal(reply, err)
	}
}

func TestItGivesUpAtTheDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := ask(t, `{"latency_ms": 60000}`, ctx); err != context.DeadlineExceeded {
		t.Fatal(err)
	}
}

func TestItRefusesAnUnknownField(t *testing.T) {
	if _, err := readConfig(json.RawMessage(`{"nonsense": 1}`)); err == nil {
		t.Fatal("accepted")
	}
}
