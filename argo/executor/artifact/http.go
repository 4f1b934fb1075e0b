package artifact

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// web is an artifact at a web address. As upstream it asks once, and follows redirects as package http does.
type web struct {
	at             executor.HTTP
	name, password string
}

func openHTTP(at executor.HTTP, secrets Secrets) (*web, error) {
	w := &web{at: at}
	if at.Auth == nil {
		return w, nil
	}
	var err error
	if s := at.Auth.BasicAuth.UsernameSecret; s != nil {
		if w.name, err = secrets(s.Name, s.Key); err != nil {
			return nil, err
		}
	}
	if s := at.Auth.BasicAuth.PasswordSecret; s != nil {
		if w.password, err = secrets(s.Name, s.Key); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *web) request(ctx context.Context, method string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, w.at.URL, body)
	if err != nil {
		return nil, err
	}
	for _, h := range w.at.Headers {
		r.Header.Add(h.Name, h.Value)
	}
	if w.name != "" && w.password != "" {
		r.SetBasicAuth(w.name, w.password)
	}
	return r, nil
}

func (w *web) Load(ctx context.Context, to *os.Root, name string) error {
	r, err := w.request(ctx, http.MethodGet, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return notFound{response.Status}
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("loading content from %s failed with reason: %s", w.at.URL, response.Status)
	}
	return create(to, name, 0o666, func(f io.Writer) error {
		_, err := io.Copy(f, response.Body)
		return err
	})
}

func (w *web) Save(ctx context.Context, from *os.File) error {
	n, err := Size(from)
	if err != nil {
		return &url.Error{Op: "Put", URL: w.at.URL, Err: err} // as if it were sent
	}
	// The body has no length, as upstream's. A redirect may ask for it again.
	body := func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(from, 0, n)), nil }
	first, _ := body()
	r, err := w.request(ctx, http.MethodPut, first)
	if err != nil {
		return err
	}
	r.GetBody = body
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("saving file %s to %s failed with reason: %s", from.Name(), w.at.URL, response.Status)
	}
	return nil
}
