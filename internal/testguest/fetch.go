package testguest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"time"
)

// archived is a file in an archive (tar.gz) of a package registry.
type archived struct {
	url    string
	sha256 string // of the archive, in hex
	member string
}

// file returns the path of the file in the cache, fetched first if it is not there yet.
func (a archived) file() (string, error) {
	return once("tools", path.Base(a.member), a.sha256[:16], func(output string) error {
		content, err := a.fetch()
		if err != nil {
			return fmt.Errorf("fetching %s: %w", a.url, err)
		}
		return os.WriteFile(output, content, 0o644)
	})
}

// fetch tries again what a network may fail at, and not what a registry has answered.
func (a archived) fetch() ([]byte, error) {
	const attempts = 4
	wait := 500 * time.Millisecond
	for attempt := 1; ; attempt++ {
		archive, err := download(a.url)
		if err == nil {
			return a.extract(archive)
		}
		if refused := (&refusal{}); errors.As(err, &refused) || attempt == attempts {
			return nil, err
		}
		time.Sleep(wait)
		wait *= 2
	}
}

// refusal is an answer that another request will not change.
type refusal struct{ status string }

func (r *refusal) Error() string { return r.status }

func download(url string) ([]byte, error) {
	const most = 64 << 20
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "containerd-shim-wasm tests")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch status := response.StatusCode; {
	case status >= 400 && status < 500 && status != http.StatusTooManyRequests:
		return nil, &refusal{status: response.Status}
	case status != http.StatusOK:
		return nil, errors.New(response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, most))
}

// extract returns the member of an archive that is the one wanted.
func (a archived) extract(archive []byte) ([]byte, error) {
	if got := fmt.Sprintf("%x", sha256.Sum256(archive)); got != a.sha256 {
		return nil, fmt.Errorf("it has sha256 %s, want %s", got, a.sha256)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	for members := tar.NewReader(unzipped); ; {
		header, err := members.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("it holds no %s", a.member)
		}
		if err != nil {
			return nil, err
		}
		if header.Name == a.member {
			return io.ReadAll(members)
		}
	}
}
