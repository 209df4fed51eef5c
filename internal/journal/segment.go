package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// A segment is a file NUMBER.log. Its first line is a header with the floors:
// up to which number each origin's events had been dropped when it was begun.
type segment struct {
	num  uint32
	file *os.File // nil: not created yet
	size int64    // bytes handed to this segment, also where not written yet
	recs int      // records in it
}

const headerWord = "#tasuki-journal 1"

func segmentPath(dir string, num uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.log", num))
}

// segmentNumbers returns the numbers of the segments in dir in order.
func segmentNumbers(dir string) ([]uint32, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var nums []uint32
	for _, f := range files {
		base, ok := strings.CutSuffix(f.Name(), ".log")
		n, err := strconv.ParseUint(base, 10, 32)
		if ok && err == nil && len(base) == 8 {
			nums = append(nums, uint32(n))
		}
	}
	slices.Sort(nums)
	return nums, nil
}

// headerLine is the first line of a segment.
func (x *index) headerLine() []byte {
	floors := map[string]uint64{}
	for origin, st := range x.streams {
		if st.floor > 0 {
			floors[x.words[origin]] = st.floor
		}
	}
	return sealLine(nil, func(b []byte) []byte {
		b = append(b, headerWord...)
		for _, origin := range slices.Sorted(maps.Keys(floors)) {
			b = append(b, '\t')
			b = append(b, origin...)
			b = append(b, '=')
			b = strconv.AppendUint(b, floors[origin], 10)
		}
		return b
	})
}

func (x *index) readHeader(body string) {
	for _, f := range strings.Split(body, "\t")[1:] {
		origin, num, _ := strings.Cut(f, "=")
		if n, err := strconv.ParseUint(num, 10, 63); err == nil {
			st := x.stream(cluster.NodeName(origin))
			st.floor = max(st.floor, n)
		}
	}
}

// load reads a segment into the index. It returns how many bytes are good at
// the least: behind them is only an unfinished line. Lines that are damaged in
// the middle are skipped and counted.
func (x *index) load(s *segment) (good int64, bad int, err error) {
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	r := bufio.NewReaderSize(s.file, maxLine)
	var off int64
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) { // longer than any line of ours
			n, skipErr := skipLine(r)
			if errors.Is(skipErr, io.EOF) {
				return good, bad, nil
			} else if skipErr != nil {
				return good, bad, skipErr
			}
			off, bad = off+int64(len(line))+n, bad+1
			continue
		}
		if errors.Is(err, io.EOF) {
			return good, bad, nil
		}
		if err != nil {
			return good, bad, err
		}
		if x.loadLine(s, line, off) {
			good = off + int64(len(line))
		} else {
			bad++
		}
		off += int64(len(line))
	}
}

func skipLine(r *bufio.Reader) (int64, error) {
	var n int64
	for {
		more, err := r.ReadSlice('\n')
		n += int64(len(more))
		if !errors.Is(err, bufio.ErrBufferFull) {
			return n, err
		}
	}
}

func (x *index) loadLine(s *segment, line []byte, off int64) bool {
	body, err := openLine(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil {
		return false
	}
	if strings.HasPrefix(body, headerWord) {
		x.readHeader(body)
		return true
	}
	e, err := parseEvent(body)
	if err != nil {
		return false
	}
	_, seq, _ := ParseID(e.ID)
	if !x.known(originOf(&e), seq) {
		x.add(&e, s.num, uint32(off), uint32(len(line)))
		s.recs++
	}
	return true
}
