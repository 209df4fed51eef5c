package journal

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func TestSpansAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOf(rapid.Uint64Range(1, 60)).Draw(t, "a")
		b := rapid.SliceOf(rapid.Uint64Range(1, 60)).Draw(t, "b")
		inA, inB := map[uint64]bool{}, map[uint64]bool{}
		var sa, sb Spans
		for _, n := range a {
			sa, inA[n] = sa.Add(n), true
		}
		for _, n := range b {
			sb, inB[n] = sb.Add(n), true
		}
		for i := 1; i < len(sa); i++ {
			if sa[i].From <= sa[i-1].To+1 {
				t.Fatalf("not joined: %v", sa)
			}
		}
		diff := sa.Minus(sb)
		for n := uint64(1); n <= 61; n++ {
			if sa.Contains(n) != inA[n] {
				t.Fatalf("%d in %v", n, sa)
			}
			if diff.Contains(n) != (inA[n] && !inB[n]) {
				t.Fatalf("%d: %v minus %v is %v", n, sa, sb, diff)
			}
		}
	})
}

func TestDigestFromALiar(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{})
	lies := Digest{
		"zero": {{0, 5}}, "back": {{9, 3}}, "over": {{5, 9}, {7, 12}}, "huge": {{1, 1<<64 - 1}}, "empty": {}, "good": {{3, 4}},
	}
	if got := fmt.Sprint(j.Missing(lies, 100)); got != "[{good {3 4}}]" {
		t.Errorf("asks for %s", got)
	}
	if got := j.Missing(Digest{"x": {{1, 1 << 60}}}, 50); len(got) != 1 || got[0].To != 50 {
		t.Errorf("asks for %v", got)
	}
	one, same, other := Digest{"a": {{1, 2}}, "b": {{1, 1}}}, Digest{"b": {{1, 1}}, "a": {{1, 2}}}, Digest{"a": {{1, 3}}, "b": {{1, 1}}}
	if one.Sum() != same.Sum() || one.Sum() == other.Sum() || one.Sum() == Digest(nil).Sum() {
		t.Error("sums do not tell digests apart")
	}
}

// trio is three nodes that exchange events in any order, with loss, duplicates
// and crashes.
type trio struct {
	dirs  []string
	nodes []*Journal
	n     int
	all   map[cluster.EventID]string
}

func (w *trio) name(i int) cluster.NodeName { return cluster.NodeName(fmt.Sprintf("n%d", i)) }

func (w *trio) append(t *rapid.T) {
	i := rapid.IntRange(0, 2).Draw(t, "node")
	j := w.nodes[i]
	e := event(string(w.name(i)), j.Next()+rapid.Uint64Range(0, 3).Draw(t, "skip"), fmt.Sprintf("text %d", w.n))
	w.n++
	if _, used := w.all[e.ID]; used {
		t.Fatalf("%s is used twice", e.ID)
	}
	w.all[e.ID] = e.Text
	if err := j.Append(e); err != nil {
		t.Fatal(err)
	}
}

func (w *trio) send(t *rapid.T) {
	from, to := rapid.IntRange(0, 2).Draw(t, "from"), rapid.IntRange(0, 2).Draw(t, "to")
	events := w.nodes[from].Query(Filter{Limit: maxLimit})
	if len(events) == 0 {
		t.Skip("nothing to send")
	}
	pick := rapid.SliceOfN(rapid.SampledFrom(events), 0, 6).Draw(t, "events")
	for _, e := range w.nodes[to].Merge(pick) {
		if e.Text != w.all[e.ID] {
			t.Fatalf("%s changed", e.ID)
		}
	}
}

func (w *trio) ask(t *rapid.T) {
	a, b := rapid.IntRange(0, 2).Draw(t, "a"), rapid.IntRange(0, 2).Draw(t, "b")
	w.catchUp(a, b, rapid.IntRange(1, 5).Draw(t, "limit"))
}

// catchUp lets a ask b once and returns how many events it learned.
func (w *trio) catchUp(a, b, limit int) int {
	want := w.nodes[a].Missing(w.nodes[b].Digest(), limit)
	return len(w.nodes[a].Merge(w.nodes[b].Pick(want, limit)))
}

func (w *trio) sync(t *rapid.T) {
	if err := w.nodes[rapid.IntRange(0, 2).Draw(t, "node")].Sync(); err != nil {
		t.Fatal(err)
	}
}

// crash loses what was not synced: the files are left as they are.
func (w *trio) crash(t *rapid.T) {
	i := rapid.IntRange(0, 2).Draw(t, "node")
	w.nodes[i].closeFiles()
	j, err := Open(w.dirs[i], w.name(i), Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.nodes[i] = j
}

func TestThreeNodesConverge(t *testing.T) {
	base := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		w := &trio{all: map[cluster.EventID]string{}}
		for i := range 3 {
			dir := filepath.Join(base, fmt.Sprintf("%d-%d", run, i))
			j, err := Open(dir, w.name(i), Options{})
			if err != nil {
				t.Fatal(err)
			}
			w.dirs, w.nodes = append(w.dirs, dir), append(w.nodes, j)
		}
		defer func() {
			for _, j := range w.nodes {
				j.Close()
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"append": w.append, "send": w.send, "ask": w.ask, "sync": w.sync, "crash": w.crash,
		})
		for w.catchUp(0, 1, 7)+w.catchUp(0, 2, 7)+w.catchUp(1, 0, 7)+w.catchUp(1, 2, 7)+w.catchUp(2, 0, 7)+w.catchUp(2, 1, 7) > 0 {
		}
		want := contents(w.nodes[0])
		for i, j := range w.nodes {
			if got := contents(j); !maps.Equal(got, want) {
				t.Fatalf("node %d holds %v, node 0 %v", i, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
			}
			if i > 0 && j.Digest().Sum() != w.nodes[0].Digest().Sum() {
				t.Fatal("sums differ")
			}
		}
	})
}

func contents(j *Journal) map[cluster.EventID]string {
	out := map[cluster.EventID]string{}
	var last api.Event
	for i, e := range j.Query(Filter{Limit: maxLimit}) {
		if i > 0 && (e.Time.Before(last.Time) || e.Time.Equal(last.Time) && e.Node < last.Node) {
			out["disorder/1"] = string(e.ID)
		}
		out[e.ID], last = e.Text, e
	}
	return out
}
