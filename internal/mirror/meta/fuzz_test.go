package meta

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fit makes a block of that size from what the fuzzer gave. Nothing gets past a
// checksum by chance, so it is put right if seal is odd, and the magic too.
func fit(data []byte, size int, seal uint8) []byte {
	b := make([]byte, size)
	copy(b, data)
	if seal&1 == 1 {
		copy(b, magic)
		binary.LittleEndian.PutUint64(b[atSum:], sum(b))
	}
	return b
}

func FuzzDecodeSuper(f *testing.F) {
	f.Add(EncodeSuper(example(), 0)[:400], uint8(1))
	f.Add(EncodeSuper(example(), 0)[:400], uint8(0))
	f.Add([]byte(magic), uint8(1))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, seal uint8) {
		_, _ = DecodeSuper(data, 0)
		s, err := DecodeSuper(fit(data, SuperSize, seal), 0)
		if err != nil {
			return
		}
		again, err := DecodeSuper(EncodeSuper(s, 0), 0)
		if d := cmp.Diff(s, again); err != nil || d != "" {
			t.Fatalf("%v\n%s", err, d)
		}
	})
}

func FuzzNewest(f *testing.F) {
	s := example()
	f.Add(EncodeSuper(s, 0)[:400], EncodeSuper(s, 1)[:400], uint8(3))
	s.Serial++
	f.Add(EncodeSuper(example(), 0)[:400], EncodeSuper(s, 1)[:400], uint8(3))
	f.Add([]byte{}, EncodeSuper(s, 1)[:400], uint8(2))
	f.Fuzz(func(t *testing.T, a, b []byte, seal uint8) {
		a, b = fit(a, SuperSize, seal), fit(b, SuperSize, seal>>1)
		s, slot, err := Newest(a, b)
		if err != nil {
			return
		}
		other, otherErr := DecodeSuper([][]byte{b, a}[slot], 1-slot)
		if own, err := DecodeSuper([][]byte{a, b}[slot], slot); err != nil || !cmp.Equal(own, s) {
			t.Fatalf("slot %d has %+v (%v), not %+v", slot, own, err, s)
		}
		if otherErr == nil && (other.Serial > s.Serial || other.Device != s.Device) {
			t.Fatalf("%+v beside %+v", s, other)
		}
	})
}

func FuzzDecodeLog(f *testing.F) {
	f.Add(EncodeLog(device, 1, 0, []uint32{1, 2, 3})[:200], uint8(1))
	f.Add(EncodeLog(device, 1, 0, nil)[:200], uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, seal uint8) {
		_, _, _ = DecodeLog(device, data, 0)
		extents, serial, err := DecodeLog(device, fit(data, LogSize, seal), 0)
		if err != nil {
			return
		}
		if len(extents) > LogCapacity {
			t.Fatalf("%d extents", len(extents))
		}
		again, n, err := DecodeLog(device, EncodeLog(device, serial, 0, extents), 0)
		if err != nil || n != serial || !slices.Equal(extents, again) {
			t.Fatalf("%v, serial %d instead of %d", err, n, serial)
		}
	})
}

func FuzzDecodePage(f *testing.F) {
	f.Add(EncodePage(device, 1, 0, []byte{1, 2, 3})[:200], uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, seal uint8) {
		_, _ = DecodePage(device, 0, data)
		bits, err := DecodePage(device, 0, fit(data, PageSize, seal))
		if err != nil {
			return
		}
		again, err := DecodePage(device, 0, EncodePage(device, 5, 0, bits))
		if err != nil || !slices.Equal(bits, again) {
			t.Fatalf("%v", err)
		}
	})
}
