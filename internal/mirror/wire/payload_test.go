package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

func drawGenerations(rt *rapid.T) (list []meta.Generation) {
	for _, g := range rapid.SliceOfN(rapid.Uint64Min(1), 0, MaxAncestors).Draw(rt, "ancestors") {
		list = append(list, meta.Generation(g))
	}
	return list
}

func drawHello(rt *rapid.T) Hello {
	text := rapid.StringOfN(rapid.Rune(), 0, -1, MaxName)
	number := rapid.Int64Min(0)
	h := Hello{
		MinProtocol: rapid.Uint16Min(1).Draw(rt, "lowest"), Version: text.Draw(rt, "version"),
		Session: rapid.Uint64().Draw(rt, "session"), Conns: rapid.Uint8Range(0, MaxConns).Draw(rt, "conns"),
		Node: text.Draw(rt, "node"), Peer: text.Draw(rt, "peer"),
		Size: number.Draw(rt, "size") &^ 511, Capacity: number.Draw(rt, "capacity"),
		BlockShift: rapid.SampledFrom([]uint8{0, meta.MinShift, 20, meta.MaxShift}).Draw(rt, "shift"),
		SectorSize: rapid.SampledFrom([]uint16{0, 512, 4096}).Draw(rt, "sector"),
		Current:    meta.Generation(rapid.Uint64().Draw(rt, "current")), Base: meta.Generation(rapid.Uint64().Draw(rt, "base")),
		Ancestors: drawGenerations(rt), Dirty: number.Draw(rt, "dirty"), Epoch: rapid.Uint64().Draw(rt, "epoch"),
		Since: rapid.Int64().Draw(rt, "since"), Written: rapid.Int64().Draw(rt, "written"),
	}
	h.Protocol = rapid.Uint16Min(h.MinProtocol).Draw(rt, "highest")
	h.Conn = rapid.Uint8Range(0, h.Conns).Draw(rt, "conn")
	copy(h.Device[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "device"))
	for _, f := range h.flags() {
		*f = rapid.Bool().Draw(rt, "flag")
	}
	return h
}

// arrives fails unless a payload decodes to the value, with and without
// something that a later protocol adds, and fits into a frame.
func arrives[T any](rt *rapid.T, want T, b []byte, decode func([]byte) (T, error)) {
	if len(b) > MaxWords {
		rt.Fatalf("%d bytes", len(b))
	}
	for _, more := range [][]byte{nil, []byte("more")} {
		got, err := decode(append(slices.Clone(b), more...))
		if d := cmp.Diff(want, got); err != nil || d != "" {
			rt.Fatalf("with %q after it: %v\n%s", more, err, d)
		}
	}
	for n := range b {
		if _, err := decode(b[:n]); !errors.Is(err, ErrFrame) {
			rt.Fatalf("the first %d of %d bytes: %v", n, len(b), err)
		}
	}
}

func TestPayloadsArrive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringOfN(rapid.Rune(), 0, -1, 300).Draw(rt, "text")
		h := drawHello(rt)
		arrives(rt, h, h.Encode(), DecodeHello)
		v := Verdict{Decision(rapid.Uint8Range(1, uint8(lastDecision)).Draw(rt, "decision")), text}
		arrives(rt, v, v.Encode(), DecodeVerdict)
		a := Adopt{meta.Generation(rapid.Uint64Min(1).Draw(rt, "current")), drawGenerations(rt)}
		arrives(rt, a, a.Encode(), DecodeAdopt)
		arrives(rt, Bye{text}, Bye{text}.Encode(), DecodeBye)
	})
}

// TestLongIsCut: an error of any length can be told, in whole characters.
func TestLongIsCut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := string(rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(rt, "noise")) +
			strings.Repeat(rapid.SampledFrom([]string{"x", "é", "襷", "🎽"}).Draw(rt, "char"), 400)
		text += strings.Repeat("y", 1000)
		y, err := DecodeBye(Bye{text}.Encode())
		if err != nil || len(y.Text) > MaxText || len(y.Text) < MaxText-3 || !utf8.ValidString(y.Text) {
			rt.Fatalf("%d bytes, %v", len(y.Text), err)
		}
		h := hello()
		h.Node, h.Version = text, text
		h.Ancestors = make([]meta.Generation, 3*MaxAncestors)
		for i := range h.Ancestors {
			h.Ancestors[i] = meta.Generation(i + 1)
		}
		got, err := DecodeHello(h.Encode())
		if err != nil || len(got.Node) > MaxName || got.Peer != h.Peer || !slices.Equal(got.Ancestors, h.Ancestors[:MaxAncestors]) {
			rt.Fatalf("%+v, %v", got, err)
		}
	})
}

