package nbd

import (
	"fmt"
	"io"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
)

// One connection, with a device that does nothing but copy: what the server costs,
// and its client here.
func BenchmarkRequests(b *testing.B) {
	for _, tt := range []struct {
		name    string
		command uint16
		length  uint32
		deep    int
	}{
		{"write", cmdWrite, 4096, 1}, {"write", cmdWrite, 4096, 16}, {"read", cmdRead, 4096, 16},
		{"write", cmdWrite, mib, 4}, {"read", cmdRead, mib, 4},
	} {
		b.Run(fmt.Sprintf("%s %dx%d", tt.name, tt.length, tt.deep), func(b *testing.B) {
			o := offered(b, fronttest.New(64*mib, 512))
			c := o.ready(b)
			data, back := []byte(nil), replySize
			if tt.command == cmdWrite {
				data = make([]byte, tt.length)
			} else {
				back += int(tt.length)
			}
			message := bytesOf(uint32(requestMagic), uint16(0), tt.command, uint64(1), uint64(0), tt.length, data)
			room := make(chan struct{}, tt.deep)
			go func() {
				for range b.N {
					room <- struct{}{}
					_, _ = c.Write(message)
				}
			}()
			answer := make([]byte, back)
			b.SetBytes(int64(tt.length))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := io.ReadFull(c, answer); err != nil {
					b.Fatal(err)
				}
				<-room
			}
		})
	}
}
