package artifact

import (
	"context"
	"errors"
	"io"
	"os"
)

// raw is an artifact that is a text of the template.
type raw struct{ data string }

func (r raw) Load(_ context.Context, to *os.Root, name string) error {
	return create(to, name, 0o666, func(w io.Writer) error {
		_, err := io.WriteString(w, r.data)
		return err
	})
}

func (r raw) Save(context.Context, *os.File) error {
	//lint:ignore ST1005 the text is upstream's
	return errors.New("Raw output artifacts unsupported")
}
