package wire

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

var update = flag.Bool("update", false, "write what the codecs give as what the golden file wants")

func hello() Hello {
	return Hello{
		Protocol: 3, MinProtocol: 1, Version: "1.2.3", Session: 0x0102030405060708, Conn: 1, Conns: 4,
		Device: [16]byte{0: 0xa0, 15: 0xaf}, Node: "CLP-1", Peer: "CLP-2", Size: 256 << 20, Capacity: 300 << 20,
		BlockShift: 12, SectorSize: 512, Current: 0x1111222233334444, Base: 0x5555666677778888,
		Ancestors: []meta.Generation{0x5555666677778888, 1}, Dirty: 17, Epoch: 42,
		Active: true, Constructed: true, Since: 1262304000, Written: 1262307600,
	}
}

// payloads are an example of each payload that is more than blocks, as it is
// sent.
func payloads() map[string][]byte {
	return map[string][]byte{
		"hello":   hello().Encode(),
		"verdict": Verdict{CopyMarked, "the other copy lacks what was written since they parted"}.Encode(),
		"adopt":   Adopt{7, []meta.Generation{6, 5}}.Encode(),
		"bye":     Bye{"the disk is being stopped"}.Encode(),
		"sums":    AppendSums(nil, make([]byte, SumBlock+512)),
	}
}

// frames are an example of each kind on a device of 1 GiB.
func frames() []Frame {
	return []Frame{
		{Kind: KindHello, Seq: 1, Payload: 200},
		{Kind: KindVerdict, Epoch: 42, Seq: 2, Payload: 3},
		{Kind: KindBitmap, Flags: More, Epoch: 42, Seq: 3, Offset: 4096, Length: 1001, Payload: 126},
		{Kind: KindWrite, Flags: FUA | More, Epoch: 42, Seq: 4, Offset: 512, Length: 4096, Payload: 4096},
		{Kind: KindZero, Flags: FUA, Epoch: 42, Seq: 5, Length: 1 << 30},
		{Kind: KindDiscard, Epoch: 42, Seq: 6, Offset: 1 << 20, Length: 1 << 29},
		{Kind: KindFlush, Epoch: 42, Seq: 7},
		{Kind: KindAck, Code: 5, Epoch: 42, Seq: 7},
		{Kind: KindCopy, Flags: Compressed, Epoch: 42, Seq: 8, Offset: 1 << 20, Length: 1 << 20, Payload: 77},
		{Kind: KindCopyZero, Epoch: 42, Seq: 9, Offset: 1 << 20, Length: 1 << 20},
		{Kind: KindAdopt, Epoch: 42, Seq: 10, Payload: 25},
		{Kind: KindPing, Seq: math.MaxUint64},
		{Kind: KindPong, Seq: math.MaxUint64},
		{Kind: KindRead, Epoch: 42, Seq: 11, Offset: 1<<30 - 512, Length: 512},
		{Kind: KindData, Epoch: 42, Seq: 11, Offset: 1<<30 - 512, Length: 512, Payload: 512},
		{Kind: KindSum, Epoch: 42, Seq: 12, Length: 64 << 20},
		{Kind: KindSums, Epoch: 42, Seq: 12, Length: 1<<20 + 512, Payload: 257 * 8},
		{Kind: KindBye, Payload: 4096},
	}
}

// TestGolden: what this program sends, and must understand as long as it speaks
// that protocol.
func TestGolden(t *testing.T) {
	var out strings.Builder
	for _, f := range frames() {
		b := make([]byte, HeaderSize)
		f.Put(b)
		fmt.Fprintf(&out, "frame %s\n%s", f.Kind, hex.Dump(b))
	}
	for _, name := range []string{"hello", "verdict", "adopt", "bye", "sums"} {
		fmt.Fprintf(&out, "payload of %s\n%s", name, hex.Dump(payloads()[name]))
	}
	const path = "testdata/wire.hex"
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("what is sent has changed: raise Protocol and go on speaking the old one\n%s", d)
	}
}

func TestEveryKindArrives(t *testing.T) {
	seen := map[Kind]bool{}
	for _, f := range frames() {
		b := make([]byte, HeaderSize)
		f.Put(b)
		got, err := Parse(b, 1<<30)
		if err != nil || got != f {
			t.Errorf("%+v became %+v, %v", f, got, err)
		}
		seen[f.Kind] = true
	}
	for k := KindHello; k <= lastKind; k++ {
		if !seen[k] || k.String() == "" {
			t.Errorf("no example of kind %d %q", k, k)
		}
	}
}

