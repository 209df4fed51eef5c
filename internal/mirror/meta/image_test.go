package meta

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
)

// TestNoMarkIsLost keeps a bitmap on a meta device that tears pages and writes
// them to wrong places: what is read back has every mark, and none in pages that
// are whole but those that were there.
func TestNoMarkIsLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := LayoutOf(512*rapid.Int64Range(1, 3<<20).Draw(rt, "sectors"), MinShift)
		image := make([]byte, l.Total)
		page := func(no int64) []byte { return image[PageOffset(no):][:PageSize] }
		b := bitmap.New(l.Blocks)
		for range rapid.IntRange(0, 5).Draw(rt, "marks") {
			from := rapid.Int64Range(0, l.Blocks).Draw(rt, "from")
			b.Set(from, rapid.Int64Range(from, min(from+3*BitsPerPage, l.Blocks)).Draw(rt, "to"))
		}
		for no := range l.Pages {
			copy(page(no), EncodePage(device, 1, no, b.Bytes(no*BitsPerPage, BitsPerPage)))
		}
		damaged := bitmap.New(l.Pages)
		for range rapid.IntRange(0, 3).Draw(rt, "faults") {
			no, other := rapid.Int64Range(0, l.Pages-1).Draw(rt, "page"), rapid.Int64Range(0, l.Pages-1).Draw(rt, "other")
			if old := page(no); no == other {
				copy(old, tear(rt, old, EncodePage(device, 2, no, []byte{0xff})))
			} else {
				copy(old, page(other))
			}
		}
		got := bitmap.New(l.Blocks)
		for no := range l.Pages {
			bits, err := DecodePage(device, no, page(no))
			if errors.Is(err, ErrDamaged) {
				damaged.Set(no, no+1)
				got.Set(no*BitsPerPage, min((no+1)*BitsPerPage, l.Blocks))
			} else if err != nil {
				rt.Fatal(err)
			}
			got.OrBytes(no*BitsPerPage, bits)
		}
		for at := b.Next(0); at >= 0; at = b.Next(at + 1) {
			if !got.Get(at) && !newPage(page(at/BitsPerPage)) {
				rt.Fatalf("the mark of block %d is lost", at)
			}
		}
		for at := got.Next(0); at >= 0; at = got.Next(at + 1) {
			if no := at / BitsPerPage; !b.Get(at) && !damaged.Get(no) && !newPage(page(no)) {
				rt.Fatalf("block %d was not marked", at)
			}
		}
	})
}

// newPage says whether the page is one that was written later.
func newPage(b []byte) bool { return b[atSerial] == 2 }
