package bitmap

import (
	"testing"

	"pgregory.net/rapid"
)

// TestNothingIsForgotten keeps a copy of a bitmap by writing only the pages that
// have changed, as the meta device is kept: when none is left the copy is equal.
func TestNothingIsForgotten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		per := rapid.SampledFrom([]int64{1, 3, 8, 64, 128}).Draw(rt, "per")
		b := New(rapid.Int64Range(1, 500).Draw(rt, "blocks"))
		pages, disk := NewPages(b.Len(), per), New(b.Len())
		write := func(page int64) {
			from, to := pages.Blocks(page)
			pages.Take(page)
			disk.Clear(from, to)
			disk.OrBytes(from, b.Bytes(from, to-from))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				from, to := drawRange(rt, b.Len())
				b.Set(from, to)
				pages.Touch(from, to)
				if from < to && !pages.Changed(from, to) {
					rt.Fatal("touched, and not changed")
				}
			},
			"clear": func(rt *rapid.T) {
				from, to := drawRange(rt, b.Len())
				b.Clear(from, to)
				pages.Touch(from, to)
			},
			"write one": func(rt *rapid.T) {
				if page := pages.Next(rapid.Int64Range(0, pages.Len()).Draw(rt, "from")); page >= 0 {
					write(page)
					if pages.Changed(pages.Blocks(page)) {
						rt.Fatal("taken, and still changed")
					}
				}
			},
			"grow": func(rt *rapid.T) {
				n := b.Len() + rapid.Int64Range(0, 200).Draw(rt, "more")
				b.Grow(n)
				pages.Grow(n)
				disk.Grow(n)
			},
			"write all": func(rt *rapid.T) {
				for page := pages.Next(0); page >= 0; page = pages.Next(page) {
					write(page)
				}
				if !pages.Empty() || pages.Count() != 0 {
					rt.Fatalf("%d pages have changed after all were written", pages.Count())
				}
				if string(disk.Bytes(0, b.Len())) != string(b.Bytes(0, b.Len())) {
					rt.Fatal("the copy differs")
				}
			},
		})
	})
}

func TestPages(t *testing.T) {
	p := NewPages(100, 30)
	if p.Len() != 4 || !p.Empty() || p.Changed(0, 100) || p.Next(0) != -1 {
		t.Fatalf("new: %d pages, %d changed", p.Len(), p.Count())
	}
	p.Touch(29, 31)
	p.Touch(95, 95)
	if p.Count() != 2 || !p.Changed(0, 1) || !p.Changed(59, 60) || p.Changed(60, 100) {
		t.Errorf("two blocks on both sides of a border: %d pages changed", p.Count())
	}
	p.Take(0)
	if p.Next(0) != 1 || p.Changed(0, 30) {
		t.Errorf("next %d", p.Next(0))
	}
	if from, to := p.Blocks(3); from != 90 || to != 100 {
		t.Errorf("the last page has [%d,%d)", from, to)
	}
	p.Take(1)
	p.Grow(200)
	if p.Len() != 7 || p.Count() != 4 || p.Next(0) != 3 {
		t.Errorf("grown: %d of %d pages changed, the first is %d", p.Count(), p.Len(), p.Next(0))
	}
}
