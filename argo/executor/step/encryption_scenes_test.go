package step_test

import (
	"strings"
	"testing"

	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// customerKey is a user's own, of which a key for each object is made.
const customerKey = "a secret that is no key yet"

// encrypted returns a template whose store encrypts.
func encrypted(options, template string) string {
	return strings.ReplaceAll(template, `"insecure":true`, `"caSecret":{"name":"s3","key":"ca"},"encryptionOptions":{"enableEncryption":true`+options+`}`)
}

const byCustomer = `,"serverSideCustomerKeySecret":{"name":"s3","key":"customer"}`

func byStore(string, string) encrypt.ServerSide { return encrypt.NewSSE() }

func byKMS(string, string) encrypt.ServerSide {
	e, err := encrypt.NewSSEKMS(tests3.KMSKey, nil)
	if err != nil {
		panic(err)
	}
	return e
}

func byKeyOf(secret string) encryption {
	return func(bucket, key string) encrypt.ServerSide {
		return encrypt.DefaultPBKDF([]byte(secret), []byte(bucket+key))
	}
}

// withCustomerKey puts the key into the secret.
func withCustomerKey(w *world) { w.write("argo/secret/s3/customer", customerKey) }

// storesEncrypted checks a small and a large output and a folder.
func storesEncrypted(header string) func(*testing.T, outcome) {
	return both(exits(0, ""), stores("wf-1/pod-1/a.tgz", header), stores("wf-1/pod-1/x", header), stores("wf-1/pod-1/d/b.txt", header))
}

// outputs are of a container that has left a small and a large output and a folder.
var (
	encryptedOutputs = outputArtifacts(output("/tmp/a", "") + `,{"name":"d","path":"/vol/d","archive":{"none":{}}},{"name":"x","path":"/vol/x","archive":{"none":{}}}`)
	leftOutputs      = ended(left("/tmp/a", tarFile("a", "x")), onVolume, func(w *world) { w.write("mainctrfs/vol/x", large) }, withCustomerKey)
	encryptedInputs  = withInputs("", inS3("k"), inS3("d"), inS3("t.tgz"))
	putInputs        = func(w *world) {
		withCustomerKey(w)
		objects(map[string]string{"k": "hello", "d/x": "first", "d/y/z": "second", "t.tgz": tgz(tarFile("a", "packed"))})(w)
	}
	loadsInputs = holds(0, map[string]string{
		inputsDir + "/a": `-rw------- "hello"`, inputsDir + "/b/x": `-rw------- "first"`, inputsDir + "/b/y/z": `-rw------- "second"`, inputsDir + "/c": `-rw-r--r-- "packed"`,
	})
)

var encryptionScenes = []scene{
	{
		name: "outputs by the store's key", encrypted: byStore, prepare: leftOutputs, template: encrypted("", encryptedOutputs),
		check: storesEncrypted("X-Amz-Server-Side-Encryption[AES256]"),
	},
	{
		name: "outputs by a key of a KMS", encrypted: byKMS, prepare: leftOutputs, template: encrypted(`,"kmsKeyId":"`+tests3.KMSKey+`"`, encryptedOutputs),
		check: storesEncrypted("X-Amz-Server-Side-Encryption[aws:kms]"),
	},
	{
		name: "outputs by a customer's key", encrypted: byKeyOf(customerKey), prepare: leftOutputs, template: encrypted(byCustomer, encryptedOutputs),
		check: storesEncrypted("X-Amz-Server-Side-Encryption-Customer-Algorithm[AES256]"),
	},
	{
		name: "outputs by a key that the KMS does not have", encrypted: byStore, prepare: leftOutputs, template: encrypted(`,"kmsKeyId":"none"`, outputArtifacts(output("/tmp/a", ""))),
		check: both(exits(64, "failed to put file: "), storesNothing),
	},
	{
		name: "inputs by a key of a KMS", verb: "init", encrypted: byKMS, prepare: putInputs, template: encrypted(`,"kmsKeyId":"`+tests3.KMSKey+`"`, encryptedInputs),
		check: loadsInputs,
	},
	{
		name: "inputs by a customer's key", verb: "init", encrypted: byKeyOf(customerKey), prepare: putInputs, template: encrypted(byCustomer, encryptedInputs),
		check: loadsInputs,
	},
	{
		name: "input by another customer's key", verb: "init", encrypted: byKeyOf("another"), prepare: putInputs, template: encrypted(byCustomer, withInputs("", inS3("k"))),
		check: exits(64, "failed to get file: "),
	},
	{
		name: "input by a customer's key that is not given", verb: "init", encrypted: byKeyOf(customerKey), prepare: putInputs, template: encrypted("", withInputs("", inS3("k"))),
		check: exits(64, "failed to get file: "),
	},
}
