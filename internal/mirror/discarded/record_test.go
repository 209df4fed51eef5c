package discarded

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

func sampleRecord() Record {
	return Record{
		Kind: Snapshot, Made: time.Unix(1767348000, 0), Source: "/dev/vg/md", Target: "vg/md.discarded-20260102T100000Z", Count: 0,
		Super: meta.Super{Device: [16]byte{1, 2, 3}, Node: "a", Peer: "b", Size: 1 << 20, BlockShift: 12, Current: 7, Base: 5, Ancestors: []meta.Generation{6, 5}, Since: 1767340000},
	}
}

// sameRecord compares all but the way from a second to a time.
var sameRecord = cmp.Options{cmp.AllowUnexported(Record{}), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })}

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	r := sampleRecord()
	got, err := Decode(r.Encode())
	if err != nil || !cmp.Equal(got, r, sameRecord) {
		t.Errorf("%v\n%s", err, cmp.Diff(r, got, sameRecord))
	}
}

// reseal gives a record that was changed a good checksum.
func reseal(b []byte) {
	clear(b[atSum : atSum+8])
	binary.LittleEndian.PutUint64(b[atSum:], xxhash.Sum64(b[:headerSize]))
}

func TestRecordsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   error
	}{
		"nothing":                 {func([]byte) []byte { return nil }, ErrDamaged},
		"too short":               {func(b []byte) []byte { return b[:recordSize-1] }, ErrDamaged},
		"another file":            {func(b []byte) []byte { copy(b, "ELF"); return b }, ErrDamaged},
		"a flipped bit":           {func(b []byte) []byte { b[atSource] ^= 1; return b }, ErrDamaged},
		"a newer format":          {func(b []byte) []byte { b[atVersion] = 2; reseal(b); return b }, ErrVersion},
		"a flag of a newer one":   {func(b []byte) []byte { b[atFlags] = 2; reseal(b); return b }, ErrVersion},
		"no kind":                 {func(b []byte) []byte { b[atKind] = 0; reseal(b); return b }, ErrDamaged},
		"a path past its end":     {func(b []byte) []byte { b[atTargetLen+1] = 5; reseal(b); return b }, ErrDamaged},
		"more blocks than it has": {func(b []byte) []byte { b[atCount+1] = 2; reseal(b); return b }, ErrDamaged},
		"a damaged superblock":    {func(b []byte) []byte { b[headerSize+72] ^= 1; return b }, meta.ErrDamaged},
	} {
		r := sampleRecord()
		if _, err := Decode(c.change(r.Encode())); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := sampleRecord()
	r.Source = strings.Repeat("x", maxPath+1)
	if r.Check() == nil {
		t.Error("a path that does not fit is not refused")
	}
}

func FuzzDecode(f *testing.F) {
	r := sampleRecord()
	whole := Record{Kind: Blocks, Whole: true, Made: r.Made, Source: "/data.img", Super: r.Super}
	some := Record{Kind: Blocks, Made: r.Made, Source: "/data.img", Super: r.Super, Count: 3, mapSum: 9}
	for _, x := range []Record{r, whole, some} {
		f.Add(x.Encode()[:200], true)
	}
	f.Add([]byte(magic), false)
	super := r.Encode()[headerSize:] // which has a fuzz test of its own
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		_, _ = Decode(data)
		b := make([]byte, headerSize, recordSize)
		copy(b, data)
		if seal {
			copy(b, magic)
			reseal(b)
		}
		got, err := Decode(append(b, super...))
		if err != nil {
			return
		}
		if got.Check() != nil || got.dataAt() < recordSize || got.mapSize() < 0 || got.Count > got.blocks() {
			t.Fatalf("%+v", got)
		}
		again, err := Decode(got.Encode())
		if err != nil || !cmp.Equal(got, again, sameRecord) {
			t.Fatalf("%v\n%s", err, cmp.Diff(got, again, sameRecord))
		}
	})
}
