package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The layout of a bbolt file, version 2 (go.etcd.io/bbolt, internal/common):
// pages with a 16-byte header, two of them meta pages that take turns. Numbers
// are in the byte order of the machine.
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	pageHeader     = 16
	elementSize    = 16
	bucketHeader   = 16
	metaSize       = 64
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagSubBucket  = 0x01
	noFreelist     = ^uint64(0)
	maxTreeDepth   = 32
	maxCheckedSize = 4 << 30 // bytes; ours has some MiB
)

var order = binary.NativeEndian

type meta struct {
	pageSize         uint32
	root, free, high uint64
	txid             uint64
}

// verify reads every page that can be reached and says what is wrong. Both
// meta pages must be good: a torn one cannot be told from one that rotted, and
// with the other the newest transaction would be forgotten.
func verify(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxCheckedSize {
		return fmt.Errorf("it has %d bytes, which is far too many", info.Size())
	}
	m, err := readMetas(f, info.Size())
	if err != nil {
		return err
	}
	if m.free != noFreelist {
		return errors.New("the header names a list of free pages")
	}
	if m.high < 3 || m.high > uint64(info.Size())/uint64(m.pageSize) {
		return fmt.Errorf("the header counts %d pages, the file ends after %d", m.high, uint64(info.Size())/uint64(m.pageSize))
	}
	v := &verifier{r: f, m: m, seen: make([]bool, m.high)}
	return v.tree(m.root, nil, nil, 0)
}

func readMetas(r io.ReaderAt, size int64) (meta, error) {
	first, err := readMeta(r, 0)
	if err != nil {
		return meta{}, fmt.Errorf("first header: %w", err)
	}
	if int64(first.pageSize)*2 > size {
		return meta{}, errors.New("the file ends within its headers")
	}
	second, err := readMeta(r, int64(first.pageSize))
	if err != nil {
		return meta{}, fmt.Errorf("second header: %w", err)
	}
	if first.pageSize != second.pageSize {
		return meta{}, errors.New("the headers contradict each other")
	}
	switch {
	case first.txid == second.txid+1:
		return first, nil
	case second.txid == first.txid+1:
		return second, nil
	}
	return meta{}, errors.New("the headers do not follow each other")
}

func readMeta(r io.ReaderAt, at int64) (meta, error) {
	buf := make([]byte, pageHeader+metaSize)
	if _, err := r.ReadAt(buf, at); err != nil {
		return meta{}, fmt.Errorf("cannot be read: %w", err)
	}
	b := buf[pageHeader:]
	if order.Uint32(b) != boltMagic || order.Uint32(b[4:]) != boltVersion {
		return meta{}, errors.New("not of this kind of file")
	}
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if sum.Sum64() != order.Uint64(b[metaSize-8:]) {
		return meta{}, errors.New("wrong checksum")
	}
	m := meta{
		pageSize: order.Uint32(b[8:]), root: order.Uint64(b[16:]), free: order.Uint64(b[32:]),
		high: order.Uint64(b[40:]), txid: order.Uint64(b[48:]),
	}
	if m.pageSize < 1024 || m.pageSize > 1<<24 || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, fmt.Errorf("page size %d", m.pageSize)
	}
	return m, nil
}

type verifier struct {
	r    io.ReaderAt
	m    meta
	seen []bool // by page: reached already
}

