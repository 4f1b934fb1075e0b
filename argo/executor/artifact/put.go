package artifact

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"io"
	"io/fs"
	"mime"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// largestPut is the size of an object that is put at once, and of the parts of most larger ones (minio-go's minPartSize).
// A part's size is part of the object's ETag.
const largestPut = 16 << 20

// put puts a regular file. It reads the file twice, and keeps none of it.
func (s *s3) put(ctx context.Context, client *minio.Core, from *os.File, key string) error {
	n, err := Size(from)
	if err != nil {
		return err
	}
	options := minio.PutObjectOptions{SendContentMd5: true, ContentType: mime.TypeByExtension(filepath.Ext(from.Name()))}
	if options.ContentType == "" {
		options.ContentType = "application/octet-stream"
	}
	if n <= largestPut || s3utils.IsGoogleEndpoint(*client.EndpointURL()) {
		_, err := client.Client.PutObject(ctx, s.at.Bucket, key, io.NewSectionReader(from, 0, n), n, options)
		return err
	}
	return s.putParts(ctx, client, from, key, n, options)
}

// putParts puts a file in parts. minio-go would have a whole part in memory.
func (s *s3) putParts(ctx context.Context, client *minio.Core, from io.ReaderAt, key string, n int64, options minio.PutObjectOptions) (err error) {
	count, partSize, _, err := minio.OptimalPartInfo(n, 0)
	if err != nil {
		return err
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
	parts := make([]minio.CompletePart, 0, count)
	for i := range count {
		at := int64(i) * partSize
		length := min(partSize, n-at)
		hash := md5.New()
		if _, err := io.Copy(hash, io.NewSectionReader(from, at, length)); err != nil {
			return err
		}
		part, err := client.PutObjectPart(ctx, s.at.Bucket, key, id, i+1, io.NewSectionReader(from, at, length), length,
			minio.PutObjectPartOptions{Md5Base64: base64.StdEncoding.EncodeToString(hash.Sum(nil))})
		if err != nil {
			return err
		}
		parts = append(parts, minio.CompletePart{PartNumber: i + 1, ETag: part.ETag})
	}
	_, err = client.CompleteMultipartUpload(ctx, s.at.Bucket, key, id, parts, minio.PutObjectOptions{})
	return err
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
