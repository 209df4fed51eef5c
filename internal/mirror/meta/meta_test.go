package meta

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write what the codecs give as what the golden files want")

var device = [16]byte{0x10, 0x21, 0x32, 0x43, 0x54, 0x65, 0x46, 0x87, 0x98, 0xa9, 0xba, 0xcb, 0xdc, 0xed, 0xfe, 0x0f}

func example() Super {
	return Super{
		Device: device, Serial: 7, Node: "CLP-1", Peer: "CLP-2",
		Size: 256 << 20, BlockShift: MinShift, Current: 0x1111222233334444, Base: 0x5555666677778888,
		Ancestors: []Generation{0x5555666677778888, 0x9999aaaabbbbcccc}, Epoch: 42,
		Active: true, Constructed: true, Shared: true, Since: 1262304000, Written: 1262307600,
	}
}

// dump is hex.Dump without the lines that are zero.
func dump(b []byte) string {
	var keep []string
	for i, line := range strings.Split(strings.TrimSpace(hex.Dump(b)), "\n") {
		if !blank(b[16*i : min(16*i+16, len(b))]) {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n") + "\n"
}

// undump is the reverse of dump.
func undump(t *testing.T, text string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	for line := range strings.Lines(text) {
		at, err := hex.DecodeString(line[:8])
		if err != nil {
			t.Fatal(err)
		}
		digits, err := hex.DecodeString(strings.ReplaceAll(line[9:59], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		copy(b[binary.BigEndian.Uint32(at):], digits)
	}
	return b
}

// golden compares a block with what is pinned, and returns what is pinned.
func golden(t *testing.T, name string, b []byte) []byte {
	t.Helper()
	path := "testdata/" + name + ".hex"
	if *update {
		if err := os.WriteFile(path, []byte(dump(b)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), dump(b)); d != "" {
		t.Errorf("the format has changed: raise Version and read the old one too\n%s", d)
	}
	return undump(t, string(want), len(b))
}

// TestGolden: what this program writes, and what it must read for ever.
func TestGolden(t *testing.T) {
	s, err := DecodeSuper(golden(t, "super", EncodeSuper(example(), 1)), 1)
	if d := cmp.Diff(example(), s); err != nil || d != "" {
		t.Errorf("superblock: %v\n%s", err, d)
	}
	extents := []uint32{3, 1, 0xfffffffe}
	got, serial, err := DecodeLog(device, golden(t, "log", EncodeLog(device, 9, 0, extents)), 0)
	if err != nil || serial != 9 || !slices.Equal(got, extents) {
		t.Errorf("activity log: %v, serial %d, %v", got, serial, err)
	}
	bits := append([]byte{0x05}, bytes.Repeat([]byte{0}, pageBytes-1)...)
	bits[pageBytes-1] = 0x80
	page, err := DecodePage(device, 2, golden(t, "page", EncodePage(device, 3, 2, bits)))
	if err != nil || !bytes.Equal(page, bits) {
		t.Errorf("page: %x, %v", page, err)
	}
}

// change returns a copy of a block with some bytes changed and a checksum that
// fits.
func change(b []byte, at int, to ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at:], to)
	binary.LittleEndian.PutUint64(b[atSum:], sum(b))
	return b
}

func TestWhatIsWrongWithABlock(t *testing.T) {
	good, log, page := EncodeSuper(example(), 0), EncodeLog(device, 1, 0, []uint32{5}), EncodePage(device, 1, 0, nil)
	flipped := slices.Clone(good)
	flipped[4000] ^= 1
	zeroed := slices.Clone(good)
	clear(zeroed[:512])
	zeroed[700] = 1
	half := append(change(good, atVersion, Version+1)[:512], flipped[512:]...)
	super := func(b []byte) error { _, err := DecodeSuper(b, 0); return err }
	logOf := func(b []byte) error { _, _, err := DecodeLog(device, b, 0); return err }
	pageOf := func(no int64, b []byte) error { _, err := DecodePage(device, no, b); return err }
	for name, tt := range map[string]struct{ err, want error }{
		"whole":                     {super(good), nil},
		"a bit flipped":             {super(flipped), ErrDamaged},
		"cut":                       {super(good[:4095]), ErrDamaged},
		"empty":                     {super(nil), ErrDamaged},
		"zeroes":                    {super(make([]byte, SuperSize)), ErrBlank},
		"zeroes at the begin":       {super(zeroed), ErrDamaged},
		"a file system":             {super(bytes.Repeat([]byte("XFSB"), 1024)), ErrForeign},
		"of the other slot":         {super(EncodeSuper(example(), 1)), ErrDamaged},
		"another kind":              {super(change(log[:4096], 0)), ErrDamaged},
		"only the kind is another":  {super(change(good, atKind, byte(kindPage))), ErrDamaged},
		"another length":            {super(change(good, atLength, 1)), ErrDamaged},
		"version 0":                 {super(change(good, atVersion, 0)), ErrDamaged},
		"a newer version":           {super(change(good, atVersion, Version+1)), ErrVersion},
		"a newer version, torn":     {super(half), ErrDamaged},
		"a new flag":                {super(change(good, atFlags, 1<<len(new(Super).flags()))), ErrVersion},
		"a new high flag":           {super(change(good, atFlags+3, 0x80)), ErrVersion},
		"no size":                   {super(change(good, atSize, make([]byte, 8)...)), ErrDamaged},
		"half a sector":             {super(change(good, atSize, 1)), ErrDamaged},
		"negative size":             {super(change(good, atSize+7, 0xff)), ErrDamaged},
		"tiny blocks":               {super(change(good, atShift, MinShift-1)), ErrDamaged},
		"huge blocks":               {super(change(good, atShift, MaxShift+1)), ErrDamaged},
		"17 ancestors":              {super(change(good, atCount, 17)), ErrDamaged},
		"an ancestor 0":             {super(change(good, atCount, 3)), ErrDamaged},
		"a long name":               {super(change(good, atNodeLen, 65)), ErrDamaged},
		"a long name of the peer":   {super(change(good, atPeerLen, 255)), ErrDamaged},
		"log":                       {logOf(log), nil},
		"log with too many":         {logOf(change(log, atExtentCount, 0xe1, 0x0f)), ErrDamaged},
		"log of another device":     {logOf(change(log, atDevice, 0)), ErrForeign},
		"log of a newer version":    {logOf(change(log, atVersion, 9)), ErrVersion},
		"log, blank":                {logOf(make([]byte, LogSize)), ErrBlank},
		"page":                      {pageOf(0, page), nil},
		"page in a wrong place":     {pageOf(1, page), ErrDamaged},
		"page of another device":    {pageOf(0, change(page, atDevice, 0)), ErrForeign},
		"page, blank":               {pageOf(0, make([]byte, PageSize)), ErrBlank},
		"page, something else's":    {pageOf(0, bytes.Repeat([]byte{7}, PageSize)), ErrForeign},
		"superblock instead of one": {pageOf(0, good), ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%v, want %v", tt.err, tt.want)
			}
		})
	}
}

// TestWhatIsNotKnownIsIgnored: reserved bytes are for what old readers may
// ignore.
func TestWhatIsNotKnownIsIgnored(t *testing.T) {
	b := EncodeSuper(example(), 0)
	for _, at := range []int{11, 56, 400, 4095} {
		b = change(b, at, 0xee)
	}
	s, err := DecodeSuper(b, 0)
	if d := cmp.Diff(example(), s); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
}

func TestNewest(t *testing.T) {
	at := func(serial uint64, slot int) []byte {
		s := example()
		s.Serial = serial
		return EncodeSuper(s, slot)
	}
	torn := slices.Clone(at(9, 0))
	torn[512] ^= 1
	otherDevice := example()
	otherDevice.Device[0]++
	otherData := example()
	otherData.Current++
	blank, newer := make([]byte, SuperSize), change(at(1, 1), atVersion, 2)
	for name, tt := range map[string]struct {
		a, b   []byte
		serial uint64
		slot   int
		err    error
	}{
		"the second":                          {at(3, 0), at(4, 1), 4, 1, nil},
		"the first":                           {at(5, 0), at(4, 1), 5, 0, nil},
		"the first torn":                      {torn, at(8, 1), 8, 1, nil},
		"the second torn":                     {at(8, 0), torn, 8, 0, nil},
		"only one was written":                {at(1, 0), blank, 1, 0, nil},
		"only the second":                     {blank, at(1, 1), 1, 1, nil},
		"the same twice":                      {at(4, 0), at(4, 1), 4, 0, nil},
		"a new device":                        {blank, blank, 0, 0, ErrBlank},
		"the very first torn":                 {torn, blank, 0, 0, ErrDamaged},
		"the very second torn":                {blank, torn, 0, 0, ErrDamaged},
		"both torn":                           {torn, torn, 0, 0, ErrDamaged},
		"a newer program was here":            {at(5, 0), newer, 0, 0, ErrVersion},
		"a newer program, and damage":         {torn, newer, 0, 0, ErrVersion},
		"something else beside ours":          {at(5, 0), bytes.Repeat([]byte{1}, SuperSize), 0, 0, ErrForeign},
		"two mirror disks":                    {at(5, 0), EncodeSuper(otherDevice, 1), 0, 0, ErrForeign},
		"the same number with different data": {at(7, 0), EncodeSuper(otherData, 1), 0, 0, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			s, slot, err := Newest(tt.a, tt.b)
			if s.Serial != tt.serial || slot != tt.slot || !errors.Is(err, tt.err) {
				t.Errorf("serial %d in slot %d, %v; want %d in %d, %v", s.Serial, slot, err, tt.serial, tt.slot, tt.err)
			}
		})
	}
}

