package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

// MaxText bounds the text of Verdict and Bye, in bytes of UTF-8.
const MaxText = 1000

// Decision is what the active copy makes of both greetings.
type Decision uint8

// The decisions. After one of the last four nothing is copied.
const (
	Equal      Decision = iota + 1 // nothing differs
	CopyMarked                     // the standby gets what either side has marked, and sends its bitmap
	CopyAll                        // the standby gets everything
	Split                          // split brain: an operator has to name the victim
	Ahead                          // the standby has what the active copy lacks
	Paused                         // an operator said so
	Refused                        // it cannot be a copy of this device

	lastDecision = Refused
)

// String returns its name in lower case.
func (d Decision) String() string {
	if d > lastDecision {
		return fmt.Sprintf("decision %d", uint8(d))
	}
	return [...]string{"none", "equal", "copy-marked", "copy-all", "split", "ahead", "paused", "refused"}[d]
}

// Verdict is the payload of KindVerdict.
type Verdict struct {
	Decision Decision
	Text     string // why, for people; at most MaxText bytes of UTF-8
}

// Encode returns the payload, at most MaxWords bytes. A longer text is cut.
func (v Verdict) Encode() []byte { return appendText([]byte{byte(v.Decision)}, v.Text) }

// DecodeVerdict reads a payload. What follows the last part is ignored; a
// decision that is not known is an error.
func DecodeVerdict(b []byte) (Verdict, error) {
	r := reader{b: b}
	v := Verdict{Decision: Decision(r.uint8()), Text: r.longText()}
	if r.bad == "" && (v.Decision == 0 || v.Decision > lastDecision) {
		r.bad = v.Decision.String()
	}
	if r.bad != "" {
		return Verdict{}, fmt.Errorf("%w: a verdict with %s", ErrFrame, r.bad)
	}
	return v, nil
}

// Adopt is the payload of KindAdopt: which data the standby holds from now on.
type Adopt struct {
	Current   meta.Generation   // not 0
	Ancestors []meta.Generation // newest first, none of them 0, at most MaxAncestors
}

// Encode returns the payload, at most MaxWords bytes. Ancestors past the bound
// are left out.
func (a Adopt) Encode() []byte {
	return appendGenerations(binary.LittleEndian.AppendUint64(nil, uint64(a.Current)), a.Ancestors)
}

// DecodeAdopt reads a payload. What follows the last part is ignored.
func DecodeAdopt(b []byte) (Adopt, error) {
	r := reader{b: b}
	a := Adopt{Current: meta.Generation(r.uint64()), Ancestors: r.generations()}
	if r.bad == "" && a.Current == 0 {
		r.bad = "no generation"
	}
	if r.bad != "" {
		return Adopt{}, fmt.Errorf("%w: an adoption with %s", ErrFrame, r.bad)
	}
	return a, nil
}

// Bye is the payload of KindBye.
type Bye struct {
	Text string // why, for people; at most MaxText bytes of UTF-8
}

// Encode returns the payload, at most MaxWords bytes. A longer text is cut.
func (y Bye) Encode() []byte { return appendText(nil, y.Text) }

// DecodeBye reads a payload. What follows the last part is ignored.
func DecodeBye(b []byte) (Bye, error) {
	r := reader{b: b}
	y := Bye{Text: r.longText()}
	if r.bad != "" {
		return Bye{}, fmt.Errorf("%w: a farewell with %s", ErrFrame, r.bad)
	}
	return y, nil
}

// The payload of KindSums.
const (
	SumBlock = 4096 // bytes that a checksum stands for, from the begin of the range; the last one may be of fewer
	SumSize  = 8
)

// AppendSums appends to b the xxhash64 of each SumBlock of data. They find what
// bugs and disks do; blocks with equal sums can be made on purpose.
func AppendSums(b, data []byte) []byte {
	for len(data) > 0 {
		n := min(len(data), SumBlock)
		b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64(data[:n]))
		data = data[n:]
	}
	return b
}

// cut returns at most limit bytes of a text as valid UTF-8, without half a
// character at the end.
func cut(s string, limit int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return s
}

// appendString appends a text of at most limit bytes, up to 255, after its
// length.
func appendString(b []byte, s string, limit int) []byte {
	s = cut(s, limit)
	return append(append(b, byte(len(s))), s...)
}

// appendText appends a text of at most MaxText bytes after its length.
func appendText(b []byte, s string) []byte {
	s = cut(s, MaxText)
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendGenerations(b []byte, list []meta.Generation) []byte {
	list = list[:min(len(list), MaxAncestors)]
	b = append(b, byte(len(list)))
	for _, g := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(g))
	}
	return b
}

// reader takes a payload apart. After the first thing that is wrong it returns
// zeroes, and bad says what that was.
type reader struct {
	b   []byte
	bad string
}

func (r *reader) take(n int) []byte {
	if r.bad == "" && n > len(r.b) {
		r.bad = "too few bytes"
	}
	if r.bad != "" {
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint8() uint8   { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

func (r *reader) text(limit int) string { return r.string(int(r.uint8()), limit) }
func (r *reader) longText() string      { return r.string(int(r.uint16()), MaxText) }

func (r *reader) string(n, limit int) string {
	if r.bad == "" && n > limit {
		r.bad = fmt.Sprintf("a text of %d bytes", n)
	}
	if r.bad != "" {
		return ""
	}
	s := string(r.take(n))
	if r.bad == "" && !utf8.ValidString(s) {
		r.bad = "a text that is no UTF-8"
	}
	return s
}

func (r *reader) generations() []meta.Generation {
	n := int(r.uint8())
	if r.bad == "" && n > MaxAncestors {
		r.bad = fmt.Sprintf("%d ancestors", n)
	}
	if r.bad != "" {
		return nil
	}
	var list []meta.Generation
	for range n {
		g := meta.Generation(r.uint64())
		if g == 0 && r.bad == "" {
			r.bad = "an ancestor without a number"
		}
		list = append(list, g)
	}
	return list
}
