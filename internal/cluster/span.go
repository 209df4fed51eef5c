package cluster

import (
	"fmt"
	"time"
)

// Span shows a time without the units that are zero: 10m, 24h, 1h30m.
func Span(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if n := len(s) - len(zero); n > 0 && s[n:] == zero {
			s = s[:n+1]
		}
	}
	return s
}

// Ago says how long ago something was.
func Ago(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%s ago", d.Truncate(time.Second))
	case d < 48*time.Hour:
		return fmt.Sprintf("%s ago", Span(d.Truncate(time.Minute)))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}
