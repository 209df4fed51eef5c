package meta

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// tear returns what a power cut in the middle of a write leaves: each sector is
// the old or the new one. Mostly the first sectors are the new ones, or the last
// ones; disks that write out of order leave any mix.
func tear(rt *rapid.T, old, new []byte) []byte {
	const sector = 512
	n := len(new) / sector
	from := rapid.IntRange(0, n).Draw(rt, "from")
	to := rapid.IntRange(from, n).Draw(rt, "to")
	mix := rapid.IntRange(0, 3).Draw(rt, "mix") == 0
	out := slices.Clone(old)
	for i := range n {
		fresh := i >= from && i < to
		if mix {
			fresh = rapid.Bool().Draw(rt, "fresh")
		}
		if fresh {
			copy(out[sector*i:sector*(i+1)], new[sector*i:])
		}
	}
	return out
}

// TestTornSuper: the slot that was being written holds the old superblock, the
// new one, or an error; both slots together give the newest that was complete,
// or the one that was being written.
func TestTornSuper(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		older, newest, next := drawSuper(rt), drawSuper(rt), drawSuper(rt)
		older.Serial, newest.Serial, next.Serial = 7, 8, 9
		old, new := EncodeSuper(older, 0), EncodeSuper(next, 0)
		if rapid.Bool().Draw(rt, "new device") {
			old = make([]byte, SuperSize)
		}
		torn := tear(rt, old, new)
		s, err := DecodeSuper(torn, 0)
		switch {
		case err != nil:
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrBlank) {
				rt.Fatal(err)
			}
		case !cmp.Equal(s, older) && !cmp.Equal(s, next):
			rt.Fatalf("a third one: %+v", s)
		}
		got, slot, err := Newest(torn, EncodeSuper(newest, 1))
		if err != nil || slot == 1 && !cmp.Equal(got, newest) || slot == 0 && !cmp.Equal(got, next) {
			rt.Fatalf("slot %d: %+v, %v", slot, got, err)
		}
	})
}

// TestTornLog: the same of the activity log, of 32 sectors.
func TestTornLog(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		draw := func() []uint32 {
			return rapid.SliceOfN(rapid.Uint32(), 0, rapid.SampledFrom([]int{3, 200, LogCapacity}).Draw(rt, "most")).Draw(rt, "extents")
		}
		older, newest, next := draw(), draw(), draw()
		old, new := EncodeLog(device, 7, 1, older), EncodeLog(device, 9, 1, next)
		if rapid.Bool().Draw(rt, "new device") {
			old = make([]byte, LogSize)
		}
		torn := tear(rt, old, new)
		e, n, err := DecodeLog(device, torn, 1)
		switch {
		case err != nil:
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrBlank) {
				rt.Fatal(err)
			}
		case !(n == 7 && slices.Equal(e, older)) && !(n == 9 && slices.Equal(e, next)):
			rt.Fatalf("a third one: %d extents, serial %d", len(e), n)
		}
		e, n, slot, err := NewestLog(device, EncodeLog(device, 8, 0, newest), torn)
		if err != nil || slot == 0 && (n != 8 || !slices.Equal(e, newest)) || slot == 1 && (n != 9 || !slices.Equal(e, next)) {
			rt.Fatalf("slot %d, serial %d: %d extents, %v", slot, n, len(e), err)
		}
	})
}

// TestTornPage: a page has one place; it is the old, the new, or damaged.
func TestTornPage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		draw := func() []byte {
			bits := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "bits")
			return slices.Concat(bits, make([]byte, pageBytes-2*len(bits)), bits)
		}
		older, next := draw(), draw()
		torn := tear(rt, EncodePage(device, 1, 4, older), EncodePage(device, 2, 4, next))
		bits, err := DecodePage(device, 4, torn)
		if err != nil && !errors.Is(err, ErrDamaged) || err == nil && !bytes.Equal(bits, older) && !bytes.Equal(bits, next) {
			rt.Fatalf("%v, %x", err, bits)
		}
	})
}

// TestFlippedBit: whichever bit of a block changes, it is found out.
func TestFlippedBit(t *testing.T) {
	b := EncodeSuper(example(), 0)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := DecodeSuper(b, 0); err == nil {
				t.Fatalf("bit %d of byte %d", bit, i)
			}
			b[i] ^= 1 << bit
		}
	}
}
