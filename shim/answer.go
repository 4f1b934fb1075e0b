package shim

import (
	"bytes"

	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/internal/text"
)

// Images and pods choose names that errors repeat. An answer of more than 4 MiB, or one that is not UTF-8,
// would end the connection instead of reporting the error. containerd copies an answer to its log, to its
// events and, through the kubelet, to the cluster's events.
const (
	maxError = 4 << 10 // bytes of an error that containerd gets
	maxLine  = 8 << 10 // bytes of a line in the log
)

// answer gives an error the code that containerd understands, and bounds its text.
func answer(err error) error {
	if err == nil {
		return nil
	}
	err = errgrpc.ToGRPC(err)
	said, _ := status.FromError(err)
	message := text.Short(said.Message(), maxError)
	if message == said.Message() && proto.Size(said.Proto()) <= 2*maxError {
		return err
	}
	return status.Error(said.Code(), message)
}

// shortLines bounds the lines of a log.
type shortLines struct{ logrus.Formatter }

// Format formats an entry with the wrapped formatter and cuts the line at maxLine.
func (s shortLines) Format(entry *logrus.Entry) ([]byte, error) {
	line, err := s.Formatter.Format(entry)
	if err != nil || len(line) <= maxLine {
		return line, err
	}
	return append([]byte(text.Short(string(bytes.TrimSuffix(line, []byte("\n"))), maxLine)), '\n'), nil
}
