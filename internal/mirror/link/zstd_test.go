package link

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func newZstd(t testing.TB, limit int) *Zstd {
	t.Helper()
	z, err := NewZstd(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	return z
}

func TestZstd(t *testing.T) {
	z := newZstd(t, 1<<20)
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	mixed := append(make([]byte, 200<<10), noise[:800<<10]...) // 20 % zeroes
	little := append(make([]byte, 100<<10), noise[:900<<10]...)
	for name, c := range map[string]struct {
		data    []byte
		smaller bool
	}{
		"zeroes": {make([]byte, 1<<20), true}, "text": {bytes.Repeat([]byte("the same again "), 273), true},
		"noise": {noise, false}, "a fifth": {mixed, true}, "a tenth": {little, false}, "nothing": {nil, false}, "a sector": {make([]byte, 512), true},
	} {
		out, smaller := z.Compress(c.data)
		if len(c.data) > 0 && smaller != c.smaller {
			t.Errorf("%s: %d of %d bytes, %v", name, len(out), len(c.data), smaller)
		}
		if !smaller {
			if !bytes.Equal(out, c.data) {
				t.Errorf("%s: not the data itself", name)
			}
			continue
		}
		back := bytes.Repeat([]byte{0xaa}, len(c.data))
		if err := z.Decompress(back, out); err != nil || !bytes.Equal(back, c.data) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestZstdRefuses(t *testing.T) {
	z := newZstd(t, 1<<20)
	packed, _ := z.Compress(make([]byte, 64<<10))
	packed = bytes.Clone(packed)
	for name, c := range map[string]struct {
		into int
		data []byte
	}{
		"more than fits": {64<<10 - 512, packed}, "less than is wanted": {128 << 10, packed},
		"nothing": {512, nil}, "noise": {512, []byte("not zstd at all")}, "half of it": {64 << 10, packed[:len(packed)/2]},
	} {
		buf := bytes.Repeat([]byte{0xaa}, 1<<20)
		if err := z.Decompress(buf[:c.into:c.into], c.data); err == nil {
			t.Errorf("%s was taken", name)
		}
		if !bytes.Equal(buf[c.into:], bytes.Repeat([]byte{0xaa}, 1<<20-c.into)) {
			t.Errorf("%s was written past the end", name)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	z := newZstd(f, 64<<10)
	for _, n := range []int{512, 4096, 64 << 10} {
		p, _ := z.Compress(make([]byte, n))
		f.Add(bytes.Clone(p), n)
	}
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n < 0 || n > 64<<10 {
			return
		}
		into := make([]byte, n)
		_ = z.Decompress(into, data)
	})
}
