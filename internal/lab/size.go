package lab

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written with its unit, as in 256MiB.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// UnmarshalText reads a whole number with its unit: KiB, MiB or GiB.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(string(text), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err == nil && n >= 0 && Size(n) <= math.MaxInt64/u.bytes {
			*s = Size(n) * u.bytes
			return nil
		}
	}
	return fmt.Errorf("%q is no size: write a whole number and KiB, MiB or GiB, as in 256MiB", text)
}

// MarshalText writes it in the largest unit that leaves a whole number.
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range sizeUnits {
		if s%u.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", s/u.bytes, u.name), nil
		}
	}
	return nil, fmt.Errorf("a size of %d bytes is no multiple of 1 KiB", s)
}