func TestRefusedPayloads(t *testing.T) {
	changed := func(f func(*Hello)) error {
		h := hello()
		f(&h)
		_, err := DecodeHello(h.Encode())
		return err
	}
	verdict := func(b []byte) error { _, err := DecodeVerdict(b); return err }
	adopt := func(b []byte) error { _, err := DecodeAdopt(b); return err }
	bye := func(b []byte) error { _, err := DecodeBye(b); return err }
	raw := func(at int, v byte) error {
		b := hello().Encode()
		b[at] = v
		_, err := DecodeHello(b)
		return err
	}
	atAncestors := 101
	for name, err := range map[string]error{
		"no verdict":                  verdict(nil),
		"no farewell":                 bye(nil),
		"no protocol":                 changed(func(h *Hello) { h.Protocol, h.MinProtocol = 0, 0 }),
		"protocols backwards":         changed(func(h *Hello) { h.Protocol, h.MinProtocol = 1, 2 }),
		"a negative size":             changed(func(h *Hello) { h.Size = -512 }),
		"half a sector":               changed(func(h *Hello) { h.Size = 1000 }),
		"a negative capacity":         changed(func(h *Hello) { h.Capacity = -1 }),
		"negative marks":              changed(func(h *Hello) { h.Dirty = -1 }),
		"small blocks":                changed(func(h *Hello) { h.BlockShift = meta.MinShift - 1 }),
		"large blocks":                changed(func(h *Hello) { h.BlockShift = meta.MaxShift + 1 }),
		"odd sectors":                 changed(func(h *Hello) { h.SectorSize = 520 }),
		"connection 5 of 4":           changed(func(h *Hello) { h.Conn = 5 }),
		"too many connections":        changed(func(h *Hello) { h.Conns = MaxConns + 1 }),
		"an ancestor 0":               changed(func(h *Hello) { h.Ancestors = []meta.Generation{0} }),
		"17 ancestors":                raw(atAncestors, MaxAncestors+1),
		"a name of 65 bytes":          raw(atAncestors+1+2*8, MaxName+1),
		"a name that is no text":      raw(atAncestors+1+2*8+1, 0xff),
		"no decision":                 verdict([]byte{0, 0, 0}),
		"an unknown decision":         verdict([]byte{byte(lastDecision) + 1, 0, 0}),
		"a text of 1001 bytes":        bye(append(binary.LittleEndian.AppendUint16(nil, MaxText+1), make([]byte, MaxText+1)...)),
		"a text that is none":         bye([]byte{1, 0, 0x80}),
		"adoption of nothing":         adopt(make([]byte, 9)),
		"adoption with ancestor 0":    adopt(Adopt{1, []meta.Generation{0}}.Encode()),
		"adoption with 17 ancestors":  adopt(slices.Concat(make([]byte, 7), []byte{1, MaxAncestors + 1}, bytes.Repeat([]byte{1}, 8*(MaxAncestors+1)))),
		"adoption, ancestors lacking": adopt([]byte{1, 0, 0, 0, 0, 0, 0, 0, 2, 1}),
	} {
		t.Run(name, func(t *testing.T) {
			if !errors.Is(err, ErrFrame) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestFlagsOfALaterProtocol are ignored: who sets one knows what the other side
// speaks.
func TestFlagsOfALaterProtocol(t *testing.T) {
	b := hello().Encode()
	b[7] |= 0x80
	h, err := DecodeHello(b)
	if d := cmp.Diff(hello(), h); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
}

func TestAgree(t *testing.T) {
	side := func(low, high uint16, node string) Hello {
		return Hello{MinProtocol: low, Protocol: high, Node: node, Version: node + ".0"}
	}
	for name, tt := range map[string]struct {
		mine, theirs Hello
		want         uint16
		err          string
	}{
		"the same":        {side(1, 1, "a"), side(1, 1, "b"), 1, ""},
		"mine is newer":   {side(1, 3, "a"), side(1, 2, "b"), 2, ""},
		"theirs is newer": {side(1, 2, "a"), side(2, 9, "b"), 2, ""},
		"mine is too old": {side(1, 2, "a"), side(3, 4, "b"), 0,
			`a (version "a.0") and b (version "b.0") speak no common protocol; upgrade tasuki on a`},
		"theirs is too old": {side(5, 6, "a"), side(3, 4, "b"), 0,
			`a (version "a.0") and b (version "b.0") speak no common protocol; upgrade tasuki on b`},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Agree(tt.mine, tt.theirs)
			if p != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("protocol %d, %v", p, err)
			}
		})
	}
}

func TestSums(t *testing.T) {
	data := bytes.Repeat([]byte("tasuki"), 2000) // 12,000 bytes: three blocks, the last one of 3,808
	before := AppendSums(nil, data)
	if len(before) != 3*SumSize {
		t.Fatalf("%d bytes", len(before))
	}
	data[2*SumBlock-1]++
	after := AppendSums([]byte("head"), data)
	if string(after[:4]) != "head" {
		t.Error("what was there is gone")
	}
	for i := range 3 {
		same := bytes.Equal(before[i*SumSize:(i+1)*SumSize], after[4+i*SumSize:][:SumSize])
		if same != (i != 1) {
			t.Errorf("block %d: the same is %v", i, same)
		}
	}
}

func TestNamesOfNumbers(t *testing.T) {
	for got, want := range map[string]string{
		KindCopyZero.String(): "copy-zero", Kind(200).String(): "kind 200", Kind(0).String(): "kind 0",
		CopyMarked.String(): "copy-marked", Refused.String(): "refused", Decision(99).String(): "decision 99",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
