package serve

import (
	"errors"
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// metaDevice is the meta device of one copy. Its methods are called by one
// goroutine at a time.
type metaDevice struct {
	d      disk.Disk
	path   string
	device [16]byte // of what stands on it
	blank  bool     // nothing stands on it
	super  int      // the slot that was written last
	log    int
	serial uint64 // of log and pages
}

// loaded is what stood on a meta device.
type loaded struct {
	super meta.Super
	marks *bitmap.Bitmap
	log   []uint32
	worn  []string // what was damaged and how it was made up for, in sentences
	blank bool
}

// load reads a meta device. What is damaged counts as different; what cannot be
// made up for is an error.
func (m *metaDevice) load() (*loaded, error) {
	l := &loaded{}
	a, b := m.read(meta.SuperOffset(0), meta.SuperSize), m.read(meta.SuperOffset(1), meta.SuperSize)
	s, slot, err := meta.Newest(a, b)
	if errors.Is(err, meta.ErrBlank) {
		m.blank = true
		return &loaded{blank: true, marks: bitmap.New(0)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("meta device %s: %w", m.path, err)
	}
	for i, block := range [][]byte{a, b} {
		if _, err := meta.DecodeSuper(block, i); err != nil {
			l.worn = append(l.worn, fmt.Sprintf("One of the two superblocks on %s is damaged (%v), and the other one counts.", m.path, err))
		}
	}
	l.super, m.super, m.device = s, slot, s.Device
	layout := meta.LayoutOf(s.Size, s.BlockShift)
	l.marks = bitmap.New(layout.Blocks)
	m.loadLog(l)
	return l, m.loadPages(l, layout)
}

func (m *metaDevice) loadLog(l *loaded) {
	log, serial, slot, err := meta.NewestLog(m.device, m.read(meta.LogOffset(0), meta.LogSize), m.read(meta.LogOffset(1), meta.LogSize))
	if err != nil {
		l.worn = append(l.worn, fmt.Sprintf("The activity log on %s is damaged (%v): everything counts as different.", m.path, err))
		l.marks.Set(0, l.marks.Len())
		return
	}
	l.log, m.serial, m.log = log, serial, slot
}

// pagesAtOnce bounds what is read of the bitmap in one go.
const pagesAtOnce = 256

func (m *metaDevice) loadPages(l *loaded, layout meta.Layout) error {
	bad := 0
	for no := int64(0); no < layout.Pages; no += pagesAtOnce {
		n := min(pagesAtOnce, layout.Pages-no)
		data := m.read(meta.PageOffset(no), int(n)*meta.PageSize)
		for i := range n {
			bits, err := meta.DecodePage(m.device, no+i, data[i*meta.PageSize:][:meta.PageSize])
			from := (no + i) * meta.BitsPerPage
			switch {
			case errors.Is(err, meta.ErrVersion):
				return fmt.Errorf("meta device %s: %w", m.path, err)
			case err != nil:
				bad++
				l.marks.Set(from, min(from+meta.BitsPerPage, layout.Blocks))
			default:
				l.marks.OrBytes(from, bits)
			}
		}
	}
	if bad > 0 {
		l.worn = append(l.worn, fmt.Sprintf("%d of %d pages of the bitmap on %s are damaged: their blocks count as different.", bad, layout.Pages, m.path))
	}
	return nil
}

// read returns a range, and what is no block of anybody where it cannot be read.
func (m *metaDevice) read(off int64, n int) []byte {
	p := disk.Aligned(n)
	if _, err := m.d.ReadAt(p, off); err != nil {
		for i := range p {
			p[i] = 0xff
		}
	}
	return p
}

func (m *metaDevice) writeAt(b []byte, off int64, durable bool) error {
	p := disk.Aligned(len(b))
	copy(p, b)
	return m.d.WriteAt(p, off, durable)
}

// write carries out a MetaWrite: pages, activity log, superblock, each durably
// before the next.
func (m *metaDevice) write(w *replica.MetaWrite) error {
	if s := w.Super; s != nil && (m.blank || s.Device != m.device) {
		return m.format(w)
	}
	m.serial++
	if err := m.writePages(w.Pages); err != nil {
		return err
	}
	if w.Log != nil {
		slot := 1 - m.log
		if err := m.writeAt(meta.EncodeLog(m.device, m.serial, slot, w.Log), meta.LogOffset(slot), true); err != nil {
			return err
		}
		m.log = slot
	}
	if w.Super != nil {
		slot := 1 - m.super
		if err := m.writeAt(meta.EncodeSuper(*w.Super, slot), meta.SuperOffset(slot), true); err != nil {
			return err
		}
		m.super = slot
	}
	return nil
}

func (m *metaDevice) writePages(pages []replica.Page) error {
	for _, p := range pages {
		if err := m.writeAt(meta.EncodePage(m.device, m.serial, int64(p.No), p.Bits), meta.PageOffset(int64(p.No)), false); err != nil {
			return err
		}
	}
	if len(pages) == 0 {
		return nil
	}
	return m.d.Flush()
}

// format makes the meta device one of another mirror disk: all pages and both
// slots of everything, the superblocks last.
func (m *metaDevice) format(w *replica.MetaWrite) error {
	size, err := m.d.Size()
	if err != nil {
		return err
	}
	layout := meta.LayoutOf(w.Super.Size, w.Super.BlockShift)
	if layout.Total > size {
		return fmt.Errorf("meta device %s has %d bytes, and a mirror disk of %d bytes needs %d", m.path, size, w.Super.Size, layout.Total)
	}
	m.device = w.Super.Device
	m.serial++
	bits := make([][]byte, layout.Pages)
	for _, p := range w.Pages {
		bits[p.No] = p.Bits
	}
	for no := range layout.Pages {
		if err := m.writeAt(meta.EncodePage(m.device, m.serial, no, bits[no]), meta.PageOffset(no), false); err != nil {
			return err
		}
	}
	for slot := range 2 {
		m.serial++
		if err := m.writeAt(meta.EncodeLog(m.device, m.serial, slot, w.Log), meta.LogOffset(slot), false); err != nil {
			return err
		}
		m.log = slot
	}
	if err := m.d.Flush(); err != nil {
		return err
	}
	for slot := range 2 {
		if err := m.writeAt(meta.EncodeSuper(*w.Super, slot), meta.SuperOffset(slot), true); err != nil {
			return err
		}
	}
	m.blank, m.super = false, 0
	return nil
}
