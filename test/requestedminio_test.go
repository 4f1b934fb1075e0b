package test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// A store of another implementation serves a pod, as a virtual host that only the pod's own names have, with an authority
// of its own: by a Secret, which also has the key that encrypts the objects, and by a web identity.
func TestRequestedArtifactsOfMinio(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		store, err := tests3.StartMinio()
		t.Cleanup(store.Stop)
		if err != nil {
			t.Fatal(err)
		}
		client := store.Client(t).Client
		if err := client.MakeBucket(t.Context(), "bucket", minio.MakeBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name, text := range map[string]string{"ca.pem": store.Authority, "hosts": "127.0.0.1 bucket." + tests3.Domain + "\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		p := requestingPodOf(t, node, store.Address, oci.WithMounts([]specs.Mount{{Destination: "/etc/hosts", Type: "bind", Source: dir + "/hosts", Options: []string{"rbind", "ro"}}}))
		endpoint := "https://" + tests3.Domain + ":" + store.Port
		config := fmt.Sprintf("spool_dir = %q\n[[s3]]\nendpoint = %q\ndefault = true\nregion = %q\nstyle = \"virtual\"\nca = %q\n", p.spool, endpoint, tests3.Region, dir+"/ca.pem")

		customer := bytes.Repeat([]byte("k"), 32)
		key, err := encrypt.NewSSEC(customer)
		if err != nil {
			t.Fatal(err)
		}
		token, err := store.Token(time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		volume := func(kind, name string, keys map[string]string) oci.SpecOpts {
			return oci.WithMounts([]specs.Mount{{Destination: "/hidden", Type: "bind", Source: secretVolume(t, kind, name, keys), Options: []string{"rbind", "ro"}}})
		}
		secret := oci.Compose(oci.WithAnnotations(map[string]string{"wasm.shim/artifact-credentials": "secret:s3"}),
			volume("kubernetes.io~secret", "s3", map[string]string{
				"accesskey": tests3.Access, "secretkey": tests3.Secret, "customerkey": base64.StdEncoding.EncodeToString(customer), "ca.crt": store.Authority,
			}))
		identity := oci.Compose(volume("kubernetes.io~projected", "aws-iam-token", map[string]string{"token": token}),
			oci.WithEnv([]string{"AWS_ROLE_ARN=" + tests3.Role(), "AWS_WEB_IDENTITY_TOKEN_FILE=/hidden/token", "AWS_ENDPOINT_URL_STS=https://" + store.Address}))
		for name, tc := range map[string]struct {
			sse           string
			key           encrypt.ServerSide // of the tests' own requests
			from          oci.SpecOpts
			header, value string
		}{
			"secret":       {"?sse=c", key, secret, "X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256"},
			"web identity": {"?sse=kms", nil, identity, "X-Amz-Server-Side-Encryption", "aws:kms"},
		} {
			t.Run(name, func(t *testing.T) {
				if _, err := client.PutObject(t.Context(), "bucket", "data.csv", strings.NewReader(lazyData), int64(len(lazyData)), minio.PutObjectOptions{ServerSideEncryption: tc.key}); err != nil {
					t.Fatal(err)
				}
				k, err := p.create(config, map[string]string{"in": "s3://bucket/data.csv" + tc.sse + " -> /in/file", "out": "/out/copy -> s3://bucket/copy" + tc.sse},
					[]string{"copy", "/in/file", "/out/copy"}, tc.from)
				if err != nil {
					t.Fatal(err)
				}
				k.start()
				k.expectCode(0)
				k.remove()
				p.expectNothingLeft()
				object, err := client.GetObject(t.Context(), "bucket", "copy", minio.GetObjectOptions{ServerSideEncryption: tc.key})
				if err != nil {
					t.Fatal(err)
				}
				defer object.Close()
				got, err := io.ReadAll(object)
				if err != nil || string(got) != lazyData {
					t.Errorf("stored %d bytes, want %d; %v", len(got), len(lazyData), err)
				}
				if info, err := object.Stat(); err != nil || info.Metadata.Get(tc.header) != tc.value {
					t.Errorf("it is stored with %v, %v", info.Metadata, err)
				}
			})
		}
		t.Run("without the key", func(t *testing.T) {
			if _, err := client.PutObject(t.Context(), "bucket", "closed", strings.NewReader("data"), 4, minio.PutObjectOptions{ServerSideEncryption: key}); err != nil {
				t.Fatal(err)
			}
			_, err := p.create(config, map[string]string{"in": "s3://bucket/closed -> /in/x"}, []string{"exit", "0"}, secret)
			if err == nil || !strings.Contains(err.Error(), "artifact in (s3://bucket/closed of "+endpoint) || !strings.Contains(err.Error(), "InvalidRequest") {
				t.Errorf("got %v", err)
			}
			p.expectNothingLeft()
		})
	})
}
