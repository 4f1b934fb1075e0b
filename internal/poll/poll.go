// Package poll waits for conditions that send no notification, by repeated checks. No shipped binary
// imports it.
package poll

import (
	"context"
	"time"
)

// Until calls done, fifty times a second, until it returns true or an error, or the context ends.
func Until(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
