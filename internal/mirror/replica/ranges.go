package replica

import (
	"cmp"
	"slices"
)

// span is bytes [from,to).
type span struct{ from, to int64 }

// spans is a set of ranges that is added to on every write and emptied by every
// flush, so both are cheap. It never holds more than maxSpans: what would be more
// is rounded out to extents, which is safe, because a range in it only says that
// the copies may differ there.
type spans []span

const maxSpans = 1 << 14

func (s *spans) add(from, to int64) {
	if n := len(*s); n > 0 {
		if last := &(*s)[n-1]; from <= last.to && to >= last.from {
			last.from, last.to = min(last.from, from), max(last.to, to)
			return
		}
	}
	if len(*s) == maxSpans {
		s.round()
	}
	*s = append(*s, span{from, to})
}

// round joins the ranges and rounds them out to extents, then to larger and
// larger units until half of the room is free.
func (s *spans) round() {
	for unit := int64(extentSize); len(*s) > maxSpans/2; unit *= 4 {
		for i := range *s {
			r := &(*s)[i]
			r.from, r.to = r.from/unit*unit, (r.to+unit-1)/unit*unit
		}
		slices.SortFunc(*s, func(a, b span) int { return cmp.Compare(a.from, b.from) })
		joined := (*s)[:1]
		for _, r := range (*s)[1:] {
			if last := &joined[len(joined)-1]; r.from <= last.to {
				last.to = max(last.to, r.to)
			} else {
				joined = append(joined, r)
			}
		}
		*s = joined
	}
}
