package journal

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2010, 9, 24, 12, 18, 18, 0, time.UTC)

func event(node string, seq uint64, text string) api.Event {
	n := cluster.NodeName(node)
	return api.Event{
		ID: MakeID(n, seq), Node: n, Time: noon.Add(time.Duration(seq) * time.Second),
		Level: cluster.LevelInfo, Module: "rc", Code: "test", Text: text,
	}
}

func open(t testing.TB, dir string, self cluster.NodeName, opt Options) *Journal {
	t.Helper()
	j, err := Open(dir, self, opt)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func appendEvents(t testing.TB, j *Journal, events ...api.Event) {
	t.Helper()
	for _, e := range events {
		if err := j.Append(e); err != nil {
			t.Fatalf("append: %v", err)
		}
	}
}

func ids(events []api.Event) string {
	var out []string
	for _, e := range events {
		out = append(out, string(e.ID))
	}
	return strings.Join(out, " ")
}

// crash copies what the disk holds, as a power cut would leave it.
func crash(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "after")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestEventsComeBackAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, "CLP-1", Options{})
	e := event("CLP-1", 1, "tabs\tand\nlines \\ and = and 日本語 \x1b[31m")
	e.Fields = map[string]string{"a=b": "c=d\te\\n", "group": "failover", "empty": ""}
	e.Cause = "bay7-esx/9"
	e.Level = cluster.LevelError
	e.Time = noon.Add(123456789 * time.Nanosecond).In(time.FixedZone("JST", 9*3600))
	appendEvents(t, j, e)
	want := e
	want.Time = e.Time.UTC()
	for _, when := range []string{"pending", "written", "reopened"} {
		got, ok := j.Get(e.ID)
		if d := cmp.Diff(want, got); !ok || d != "" {
			t.Errorf("%s: %v %s", when, ok, d)
		}
		if when == "pending" {
			if err := j.Sync(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		j.Close()
		j = open(t, dir, "CLP-1", Options{})
	}
	if j.Next() != 2 {
		t.Errorf("next is %d after a clean stop", j.Next())
	}
}

func TestLine(t *testing.T) {
	e := event("CLP-1", 1, "Stopping group failover has started.")
	e.Time = time.Date(2010, 9, 24, 12, 18, 18, 999, time.UTC)
	jst := time.FixedZone("JST", 9*3600)
	if got, want := Line(e, jst), "2010/09/24 21:18:18 CLP-1 rc Stopping group failover has started."; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	e.Text = "two\nlines\x1b[2J"
	if got, want := Line(e, nil), "2010/09/24 12:18:18 CLP-1 rc two lines\ufffd[2J"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestRefusals(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{})
	appendEvents(t, j, event("CLP-1", 1, "a"), event("CLP-1", 5, "b"))
	bad := event("CLP-1", 6, "x")
	bad.Level = "loud"
	for name, e := range map[string]api.Event{
		"number used": event("CLP-1", 5, "again"), "number below": event("CLP-1", 3, "late"),
		"another node's": event("CLP-2", 9, "x"), "no id": {Text: "x"}, "level": bad,
	} {
		if err := j.Append(e); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	forged := event("CLP-2", 2, "x")
	forged.Node = "CLP-3"
	long := event("CLP-2", 3, strings.Repeat("x", maxText+1))
	for _, e := range []api.Event{forged, long, {ID: "../7"}, {ID: "CLP-2/0"}, {ID: "CLP-2/18446744073709551615"}} {
		if got := j.Merge([]api.Event{e}); len(got) != 0 {
			t.Errorf("%s was taken", e.ID)
		}
	}
	e := event("CLP-1", 7, strings.Repeat("日", maxText))
	appendEvents(t, j, e)
	if got, _ := j.Get("CLP-1/7"); len(got.Text) > maxText || !strings.HasSuffix(got.Text, "日…") {
		t.Errorf("an own long text was not cut: %d bytes", len(got.Text))
	}
}

func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, "CLP-1", Options{})
	for i := range uint64(20) {
		appendEvents(t, j, event("CLP-1", i+1, fmt.Sprintf("event %d", i+1)))
	}
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(segmentPath(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	lineEnd := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := lineEnd; cut < len(whole); cut += 7 {
		for _, tail := range [][]byte{nil, make([]byte, 5000)} { // a file system may leave zeroes
			after := crash(t, dir)
			if err := os.WriteFile(segmentPath(after, 1), append(whole[:cut:cut], tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			var notes bytes.Buffer
			k := open(t, after, "CLP-1", Options{Log: slog.New(slog.NewTextHandler(&notes, nil))})
			if n := len(k.Query(Filter{})); n != 19 {
				t.Fatalf("cut at %d: %d events", cut, n)
			}
			if (cut > lineEnd || tail != nil) && !strings.Contains(notes.String(), "cut off") {
				t.Errorf("cut at %d: no note: %s", cut, notes.String())
			}
			if k.Next() <= 20 {
				t.Fatalf("cut at %d: number %d would be used again", cut, k.Next())
			}
			appendEvents(t, k, event("CLP-1", k.Next(), "after the crash"))
			k.Close()
			if n := len(open(t, after, "CLP-1", Options{}).Query(Filter{})); n != 20 {
				t.Fatalf("cut at %d: %d events after another start", cut, n)
			}
		}
	}
}

func TestDamageCostsOneLine(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, "CLP-1", Options{})
	for i := range uint64(10) {
		appendEvents(t, j, event("CLP-1", i+1, "some text"))
	}
	peer := open(t, t.TempDir(), "CLP-2", Options{})
	peer.Merge(j.Query(Filter{}))
	j.Close()
	data, err := os.ReadFile(segmentPath(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("CLP-1/4"))+3] ^= 4
	if err := os.WriteFile(segmentPath(dir, 1), data, 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, "CLP-1", Options{})
	if got := ids(j.Since("CLP-1", 0, 100)); strings.Contains(got, "/4 ") || !strings.HasSuffix(got, "/10") {
		t.Errorf("left: %s", got)
	}
	j.Merge(peer.Pick(j.Missing(peer.Digest(), 100), 100))
	if got := len(j.Query(Filter{})); got != 10 {
		t.Errorf("%d events after asking the peer", got)
	}
}

// Numbers that were handed out are never used again, whatever reached the disk.
func TestNumbersAreNotUsedAgain(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, "CLP-1", Options{})
	for range 3 * reserveBlock {
		appendEvents(t, j, event("CLP-1", j.Next(), "never synced"))
	}
	used := j.Next()
	k := open(t, crash(t, dir), "CLP-1", Options{})
	if k.Next() < used {
		t.Errorf("after the crash %d comes next, %d was used", k.Next(), used-1)
	}
	after := crash(t, dir)
	if err := os.WriteFile(reservePath(after), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, after, "CLP-1", Options{}) // damaged: opens
}

func TestLostNumberingIsLearned(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{})
	j.Merge([]api.Event{event("CLP-1", 700, "from before the disk was replaced")})
	if j.Next() != 701 {
		t.Errorf("next is %d", j.Next())
	}
}

func TestQuery(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{})
	for i := range uint64(6) {
		a, b := event("CLP-1", i+1, "Moving group"), event("CLP-2", i+1, "other")
		a.Fields = map[string]string{"group": []string{"g1", "g2"}[i%2]}
		if i == 3 {
			b.Level, b.Module = cluster.LevelWarn, "rm"
		}
		appendEvents(t, j, a)
		j.Merge([]api.Event{b})
	}
	tests := []struct {
		name string
		f    Filter
		want string
	}{
		{"limit", Filter{Limit: 3}, "CLP-1/1 CLP-2/1 CLP-1/2"},
		{"newest", Filter{Limit: 3, Newest: true}, "CLP-2/5 CLP-1/6 CLP-2/6"},
		{"node", Filter{Node: "CLP-2", Limit: 2}, "CLP-2/1 CLP-2/2"},
		{"group", Filter{Group: "g2"}, "CLP-1/2 CLP-1/4 CLP-1/6"},
		{"level", Filter{Level: cluster.LevelWarn}, "CLP-2/4"},
		{"module", Filter{Module: "rm"}, "CLP-2/4"},
		{"text", Filter{Text: "MOVING", Limit: 1, Newest: true}, "CLP-1/6"},
		{"after", Filter{After: "CLP-1/5"}, "CLP-2/5 CLP-1/6 CLP-2/6"},
		{"since", Filter{Since: noon.Add(6 * time.Second)}, "CLP-1/6 CLP-2/6"},
		{"until", Filter{Until: noon.Add(2 * time.Second)}, "CLP-1/1 CLP-2/1"},
		{"nothing", Filter{Group: "none"}, ""},
	}
	for _, tc := range tests {
		if got := ids(j.Query(tc.f)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	if got := ids(j.Since("CLP-2", 4, 10)); got != "CLP-2/5 CLP-2/6" {
		t.Errorf("since: %s", got)
	}
	if d := cmp.Diff(map[cluster.NodeName]uint64{"CLP-1": 6, "CLP-2": 6}, j.Have()); d != "" {
		t.Error(d)
	}
}

func TestRetention(t *testing.T) {
	dir := t.TempDir()
	opt := Options{MaxEvents: 160}
	j := open(t, dir, "CLP-1", opt)
	for i := range uint64(400) {
		appendEvents(t, j, event("CLP-1", i+1, "x"))
		if i%10 == 9 {
			if err := j.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(when string, j *Journal) {
		t.Helper()
		got := j.Query(Filter{Limit: maxLimit})
		if len(got) > 160 || len(got) < 120 || got[len(got)-1].ID != "CLP-1/400" || got[0].ID == "CLP-1/1" {
			t.Fatalf("%s: %d events, %s to %s", when, len(got), got[0].ID, got[len(got)-1].ID)
		}
		theirs := Digest{"CLP-1": {{1, 400}}}
		if m := j.Missing(theirs, 1000); len(m) != 0 {
			t.Errorf("%s: asks again for what it dropped: %v", when, m)
		}
	}
	check("running", j)
	j.Close()
	check("reopened", open(t, dir, "CLP-1", opt))
	nums, _ := segmentNumbers(dir)
	if len(nums) > 17 {
		t.Errorf("%d files", len(nums))
	}
}

func TestBytesAreBoundedToo(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, "CLP-1", Options{MaxBytes: 64 << 10})
	for i := range uint64(500) {
		appendEvents(t, j, event("CLP-1", i+1, strings.Repeat("y", 500)))
		if err := j.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	var total int64
	nums, _ := segmentNumbers(dir)
	for _, n := range nums {
		info, err := os.Stat(segmentPath(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 64<<10 || total < 40<<10 {
		t.Errorf("%d bytes on disk", total)
	}
}

// What cannot be written is tried again, and memory stays bounded meanwhile.
func TestDiskThatFails(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, "CLP-1", Options{})
	if err := os.Mkdir(segmentPath(dir, 1), 0o700); err != nil { // no file can be made there
		t.Fatal(err)
	}
	text := strings.Repeat("z", 4000)
	for i := range uint64(1500) {
		appendEvents(t, j, event("CLP-1", i+1, text))
		if i == 100 && j.Sync() == nil {
			t.Fatal("sync did not fail")
		}
	}
	kept := len(j.Query(Filter{Limit: maxLimit}))
	if kept > 1100 || kept < 900 {
		t.Errorf("%d events wait in memory", kept)
	}
	if err := os.Remove(segmentPath(dir, 1)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(open(t, dir, "CLP-1", Options{}).Query(Filter{Limit: maxLimit})); n != kept {
		t.Errorf("%d events on disk, want %d", n, kept)
	}
}

func TestRunSyncsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := open(t, dir, "CLP-1", Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		size := func() int64 {
			info, err := os.Stat(segmentPath(dir, 1))
			if err != nil {
				return 0
			}
			return info.Size()
		}
		appendEvents(t, j, event("CLP-1", 1, "x"))
		synctest.Wait()
		if size() != 0 {
			t.Error("written at once")
		}
		<-time.After(200 * time.Millisecond)
		synctest.Wait()
		first := size()
		if first == 0 {
			t.Error("not written after 200 ms")
		}
		appendEvents(t, j, event("CLP-1", 2, "y"))
		cancel()
		if err := <-done; err != nil || size() == first {
			t.Errorf("the rest is not written at the end: %v", err)
		}
		j.Close()
	})
}

func TestSubscribe(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ch := j.Subscribe(ctx)
	appendEvents(t, j, event("CLP-1", 1, "x"))
	j.Merge([]api.Event{event("CLP-2", 1, "y")})
	if a, b := <-ch, <-ch; a.Event.ID != "CLP-1/1" || b.Event.ID != "CLP-2/1" {
		t.Errorf("got %v, %v", a, b)
	}
	for i := range uint64(subscriberBuffer + 50) {
		appendEvents(t, j, event("CLP-1", i+2, "flood"))
	}
	for range subscriberBuffer {
		if u := <-ch; u.Resync {
			t.Fatal("resync too early")
		}
	}
	if u := <-ch; !u.Resync {
		t.Fatalf("no resync: %v", u)
	}
	appendEvents(t, j, event("CLP-1", j.Next(), "again"))
	if u := <-ch; u.Event.Text != "again" {
		t.Errorf("after resync: %v", u)
	}
	cancel()
	if _, open := <-ch; open {
		t.Error("still open after its context")
	}
	other := j.Subscribe(t.Context())
	j.Close()
	if _, open := <-other; open {
		t.Error("still open after the journal")
	}
}

func TestManyAtOnce(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{MaxEvents: 320, SyncEvery: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	var work sync.WaitGroup
	for n := range 3 {
		work.Go(func() {
			node := fmt.Sprintf("other-%d", n)
			for i := range uint64(400) {
				j.Merge([]api.Event{event(node, i+1, "m")})
				j.Query(Filter{Limit: 5, Newest: true})
			}
		})
	}
	work.Go(func() {
		for i := range uint64(400) {
			if err := j.Append(event("CLP-1", i+1, "a")); err != nil {
				t.Error(err)
			}
			j.Chain(MakeID("CLP-1", i))
			j.Missing(j.Digest(), 10)
		}
	})
	work.Wait()
	cancel()
	wg.Wait()
	for n, e := range j.Query(Filter{Limit: maxLimit}) {
		if e.Text == "" {
			t.Fatalf("event %d is empty", n)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	j := open(b, b.TempDir(), "CLP-1", Options{})
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { j.Run(ctx) })
	e := event("CLP-1", 1, "Activating group failover has completed.")
	e.Fields = map[string]string{"group": "failover", "took_ms": "112"}
	b.ReportAllocs()
	for b.Loop() {
		e.ID = MakeID("CLP-1", j.Next())
		if err := j.Append(e); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
}

func BenchmarkFull(b *testing.B) {
	dir := b.TempDir()
	j := open(b, dir, "CLP-1", Options{})
	for i := range uint64(90_000) {
		e := event("CLP-1", i+1, "Activating group failover has completed.")
		e.Fields = map[string]string{"group": "failover", "took_ms": "112"}
		if i%10 != 0 {
			e.Cause = MakeID("CLP-1", i)
		}
		appendEvents(b, j, e)
		if i%5000 == 0 {
			j.Sync()
		}
	}
	j.Close()
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			open(b, dir, "CLP-1", Options{}).Close()
		}
	})
	j = open(b, dir, "CLP-1", Options{})
	b.Run("newest", func(b *testing.B) {
		for b.Loop() {
			j.Query(Filter{Newest: true, Limit: 100})
		}
	})
	b.Run("chain", func(b *testing.B) {
		for b.Loop() {
			j.Chain("CLP-1/45000")
		}
	})
	b.Run("incidents", func(b *testing.B) {
		for b.Loop() {
			j.Incidents(1)
		}
	})
	b.Run("digest", func(b *testing.B) {
		for b.Loop() {
			j.Digest()
		}
	})
}
