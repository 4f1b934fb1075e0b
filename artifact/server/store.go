package server

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/wasmshim/containerd-shim-wasm/artifact/answer"
	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// maxHeaders bounds the headers of an answer, in bytes: a store may be hostile.
const maxHeaders = 64 << 10

// connections is how many connections to a store are kept.
const connections = 16

// attempts is how often a client tries a request. Packages object and output repeat those for content.
const attempts = 4

// connect returns a client for the store of an artifact of an order.
func connect(order control.Serve, a control.ServedArtifact) (*minio.Core, error) {
	host, plain := strings.CutPrefix(a.At.Endpoint, "http://")
	if !plain {
		host = strings.TrimPrefix(a.At.Endpoint, "https://")
	}
	transport, err := transportTo(!plain, order.AuthoritiesOf(a.Access))
	if err != nil {
		return nil, err
	}
	keys, err := credentialsOf(a.Access, order.AuthoritiesOf(a.Access))
	if err != nil {
		return nil, err
	}
	return minio.NewCore(host, &minio.Options{
		Creds: keys, Secure: !plain, Transport: answer.Bounded{RoundTripper: transport}, Region: a.At.Region, BucketLookup: lookups[a.At.Style],
		MaxRetries: attempts,
	})
}

var lookups = map[request.Style]minio.BucketLookupType{
	request.AutoStyle: minio.BucketLookupAuto, request.PathStyle: minio.BucketLookupPath, request.VirtualStyle: minio.BucketLookupDNS,
}

func transportTo(secure bool, authorities []byte) (*http.Transport, error) {
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	transport.Proxy = nil // the program has no settings but its order
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = connections, connections
	transport.MaxResponseHeaderBytes = maxHeaders
	if !secure {
		return transport, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, errors.New("there are no certificates of authorities to check the store's by")
	}
	transport.TLSClientConfig.RootCAs = pool
	return transport, nil
}

// patience is how long a service for credentials may take to answer.
const patience = 10 * time.Second

// service returns a client of a service for credentials. It follows no redirects, as those of stores do not: a token goes
// to nobody but the service that was named.
func service(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: answer.Bounded{RoundTripper: transport}, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// credentialsOf returns the source of credentials. It asks no service before the first request.
func credentialsOf(a control.Access, authorities []byte) (*credentials.Credentials, error) {
	switch {
	case a.Token != "":
		transport, err := transportTo(true, authorities)
		if err != nil {
			return nil, err
		}
		return credentials.New(&credentials.STSWebIdentity{
			Client: service(transport), STSEndpoint: a.STS, RoleARN: a.RoleARN,
			GetWebIDTokenExpiry: func() (*credentials.WebIdentityToken, error) {
				return &credentials.WebIdentityToken{Token: a.Token}, nil
			},
		}), nil
	case a.Instance:
		transport, err := transportTo(false, nil)
		if err != nil {
			return nil, err
		}
		return credentials.New(&credentials.IAM{Client: service(transport), Endpoint: credentials.DefaultIAMRoleEndpoint}), nil
	case a.AccessKey == "":
		return credentials.NewStatic("", "", "", credentials.SignatureAnonymous), nil
	}
	return credentials.NewStaticV4(a.AccessKey, a.SecretKey, a.SessionToken), nil
}

// encryption returns how an artifact is encrypted in its store: as a request to read it and one to write it say it.
func encryption(a control.ServedArtifact) (read, write encrypt.ServerSide, err error) {
	switch a.At.Encryption.Kind {
	case request.StoreEncryption:
		return nil, encrypt.NewSSE(), nil
	case request.KMSEncryption:
		write, err = encrypt.NewSSEKMS(a.At.Encryption.KeyID, nil)
		return nil, write, err
	case request.CustomerEncryption:
		if strings.HasPrefix(a.At.Endpoint, "http://") {
			return nil, nil, errors.New("sse=c sends the customer's key with each request: it needs a store with https")
		}
		read, err = encrypt.NewSSEC(a.Access.CustomerKey)
		if err != nil {
			err = fmt.Errorf("sse=c: the credentials need the customer's key, 32 bytes in base64: %w", err)
		}
		return read, read, err
	}
	return nil, nil, nil
}