// TestPutLeavesNothing: a buffer that was used before brings nothing along.
func TestPutLeavesNothing(t *testing.T) {
	b := []byte(strings.Repeat("x", HeaderSize+1))
	Frame{Kind: KindPing}.Put(b)
	if want := "Tm\x01\x0c" + strings.Repeat("\x00", HeaderSize-4) + "x"; string(b) != want {
		t.Errorf("%x", b)
	}
}

func TestRefusedFrames(t *testing.T) {
	const size = 1 << 30
	for name, f := range map[string]Frame{
		"no kind":                        {},
		"a kind past the last":           {Kind: lastKind + 1},
		"an unknown flag":                {Kind: KindWrite, Flags: 8, Length: 512, Payload: 512},
		"a durable read":                 {Kind: KindRead, Flags: FUA, Length: 512},
		"a compressed nothing":           {Kind: KindZero, Flags: Compressed, Length: 512},
		"a write that failed":            {Kind: KindWrite, Code: 5, Length: 512, Payload: 512},
		"a flush of a range":             {Kind: KindFlush, Length: 512},
		"a ping at an offset":            {Kind: KindPing, Offset: 512},
		"an ack at an offset":            {Kind: KindAck, Offset: 512},
		"an ack with a payload":          {Kind: KindAck, Payload: 1},
		"a write of nothing":             {Kind: KindWrite},
		"a write past 1 MiB":             {Kind: KindWrite, Length: MaxData + 512, Payload: MaxData + 512},
		"a read past 1 MiB":              {Kind: KindRead, Length: MaxData + 512},
		"sums past 64 MiB":               {Kind: KindSum, Length: MaxSum + 512},
		"a length of half a sector":      {Kind: KindZero, Length: 511},
		"an offset in a sector":          {Kind: KindZero, Offset: 1, Length: 512},
		"a negative offset":              {Kind: KindZero, Offset: -512, Length: 512},
		"an offset that would overflow":  {Kind: KindZero, Offset: math.MaxInt64 - 511, Length: 1 << 20},
		"past the end":                   {Kind: KindZero, Offset: size - 512, Length: 1024},
		"behind the end":                 {Kind: KindZero, Offset: size, Length: 512},
		"a bitmap behind the end":        {Kind: KindBitmap, Offset: size, Length: 8, Payload: 1},
		"a bitmap of too many blocks":    {Kind: KindBitmap, Length: MaxBits + 1, Payload: MaxPayload},
		"a bitmap with a byte missing":   {Kind: KindBitmap, Length: 9, Payload: 1},
		"a payload too short":            {Kind: KindWrite, Length: 1024, Payload: 512},
		"a payload too long":             {Kind: KindWrite, Length: 1024, Payload: 1025},
		"a compressed one of full size":  {Kind: KindCopy, Flags: Compressed, Length: 512, Payload: 512},
		"a compressed one of no size":    {Kind: KindCopy, Flags: Compressed, Length: 512},
		"sums with one missing":          {Kind: KindSums, Length: 8192, Payload: 8},
		"a zero with a payload":          {Kind: KindZero, Length: 512, Payload: 512},
		"a greeting without words":       {Kind: KindHello},
		"a greeting with too many words": {Kind: KindHello, Payload: MaxWords + 1},
		"a farewell about a range":       {Kind: KindBye, Length: 512, Payload: 4},
	} {
		t.Run(name, func(t *testing.T) {
			b := make([]byte, HeaderSize)
			f.Put(b)
			if got, err := Parse(b, size); !errors.Is(err, ErrFrame) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestRefusedHeaders(t *testing.T) {
	good := make([]byte, HeaderSize)
	Frame{Kind: KindRead, Length: 512}.Put(good)
	for name, tt := range map[string]struct {
		b    []byte
		size int64
		want string
	}{
		"short":                {good[:HeaderSize-1], 512, "a header of 47 bytes"},
		"out of step":          {append([]byte{0}, good...), 512, "a frame begins with 0x5400"},
		"version":              {slices.Replace(slices.Clone(good), atVersion, atVersion+1, 2), 512, "a frame of version 2, this program knows 1"},
		"before the greetings": {good, 0, "a read of 512 at 0 on a device of 0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tt.b, tt.size)
			if !errors.Is(err, ErrFrame) || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
		})
	}
	reserved := slices.Clone(good)
	reserved[5], reserved[40], reserved[47] = 1, 2, 3
	if f, err := Parse(reserved, 512); err != nil || f != (Frame{Kind: KindRead, Length: 512}) {
		t.Errorf("reserved bytes are ignored, not %+v, %v", f, err)
	}
}

func TestUnpacked(t *testing.T) {
	for _, f := range frames() {
		want := int(f.Payload)
		if f.Flags&Compressed != 0 {
			want = 1 << 20
		}
		if got := f.Unpacked(); got != want {
			t.Errorf("%s: %d bytes, want %d", f.Kind, got, want)
		}
	}
}

// drawFrame draws a good frame on a device of 1 GiB, or one in which a few
// numbers are not what they were.
func drawFrame(rt *rapid.T) Frame {
	f := rapid.SampledFrom(frames()).Draw(rt, "frame")
	size := rapid.SampledFrom([]uint32{0, 1, 511, 512, 4096, MaxData, MaxData + 512, MaxSum, MaxSpan, MaxSpan + 512, math.MaxUint32})
	for range rapid.IntRange(0, 2).Draw(rt, "changes") {
		switch rapid.IntRange(0, 4).Draw(rt, "change") {
		case 0:
			f.Kind = Kind(rapid.Uint8Range(0, uint8(lastKind)+1).Draw(rt, "kind"))
		case 1:
			f.Flags = Flags(rapid.Uint8Range(0, 8).Draw(rt, "flags"))
		case 2:
			f.Offset = int64(size.Draw(rt, "offset"))
		case 3:
			f.Length = size.Draw(rt, "length")
		case 4:
			f.Payload = size.Draw(rt, "payload")
		}
	}
	return f
}

// TestAcceptedFramesAreInBounds: whatever passes can be carried out without
// another look at its numbers.
func TestAcceptedFramesAreInBounds(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(rt *rapid.T) {
		f, size := drawFrame(rt), rapid.SampledFrom([]int64{0, 512, 1 << 30, 1 << 40}).Draw(rt, "size")
		b := make([]byte, HeaderSize)
		f.Put(b)
		got, err := Parse(b, size)
		if err != nil {
			return
		}
		accepted++
		inBounds(rt, got, size)
		if got != f {
			rt.Fatalf("%+v became %+v", f, got)
		}
	})
	if accepted == 0 {
		t.Error("none was accepted: the property says nothing")
	}
}

// inBounds fails unless the numbers of an accepted frame are as its reader
// expects.
func inBounds(t interface{ Fatalf(string, ...any) }, f Frame, size int64) {
	end := f.Offset + int64(f.Length)
	if f.Kind == KindBitmap {
		end = f.Offset + 1
	}
	switch {
	case f.Payload > MaxPayload, f.Unpacked() > MaxPayload, int(f.Payload) > f.Unpacked(),
		f.Flags&Compressed == 0 && int(f.Payload) != f.Unpacked():
		t.Fatalf("%+v has %d bytes, unpacked %d", f, f.Payload, f.Unpacked())
	case f.Offset < 0, end > size && f.Length > 0, f.Length > MaxSpan, f.Offset%512 != 0:
		t.Fatalf("%+v on a device of %d bytes", f, size)
	}
}

// TestHeadersCostNoMemory: both directions run once for each request of the
// kernel.
func TestHeadersCostNoMemory(t *testing.T) {
	b := make([]byte, HeaderSize)
	f := Frame{Kind: KindWrite, Flags: FUA, Offset: 4096, Length: 4096, Payload: 4096}
	if n := testing.AllocsPerRun(100, func() {
		f.Put(b)
		if _, err := Parse(b, 1<<20); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHeader(b *testing.B) {
	buf := make([]byte, HeaderSize)
	f := Frame{Kind: KindWrite, Flags: FUA, Offset: 4096, Length: 4096, Payload: 4096}
	for b.Loop() {
		f.Put(buf)
		if _, err := Parse(buf, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}
