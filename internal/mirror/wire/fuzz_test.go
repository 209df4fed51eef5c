package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzParse(f *testing.F) {
	for _, frame := range frames() {
		b := make([]byte, HeaderSize)
		frame.Put(b)
		f.Add(b, int64(1<<30))
	}
	f.Add([]byte("Tm"), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		frame, err := Parse(b, size)
		if err != nil {
			return
		}
		inBounds(t, frame, size)
		again := make([]byte, HeaderSize)
		frame.Put(again)
		if got, err := Parse(again, size); err != nil || got != frame {
			t.Fatalf("%+v became %+v, %v", frame, got, err)
		}
	})
}

// FuzzPayloads gives the same bytes to every decoder.
func FuzzPayloads(f *testing.F) {
	for _, b := range payloads() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		settled(t, b, DecodeHello)
		settled(t, b, DecodeVerdict)
		settled(t, b, DecodeAdopt)
		settled(t, b, DecodeBye)
	})
}

// settled fails unless what was decoded is the same after another journey.
func settled[T interface{ Encode() []byte }](t *testing.T, b []byte, decode func([]byte) (T, error)) {
	v, err := decode(b)
	if err != nil {
		return
	}
	again := v.Encode()
	if len(again) > len(b) || len(again) > MaxWords {
		t.Fatalf("%T of %d bytes has %d now", v, len(b), len(again))
	}
	got, err := decode(again)
	if d := cmp.Diff(v, got); err != nil || d != "" {
		t.Fatalf("%v\n%s", err, d)
	}
}
