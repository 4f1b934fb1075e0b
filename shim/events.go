package shim

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	publish "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// events publishes the events of containers, in order, over containerd's ttrpc socket. If containerd is away
// (during a restart), it gets them when it is back, for up to retryFor.
type events struct {
	address   string
	namespace string
	log       *logrus.Entry

	mu     sync.Mutex
	queue  []proto.Message
	closed bool
	news   chan struct{} // holds one when queue or closed has changed
	done   sync.WaitGroup
}

const (
	retryFor     = 2 * time.Minute
	retryAfter   = 200 * time.Millisecond
	publishLimit = 5 * time.Second
)

func newEvents(address, namespace string, log *logrus.Entry) *events {
	e := &events{address: address, namespace: namespace, log: log, news: make(chan struct{}, 1)}
	e.done.Add(1)
	go e.run()
	return e
}

// send queues an event. It never waits: callers hold locks that State needs, and containerd may be away.
func (e *events) send(event proto.Message) {
	e.mu.Lock()
	e.queue = append(e.queue, event)
	e.mu.Unlock()
	e.wake()
}

// close waits until every queued event has been published or dropped.
func (e *events) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.wake()
	e.done.Wait()
}

func (e *events) wake() {
	select {
	case e.news <- struct{}{}:
	default:
	}
}

func (e *events) run() {
	defer e.done.Done()
	var client *ttrpc.Client
	for closed := false; !closed; {
		var queued []proto.Message
		<-e.news
		queued, closed = e.take()
		for _, event := range queued {
			client = e.deliver(client, event)
		}
	}
	if client != nil {
		client.Close()
	}
}

// take returns the queued events, and reports whether no more will follow.
func (e *events) take() (queued []proto.Message, closed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	queued, e.queue = e.queue, nil
	return queued, e.closed
}

// deliver publishes one event and returns the connection for the next.
func (e *events) deliver(client *ttrpc.Client, event proto.Message) *ttrpc.Client {
	envelope, err := e.wrap(event)
	if err != nil {
		e.log.WithError(err).Error("encode an event: containerd is not told of it")
		return client
	}
	giveUp := time.Now().Add(retryFor)
	for {
		if client, err = e.forward(client, envelope); err == nil {
			return client
		}
		if time.Now().After(giveUp) {
			e.log.WithError(err).WithField("topic", envelope.Topic).Error("deliver an event: containerd is not told of it")
			return nil
		}
		time.Sleep(retryAfter)
	}
}

func (e *events) forward(client *ttrpc.Client, envelope *types.Envelope) (*ttrpc.Client, error) {
	if client == nil {
		conn, err := net.Dial("unix", e.address)
		if err != nil {
			return nil, err
		}
		client = ttrpc.NewClient(conn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), publishLimit)
	defer cancel()
	_, err := publish.NewTTRPCEventsClient(client).Forward(ctx, &publish.ForwardRequest{Envelope: envelope})
	if err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

func (e *events) wrap(event proto.Message) (*types.Envelope, error) {
	value, err := proto.Marshal(event)
	if err != nil {
		return nil, err
	}
	topic, ok := topics[event.ProtoReflect().Descriptor().Name()]
	if !ok {
		return nil, errors.New("event without a topic")
	}
	return &types.Envelope{
		Timestamp: timestamppb.Now(),
		Namespace: e.namespace,
		Topic:     topic,
		Event:     &anypb.Any{TypeUrl: string(event.ProtoReflect().Descriptor().FullName()), Value: value},
	}, nil
}

// topics are the topics of containerd's core/runtime/events.go.
var topics = map[protoreflect.Name]string{
	"TaskCreate":      "/tasks/create",
	"TaskStart":       "/tasks/start",
	"TaskOOM":         "/tasks/oom",
	"TaskExit":        "/tasks/exit",
	"TaskDelete":      "/tasks/delete",
	"TaskExecAdded":   "/tasks/exec-added",
	"TaskExecStarted": "/tasks/exec-started",
	"TaskPaused":      "/tasks/paused",
	"TaskResumed":     "/tasks/resumed",
}
