package watchdog

import (
	"os"
	"strconv"
	"time"
)

// marker returns a function that writes the mark, or takes it away, without
// waiting for the disk; the latest call counts. A disk that is slow or broken
// costs the mark, never the reset.
func marker(path string) func(near bool) {
	if path == "" {
		return func(bool) {}
	}
	began, wanted := monotonic(), make(chan bool, 1)
	go func() {
		for near := range wanted {
			if near {
				_ = writeMark(path, monotonic()-began)
			} else {
				_ = os.Remove(path)
			}
		}
	}()
	return func(near bool) {
		select {
		case <-wanted:
		default:
		}
		wanted <- near
	}
}

func writeMark(path string, stood time.Duration) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_SYNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(strconv.Itoa(int(stood/time.Second)) + "\n"); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
