package store

import (
	"context"
	"fmt"

	events "github.com/containerd/containerd/api/events"
	service "github.com/containerd/containerd/api/services/events/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
)

// Watch calls saw with the name of each image in the namespace, and then with the name of each image that is
// created or updated, until the context or containerd ends. It always returns an error.
func (s *Store) Watch(ctx context.Context, saw func(image string) error) error {
	filter := fmt.Sprintf("namespace==%q,topic~=%q", s.namespace, "^/images/(create|update)$")
	stream, err := service.NewEventsClient(s.conn).Subscribe(ctx, &service.SubscribeRequest{Filters: []string{filter}})
	if err != nil {
		return fmt.Errorf("watch containerd's images: %w", explain(err))
	}
	present, err := s.images.List(ctx, &images.ListImagesRequest{})
	if err != nil {
		return fmt.Errorf("list containerd's images: %w", explain(err))
	}
	for _, image := range present.Images {
		if err := saw(image.Name); err != nil {
			return err
		}
	}
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("watch containerd's images: %w", explain(err))
		}
		image, err := imageOf(envelope)
		if err != nil {
			return err
		}
		if err := saw(image); err != nil {
			return err
		}
	}
}

func imageOf(e *types.Envelope) (string, error) {
	var create events.ImageCreate
	var update events.ImageUpdate
	message, name := proto.Message(&create), create.GetName
	if e.Topic == "/images/update" {
		message, name = &update, update.GetName
	}
	if err := proto.Unmarshal(e.Event.GetValue(), message); err != nil {
		return "", fmt.Errorf("decode containerd's event %s: %w", e.Topic, err)
	}
	return name(), nil
}
