package testcluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"time"
)

// identity is a certificate that the cluster's authority signs. It identifies its holder to the API
// server.
type identity struct {
	name   string // of the files
	user   string
	groups []string
	server []string // names and addresses that it serves under; none for clients
}

var identities = []identity{
	{name: "apiserver", user: "kube-apiserver", server: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", apiIP, nodeIP}},
	{name: "apiserver-kubelet-client", user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
	{name: "kubelet-server", user: "system:node:" + nodeName, groups: []string{"system:nodes"}, server: []string{nodeName, nodeIP}},
	{name: "kubelet", user: "system:node:" + nodeName, groups: []string{"system:nodes"}},
	{name: "kube-controller-manager", user: "system:kube-controller-manager"},
	{name: "kube-scheduler", user: "system:kube-scheduler"},
	{name: "admin", user: "admin", groups: []string{"system:masters"}},
}

const authority = "ca"

// writeKeys makes the cluster's authority, all certificates and the key that signs service accounts.
func (l layout) writeKeys() error {
	if err := os.MkdirAll(l.pki(), 0o700); err != nil {
		return err
	}
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "testcluster"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caKey, err := l.issue(authority, ca, ca, nil)
	if err != nil {
		return err
	}
	for _, id := range identities {
		if _, err := l.issue(id.name, id.template(), ca, caKey); err != nil {
			return err
		}
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return l.writeKey("service-accounts", signer)
}

func (i identity) template() *x509.Certificate {
	c := &x509.Certificate{
		Subject:     pkix.Name{CommonName: i.user, Organization: i.groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, name := range i.server {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	return c
}

// issue writes a new key and its certificate, signed by the issuer, or self-signed if there is none.
func (l layout) issue(name string, template, issuer *x509.Certificate, issuerKey crypto.Signer) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if issuerKey == nil {
		issuerKey = key
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return nil, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().AddDate(1, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return key, errors.Join(os.WriteFile(l.cert(name), certificate, 0o644), l.writeKey(name, key))
}

func (l layout) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(l.key(name), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
