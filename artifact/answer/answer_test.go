package answer

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// An object may be of any size, whatever its version. No other answer may.
func TestBounded(t *testing.T) {
	long := strings.Repeat("x", MaxBytes+1)
	tags := strings.Repeat("<a>", MaxTags+1)
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Refuse") != "" {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(w, r.Header.Get("Text"))
		if r.Header.Get("Text") == "" {
			_, _ = io.WriteString(w, long)
		}
	}))
	defer store.Close()
	for name, tc := range map[string]struct {
		method, query, text, refuse string
		bounded                     bool
	}{
		"object":           {method: http.MethodGet},
		"version":          {method: http.MethodGet, query: "?versionId=1"},
		"refused":          {method: http.MethodGet, refuse: "yes", bounded: true},
		"list":             {method: http.MethodGet, query: "?list-type=2", bounded: true},
		"list of versions": {method: http.MethodGet, query: "?versions&versionId=1", bounded: true},
		"tags":             {method: http.MethodGet, query: "?list-type=2", text: "tags", bounded: true},
		"short list":       {method: http.MethodGet, query: "?list-type=2", text: "short"},
		"put":              {method: http.MethodPut, bounded: true},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tc.method, store.URL+"/bucket/key"+tc.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Text", tc.text)
		r.Header.Set("Refuse", tc.refuse)
		transport := Bounded{http.DefaultTransport}
		if tc.text == "tags" {
			transport.RoundTripper = fixed(tags)
		}
		response, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if errors.Is(err, errTooLong) != tc.bounded || !tc.bounded && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fixed answers each request with a text.
type fixed string

func (f fixed) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(f)))}, nil
}
