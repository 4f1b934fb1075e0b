// Package object reads objects of an S3 store by ranges, on demand, into a bounded cache.
//
// The ETag is pinned: each request has the header If-Match, and each answer is compared with what was pinned. An object
// that is replaced while it is read is an error ([ErrReplaced]), never a mixture of two versions.
//
// A read outside a sequence fetches only the blocks that it touches. A sequence of reads fetches ahead: as much as the
// sequence has read so far, up to a bound, in parallel ranges. Requests that fail are repeated with back-off, except
// where the answer is final.
//
// The package repeats requests itself. A [Bucket.Client] should have MaxRetries 1 in its options, or each failure takes
// minio-go's attempts times ours. Its transport should keep [Parallel] idle connections per host, and must not decompress.
//
// The package never writes to the store, opens no file, logs nothing, and keeps no state outside a [Cache].
package object
