package taskresult

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// retry calls do until it succeeds or fails for good. The pauses are upstream's: from one second on, twice as long
// each time up to 30 s, and a random part of jitter longer.
func (c *Client) retry(ctx context.Context, jitter float64, do func() error) error {
	pause := time.Second
	for attempt := 0; ; attempt++ {
		err := do()
		if err == nil {
			return nil
		}
		if attempt%20 == 0 || hasReason(err, "Forbidden", http.StatusForbidden) {
			c.log.Warn("report to the API server, see https://argo-workflows.readthedocs.io/en/latest/workflow-rbac/", "attempt", attempt, "error", err)
		}
		if !IsTransient(err) {
			return err
		}
		if sleep(ctx, pause+time.Duration(rand.Float64()*jitter*float64(pause))) != nil {
			return err
		}
		pause = min(2*pause, 30*time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// IsTransient reports whether a later attempt may succeed (upstream's util/errors/errors.go).
func IsTransient(err error) bool {
	for _, known := range []struct {
		reason string
		code   int
	}{
		{"TooManyRequests", http.StatusTooManyRequests}, {"ServerTimeout", 0}, {"Timeout", http.StatusGatewayTimeout},
		{"ServiceUnavailable", http.StatusServiceUnavailable},
	} {
		if hasReason(err, known.reason, known.code) {
			return true
		}
	}
	var status *Status
	if errors.As(err, &status) {
		return refusedForNow(status)
	}
	return brokenConnection(err)
}

// refusedForNow reports whether the API server's words say that it may accept the request later.
func refusedForNow(s *Status) bool {
	switch {
	case s.Reason == "Forbidden" && strings.Contains(s.Message, "exceeded quota"),
		s.Reason == "Conflict" && strings.Contains(s.Message, "Operation cannot be fulfilled on resourcequota"),
		s.Reason == "InternalError" && strings.Contains(s.Message, "resource quota evaluation timed out"):
		return true
	}
	for _, words := range []string{"etcdserver: leader changed", "etcdserver: request timed out", "etcdserver: too many requests"} {
		if strings.Contains(s.Message, words) {
			return true
		}
	}
	return false
}

// brokenConnection reports whether no reply arrived for a reason of the network that may pass. As upstream it looks at
// the text only: a refused TLS handshake is an error of the network's type, too, and does not pass.
func brokenConnection(err error) bool {
	text := err.Error()
	for _, words := range []string{
		"net/http: TLS handshake timeout", "i/o timeout", "connection timed out", "connection reset by peer", "EOF",
		"http2: client connection lost", "http2: server sent GOAWAY and closed the connection", "connect: connection refused",
	} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}
