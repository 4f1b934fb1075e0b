package artifact

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// Bounds of an answer that is no object, such as a page of a list: in bytes, and in tags of XML. minio-go keeps such an
// answer in memory, some hundred bytes for each tag, and reads what it does not need to its end. A page has 1000 keys of
// at most 1 KiB.
const (
	maxAnswer = 8 << 20
	maxTags   = 1 << 16
)

// maxHeaders bounds the headers of an answer of S3, in bytes. S3 stores 2 KiB of them with an object.
const maxHeaders = 1 << 20

var errAnswer = errors.New("the answer of the store is too long")

// bounded bounds the answers to requests, except the objects.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err != nil || r.Method == http.MethodGet && r.URL.RawQuery == "" && response.StatusCode/100 == 2 {
		return response, err
	}
	response.Body = &answer{response.Body, maxAnswer, maxTags}
	return response, nil
}

// answer is the body of an answer.
type answer struct {
	io.ReadCloser
	bytes, tags int // that are left
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	a.bytes -= n
	a.tags -= bytes.Count(p[:n], []byte("<"))
	if a.bytes < 0 || a.tags < 0 {
		return 0, errAnswer
	}
	return n, err
}
