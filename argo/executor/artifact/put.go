package artifact

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"math"
	"mime"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// largestPut is the size of an object that is put at once, and of the parts of most larger ones (minio-go's minPartSize).
// A part's size is part of the object's ETag.
const largestPut = 16 << 20

// maxParts is the greatest number of parts that S3 takes.
var maxParts = 10_000

// errParts is the error of a file that has become too large for parts of largestPut.
var errParts = errors.New("the file needs more parts than S3 takes")

// put puts a regular file.
func (s *s3) put(ctx context.Context, client *minio.Core, from *os.File, key string) error {
	n, err := Size(from)
	if err != nil {
		return err
	}
	whole := newGrowing(ctx, from)
	whole.size, whole.whole = n, true
	return s.putGrowing(ctx, client, whole, key)
}

// putGrowing puts a file that may still be written. It reads the file twice, and keeps none of it. The requests are those
// for a file that is there: sizes of parts depend on the file's, but up to maxParts all are of largestPut.
func (s *s3) putGrowing(ctx context.Context, client *minio.Core, from *growing, key string) error {
	options := minio.PutObjectOptions{SendContentMd5: true, ContentType: mime.TypeByExtension(filepath.Ext(from.file.Name()))}
	if options.ContentType == "" {
		options.ContentType = "application/octet-stream"
	}
	var err error
	if options.ServerSideEncryption, err = s.encryption(key); err != nil {
		return err
	}
	most := int64(largestPut)
	if s3utils.IsGoogleEndpoint(*client.EndpointURL()) {
		most = math.MaxInt64
	}
	n, whole, err := from.wait(most)
	if err != nil {
		return err
	}
	if n <= most {
		_, err := client.Client.PutObject(ctx, s.at.Bucket, key, io.NewSectionReader(from.file, 0, n), n, options)
		return err
	}
	if err := s.putParts(ctx, client, from, n, whole, key, options); !errors.Is(err, errParts) {
		return err
	}
	if n, whole, err = from.wait(math.MaxInt64); err != nil {
		return err
	}
	return s.putParts(ctx, client, from, n, whole, key, options)
}

// putParts puts a file in parts, each when it is there. n is the size so far. minio-go would have a whole part in memory.
func (s *s3) putParts(ctx context.Context, client *minio.Core, from *growing, n int64, whole bool, key string, options minio.PutObjectOptions) (err error) {
	count, partSize := maxParts, int64(largestPut)
	if whole {
		if count, partSize, _, err = minio.OptimalPartInfo(n, 0); err != nil {
			return err
		}
	}
	id, err := client.NewMultipartUpload(ctx, s.at.Bucket, key, options)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The store keeps the parts, and asks money for them.
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_ = client.AbortMultipartUpload(late, s.at.Bucket, key, id)
		}
	}()
	var parts []minio.CompletePart
	for at := int64(0); at < n; at += partSize {
		if len(parts) == count {
			return errParts
		}
		if n, _, err = from.wait(at + partSize); err != nil {
			return err
		}
		part, err := s.putPart(ctx, client, io.NewSectionReader(from.file, at, min(partSize, n-at)), key, id, len(parts)+1, options.ServerSideEncryption)
		if err != nil {
			return err
		}
		parts = append(parts, part)
	}
	_, err = client.CompleteMultipartUpload(ctx, s.at.Bucket, key, id, parts, minio.PutObjectOptions{ServerSideEncryption: options.ServerSideEncryption})
	return err
}

// putPart puts one part of an upload.
func (s *s3) putPart(ctx context.Context, client *minio.Core, from *io.SectionReader, key, id string, number int, encryption encrypt.ServerSide) (minio.CompletePart, error) {
	hash := md5.New()
	if _, err := io.Copy(hash, from); err != nil {
		return minio.CompletePart{}, err
	}
	part, err := client.PutObjectPart(ctx, s.at.Bucket, key, id, number, io.NewSectionReader(from, 0, from.Size()), from.Size(),
		minio.PutObjectPartOptions{Md5Base64: base64.StdEncoding.EncodeToString(hash.Sum(nil)), SSE: encryption})
	return minio.CompletePart{PartNumber: number, ETag: part.ETag}, err
}

// putFolder puts the files of a folder and of the folders in it, each under its own key.
func (s *s3) putFolder(ctx context.Context, client *minio.Core, dir *os.File, key string) error {
	return Walk(dir, func(e Entry) error {
		if e.Mode.IsDir() || e.Mode&fs.ModeSymlink != 0 {
			return nil
		}
		f, err := e.Open()
		if err != nil {
			return err
		}
		defer f.Close()
		return s.put(ctx, client, f, path.Join(key, e.Name))
	})
}
