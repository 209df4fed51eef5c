package bitmap

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// model is a bitmap as anybody would write it.
type model struct {
	set map[int64]bool
	len int64
}

func (m *model) count(from, to int64) (n int64) {
	for i := from; i < to; i++ {
		if m.set[i] {
			n++
		}
	}
	return n
}

func (m *model) put(from, to int64, v bool) {
	for i := from; i < to; i++ {
		if v {
			m.set[i] = true
		} else {
			delete(m.set, i)
		}
	}
}

// next returns the first block at or after from that is as v says; len if none
// is.
func (m *model) next(from int64, v bool) int64 {
	for ; from < m.len && m.set[from] != v; from++ {
	}
	return from
}

// draw draws a bitmap, short or of many words, and its model.
func draw(rt *rapid.T) (*Bitmap, *model) {
	m := &model{map[int64]bool{}, rapid.SampledFrom([]int64{0, 1, 63, 64, 65, 127, 128, 129, 700}).Draw(rt, "len")}
	return New(m.len), m
}

func drawRange(rt *rapid.T, n int64) (from, to int64) {
	from = rapid.Int64Range(0, n).Draw(rt, "from")
	return from, rapid.Int64Range(from, n).Draw(rt, "to")
}

// TestModel does the same to a bitmap and to a map, and asks both.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, m := draw(rt)
		other, o := New(m.len), &model{map[int64]bool{}, m.len}
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				from, to := drawRange(rt, m.len)
				b.Set(from, to)
				m.put(from, to, true)
			},
			"clear": func(rt *rapid.T) {
				from, to := drawRange(rt, m.len)
				b.Clear(from, to)
				m.put(from, to, false)
			},
			"or": func(rt *rapid.T) {
				from, to := drawRange(rt, m.len)
				other.Set(from, to)
				o.put(from, to, true)
				b.Or(other)
				for i := range o.set {
					m.set[i] = true
				}
			},
			"or bytes": func(rt *rapid.T) {
				from := rapid.Int64Range(0, m.len+70).Draw(rt, "from")
				p := rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(rt, "bytes")
				b.OrBytes(from, p)
				for i := range int64(len(p)) * 8 {
					if p[i/8]>>(i%8)&1 == 1 && from+i < m.len {
						m.set[from+i] = true
					}
				}
			},
			"grow": func(rt *rapid.T) {
				m.len += rapid.Int64Range(0, 130).Draw(rt, "more")
				o.len = m.len
				b.Grow(m.len)
				other.Grow(m.len)
			},
			"reset": func(*rapid.T) {
				b.Reset()
				clear(m.set)
			},
			"": func(rt *rapid.T) { compare(rt, b, m) },
		})
	})
}

// compare asks a bitmap and its model the same.
func compare(rt *rapid.T, b *Bitmap, m *model) {
	if b.Len() != m.len || b.Count() != int64(len(m.set)) || b.Empty() != (len(m.set) == 0) {
		rt.Fatalf("%d of %d set, empty %v; want %d of %d", b.Count(), b.Len(), b.Empty(), len(m.set), m.len)
	}
	for i := range m.len {
		if b.Get(i) != m.set[i] {
			rt.Fatalf("block %d is %v", i, b.Get(i))
		}
	}
	from, to := drawRange(rt, m.len)
	n := m.count(from, to)
	if b.Any(from, to) != (n > 0) || b.All(from, to) != (n == to-from) {
		rt.Fatalf("%d blocks of [%d,%d) are set: any %v, all %v", n, from, to, b.Any(from, to), b.All(from, to))
	}
	at, limit := rapid.Int64Range(0, m.len+5).Draw(rt, "at"), rapid.Int64Range(1, 200).Draw(rt, "limit")
	start, end := m.next(at, true), int64(-1)
	if start >= m.len {
		start = -1
	} else {
		end = min(m.next(start, false), start+limit)
	}
	if s, e := b.NextRun(at, limit); s != start || e != end || b.Next(at) != start {
		rt.Fatalf("from %d, at most %d: run [%d,%d), next %d; want [%d,%d)", at, limit, s, e, b.Next(at), start, end)
	}
	width := rapid.Int64Range(0, 200).Draw(rt, "width")
	want := make([]byte, (width+7)/8)
	for i := range width {
		if m.set[at+i] {
			want[i/8] |= 1 << (i % 8)
		}
	}
	if got := b.Bytes(at, width); !bytes.Equal(got, want) {
		rt.Fatalf("%d bits from %d on: %x, want %x", width, at, got, want)
	}
}

// TestBytesTravel: what Bytes gives in pieces makes the same bitmap elsewhere.
func TestBytesTravel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, _ := draw(rt)
		for range 3 {
			b.Set(drawRange(rt, b.Len()))
		}
		piece := 8 * rapid.Int64Range(1, 40).Draw(rt, "bytes of a piece")
		got := New(b.Len())
		for at := int64(0); at < b.Len(); at += piece {
			got.OrBytes(at, b.Bytes(at, piece))
		}
		if !bytes.Equal(got.Bytes(0, b.Len()), b.Bytes(0, b.Len())) || got.Count() != b.Count() {
			rt.Fatalf("%d blocks arrived of %d", got.Count(), b.Count())
		}
	})
}

func TestMisuseIsLoud(t *testing.T) {
	b := New(100)
	for name, f := range map[string]func(){
		"set past the end":       func() { b.Set(90, 101) },
		"clear before the begin": func() { b.Clear(-1, 3) },
		"a range backwards":      func() { b.Any(7, 6) },
		"all past the end":       func() { b.All(0, 128) },
		"get past the end":       func() { b.Get(100) },
		"or of another length":   func() { b.Or(New(101)) },
		"shrink":                 func() { b.Grow(99) },
		"runs of nothing":        func() { b.NextRun(0, 0) },
		"pages without bits":     func() { NewPages(1, 0) },
		"touch past the end":     func() { NewPages(100, 10).Touch(0, 101) },
		"a page past the end":    func() { NewPages(100, 10).Take(10) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

// BenchmarkSweep looks for the one marked block at the end of 256 GiB.
func BenchmarkSweep(b *testing.B) {
	m := New(64 << 20)
	m.Set(m.Len()-1, m.Len())
	for b.Loop() {
		if m.Next(0) != m.Len()-1 {
			b.Fatal("not found")
		}
	}
}

// BenchmarkMark is what a write of 4 KiB to 1 MiB costs: set and clear of its
// blocks.
func BenchmarkMark(b *testing.B) {
	m := New(64 << 20)
	for _, n := range []int64{1, 256} {
		b.Run(map[int64]string{1: "4K", 256: "1M"}[n], func(b *testing.B) {
			at := int64(0)
			for b.Loop() {
				m.Set(at, at+n)
				m.Clear(at, at+n)
				at = (at + 12345*n) % (m.Len() - n)
			}
		})
	}
}

// BenchmarkOr joins two bitmaps of 256 GiB.
func BenchmarkOr(b *testing.B) {
	m, o := New(64<<20), New(64<<20)
	o.Set(0, o.Len()/2)
	for b.Loop() {
		m.Or(o)
	}
}
