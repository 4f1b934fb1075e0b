package testcluster

import (
	"os"
	"path/filepath"
)

// S3 has the address and the credentials of the S3 server, for pods and for [Cluster.Dial]. Objects are
// stored as plain files below Dir, on the machine.
type S3 struct {
	Endpoint  string // address:port, plain HTTP
	Bucket    string
	Region    string
	AccessKey string
	SecretKey string
	Dir       string // of the bucket
}

const (
	s3Endpoint  = nodeIP + ":9000"
	s3URL       = "http://" + s3Endpoint
	s3Health    = "/-/health"
	s3Bucket    = "artifacts"
	s3Region    = "us-east-1"
	s3AccessKey = "testcluster"
	s3SecretKey = "testcluster-secret"
)

var s3Env = []string{"ROOT_ACCESS_KEY=" + s3AccessKey, "ROOT_SECRET_KEY=" + s3SecretKey}

// S3 returns the cluster's S3 server.
func (c *Cluster) S3() S3 {
	return S3{
		Endpoint:  s3Endpoint,
		Bucket:    s3Bucket,
		Region:    s3Region,
		AccessKey: s3AccessKey,
		SecretKey: s3SecretKey,
		Dir:       filepath.Join(c.s3(), "buckets", s3Bucket),
	}
}

func (c *Cluster) s3Args() []string {
	return []string{
		"--port", s3Endpoint, "--region", s3Region, "--health", s3Health, "--quiet",
		// Metadata is not kept in extended attributes, which not every file system has.
		"posix", "--sidecar", filepath.Join(c.s3(), "metadata"), filepath.Join(c.s3(), "buckets"),
	}
}

// makeBucket makes the bucket: a folder.
func (c *Cluster) makeBucket() error {
	for _, dir := range []string{c.S3().Dir, filepath.Join(c.s3(), "metadata")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}
