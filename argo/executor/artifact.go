package executor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Artifact is an input or output artifact of a template (upstream's Artifact). It has every field that is known, and
// is encoded as upstream encodes it.
type Artifact struct {
	Name        string           `json:"name"`
	Path        string           `json:"path,omitempty"`
	Mode        *int32           `json:"mode,omitempty"`
	GlobalName  string           `json:"globalName,omitempty"`
	Archive     *ArchiveStrategy `json:"archive,omitempty"`
	Optional    bool             `json:"optional,omitempty"`
	RecurseMode bool             `json:"recurseMode,omitempty"`
	Location

	// The controller honours these.
	From           string          `json:"from,omitempty"`
	SubPath        string          `json:"subPath,omitempty"` // it has become part of the key
	FromExpression string          `json:"fromExpression,omitempty"`
	ArtifactGC     json.RawMessage `json:"artifactGC,omitempty"`
	Deleted        bool            `json:"deleted,omitempty"`
}

// ArchiveStrategy says how an artifact is packed. Without any, an input artifact is unpacked if it is a tarball.
type ArchiveStrategy struct {
	Tar  *TarStrategy `json:"tar,omitempty"`
	None *struct{}    `json:"none,omitempty"`
	Zip  *struct{}    `json:"zip,omitempty"`
}

// TarStrategy says how a tarball is compressed, by the levels of compress/gzip.
type TarStrategy struct {
	CompressionLevel *int32 `json:"compressionLevel,omitempty"`
}

// Location says where an artifact is kept (upstream's ArtifactLocation). At most one store is set.
type Location struct {
	ArchiveLogs *bool `json:"archiveLogs,omitempty"`
	S3          *S3   `json:"s3,omitempty"`
	HTTP        *HTTP `json:"http,omitempty"`
	Raw         *Raw  `json:"raw,omitempty"`
}

// S3 is the place of an object, or of a folder of objects, in a store that speaks Amazon's S3.
type S3 struct {
	Endpoint           string  `json:"endpoint,omitempty"` // HOST:PORT
	Bucket             string  `json:"bucket,omitempty"`
	Region             string  `json:"region,omitempty"`
	Insecure           *bool   `json:"insecure,omitempty"` // without TLS
	AccessKeySecret    *Secret `json:"accessKeySecret,omitempty"`
	SecretKeySecret    *Secret `json:"secretKeySecret,omitempty"`
	SessionTokenSecret *Secret `json:"sessionTokenSecret,omitempty"`
	CASecret           *Secret `json:"caSecret,omitempty"`
	Key                string  `json:"key,omitempty"`

	Encryption *Encryption `json:"encryptionOptions,omitempty"`
}

// CustomerKey names the secret of which the keys of objects are made, nil if the store has the keys.
func (s *S3) CustomerKey() *Secret {
	if s.Encryption == nil {
		return nil
	}
	return s.Encryption.CustomerKeySecret
}

// Encryption says by whose key the store encrypts objects: its own, that of a KMS, or one that is made of a secret's. A
// context for a KMS is not known: upstream's own encodes it twice.
type Encryption struct {
	Enabled           bool    `json:"enableEncryption,omitempty"`
	KMSKey            string  `json:"kmsKeyId,omitempty"`
	CustomerKeySecret *Secret `json:"serverSideCustomerKeySecret,omitempty"`
}

// Secret names a key of a Kubernetes secret, which is mounted in the container.
type Secret struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key"`
	Optional *bool  `json:"optional,omitempty"`
}

// HTTP is a web address that is read with GET and written with PUT.
type HTTP struct {
	URL     string    `json:"url"`
	Headers []Header  `json:"headers,omitempty"`
	Auth    *HTTPAuth `json:"auth,omitempty"`
}

// Header is a header of a request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// HTTPAuth holds the credentials for a web address. Of others than a name and a password only the empty ones are known.
type HTTPAuth struct {
	ClientCert struct{}  `json:"clientCert"`
	OAuth2     struct{}  `json:"oauth2"`
	BasicAuth  BasicAuth `json:"basicAuth"`
}

// BasicAuth names the secrets with a name and a password.
type BasicAuth struct {
	UsernameSecret *Secret `json:"usernameSecret,omitempty"`
	PasswordSecret *Secret `json:"passwordSecret,omitempty"`
}

// Raw is the artifact itself.
type Raw struct {
	Data string `json:"data"`
}

// parseStrictly reads JSON. A field that the value does not have is an error that names the field.
func parseStrictly(text []byte, value any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(value)
}

