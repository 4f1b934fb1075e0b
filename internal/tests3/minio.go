package tests3

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// Domain is that of Minio's virtual hosts, BUCKET.Domain. No DNS has it.
const Domain = "s3.test"

// KMSKey is the name of the only key that Minio's KMS has.
const KMSKey = "kms-key-1"

// Minio is an S3 server of another implementation, MinIO, with what versitygw has not: TLS, objects encrypted by its own
// key, by a key of a KMS and by a customer's, virtual hosts, and credentials for web identities.
type Minio struct {
	Address   string // HOST:PORT of 127.0.0.1
	Port      string
	Authority string // the certificate to check the server's by, in PEM

	dir      string
	cmd      *exec.Cmd
	identity *identities
}

// StartMinio starts a server. The caller calls Stop, even if there is an error.
func StartMinio() (*Minio, error) {
	m := &Minio{}
	folders, err := testnode.Tools(context.Background(), "minio")
	if err != nil {
		return m, err
	}
	if m.dir, err = os.MkdirTemp("", "minio"); err != nil {
		return m, err
	}
	if err := m.certify(); err != nil {
		return m, err
	}
	if m.identity, err = serveIdentities(); err != nil {
		return m, err
	}
	if m.Address, err = freeAddress(); err != nil {
		return m, err
	}
	_, m.Port, _ = net.SplitHostPort(m.Address)
	kms := make([]byte, 32)
	_, _ = rand.Read(kms)
	cmd := exec.Command(folders[0]+"/minio", "server", "--quiet", "--address", m.Address, "--certs-dir", m.dir+"/certs", m.dir+"/data")
	cmd.Env = append([]string{
		"HOME=" + m.dir, "MINIO_ROOT_USER=" + Access, "MINIO_ROOT_PASSWORD=" + Secret, "MINIO_REGION=" + Region, "MINIO_DOMAIN=" + Domain,
		"MINIO_KMS_SECRET_KEY=" + KMSKey + ":" + base64.StdEncoding.EncodeToString(kms),
		"MINIO_UPDATE=off", "MINIO_BROWSER=off", "MINIO_CI_CD=1", // a disk of its own is not needed
	}, m.identity.settings()...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return m, err
	}
	m.cmd = cmd
	return m, m.awaitReady()
}

// awaitReady waits until the server answers and has loaded who may do what.
func (m *Minio) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := &http.Client{Transport: m.Transport()}
	defer client.CloseIdleConnections()
	return poll.Until(ctx, func() (bool, error) {
		response, err := client.Get("https://" + m.Address + "/minio/health/ready")
		if err != nil {
			return false, nil
		}
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
}

// Client returns a client with the server's own keys.
func (m *Minio) Client(t testing.TB) *minio.Core {
	t.Helper()
	transport := m.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	client, err := minio.NewCore(m.Address, &minio.Options{
		Creds: credentials.NewStaticV4(Access, Secret, ""), Region: Region, Secure: true, Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Transport returns one that checks the server's certificate.
func (m *Minio) Transport() *http.Transport {
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM([]byte(m.Authority))
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}}
}

// Stop ends the server and removes its objects.
func (m *Minio) Stop() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
	}
	if m.identity != nil {
		m.identity.Close()
	}
	if m.dir != "" {
		os.RemoveAll(m.dir)
	}
}

// certify makes the server's certificate, which is its own authority.
func (m *Minio) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{Domain, "*." + Domain}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	m.Authority = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	return errors.Join(
		os.Mkdir(m.dir+"/certs", 0o700), os.WriteFile(m.dir+"/certs/public.crt", []byte(m.Authority), 0o600),
		os.WriteFile(m.dir+"/certs/private.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
	)
}
