package control

import (
	"io"
	"time"
)

// Reports are those of a program that serves artifacts, until its answer. Whoever has taken it over can send any number of
// any size that is allowed: they are taken at a bounded rate, and the program waits meanwhile.
type Reports struct {
	from  io.Reader
	taken int // bytes of the reports

	spare int // bytes that may be taken at once
	at    time.Time
}

// Bounds of the reports of a program that serves artifacts, in bytes: of one, of those in a second, and of those at once. The
// uploads of 1000 files begin at once. A report counts as leastReport at least.
const (
	maxServed    = 128 << 10
	servedRate   = 128 << 10
	servedAtOnce = 1 << 20
	leastReport  = 1 << 10
)

// Reports returns the reports that follow the program's first.
func (d Daemon) Reports() *Reports { return newReports(d) }

func newReports(from io.Reader) *Reports {
	return &Reports{from: from, spare: servedAtOnce, at: time.Now()}
}

// Next returns the next report. The error is io.EOF if the program has ended without one.
func (r *Reports) Next() (Report, error) {
	r.taken = 0
	report, err := next[Report](r, maxServed)
	if err == nil {
		r.pace(max(r.taken, leastReport))
	}
	return report, err
}

// Read counts what is read.
func (r *Reports) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.taken += n
	return n, err
}

// pace waits until n bytes more may be taken.
func (r *Reports) pace(n int) {
	now := time.Now()
	r.spare += int(min(now.Sub(r.at), time.Minute) * servedRate / time.Second)
	r.spare = min(r.spare, servedAtOnce) - n
	r.at = now
	if r.spare < 0 {
		time.Sleep(time.Duration(-r.spare) * time.Second / servedRate)
	}
}
