package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
)

// authorities are the certificates of authorities in an order, each text once.
type authorities struct {
	texts  [][]byte
	byFile map[string]int // numbers of those of the node's files
	taken  int            // bytes
}

// Bounds of certificates, in bytes: of a Secret, of a file of the node, and of all in one order. Those of a usual node have
// 220 KiB.
const (
	maxOwnAuthorities  = 256 << 10
	maxNodeAuthorities = 1 << 20
	maxAuthorities     = 2 << 20
)

// add returns the number of a text, from 1.
func (a *authorities) add(text []byte) (int, error) {
	same := func(other []byte) bool { return bytes.Equal(other, text) }
	if i := slices.IndexFunc(a.texts, same); i >= 0 {
		return i + 1, nil
	}
	if a.taken+len(text) > maxAuthorities {
		return 0, fmt.Errorf("the certificates of authorities of all the container's artifacts have more than %d bytes: have them share some", maxAuthorities)
	}
	a.taken += len(text)
	a.texts = append(a.texts, text)
	return len(a.texts), nil
}

// authorityFiles are where distributions have the certificates of authorities (crypto/x509/root_linux.go).
var authorityFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// ofNode returns the number of the certificates that stores are checked against: those of a file that the operator has
// named, or the node's.
func (a *authorities) ofNode(named string) (int, error) {
	if n, known := a.byFile[named]; known {
		return n, nil
	}
	files := authorityFiles
	if named != "" {
		files = []string{named}
	}
	var text []byte
	var err error
	for _, name := range files {
		if text, err = readAuthorities(name); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("read the certificates of authorities (install ca-certificates on a node that has none): %w", err)
	}
	n, err := a.add(text)
	if err != nil {
		return 0, err
	}
	if a.byFile == nil {
		a.byFile = map[string]int{}
	}
	a.byFile[named] = n
	return n, nil
}

func readAuthorities(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, name, maxNodeAuthorities)
}
