package object

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/minio/minio-go/v7"
)

var (
	// ErrReplaced means that the object is no longer the one that was pinned.
	ErrReplaced = errors.New("the object was replaced while it was read")
	// ErrChecksum means that what was read is not what the store's checksum says.
	ErrChecksum = errors.New("the checksum is wrong")
	// ErrClosed means that an [Object] was read after its end.
	ErrClosed = errors.New("the object is closed")

	errRange     = errors.New("the store does not answer with the range that it was asked for")
	errStalled   = errors.New("the store sends nothing")
	errCalledOff = errors.New("called off")
)

// Error is an error about an object.
type Error struct {
	Bucket, Key string
	Err         error
}

func (e *Error) Error() string {
	if code := e.Code(); code != "" {
		return fmt.Sprintf("read s3://%s/%s: %s: %v", e.Bucket, e.Key, code, e.Err)
	}
	return fmt.Sprintf("read s3://%s/%s: %v", e.Bucket, e.Key, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Code returns the error code of S3, or "" if the store has sent none.
func (e *Error) Code() string {
	var response minio.ErrorResponse
	errors.As(e.Err, &response)
	return response.Code
}

// transientCodes are codes of S3 after which a later attempt may succeed although the status does not say so.
var transientCodes = []string{
	"RequestError", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled",
	"InternalError", "SlowDown", "SlowDownRead", "ServiceUnavailable",
}

// isTransient reports whether a later attempt may succeed.
func isTransient(err error) bool {
	var response minio.ErrorResponse
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &response):
		return response.StatusCode >= 500 && response.StatusCode != 501 || response.StatusCode == 429 || response.StatusCode == 408 ||
			slices.Contains(transientCodes, response.Code)
	case errors.Is(err, ErrReplaced), errors.Is(err, errRange), errors.Is(err, ErrClosed), errors.As(err, &certificate), errors.As(err, &unknown):
		return false
	}
	return true // of the network
}

// named returns the error with the name of the object. A refused condition means that the object was replaced.
func named(b Bucket, info Info, err error) error {
	var response minio.ErrorResponse
	if errors.As(err, &response) && response.StatusCode == 412 {
		err = fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	return &Error{Bucket: b.Name, Key: info.Key, Err: err}
}
