package meta

import (
	"testing"

	"pgregory.net/rapid"
)

func TestLayout(t *testing.T) {
	const MiB, GiB, TiB = int64(1) << 20, int64(1) << 30, int64(1) << 40
	for name, tt := range map[string]struct {
		size   int64
		shift  uint8
		blocks int64
		pages  int64
	}{
		"a sector":            {512, 12, 1, 1},
		"1 GiB":               {GiB, 12, 1 << 18, 9},
		"256 GiB":             {256 * GiB, 12, 64 << 20, 2115},
		"a little more":       {256*GiB + 512, 13, 32<<20 + 1, 1058},
		"1 TiB":               {TiB, 14, 64 << 20, 2115},
		"half a block at end": {MiB + 512, 12, 257, 1},
		"1 EiB":               {1 << 60, MaxShift, 1 << 30, 33826},
	} {
		t.Run(name, func(t *testing.T) {
			l := LayoutOf(tt.size, ShiftFor(tt.size))
			if l.BlockShift != tt.shift || l.Blocks != tt.blocks || l.Pages != tt.pages || l.Total != 128<<10+4096*tt.pages {
				t.Errorf("%+v", l)
			}
		})
	}
}

// TestSmallMeta: 10 MiB, as a cluster partition of CLUSTERPRO has at least, are
// enough for whatever a new device has.
func TestSmallMeta(t *testing.T) {
	for shift := range 17 {
		size := int64(256<<30) << shift
		if _, err := LayoutFor(size, 10<<20); err != nil {
			t.Error(err)
		}
	}
	if got := MaxSize(10<<20, MinShift) >> 30; got != 306 {
		t.Errorf("one of 4 KiB blocks can grow to %d GiB", got)
	}
	_, err := LayoutFor(1<<30, 100<<10)
	want := "the meta device has 102400 bytes: a mirror disk of 1073741824 bytes needs 167936"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if _, err := LayoutFor(1<<30, 167936); err != nil {
		t.Error(err)
	}
	for _, size := range []int64{0, -512, 513, 1<<60 + 512} {
		if _, err := LayoutFor(size, 1<<40); err == nil {
			t.Errorf("a device of %d bytes", size)
		}
	}
}

// TestGrowth: MaxSize is the largest that fits, and the layout of any device is
// aligned and does not overlap.
func TestGrowth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		metaBytes := rapid.Int64Range(0, 1<<34).Draw(rt, "meta")
		shift := uint8(rapid.IntRange(MinShift, MaxShift).Draw(rt, "shift"))
		size := MaxSize(metaBytes, shift)
		if size == 0 {
			if PageOffset(1) <= metaBytes {
				rt.Fatal("there is room for a page")
			}
			return
		}
		if l := LayoutOf(size, shift); l.Total > metaBytes {
			rt.Fatalf("%d bytes need %d", size, l.Total)
		}
		if l := LayoutOf(size+512, shift); l.Total <= metaBytes && size+512 <= maxSize-BitsPerPage<<shift {
			rt.Fatalf("%d bytes fit as well", size+512)
		}
	})
}

func TestOffsets(t *testing.T) {
	type part struct{ from, size int64 }
	parts := []part{
		{SuperOffset(0), SuperSize}, {LogOffset(0), LogSize}, {SuperOffset(1), SuperSize}, {LogOffset(1), LogSize},
		{PageOffset(0), PageSize}, {PageOffset(1), PageSize},
	}
	end := int64(0)
	for i, p := range parts {
		if p.from%4096 != 0 || p.size%4096 != 0 || p.from < end {
			t.Errorf("part %d: %d bytes at %d, after %d", i, p.size, p.from, end)
		}
		end = p.from + p.size
	}
}

// TestAnExtentLiesInOnePage at every size of a block.
func TestAnExtentLiesInOnePage(t *testing.T) {
	for shift := MinShift; shift <= MaxShift; shift++ {
		for e := range int64(1000) {
			first, last := e<<ExtentShift>>shift, ((e+1)<<ExtentShift-1)>>shift
			if first/BitsPerPage != last/BitsPerPage {
				t.Fatalf("extent %d with blocks of 2^%d bytes", e, shift)
			}
		}
	}
}
