package artifact

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/artifact/answer"
)

// s3 is an object, or a folder of objects, of a bucket.
type s3 struct {
	at                      executor.S3
	access, secret, session string
	authority               string // certificates, "" for the system's
	customer                string // what the keys of objects are made of, "" for none
	log                     *slog.Logger
}

func openS3(at executor.S3, secrets Secrets, log *slog.Logger) (*s3, error) {
	s := &s3{at: at, log: log}
	for _, key := range []struct {
		value *string
		from  *executor.Secret
	}{{&s.access, at.AccessKeySecret}, {&s.secret, at.SecretKeySecret}, {&s.session, at.SessionTokenSecret}, {&s.authority, at.CASecret}, {&s.customer, at.CustomerKey()}} {
		if key.from == nil || key.from.Name == "" {
			continue
		}
		var err error
		if *key.value, err = secrets(key.from.Name, key.from.Key); err != nil {
			return nil, err
		}
	}
	if s.access == "" || s.secret == "" {
		return nil, errors.New("the access key or the secret key of the S3 store is empty")
	}
	return s, nil
}

// maxHeaders bounds the headers of an answer of S3, in bytes. S3 stores 2 KiB of them with an object.
const maxHeaders = 1 << 20

// connect returns a client. Like upstream, each attempt has one of its own: it keeps in mind that a server is away.
func (s *s3) connect() (*minio.Core, error) {
	return s.client(2, 0) // a connection that is kept is only memory
}

// client returns a client that keeps so many connections, and makes each request so many times at most, 0 for minio-go's
// default.
func (s *s3) client(idle, tries int) (*minio.Core, error) {
	secure := s.at.Insecure == nil || !*s.at.Insecure
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	if secure && s.authority != "" {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM([]byte(s.authority))
		transport.TLSClientConfig.RootCAs = pool
	}
	transport.MaxIdleConns = idle
	transport.MaxResponseHeaderBytes = maxHeaders
	return minio.NewCore(s.at.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(s.access, s.secret, s.session), Secure: secure, Transport: answer.Bounded{RoundTripper: transport}, Region: s.at.Region, MaxRetries: tries,
	})
}

func (s *s3) Load(ctx context.Context, to *os.Root, name string) error {
	return s.retry(ctx, func() error {
		s.log.Info("load from S3", "bucket", s.at.Bucket, "key", s.at.Key)
		client, err := s.connect()
		if err != nil {
			return failed("create new S3 client", err)
		}
		err = s.get(ctx, client, s.at.Key, to, name)
		if !hasCode(err, "NoSuchKey") {
			return failed("get file", err)
		}
		if err := s.mustBeFolder(ctx, client, err); err != nil {
			return err
		}
		return failed("get directory", s.getFolder(ctx, client, to, name))
	})
}

// failed says in upstream's words what failed.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("failed to %s: %w", what, err)
}

// get brings an object into a file.
func (s *s3) get(ctx context.Context, client *minio.Core, key string, to *os.Root, name string) error {
	if err := s3utils.CheckValidObjectName(key); err != nil { // the store has made it up
		return err
	}
	if dir := filepath.Dir(name); dir != "." {
		if err := to.MkdirAll(dir, 0o700); err != nil {
			return Whole(to, err)
		}
	}
	encryption, err := s.encryption(key)
	if err != nil {
		return err
	}
	// The answer to HEAD has upstream's errors, that to GET may say more.
	if _, err := client.StatObject(ctx, s.at.Bucket, key, minio.StatObjectOptions{ServerSideEncryption: encryption}); err != nil {
		return err
	}
	body, info, _, err := client.GetObject(ctx, s.at.Bucket, key, minio.GetObjectOptions{ServerSideEncryption: encryption})
	if err != nil {
		return err
	}
	defer body.Close()
	_ = to.Remove(name) // of an attempt before
	return create(to, name, 0o600, func(f io.Writer) error {
		_, err := io.CopyN(f, body, info.Size)
		return err
	})
}

// below is the beginning of the keys of a folder's objects.
func (s *s3) below() string {
	if s.at.Key == "" {
		return ""
	}
	return path.Clean(s.at.Key) + "/"
}

// isFolder reports whether there is an object below the key.
func (s *s3) isFolder(ctx context.Context, client *minio.Core) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // it ends the list
	for object := range client.Client.ListObjects(ctx, s.at.Bucket, minio.ListObjectsOptions{Prefix: s.below()}) {
		return object.Err == nil, object.Err
	}
	return false, ctx.Err() // a list that is called off may end without an error
}

// getFolder brings all objects below the key into files of a folder.
func (s *s3) getFolder(ctx context.Context, client *minio.Core, to *os.Root, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for object := range client.Client.ListObjects(ctx, s.at.Bucket, minio.ListObjectsOptions{Prefix: s.below(), Recursive: true}) {
		if object.Err != nil {
			return object.Err
		}
		if strings.HasSuffix(object.Key, "/") {
			continue // it stands for the folder itself
		}
		rel := strings.TrimLeft(strings.TrimPrefix(object.Key, s.at.Key), "/")
		if !filepath.IsLocal(rel) {
			return fmt.Errorf("illegal file path: %s", object.Key)
		}
		if err := s.get(ctx, client, object.Key, to, filepath.Join(name, rel)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *s3) Save(ctx context.Context, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	return s.save(ctx, func(client *minio.Core) error {
		if info.IsDir() {
			return failed("put directory", s.putFolder(ctx, client, from, s.at.Key))
		}
		return failed("put file", s.put(ctx, client, from, s.at.Key))
	})
}

// save calls put until it succeeds or fails for good.
func (s *s3) save(ctx context.Context, put func(*minio.Core) error) error {
	return s.retry(ctx, func() error {
		s.log.Info("save to S3", "bucket", s.at.Bucket, "key", s.at.Key)
		client, err := s.connect()
		if err != nil {
			return failed("create new S3 client", err)
		}
		return put(client)
	})
}
