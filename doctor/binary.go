package doctor

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// shimVersion asks the shim as containerd does.
func shimVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	output, err := exec.CommandContext(ctx, path, "-v").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(output))
	}
	for line := range strings.Lines(string(output)) {
		if version, found := strings.CutPrefix(strings.TrimSpace(line), "Version:"); found {
			return strings.TrimSpace(version), nil
		}
	}
	return "", fmt.Errorf("it says no version: %s", bytes.TrimSpace(output))
}
