package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// size is a number of bytes, written as "256MiB" or 1048576. Units such as "MB" are refused, because some
// people mean powers of 1000 and others of 1024.
type size int64

var units = []struct {
	suffix string
	shift  uint
}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	number, shift := string(text), uint(0)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, shift = strings.TrimSpace(rest), u.shift
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is no size; write a number of bytes or one with KiB, MiB, GiB or TiB, such as \"256MiB\"", text)
	}
	*s = size(n << shift)
	return nil
}

// duration is a time span as Go writes it: "120s", "2m".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration; write one such as \"120s\" or \"2m\"", text)
	}
	*d = duration(v)
	return nil
}
