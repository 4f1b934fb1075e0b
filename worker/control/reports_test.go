package control

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A program that sends reports without end has them taken at a bounded rate, and one that sends a few does not wait.
func TestReportsAreTakenAtABoundedRate(t *testing.T) {
	long := Report{Upload: &Upload{Key: strings.Repeat("k", 100<<10)}}
	for name, tc := range map[string]struct {
		report      Report
		n           int
		least, most time.Duration
	}{
		"a thousand":          {Report{Upload: &Upload{ID: "x"}}, 1000, 0, 0},
		"ten thousand":        {Report{Upload: &Upload{ID: "x"}}, 10_000, 69 * time.Second, 71 * time.Second},
		"a hundred long":      {long, 100, 69 * time.Second, 71 * time.Second},
		"ten that are longer": {long, 10, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				for range tc.n {
					_ = send(theirs, tc.report, maxReport)
				}
				theirs.Close()
			}()
			began := time.Now()
			reports := newReports(ours)
			for range tc.n {
				if got, err := reports.Next(); err != nil || got.Upload == nil || *got.Upload != *tc.report.Upload {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if took := time.Since(began); took < tc.least || took > tc.most {
				t.Errorf("%s: it took %v", name, took)
			}
			if _, err := reports.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("%s: after the last: %v", name, err)
			}
		})
	}
	ours, theirs := net.Pipe()
	go func() { _ = send(theirs, Report{Upload: &Upload{Key: strings.Repeat("k", maxServed)}}, maxReport) }()
	if _, err := newReports(ours).Next(); err == nil || !strings.Contains(err.Error(), "is too long") {
		t.Errorf("a report that is too long: %v", err)
	}
}