// page reads a page with its overflow and checks its header.
func (v *verifier) page(id uint64) ([]byte, error) {
	if id < 2 || id >= v.m.high {
		return nil, fmt.Errorf("page %d is out of bounds", id)
	}
	size := uint64(v.m.pageSize)
	head := make([]byte, pageHeader)
	if _, err := v.r.ReadAt(head, int64(id*size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	if order.Uint64(head) != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, order.Uint64(head))
	}
	n := uint64(order.Uint32(head[12:])) + 1
	if id+n > v.m.high {
		return nil, fmt.Errorf("page %d runs out of bounds", id)
	}
	for i := id; i < id+n; i++ {
		if v.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		v.seen[i] = true
	}
	buf := make([]byte, n*size)
	if _, err := v.r.ReadAt(buf, int64(id*size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return buf, nil
}

// tree checks the subtree at page id: its keys ascend, are not below low, and
// are below high where high is not nil.
func (v *verifier) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxTreeDepth {
		return errors.New("the tree is too deep")
	}
	buf, err := v.page(id)
	if err != nil {
		return err
	}
	switch flags := order.Uint16(buf[8:]); flags {
	case flagLeaf:
		err = v.leaf(buf, low, high, depth)
	case flagBranch:
		err = v.branch(buf, low, high, depth)
	default:
		err = fmt.Errorf("unknown kind %#x", flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (v *verifier) branch(buf, low, high []byte, depth int) error {
	n := int(order.Uint16(buf[10:]))
	keys := make([][]byte, n)
	kids := make([]uint64, n)
	for i := range n {
		el, err := element(buf, i)
		if err != nil {
			return err
		}
		kids[i] = order.Uint64(el[8:])
		if keys[i], err = span(el, order.Uint32(el), order.Uint32(el[4:])); err != nil {
			return err
		}
	}
	if n == 0 {
		return errors.New("branch without children")
	}
	if err := ascending(keys, low, high); err != nil {
		return err
	}
	for i := range n {
		end := high
		if i+1 < n {
			end = keys[i+1]
		}
		if err := v.tree(kids[i], keys[i], end, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) leaf(buf, low, high []byte, depth int) error {
	n := int(order.Uint16(buf[10:]))
	keys := make([][]byte, n)
	for i := range n {
		el, err := element(buf, i)
		if err != nil {
			return err
		}
		flags, pos := order.Uint32(el), order.Uint32(el[4:])
		ksize, vsize := order.Uint32(el[8:]), order.Uint32(el[12:])
		kv, err := span(el, pos, ksize+vsize)
		if err != nil || ksize > ksize+vsize {
			return errors.New("an element runs out of its page")
		}
		keys[i] = kv[:ksize]
		switch flags {
		case 0:
		case flagSubBucket:
			if err := v.bucket(kv[ksize:], depth); err != nil {
				return fmt.Errorf("bucket %q: %w", keys[i], err)
			}
		default:
			return fmt.Errorf("element with flags %#x", flags)
		}
	}
	return ascending(keys, low, high)
}

// bucket checks a bucket: a page of its own, or a leaf within the value.
func (v *verifier) bucket(value []byte, depth int) error {
	if len(value) < bucketHeader {
		return errors.New("too short")
	}
	if root := order.Uint64(value); root != 0 {
		return v.tree(root, nil, nil, depth+1)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != flagLeaf {
		return errors.New("not a leaf")
	}
	if depth > maxTreeDepth {
		return errors.New("the tree is too deep")
	}
	return v.leaf(inline, nil, nil, depth+1)
}

// element returns the page from its i-th element on.
func element(buf []byte, i int) ([]byte, error) {
	at := pageHeader + i*elementSize
	if at+elementSize > len(buf) {
		return nil, errors.New("more elements than fit")
	}
	return buf[at:], nil
}

// span returns size bytes at pos, counted from the element.
func span(el []byte, pos, size uint32) ([]byte, error) {
	if uint64(pos)+uint64(size) > uint64(len(el)) {
		return nil, errors.New("an element runs out of its page")
	}
	return el[pos : pos+size], nil
}

func ascending(keys [][]byte, low, high []byte) error {
	for i, k := range keys {
		if i > 0 && bytes.Compare(keys[i-1], k) >= 0 || bytes.Compare(k, low) < 0 ||
			high != nil && bytes.Compare(k, high) >= 0 {
			return errors.New("keys are out of order")
		}
	}
	return nil
}
