package bitmap

import "fmt"

// Pages is which pages of bits have changed since they were written. The bits of
// a fixed number of blocks, per, share a page; page 0 has those from block 0 on.
// Create it with NewPages.
type Pages struct {
	changed *Bitmap
	per     int64
	blocks  int64
}

// NewPages returns the pages for so many blocks; none has changed.
func NewPages(blocks, per int64) *Pages {
	if per < 1 {
		panic(fmt.Sprintf("bitmap: %d bits in a page", per))
	}
	return &Pages{changed: New((blocks + per - 1) / per), per: per, blocks: blocks}
}

// Len returns the number of pages.
func (p *Pages) Len() int64 { return p.changed.Len() }

// Count returns how many pages have changed.
func (p *Pages) Count() int64 { return p.changed.Count() }

// Empty says whether none has changed.
func (p *Pages) Empty() bool { return p.changed.Empty() }

// Touch notes that bits of the blocks [from,to) have changed.
func (p *Pages) Touch(from, to int64) {
	if first, end := p.span(from, to); first < end {
		p.changed.Set(first, end)
	}
}

// Changed says whether a page of the blocks [from,to) has changed.
func (p *Pages) Changed(from, to int64) bool {
	return p.changed.Any(p.span(from, to))
}

// Next returns the first page at or after page that has changed, -1 if there is
// none.
func (p *Pages) Next(page int64) int64 { return p.changed.Next(page) }

// Take notes that a page is being written as it is now. What is touched from now
// on is a new change.
func (p *Pages) Take(page int64) { p.changed.Clear(page, page+1) }

// Blocks returns the blocks of a page as [from,to).
func (p *Pages) Blocks(page int64) (from, to int64) {
	p.changed.check(page, page+1)
	return page * p.per, min((page+1)*p.per, p.blocks)
}

// Grow makes room for more blocks. What was the last page has changed if it has
// more blocks now, and so have the new ones.
func (p *Pages) Grow(blocks int64) {
	old := p.blocks
	p.changed.Grow((blocks + p.per - 1) / p.per)
	p.blocks = blocks
	p.Touch(old, blocks)
}

// span returns the pages that have bits of the blocks [from,to).
func (p *Pages) span(from, to int64) (first, end int64) {
	if from < 0 || from > to || to > p.blocks {
		panic(fmt.Sprintf("bitmap: no blocks [%d,%d) among %d", from, to, p.blocks))
	}
	if from == to {
		return 0, 0
	}
	return from / p.per, (to-1)/p.per + 1
}
