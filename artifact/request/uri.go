package request

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

const scheme = "s3://"

// maxKey is the longest key of S3, in bytes.
const maxKey = 1024

// parseURI reads s3://BUCKET/KEY?OPTIONS. As in any URI, '%', '?' and '#' of a key are written as %25, %3F and %23.
func (a *Artifact) parseURI(text string) error {
	rest, ok := strings.CutPrefix(text, scheme)
	if !ok {
		return fmt.Errorf("%.200q is not s3://BUCKET/KEY", text)
	}
	rest, query, _ := strings.Cut(rest, "?")
	bucket, raw, _ := strings.Cut(rest, "/")
	key, err := url.PathUnescape(raw)
	if err != nil {
		return fmt.Errorf("the key %.200q: %w", raw, err)
	}
	a.At.Bucket, a.At.Key = bucket, key
	if err := a.parseOptions(query); err != nil {
		return err
	}
	a.Folder = a.Archive || key == "" || strings.HasSuffix(key, "/")
	if a.Archive && (key == "" || strings.HasSuffix(key, "/")) {
		return fmt.Errorf("archive=tgz makes one object, and the key %.200q is that of a folder", key)
	}
	if a.Folder && a.At.Version != "" {
		return errors.New("versionId is for one object, and the key is that of a folder")
	}
	return errors.Join(checkBucket(bucket), checkKey(key))
}

// checkKey returns an error for a key that some stores take for a path of their own, or for another object's.
func checkKey(key string) error {
	if err := printable(key); err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	if len(key) > maxKey {
		return fmt.Errorf("the key has %d bytes: S3 allows %d", len(key), maxKey)
	}
	parts := strings.Split(strings.TrimSuffix(key, "/"), "/")
	switch {
	case key == "":
		return nil
	case slices.Contains(parts, ""):
		return fmt.Errorf("the key %.200q has an empty part (//, or a slash at its beginning)", key)
	case slices.Contains(parts, ".") || slices.Contains(parts, ".."):
		return fmt.Errorf("the key %.200q has \".\" or \"..\" as a part", key)
	}
	return nil
}

// option sets one option of a URI.
type option struct {
	inputs, outputs bool // for which it is
	set             func(a *Artifact, value string) error
}

var options = map[string]option{
	"endpoint":  {true, true, func(a *Artifact, value string) error { return a.At.setEndpoint(value) }},
	"region":    {true, true, func(a *Artifact, value string) error { a.At.Region = value; return CheckRegion(value) }},
	"container": {true, true, func(a *Artifact, value string) error { a.Container = value; return nil }},
	"credentials": {true, true, func(a *Artifact, value string) error {
		a.At.Credentials = value
		return CheckCredentials(value)
	}},
	"versionId": {true, false, func(a *Artifact, value string) error { a.At.Version = value; return nil }},
	"style": {true, true, func(a *Artifact, value string) error {
		a.At.Style = Style(value)
		return a.At.Style.Check()
	}},
	"on": {false, true, func(a *Artifact, value string) error {
		a.Always = value == "always"
		return oneOf(value, "always", "success")
	}},
	"archive": {false, true, func(a *Artifact, value string) error {
		a.Archive = value == "tgz"
		return oneOf(value, "tgz", "none")
	}},
	"sse": {true, true, func(a *Artifact, value string) error {
		kind, key, _ := strings.Cut(value, ":")
		a.At.Encryption = Encryption{EncryptionKind(kind), key}
		if key != "" && a.At.Encryption.Kind != KMSEncryption {
			return fmt.Errorf("only kms may have a key, as in kms:KEY: %.100q", value)
		}
		return oneOf(kind, string(StoreEncryption), string(KMSEncryption), string(CustomerEncryption))
	}},
}

// CheckRegion returns an error for what no store has as the name of a region: it becomes a part of a host's name.
func CheckRegion(name string) error {
	if len(name) > 63 || strings.Trim(name, nameRunes) != "" || strings.Contains(name, "..") {
		return fmt.Errorf("%.100q is no name of a region", name)
	}
	return nil
}

// Check returns an error for what is no style, or the default.
func (s Style) Check() error { return oneOf(string(s), string(PathStyle), string(VirtualStyle)) }

func oneOf(value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%.100q is none of %s", value, strings.Join(allowed, ", "))
}

func (a *Artifact) parseOptions(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the options %.200q: %w", query, err)
	}
	for name, all := range values {
		o, known := options[name]
		switch {
		case !known:
			return fmt.Errorf("unknown option %.100q: known are archive, container, credentials, endpoint, on, region, sse, style, versionId", name)
		case len(all) != 1 || all[0] == "":
			return fmt.Errorf("option %s needs one value", name)
		case a.Output && !o.outputs:
			return fmt.Errorf("option %s is for inputs", name)
		case !a.Output && !o.inputs:
			return fmt.Errorf("option %s is for outputs", name)
		}
		if err := errors.Join(printable(all[0]), o.set(a, all[0])); err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
	}
	return nil
}

func (p *Place) setEndpoint(text string) error {
	endpoint, err := Endpoint(text)
	p.Endpoint = endpoint
	return err
}

// Endpoint returns the URL of a store in the form in which two are the same if their texts are.
func Endpoint(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", fmt.Errorf("%.200q is no URL", text)
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return "", fmt.Errorf("%.200q is not https://HOST or http://HOST", text)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", fmt.Errorf("%.200q has more than a scheme, a host and a port", text)
	}
	host := strings.ToLower(u.Host)
	if u.Scheme == "https" {
		host = strings.TrimSuffix(host, ":443")
	} else {
		host = strings.TrimSuffix(host, ":80")
	}
	return u.Scheme + "://" + host, nil
}

// CredentialsAnnotation says where the credentials for those artifacts come from whose own option does not say it.
const CredentialsAnnotation = "wasm.shim/artifact-credentials"

// Sources of credentials. SecretSource is followed by the name of a volume.
const (
	NodeSource        = "node"         // the node's config.toml
	EnvironmentSource = "environment"  // AWS_ACCESS_KEY_ID and so on of the container
	IdentitySource    = "web-identity" // AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE of the container
	InstanceSource    = "instance"     // the metadata service of the cloud
	AnonymousSource   = "anonymous"    // none
	SecretSource      = "secret:"      // a volume of the container with a Secret
)

// CheckCredentials returns an error for a text that names no source of credentials.
func CheckCredentials(source string) error {
	if volume, ok := strings.CutPrefix(source, SecretSource); ok && volume != "" && !strings.Contains(volume, "/") {
		return nil
	}
	return oneOf(source, NodeSource, EnvironmentSource, IdentitySource, InstanceSource, AnonymousSource, SecretSource+"VOLUME")
}
