package artifact

import (
	"context"
	"errors"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"
)

// readers is how many connections are kept for those who read an object by ranges.
const readers = 8

// Found is an object of an S3 store, or a folder of objects, that has not been loaded. Its client makes each request once,
// and keeps connections for several at a time.
type Found struct {
	Client *minio.Core
	Bucket string
	// Key is the object's, or what the keys of the folder's objects begin with.
	Key      string
	IsFolder bool
	// CustomerKey is an object's, nil if the store has the key. HasKeys says that each object of a folder has another one.
	CustomerKey encrypt.ServerSide
	HasKeys     bool
	Object      minio.ObjectInfo // of an object
}

// Find looks for an object, or for a folder of objects, in a store that speaks S3. Its errors are those of Load.
func Find(ctx context.Context, in Store) (Found, error) {
	s, ok := in.(*s3)
	if !ok {
		return Found{}, errors.New("the artifact's store does not speak S3")
	}
	found := Found{Bucket: s.at.Bucket, Key: s.at.Key, HasKeys: s.hasKeys()}
	var err error
	if found.HasKeys {
		if found.CustomerKey, err = s.encryption(s.at.Key); err != nil {
			return Found{}, err
		}
	}
	if found.Client, err = s.client(readers, 1); err != nil {
		return Found{}, failed("create new S3 client", err)
	}
	err = s.retry(ctx, func() error {
		client, err := s.connect()
		if err != nil {
			return failed("create new S3 client", err)
		}
		found.Object, err = client.StatObject(ctx, s.at.Bucket, s.at.Key, minio.StatObjectOptions{Checksum: true, ServerSideEncryption: found.CustomerKey})
		if !hasCode(err, "NoSuchKey") {
			return failed("get file", err)
		}
		if err := s.mustBeFolder(ctx, client, err); err != nil {
			return err
		}
		found.Key, found.IsFolder = s.below(), true
		return nil
	})
	return found, err
}

// mustBeFolder returns an error unless the key of an object that is missing is that of a folder.
func (s *s3) mustBeFolder(ctx context.Context, client *minio.Core, missing error) error {
	isFolder, err := s.isFolder(ctx, client)
	if err != nil {
		return failed("test if "+s.at.Key+" is a directory", err)
	}
	if !isFolder {
		return notFound{missing.Error()}
	}
	return nil
}
