// Package testoutput collects what a program prints, for tests that read it before the program has ended. It holds no
// code that is shipped.
package testoutput

import (
	"strings"
	"sync"
)

// Buffer keeps all that is written to it. The zero value is empty. Its methods may be called at the same time.
type Buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns what has been written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
