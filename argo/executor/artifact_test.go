package executor

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const s3Store = `"endpoint":"s3:9000","bucket":"b","insecure":true,"accessKeySecret":{"name":"s","key":"access"},"secretKeySecret":{"name":"s","key":"secret"}`

const s3Secure = `"endpoint":"s3:9000","bucket":"b","accessKeySecret":{"name":"s","key":"access"},"secretKeySecret":{"name":"s","key":"secret"}`

func TestArtifacts(t *testing.T) {
	const known = ""
	for name, c := range map[string]struct{ artifact, archive, want string }{
		"s3":                  {`"s3":{` + s3Store + `,"key":"k"}`, ``, known},
		"s3 with more":        {`"s3":{` + s3Store + `,"key":"k","region":"r","sessionTokenSecret":{"name":"s","key":"t"},"caSecret":{"name":"s","key":"ca"}}`, ``, known},
		"raw":                 {`"raw":{"data":"x"}`, ``, known},
		"http":                {`"http":{"url":"http://h/p","headers":[{"name":"n","value":"v"}]}`, ``, known},
		"http with password":  {`"http":{"url":"http://h/p","auth":{"clientCert":{},"oauth2":{},"basicAuth":{"usernameSecret":{"name":"s","key":"u"}}}}`, ``, known},
		"in the archive":      {`"s3":{"key":"k"}`, `{"archiveLogs":false,"s3":{` + s3Store + `,"key":"a/b"}}`, known},
		"without archive":     {`"s3":{"key":"k"}`, ``, "location not set"},
		"not supplied":        {`"optional":true`, ``, known},
		"every field":         {`"raw":{"data":"x"},"mode":511,"recurseMode":true,"globalName":"g","archive":{"tar":{"compressionLevel":1}},"subPath":"s","from":"f","fromExpression":"e","artifactGC":{"strategy":"Never"},"deleted":true`, ``, known},
		"a new field":         {`"quantum":true`, ``, `"quantum"`},
		"a new field of s3":   {`"s3":{"quantum":true}`, ``, `"quantum"`},
		"git":                 {`"git":{"repo":"r"}`, ``, `"git"`},
		"plugin":              {`"plugin":{"name":"p"}`, ``, `"plugin"`},
		"role":                {`"s3":{` + s3Store + `,"key":"k","roleARN":"r"}`, ``, `"roleARN"`},
		"sdk credentials":     {`"s3":{` + s3Store + `,"key":"k","useSDKCreds":true}`, ``, `"useSDKCreds"`},
		"encryption":          {`"s3":{` + s3Store + `,"key":"k","encryptionOptions":{"enableEncryption":true}}`, ``, known},
		"by a KMS":            {`"s3":{` + s3Store + `,"key":"k","encryptionOptions":{"enableEncryption":true,"kmsKeyId":"k"}}`, ``, known},
		"with a context":      {`"s3":{` + s3Store + `,"key":"k","encryptionOptions":{"enableEncryption":true,"kmsEncryptionContext":"{}"}}`, ``, `"kmsEncryptionContext"`},
		"by a customer":       {`"s3":{` + s3Secure + `,"key":"k","encryptionOptions":{"enableEncryption":true,"serverSideCustomerKeySecret":{"name":"s","key":"c"}}}`, ``, known},
		"by nobody":           {`"s3":{` + s3Secure + `,"key":"k","encryptionOptions":{"serverSideCustomerKeySecret":{"name":"s","key":"c"}}}`, ``, "customer's key"},
		"by two":              {`"s3":{` + s3Secure + `,"key":"k","encryptionOptions":{"enableEncryption":true,"kmsKeyId":"k","serverSideCustomerKeySecret":{"name":"s","key":"c"}}}`, ``, "customer's key"},
		"in clear":            {`"s3":{` + s3Store + `,"key":"k","encryptionOptions":{"enableEncryption":true,"serverSideCustomerKeySecret":{"name":"s","key":"c"}}}`, ``, "customer's key"},
		"customer elsewhere":  {`"s3":{` + s3Secure + `,"key":"k","encryptionOptions":{"enableEncryption":true,"serverSideCustomerKeySecret":{"name":"..","key":"c"}}}`, ``, "of a secret"},
		"new bucket":          {`"s3":{` + s3Store + `,"key":"k","createBucketIfNotPresent":{}}`, ``, `"createBucketIfNotPresent"`},
		"no credentials":      {`"s3":{"endpoint":"e","bucket":"b","key":"k"}`, ``, "no access key"},
		"secret elsewhere":    {`"s3":{"endpoint":"e","bucket":"b","key":"k","accessKeySecret":{"name":"..","key":"a"},"secretKeySecret":{"name":"s","key":"b"}}`, ``, "of a secret"},
		"oauth":               {`"http":{"url":"u","auth":{"oauth2":{"clientIDSecret":{"name":"n","key":"k"}}}}`, ``, `"clientIDSecret"`},
		"two stores":          {`"raw":{"data":"x"},"http":{"url":"u"}`, ``, "several stores"},
		"two strategies":      {`"raw":{"data":"x"},"archive":{"none":{},"tar":{}}`, ``, "several archive strategies"},
		"another strategy":    {`"raw":{"data":"x"},"archive":{"zstd":{}}`, ``, `"zstd"`},
		"mode of more":        {`"raw":{"data":"x"},"mode":2541`, ``, "mode"},
		"archive in a gcs":    {`"s3":{"key":"k"}`, `{"gcs":{"bucket":"b"}}`, `"gcs"`},
		"archive without use": {`"optional":true`, `{"s3":{` + s3Store + `}}`, known},
	} {
		t.Run(name, func(t *testing.T) {
			text := `{"container":{},"inputs":{"artifacts":[{"name":"a","path":"/a",` + c.artifact + `}]}`
			if c.archive != "" {
				text += `,"archiveLocation":` + c.archive
			}
			if _, err := ParseTemplate([]byte(text + "}")); (err == nil) != (c.want == known) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	for _, path := range []string{"", "a", "/a/../b", "/a/..", `/a\u0000`} {
		if _, err := parseArtifacts([]byte(`[{"name":"a","path":"` + path + `"}]`)); err == nil {
			t.Errorf("path %q is known", path)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b"} {
		if _, err := parseArtifacts([]byte(`[{"name":"` + name + `","path":"/a"}]`)); err == nil {
			t.Errorf("name %q is known", name)
		}
	}
}

// An artifact is encoded as it was decoded, so that it can be reported.
func TestArtifactEncoded(t *testing.T) {
	const text = `{"name":"a","path":"/a","mode":420,"globalName":"g","optional":true,"subPath":"p","recurseMode":true,"artifactGC":{"strategy":"Never"},` +
		`"deleted":true,"archive":{"none":{}},"s3":{` + s3Store + `,"key":"k"}}`
	var a Artifact
	if err := parseStrictly([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var want, have any
	if json.Unmarshal([]byte(text), &want) != nil || json.Unmarshal(encoded, &have) != nil || !reflect.DeepEqual(want, have) {
		t.Errorf("got %s\nwant %s", encoded, text)
	}
}

// A location that has only a key takes all else from the archive's, and does not change it.
func TestIn(t *testing.T) {
	archive := Location{S3: &S3{Endpoint: "e", Bucket: "b", Key: "old"}}
	got, err := (&Location{S3: &S3{Key: "k"}}).In(&archive)
	if err != nil || got.S3.Bucket != "b" || got.S3.Key != "k" || archive.S3.Key != "old" {
		t.Errorf("got %+v, %v, and the archive is %+v", got.S3, err, archive.S3)
	}
	if got, err = (&Location{Raw: &Raw{Data: "x"}}).In(&archive); err != nil || got.S3 != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}
