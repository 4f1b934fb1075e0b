package artifact

import (
	"sync"

	"github.com/minio/minio-go/v7/pkg/encrypt"
)

// deriving has the keys of objects made one after the other: each takes 64 MiB of memory.
var deriving sync.Mutex

// encryption returns how the store encrypts an object, or nil. A customer's key is made of the secret's, of the bucket and
// of the object's key, as upstream makes it.
func (s *s3) encryption(key string) (encrypt.ServerSide, error) {
	switch o := s.at.Encryption; {
	case o == nil || !o.Enabled:
		return nil, nil
	case s.hasKeys():
		deriving.Lock()
		defer deriving.Unlock()
		return encrypt.DefaultPBKDF([]byte(s.customer), []byte(s.at.Bucket+key)), nil
	case o.KMSKey != "":
		return encrypt.NewSSEKMS(o.KMSKey, nil)
	}
	return encrypt.NewSSE(), nil
}

// hasKeys reports whether each object has a key of its own.
func (s *s3) hasKeys() bool { return s.customer != "" }