func TestNewestLog(t *testing.T) {
	two, three := EncodeLog(device, 2, 0, []uint32{1}), EncodeLog(device, 3, 1, []uint32{1, 2})
	torn := slices.Clone(three)
	clear(torn[8192:])
	torn[8192] = 1
	blank, other := make([]byte, LogSize), change(three, atDevice, 0)
	for name, tt := range map[string]struct {
		a, b    []byte
		extents []uint32
		serial  uint64
		slot    int
		err     error
	}{
		"the newer":           {two, three, []uint32{1, 2}, 3, 1, nil},
		"the newer torn":      {two, torn, []uint32{1}, 2, 0, nil},
		"the first":           {two, blank, []uint32{1}, 2, 0, nil},
		"none yet":            {blank, blank, nil, 0, 0, ErrBlank},
		"the first torn":      {blank, torn, nil, 0, 0, ErrDamaged},
		"another mirror disk": {two, other, nil, 0, 0, ErrForeign},
		"twice the same":      {two, EncodeLog(device, 2, 1, []uint32{1}), []uint32{1}, 2, 0, nil},
		"twice the number":    {two, EncodeLog(device, 2, 1, []uint32{9}), nil, 0, 0, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			extents, serial, slot, err := NewestLog(device, tt.a, tt.b)
			if !slices.Equal(extents, tt.extents) || serial != tt.serial || slot != tt.slot || !errors.Is(err, tt.err) {
				t.Errorf("%v %d in slot %d, %v; want %v %d in %d, %v", extents, serial, slot, err, tt.extents, tt.serial, tt.slot, tt.err)
			}
		})
	}
}

