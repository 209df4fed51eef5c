package journal

import (
	"slices"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Behind returns how many events of an origin are held with numbers above seq, and
// up to which number retention has dropped what there was; 0: it has dropped none.
func (j *Journal) Behind(origin cluster.NodeName, seq uint64) (held int, floor uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	st := j.x.streams[j.x.numbers[string(origin)]]
	if st == nil {
		return 0, 0
	}
	i, _ := slices.BinarySearch(st.seqs, seq+1)
	return len(st.seqs) - i, st.floor
}
