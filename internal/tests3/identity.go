package tests3

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"time"
)

// client is what Minio is to those who issue tokens for it.
const client = "artifacts"

// identities is an OpenID provider, whose tokens Minio takes for web identities that may read and write all.
type identities struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func serveIdentities() (*identities, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	i := &identities{key: key}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any = map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"}
		if r.URL.Path == "/keys" {
			answer = map[string]any{"keys": []any{i.public()}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	return i, nil
}

// settings are Minio's, as variables of its environment.
func (i *identities) settings() []string {
	return []string{
		"MINIO_IDENTITY_OPENID_CONFIG_URL=" + i.URL + "/.well-known/openid-configuration",
		"MINIO_IDENTITY_OPENID_CLIENT_ID=" + client, "MINIO_IDENTITY_OPENID_ROLE_POLICY=readwrite",
	}
}

// keyID is the only key's.
const keyID = "1"

// public returns the key as a JSON Web Key.
func (i *identities) public() map[string]string {
	point, _ := i.key.PublicKey.Bytes() // of a curve that has them: 4, x, y
	return map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": keyID, "x": encode(point[1:33]), "y": encode(point[33:])}
}

func encode(p []byte) string { return base64.RawURLEncoding.EncodeToString(p) }

// Token returns a token of a web identity, which can be exchanged for credentials for some time.
func (m *Minio) Token(valid time.Duration) (string, error) {
	header, err := json.Marshal(map[string]string{"alg": "ES256", "typ": "JWT", "kid": keyID})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": m.identity.URL, "aud": client, "sub": "a pod", "exp": time.Now().Add(valid).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := encode(header) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, m.identity.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature), nil
}

// Role returns the role of the web identities: MinIO makes its name of the client's.
func Role() string {
	sum := sha1.Sum([]byte(client))
	return "arn:minio:iam:" + Region + "::role/" + encode(sum[:])
}
