// The sending end of a stream: an opening message, numbered chunks within the reader's window, one end.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Sender is one stream. Without room in the reader's window, Send waits.
type Sender struct {
	server   *server
	reply    string
	trace    nats.Header
	window   int
	sequence int
	mutex    sync.Mutex
	read     int
	room     chan struct{}
	cancel   context.CancelFunc
}

// Send sends more text. It ends with the context's error when the reader left or the time ran out.
func (s *Sender) Send(ctx context.Context, text string) error {
	for s.window > 0 && s.sequence-s.readSoFar() > s.window {
		select {
		case <-s.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	body, err := json.Marshal(map[string]string{"delta": text})
	if err != nil {
		return err
	}
	return s.message(body, nil)
}

func (s *Sender) readSoFar() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.read
}

func (s *Sender) message(body []byte, more map[string]string) error {
	header := nats.Header{"Beamline-Stream-Sequence": []string{strconv.Itoa(s.sequence)}}
	for name, values := range s.trace {
		header[name] = values
	}
	for name, value := range more {
		header[name] = []string{value}
	}
	s.sequence++
	return s.server.nc.PublishMsg(&nats.Msg{Subject: s.reply, Data: body, Header: header})
}

func (s *server) streamed(ctx context.Context, cancel context.CancelFunc, message micro.Request, request *Request, config Config) error {
	window, _ := strconv.Atoi(message.Headers().Get("Beamline-Stream-Window"))
	control := fmt.Sprintf("%s.%d", s.control, s.last.Add(1))
	sender := &Sender{server: s, reply: message.Reply(), trace: traceOf(message.Headers()), window: window,
		room: make(chan struct{}, 1), cancel: cancel}
	s.senders.Store(control, sender)
	defer s.senders.Delete(control)
	_ = sender.message([]byte("{}"), map[string]string{"Beamline-Stream-Control": control})
	result, err := s.stream(ctx, request, config, sender)
	end := failure(err)
	if err == nil {
		if reply, ok := result.(map[string]any); ok {
			delete(reply, "output")
		}
		if end, err = encode(result); err != nil {
			end = failure(err)
		}
	}
	_ = sender.message(end, map[string]string{"Beamline-Stream-End": "1"})
	return err
}

// heard takes what a reader says: how many chunks it has read, or that it has left.
func (s *server) heard(message *nats.Msg) {
	found, ok := s.senders.Load(message.Subject)
	var said struct {
		Read   int  `json:"read"`
		Cancel bool `json:"cancel"`
	}
	if !ok || json.Unmarshal(message.Data, &said) != nil {
		return
	}
	sender := found.(*Sender)
	if said.Cancel {
		sender.cancel()
	}
	sender.mutex.Lock()
	sender.read = max(sender.read, said.Read)
	sender.mutex.Unlock()
	select {
	case sender.room <- struct{}{}:
	default:
	}
}

// parts cuts a text into words, each with the blank behind it.
func parts(text string) []string { return strings.SplitAfter(text, " ") }
