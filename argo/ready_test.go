package argo

import (
	"strings"
	"testing"
	"time"
)

// TestReadyNever is for a supervisor that does not begin.
func TestReadyNever(t *testing.T) {
	volume, err := openVolume(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer volume.close()
	r := run{volume: volume}
	if ok, err := r.ready(time.Now()); ok || err != nil {
		t.Errorf("at the beginning: %v, %v", ok, err)
	}
	if ok, err := r.ready(time.Now().Add(-31 * time.Second)); ok || err == nil || !strings.Contains(err.Error(), "has not begun within 30s") {
		t.Errorf("after 31 seconds: %v, %v", ok, err)
	}
}