// parseArtifacts reads a list of artifacts.
func parseArtifacts(text []byte) ([]Artifact, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var all []Artifact
	if err := parseStrictly(text, &all); err != nil {
		return nil, err
	}
	for i := range all {
		if err := all[i].check(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (a *Artifact) check() error {
	// The name becomes part of paths and keys.
	if a.Name == "" || a.Name == "." || a.Name == ".." || strings.ContainsAny(a.Name, "/\x00") {
		return fmt.Errorf("name %.100q of an artifact is not known", a.Name)
	}
	if !path.IsAbs(a.Path) || strings.Contains(a.Path, "\x00") || slices.Contains(strings.Split(a.Path, "/"), "..") {
		return fmt.Errorf("path %.200q of artifact %s is not absolute, or has two dots", a.Path, a.Name)
	}
	if a.Mode != nil && (*a.Mode < 0 || *a.Mode > 0o777) {
		return fmt.Errorf("mode %d of artifact %s is not known", *a.Mode, a.Name)
	}
	if s := a.Archive; s != nil {
		n := 0
		for _, set := range []bool{s.Tar != nil, s.None != nil, s.Zip != nil} {
			if set {
				n++
			}
		}
		if n > 1 {
			return fmt.Errorf("artifact %s has several archive strategies", a.Name)
		}
	}
	return nil
}

// HasKey reports whether the location names an object, if maybe not the store.
func (l *Location) HasKey() bool {
	key, err := l.Key()
	return err == nil && key != ""
}

// Key returns the name of the object in the store.
func (l *Location) Key() (string, error) {
	switch {
	case l == nil:
		return "", errors.New("key unsupported: cannot get key for artifact location, because it is invalid")
	case l.HTTP != nil:
		at, err := url.Parse(l.HTTP.URL)
		if err != nil {
			return "", err
		}
		return at.Path, nil
	case l.Raw != nil:
		return "", errors.New("key unsupported: raw artifat does not have key") // as upstream spells it
	case l.S3 != nil:
		return l.S3.Key, nil
	}
	return "", errors.New("artifact storage is not configured")
}

// SetKey makes the location name another object of its store.
func (l *Location) SetKey(key string) error {
	switch {
	case l.HTTP != nil:
		at, err := url.Parse(l.HTTP.URL)
		if err != nil {
			return err
		}
		at.Path = key
		l.HTTP.URL = at.String()
		return nil
	case l.Raw != nil:
		return errors.New("key unsupported: cannot set key for raw artifact")
	case l.S3 != nil:
		l.S3.Key = key
		return nil
	}
	return errors.New("artifact storage is not configured")
}

// Complete reports whether the location names an object and the store.
func (l *Location) Complete() bool {
	switch {
	case l == nil:
		return false
	case l.HTTP != nil:
		return l.HTTP.URL != ""
	case l.Raw != nil:
		return true
	}
	return l.S3 != nil && l.S3.Endpoint != "" && l.S3.Bucket != "" && l.S3.Key != ""
}

// Supplied reports whether the location names an object at all.
func (l *Location) Supplied() bool { return l.Complete() || l.HasKey() }

// In returns the location as it is if it is complete, and else the same key in the store of another location (upstream's
// Relocate).
func (l *Location) In(archive *Location) (Location, error) {
	if l.Complete() {
		return l.clone(), nil
	}
	if archive == nil {
		return Location{}, errors.New("template artifact location not set")
	}
	key, err := l.Key()
	if err != nil {
		return Location{}, err
	}
	other := archive.clone()
	return other, other.SetKey(key)
}

// Below returns the location of an output artifact that has no key: a name below the archive's. It does not say which
// store, as upstream reports it (SetType and SetKey).
func (l *Location) Below(archive *Location, name string) (Location, error) {
	key, err := archive.Key()
	if err != nil {
		return Location{}, err
	}
	other := l.clone()
	if archive.HTTP != nil {
		other.HTTP = &HTTP{}
	} else {
		other.S3 = &S3{}
	}
	return other, other.SetKey(path.Join(key, name))
}

// out returns the location of an output artifact: one without a key gets one in the archive's store.
func (l *Location) out(archive *Location) (Location, error) {
	if l.HasKey() {
		return l.In(archive)
	}
	if archive == nil {
		return Location{}, errors.New("template artifact location not set")
	}
	return archive.clone(), nil
}

// clone returns a copy whose key can be set.
func (l *Location) clone() Location {
	c := *l
	if l.S3 != nil {
		s3 := *l.S3
		c.S3 = &s3
	}
	if l.HTTP != nil {
		http := *l.HTTP
		c.HTTP = &http
	}
	return c
}

// check returns an error for a store that is not known, or not with these credentials.
func (l *Location) check() error {
	n := 0
	for _, set := range []bool{l.S3 != nil, l.HTTP != nil, l.Raw != nil} {
		if set {
			n++
		}
	}
	switch {
	case n == 0:
		return errors.New("the artifact's store is not set")
	case n > 1:
		return errors.New("the artifact has several stores")
	case l.S3 != nil:
		return l.S3.check()
	case l.HTTP != nil:
		return l.HTTP.check()
	}
	return nil
}

func (s *S3) check() error {
	// Without both, upstream asks Amazon for credentials.
	for _, secret := range []*Secret{s.AccessKeySecret, s.SecretKeySecret} {
		if secret == nil || secret.Name == "" {
			return errors.New("the S3 store has no access key and secret key in secrets")
		}
	}
	for _, secret := range []*Secret{s.AccessKeySecret, s.SecretKeySecret, s.SessionTokenSecret, s.CASecret} {
		if err := secret.check(); err != nil {
			return err
		}
	}
	return s.Encryption.check(s.Insecure != nil && *s.Insecure)
}

// check returns an error for what upstream's refuses, too, in words of its own.
func (e *Encryption) check(insecure bool) error {
	if e == nil || e.CustomerKeySecret == nil {
		return nil
	}
	if !e.Enabled || e.KMSKey != "" || insecure {
		return errors.New("a customer's key needs encryption and TLS, and no other key")
	}
	return e.CustomerKeySecret.check()
}

func (h *HTTP) check() error {
	if h.Auth == nil {
		return nil
	}
	return errors.Join(h.Auth.BasicAuth.UsernameSecret.check(), h.Auth.BasicAuth.PasswordSecret.check())
}

// check returns an error for a name that leads out of the folder of secrets.
func (s *Secret) check() error {
	if s == nil {
		return nil
	}
	for _, name := range []string{s.Name, s.Key} {
		if name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("name %.100q of a secret is not known", name)
		}
	}
	return nil
}
