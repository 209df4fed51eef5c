package replica

import (
	"fmt"
	"slices"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// Relation is how the other copy stands to this one.
type Relation uint8

// The relations, as the active copy sees them.
const (
	Equal      Relation = iota // nothing differs
	Behind                     // it lacks what is marked on either side
	Foreign                    // it lacks everything: it is new, or nobody knows what differs
	Ahead                      // it descends from this copy and has what this one lacks
	Forked                     // both were written apart from each other
	BothActive                 // it is active too
	Unfit                      // it cannot be a copy of this device
)

// String returns its name in lower case.
func (r Relation) String() string {
	return [...]string{"equal", "behind", "foreign", "ahead", "forked", "both active", "unfit"}[r]
}

// History is what a comparison needs to know of one copy.
type History struct {
	Current, Base meta.Generation
	Ancestors     []meta.Generation // newest first
	Marked        bool              // some block may differ, or it is the target of a copy that has not ended
}

// since says whether g is the base of this copy or one of the generations that
// came after it: from then on its marks have everything.
func (h History) since(g meta.Generation) bool {
	if g == 0 {
		return false
	}
	for _, a := range append([]meta.Generation{h.Current}, h.Ancestors...) {
		if a == g {
			return true
		}
		if a == h.Base {
			return false
		}
	}
	return false
}

// descends says whether g is an ancestor.
func (h History) descends(g meta.Generation) bool { return slices.Contains(h.Ancestors, g) }

// Compare tells how the other copy stands to this one, and why in words.
func Compare(self, other History) (Relation, string) {
	switch {
	case other.Current == 0:
		return Foreign, "the other copy is new"
	case self.Current == other.Current && !self.Marked && !other.Marked:
		return Equal, "nothing differs"
	case self.Current == other.Current || self.descends(other.Current):
		if self.since(other.Current) {
			return Behind, "the other copy lacks what was written since they parted"
		}
		return Foreign, "the other copy is too old to know what it lacks"
	case other.descends(self.Current):
		return Ahead, "the other copy goes on from this one and has what it lacks"
	}
	return Forked, "both copies were written apart from each other"
}

// historyOf reads a greeting.
func historyOf(h *wire.Hello) History {
	return History{Current: h.Current, Base: h.Base, Ancestors: h.Ancestors, Marked: h.Dirty > 0 || h.Inconsistent}
}

// compare is Compare with what else is in the greeting.
func (c *Core) compare(h *wire.Hello) (Relation, string) {
	switch {
	case h.Active:
		return BothActive, "the other copy is active too"
	case h.Failed && !c.retry:
		return Unfit, "the disk of the other copy has failed"
	case h.Capacity < c.sup.Size:
		return Unfit, fmt.Sprintf("the device of the other copy has %d bytes, and %d are needed", h.Capacity, c.sup.Size)
	case h.SectorSize > c.opt.SectorSize:
		return Unfit, fmt.Sprintf("the device of the other copy has sectors of %d bytes, larger than those here (%d)", h.SectorSize, c.opt.SectorSize)
	case h.Constructed && h.Device != c.sup.Device && h.Since == 0:
		return Foreign, "the other copy was made, and nobody agreed on it"
	case h.Constructed && h.Device != c.sup.Device && c.opt.Victim != Peer:
		return Forked, "the other copy is one of another mirror disk, or was made anew"
	case h.Constructed && h.BlockShift != c.sup.BlockShift && h.Device == c.sup.Device:
		return Foreign, "the other copy counts in blocks of another size"
	}
	return Compare(c.history(), historyOf(h))
}

func (c *Core) history() History {
	return History{Current: c.sup.Current, Base: c.sup.Base, Ancestors: c.sup.Ancestors, Marked: c.marked()}
}
