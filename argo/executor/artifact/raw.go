package artifact

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
)

// raw is an artifact that is a text of the template.
type raw struct{ data string }

func (r raw) Load(_ context.Context, to *os.Root, name string) error {
	return create(to, name, func(w io.Writer) error {
		_, err := io.Copy(w, strings.NewReader(r.data))
		return err
	})
}

func (r raw) Save(context.Context, *os.File) error {
	return errors.New("Raw output artifacts unsupported") //nolint:staticcheck // as upstream
}

// create writes a new file with upstream's mode.
func create(to *os.Root, name string, write func(io.Writer) error) error {
	f, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
