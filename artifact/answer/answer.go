// Package answer bounds what stores answer: they may be hostile. It makes no request, and leaves objects alone.
package answer

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
	MaxBytes = 8 << 20
	MaxTags  = 1 << 16
)

var errTooLong = errors.New("the answer of the store is too long")

// Bounded bounds the answers to the requests that it passes on, except objects.
type Bounded struct{ http.RoundTripper }

// RoundTrip passes a request on.
func (b Bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err != nil || isObject(r) && response.StatusCode/100 == 2 {
		return response, err
	}
	response.Body = &body{response.Body, MaxBytes, MaxTags}
	return response, nil
}

// isObject reports whether a request asks for an object or a version of one.
func isObject(r *http.Request) bool {
	query := r.URL.Query()
	query.Del("versionId")
	return r.Method == http.MethodGet && len(query) == 0
}

// body is the body of an answer.
type body struct {
	io.ReadCloser
	bytes, tags int // that are left
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes -= n
	b.tags -= bytes.Count(p[:n], []byte("<"))
	if b.bytes < 0 || b.tags < 0 {
		return 0, errTooLong
	}
	return n, err
}
