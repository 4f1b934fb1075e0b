package argo

import (
	"log/slog"
	"os"
)

// newLog returns a log that looks like argoexec's own: one line of logfmt or JSON,
// with the field by which Argo tells its lines from the program's.
func newLog(c Command, file *os.File) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	var handler slog.Handler = slog.NewTextHandler(file, options)
	if c.JSON {
		handler = slog.NewJSONHandler(file, options)
	}
	return slog.New(handler).With("argo", true)
}
