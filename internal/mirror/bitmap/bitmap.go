// Package bitmap is which blocks of a device differ: one bit for each block, and
// which pages of such bits have changed since they were written. Both are plain
// values for one goroutine at a time.
package bitmap

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

const wordBits = 64

// Bitmap has one bit for each block. Create it with New.
//
// Ranges of blocks are [from,to) with 0 <= from <= to <= Len. A method panics
// when given another one: to ignore it could mean to lose a mark.
type Bitmap struct {
	words []uint64 // bits past the last block are 0
	len   int64
	count int64
}

// New returns a bitmap for so many blocks, all bits clear.
func New(blocks int64) *Bitmap {
	b := &Bitmap{}
	b.Grow(blocks)
	return b
}

// Len returns the number of blocks.
func (b *Bitmap) Len() int64 { return b.len }

// Count returns how many bits are set. It costs nothing.
func (b *Bitmap) Count() int64 { return b.count }

// Empty says whether no bit is set. It costs nothing.
func (b *Bitmap) Empty() bool { return b.count == 0 }

// Get says whether the bit of block i, 0 <= i < Len, is set.
func (b *Bitmap) Get(i int64) bool {
	b.check(i, i+1)
	return b.words[i/wordBits]>>(i%wordBits)&1 == 1
}

// Set sets the bits of a range.
func (b *Bitmap) Set(from, to int64) {
	b.check(from, to)
	for i := from / wordBits; i*wordBits < to; i++ {
		w, m := b.words[i], mask(i, from, to)
		b.count += int64(bits.OnesCount64(m &^ w))
		b.words[i] = w | m
	}
}

// Clear clears the bits of a range.
func (b *Bitmap) Clear(from, to int64) {
	b.check(from, to)
	for i := from / wordBits; i*wordBits < to; i++ {
		w, m := b.words[i], mask(i, from, to)
		b.count -= int64(bits.OnesCount64(m & w))
		b.words[i] = w &^ m
	}
}

// Any says whether a bit of the range is set. It is false of an empty one.
func (b *Bitmap) Any(from, to int64) bool {
	b.check(from, to)
	for i := from / wordBits; i*wordBits < to; i++ {
		if b.words[i]&mask(i, from, to) != 0 {
			return true
		}
	}
	return false
}

// All says whether every bit of the range is set. It is true of an empty one.
func (b *Bitmap) All(from, to int64) bool {
	b.check(from, to)
	for i := from / wordBits; i*wordBits < to; i++ {
		if ^b.words[i]&mask(i, from, to) != 0 {
			return false
		}
	}
	return true
}

// Next returns the first set bit at or after from, -1 if there is none. from may
// be Len or more.
func (b *Bitmap) Next(from int64) int64 {
	if from >= b.len || b.count == 0 {
		return -1
	}
	return b.next(from, 0)
}

// NextRun returns the first run of set bits at or after from, [start,end), at
// most limit long, which is at least 1. start and end are -1 if there is none.
// from may be Len or more.
func (b *Bitmap) NextRun(from, limit int64) (start, end int64) {
	if limit < 1 {
		panic(fmt.Sprintf("bitmap: a run of at most %d blocks", limit))
	}
	if start = b.Next(from); start < 0 {
		return -1, -1
	}
	end = b.len
	if b.len-start > limit {
		end = start + limit
	}
	if b.All(start, end) {
		return start, end
	}
	return start, b.next(start, ^uint64(0))
}

// next returns the first bit at or after from, which lies within, that is set
// once the words are xored with flip; -1 if there is none.
func (b *Bitmap) next(from int64, flip uint64) int64 {
	i := from / wordBits
	w := (b.words[i] ^ flip) & mask(i, from, b.len)
	for w == 0 {
		if i++; i == int64(len(b.words)) {
			return -1
		}
		w = b.words[i] ^ flip
	}
	return i*wordBits + int64(bits.TrailingZeros64(w))
}

// Or sets every bit that is set in o, which is as long.
func (b *Bitmap) Or(o *Bitmap) {
	if o.len != b.len {
		panic(fmt.Sprintf("bitmap: %d blocks joined to %d", o.len, b.len))
	}
	if o.count == 0 {
		return
	}
	for i, w := range o.words {
		b.or(i, w)
	}
}

// Reset clears all bits.
func (b *Bitmap) Reset() {
	clear(b.words)
	b.count = 0
}

// Grow makes room for more blocks, whose bits are clear. blocks is at least Len.
func (b *Bitmap) Grow(blocks int64) {
	if blocks < b.len {
		panic(fmt.Sprintf("bitmap: %d blocks cut to %d", b.len, blocks))
	}
	more := (blocks+wordBits-1)/wordBits - int64(len(b.words))
	b.words = append(b.words, make([]uint64, more)...)
	b.len = blocks
}

// Bytes returns the bits of the n blocks from on, the first one in the lowest
// bit of the first byte, in (n+7)/8 bytes of their own. from may be any block;
// it is fastest at a multiple of 64. Blocks past Len count as clear.
func (b *Bitmap) Bytes(from, n int64) []byte {
	if from < 0 || n < 0 {
		panic(fmt.Sprintf("bitmap: %d bits from %d on", n, from))
	}
	out := make([]byte, (n+wordBits-1)/wordBits*8)
	for at := int64(0); at < n; at += wordBits {
		binary.LittleEndian.PutUint64(out[at/8:], b.word(from+at)&mask(0, 0, n-at))
	}
	return out[:(n+7)/8]
}

// OrBytes sets the bits that are set in p, which is laid out as Bytes has it:
// bit 0 of p[0] is that of block from. Bits past Len are ignored, so the padding
// of the last byte or page does not matter.
func (b *Bitmap) OrBytes(from int64, p []byte) {
	if from < 0 {
		panic(fmt.Sprintf("bitmap: bits from %d on", from))
	}
	for at := from; len(p) > 0 && at < b.len; at += wordBits {
		var chunk [8]byte
		p = p[copy(chunk[:], p):]
		w := binary.LittleEndian.Uint64(chunk[:])
		if b.len-at < wordBits {
			w &= mask(0, 0, b.len-at)
		}
		b.or(int(at/wordBits), w<<(at%wordBits))
		if rest := w >> (wordBits - 1 - at%wordBits) >> 1; rest != 0 {
			b.or(int(at/wordBits)+1, rest)
		}
	}
}

// word returns the 64 bits from block at on.
func (b *Bitmap) word(at int64) uint64 {
	i, shift := at/wordBits, at%wordBits
	var w uint64
	if i < int64(len(b.words)) {
		w = b.words[i] >> shift
	}
	if shift > 0 && i+1 < int64(len(b.words)) {
		w |= b.words[i+1] << (wordBits - shift)
	}
	return w
}

// or sets the bits m of word i.
func (b *Bitmap) or(i int, m uint64) {
	if fresh := m &^ b.words[i]; fresh != 0 {
		b.count += int64(bits.OnesCount64(fresh))
		b.words[i] |= fresh
	}
}

// check panics unless [from,to) is a range of blocks.
func (b *Bitmap) check(from, to int64) {
	if from < 0 || from > to || to > b.len {
		panic(fmt.Sprintf("bitmap: no blocks [%d,%d) among %d", from, to, b.len))
	}
}

// mask has the bits of word i that lie in the range, which the word touches.
func mask(i, from, to int64) uint64 {
	low, high := max(from-i*wordBits, 0), min(to-i*wordBits, wordBits)
	return ^uint64(0) << low & (^uint64(0) >> (wordBits - high))
}
