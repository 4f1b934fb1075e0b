package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor/taskresult"
)

// attempts and pause are upstream's (executor/retry): after each pause the next is 1.6 times as long, and up to a half
// of it longer at random.
const (
	attempts = 5
	pause    = time.Second
)

// retry calls do until it succeeds or fails for good, at most five times. minio-go tries each request again by itself,
// too.
func (s *s3) retry(ctx context.Context, do func() error) error {
	wait := pause
	for attempt := 1; ; attempt++ {
		err := do()
		if err == nil || !isTransient(err) {
			return err
		}
		s.log.Warn("speak to the S3 store", "endpoint", s.at.Endpoint, "attempt", attempt, "error", err)
		if attempt == attempts {
			return fmt.Errorf("timed out waiting for the condition: %w", err) // in upstream's words
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait + time.Duration(rand.Float64()*float64(wait)/2)):
		}
		wait = wait * 16 / 10
	}
}

// transientCodes are codes of S3 after which a later attempt may succeed (upstream's artifacts/s3/errors.go).
var transientCodes = []string{
	"RequestError", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled",
	"InternalError", "SlowDown", "ServiceUnavailable",
}

func isTransient(err error) bool {
	var response minio.ErrorResponse
	if errors.As(err, &response) {
		return slices.Contains(transientCodes, response.Code)
	}
	// An object that was cut off is final for upstream.
	return errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "Connection closed by foreign host") || taskresult.IsTransient(err)
}

func hasCode(err error, code string) bool {
	var response minio.ErrorResponse
	return errors.As(err, &response) && response.Code == code
}
