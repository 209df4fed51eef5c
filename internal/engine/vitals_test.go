package engine

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

// When a heartbeat was sent can be read without taking it apart.
func TestBeatSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := someBeat(t)
		if sent, is := BeatSent(b.encode()); !is || sent != b.Sent {
			t.Fatal(is, sent, b.Sent)
		}
	})
	for _, no := range [][]byte{nil, []byte("no heartbeat"), protowire.AppendTag(nil, 5, protowire.VarintType), (&beat{Boot: "b"}).encode()} {
		if sent, is := BeatSent(no); is {
			t.Errorf("%q was sent at %d", no, sent)
		}
	}
}
