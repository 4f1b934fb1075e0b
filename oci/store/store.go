// Package store is the only package that speaks to containerd about images. It finds an image's Wasm layers
// and their files, reads blobs and views files, keeps compiled code with an image, imports images, and
// watches for new ones.
//
// It uses gRPC, which costs each start of a program that imports it some milliseconds. The shim therefore
// never imports it, but runs the program wasm-client. The package never reads or changes containerd's files
// directly.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	content "github.com/containerd/containerd/api/services/content/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	snapshots "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// namespaceHeader carries the namespace of a request (containerd, pkg/namespaces).
const namespaceHeader = "containerd-namespace"

// maxMessage is containerd's own limit for a message, in bytes (defaults/defaults.go).
const maxMessage = 16 << 20

// Store is one namespace of a containerd.
type Store struct {
	conn          *grpc.ClientConn
	namespace     string
	containers    containers.ContainersClient
	content       content.ContentClient
	images        images.ImagesClient
	introspection introspection.IntrospectionClient
	snapshots     snapshots.SnapshotsClient
}

// Connect prepares a connection to containerd's socket, a path, for requests about one of its namespaces. The
// first request opens the connection.
func Connect(address, namespace string) (*Store, error) {
	conn, err := grpc.NewClient("unix:"+strings.TrimPrefix(address, "unix://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(in(ctx, namespace), method, request, reply, c, options...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(in(ctx, namespace), d, c, method, options...)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", address, err)
	}
	return &Store{
		conn:          conn,
		namespace:     namespace,
		containers:    containers.NewContainersClient(conn),
		content:       content.NewContentClient(conn),
		images:        images.NewImagesClient(conn),
		introspection: introspection.NewIntrospectionClient(conn),
		snapshots:     snapshots.NewSnapshotsClient(conn),
	}, nil
}

// Close closes the connection.
func (s *Store) Close() error { return s.conn.Close() }

// in returns a context whose requests concern a namespace of containerd.
func in(ctx context.Context, namespace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, namespaceHeader, namespace)
}

func notFound(err error) bool { return status.Code(err) == codes.NotFound }

// explain removes gRPC's own words from an error, because they mean nothing to its reader.
func explain(err error) error {
	s, ok := status.FromError(err)
	switch {
	case !ok:
		return err
	case s.Code() == codes.Unavailable:
		return fmt.Errorf("containerd does not answer: %s", s.Message())
	case s.Code() == codes.DeadlineExceeded:
		return errors.New("containerd does not answer in time")
	}
	return errors.New(s.Message())
}
