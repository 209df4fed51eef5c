package journal

import (
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Span is the sequence numbers from From to To, both included.
type Span struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// Spans is a set of sequence numbers: ascending, disjoint, not adjacent.
type Spans []Span

// find returns the index of the first span that ends at n-1 or later.
func (s Spans) find(n uint64) int {
	i, _ := slices.BinarySearchFunc(s, n, func(sp Span, n uint64) int {
		if sp.To+1 < n {
			return -1
		}
		return 1
	})
	return i
}

// Contains says whether n is in the set.
func (s Spans) Contains(n uint64) bool {
	i := s.find(n)
	for ; i < len(s) && s[i].From <= n; i++ {
		if n <= s[i].To {
			return true
		}
	}
	return false
}

// Add returns the set with n in it; it may reuse s.
func (s Spans) Add(n uint64) Spans {
	i := s.find(n)
	if i == len(s) || n+1 < s[i].From {
		return slices.Insert(s, i, Span{n, n})
	}
	s[i].From = min(s[i].From, n)
	if n > s[i].To {
		s[i].To = n
		if i+1 < len(s) && s[i+1].From == n+1 {
			s[i].To = s[i+1].To
			s = slices.Delete(s, i+1, i+2)
		}
	}
	return s
}

// Minus returns what is in s and not in t.
func (s Spans) Minus(t Spans) Spans {
	var out Spans
	for _, sp := range s {
		from, open := sp.From, true
		for i := t.find(from); i < len(t) && t[i].From <= sp.To; i++ {
			if t[i].To < from {
				continue
			}
			if t[i].From > from {
				out = append(out, Span{from, t[i].From - 1})
			}
			if t[i].To >= sp.To {
				open = false
				break
			}
			from = t[i].To + 1
		}
		if open {
			out = append(out, Span{from, sp.To})
		}
	}
	return out
}

// Range is a span of one origin's events.
type Range struct {
	Origin cluster.NodeName `json:"origin"`
	Span
}

// Digest says what a journal holds, by origin. The origin of an event of
// another cluster is CLUSTER:NODE.
type Digest map[cluster.NodeName]Spans

// maxDigestSpans bounds the spans of one origin in a digest; older ones are
// left out.
const maxDigestSpans = 64

// Missing returns what theirs holds and d does not, the oldest first, at most
// limit events. It is the question to send to them.
func (d Digest) Missing(theirs Digest, limit uint64) []Range {
	var out []Range
	for _, origin := range slices.Sorted(maps.Keys(theirs)) {
		for _, sp := range theirs[origin].Minus(d[origin]) {
			if limit == 0 {
				return out
			}
			if sp.From == 0 || sp.To < sp.From {
				continue // nobody's numbers; theirs is not to be trusted blindly
			}
			if n := sp.To - sp.From + 1; n > limit {
				sp.To = sp.From + limit - 1
			}
			limit -= sp.To - sp.From + 1
			out = append(out, Range{origin, sp})
		}
	}
	return out
}

// Sum is a short value that is equal for equal digests, to be sent along
// where a whole digest is too much.
func (d Digest) Sum() uint64 {
	h := fnv.New64a()
	var buf []byte
	for _, origin := range slices.Sorted(maps.Keys(d)) {
		buf = append(append(buf[:0], origin...), 0)
		for _, sp := range d[origin] {
			buf = strconv.AppendUint(buf, sp.From, 10)
			buf = append(buf, '-')
			buf = strconv.AppendUint(buf, sp.To, 10)
			buf = append(buf, ' ')
		}
		h.Write(buf)
	}
	return h.Sum64()
}

// valid drops what is no set of numbers from a digest that came from outside.
func (d Digest) valid() Digest {
	out := make(Digest, len(d))
	for origin, spans := range d {
		var last uint64
		good := len(spans) > 0 && len(spans) <= maxDigestSpans
		for i, sp := range spans {
			good = good && sp.From > 0 && sp.From <= sp.To && sp.To < 1<<63 && (i == 0 || sp.From > last)
			last = sp.To
		}
		if good {
			out[origin] = spans
		}
	}
	return out
}
