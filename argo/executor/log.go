package executor

import (
	"io"
	"log/slog"
)

// newLog returns a log that looks like argoexec's own: one line of logfmt or JSON, with the field by
// which Argo tells its lines from a program's.
func newLog(c command, to io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.level}
	var handler slog.Handler = slog.NewTextHandler(to, options)
	if c.json {
		handler = slog.NewJSONHandler(to, options)
	}
	return slog.New(handler).With("argo", true)
}