// TestErrorsSpeakToPeople: what is wrong, and what to do where one can do
// something.
func TestErrorsSpeakToPeople(t *testing.T) {
	blank, foreign := make([]byte, SuperSize), bytes.Repeat([]byte{1}, SuperSize)
	for want, slots := range map[string][2][]byte{
		"the superblock is blank: nothing was written here yet": {blank, blank},
		"not of this mirror disk: something else stands where the superblock should be; " +
			"see what it is, and wipe the device if nobody needs it": {foreign, foreign},
		"written by a newer version: the superblock has format 2, this program knows 1; " +
			"install the newer version again": {change(EncodeSuper(example(), 0), atVersion, 2), blank},
	} {
		if _, _, err := Newest(slots[0], slots[1]); err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func TestAncestorsPastTheBoundAreForgotten(t *testing.T) {
	s := example()
	for i := range MaxAncestors + 3 {
		s.Ancestors = append(s.Ancestors, Generation(i+1))
	}
	got, err := DecodeSuper(EncodeSuper(s, 0), 0)
	if err != nil || !slices.Equal(got.Ancestors, s.Ancestors[:MaxAncestors]) {
		t.Errorf("%v, %v", got.Ancestors, err)
	}
}

func TestMisuseIsLoud(t *testing.T) {
	long := example()
	long.Node = strings.Repeat("n", MaxName+1)
	zero := example()
	zero.Ancestors = []Generation{0}
	for name, f := range map[string]func(){
		"a long name":       func() { EncodeSuper(long, 0) },
		"an empty ancestor": func() { EncodeSuper(zero, 0) },
		"nothing":           func() { EncodeSuper(Super{}, 0) },
		"a full log":        func() { EncodeLog(device, 1, 0, make([]uint32, LogCapacity+1)) },
		"a full page":       func() { EncodePage(device, 1, 0, make([]byte, BitsPerPage/8+1)) },
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

func TestGenerationForPeople(t *testing.T) {
	if got := fmt.Sprint(Generation(0), Generation(0xabc)); got != "none 0000000000000abc" {
		t.Error(got)
	}
}

func drawSuper(rt *rapid.T) Super {
	name := rapid.StringOfN(rapid.RuneFrom([]rune("abcZ019._-")), 0, MaxName, -1)
	s := Super{
		Device: device, Serial: rapid.Uint64().Draw(rt, "serial"),
		Node: name.Draw(rt, "node"), Peer: name.Draw(rt, "peer"),
		Size: 512 * rapid.Int64Range(1, maxSize/512).Draw(rt, "sectors"), BlockShift: uint8(rapid.IntRange(MinShift, MaxShift).Draw(rt, "shift")),
		Current: Generation(rapid.Uint64().Draw(rt, "current")), Base: Generation(rapid.Uint64().Draw(rt, "base")),
		Epoch: rapid.Uint64().Draw(rt, "epoch"), Since: rapid.Int64().Draw(rt, "since"), Written: rapid.Int64().Draw(rt, "written"),
	}
	for _, g := range rapid.SliceOfN(rapid.Uint64Min(1), 0, MaxAncestors).Draw(rt, "ancestors") {
		s.Ancestors = append(s.Ancestors, Generation(g))
	}
	for _, f := range s.flags() {
		*f = rapid.Bool().Draw(rt, "flag")
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		slot := rapid.IntRange(0, 1).Draw(rt, "slot")
		s := drawSuper(rt)
		got, err := DecodeSuper(EncodeSuper(s, slot), slot)
		if d := cmp.Diff(s, got); err != nil || d != "" {
			rt.Fatalf("superblock: %v\n%s", err, d)
		}
		serial := rapid.Uint64().Draw(rt, "serial")
		extents := rapid.SliceOfN(rapid.Uint32(), 0, LogCapacity).Draw(rt, "extents")
		e, n, err := DecodeLog(device, EncodeLog(device, serial, slot, extents), slot)
		if err != nil || n != serial || !slices.Equal(e, extents) {
			rt.Fatalf("log: %v, serial %d, %v", e, n, err)
		}
		no := rapid.Int64Range(0, 1<<40).Draw(rt, "page")
		bits := rapid.SliceOfN(rapid.Byte(), 0, BitsPerPage/8).Draw(rt, "bits")
		p, err := DecodePage(device, no, EncodePage(device, serial, no, bits))
		if err != nil || len(p) != BitsPerPage/8 || !bytes.HasPrefix(p, bits) || !blank(p[len(bits):]) {
			rt.Fatalf("page: %d bytes, %v", len(p), err)
		}
	})
}
