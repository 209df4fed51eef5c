package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
	"github.com/tasuki-ha/tasuki/internal/paths"
)

// join makes what tasuki witness join leaves behind.
func join(t *testing.T, d paths.Dirs, name cluster.Name) {
	t.Helper()
	w := d.Witness(name)
	for _, dir := range []string{filepath.Join(w.Etc, "identity"), w.State, w.Log, w.Run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{filepath.Join(w.Etc, "identity", "node.pem"), filepath.Join(w.State, "raft.db")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// served counts how often each cluster was begun to be served, and what runs.
type served struct {
	mu    sync.Mutex
	began map[cluster.Name]int
	runs  []cluster.Name
	fails map[cluster.Name]error
}

func (s *served) serve(ctx context.Context, d paths.Dirs, _ *slog.Logger) error {
	name := cluster.Name(filepath.Base(d.State))
	s.mu.Lock()
	s.began[name]++
	err := s.fails[name]
	if err == nil {
		s.runs = append(s.runs, name)
		slices.Sort(s.runs)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	<-ctx.Done()
	s.mu.Lock()
	s.runs = slices.DeleteFunc(s.runs, func(n cluster.Name) bool { return n == name })
	s.mu.Unlock()
	return nil
}

func (s *served) running() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Trim(fmt.Sprint(s.runs), "[]")
}

func (s *served) count(n cluster.Name) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.began[n]
}

// A cluster that fails is tried again, ever more seldom, and its reason is kept;
// the others run, those that join later too, and those that leave end.
func TestKeeper(t *testing.T) {
	dirs := paths.At(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		s := &served{began: map[cluster.Name]int{}, fails: map[cluster.Name]error{"bad": &api.Error{Code: "damaged", Message: "it is damaged", Hint: "rejoin"}}}
		join(t, dirs, "one")
		join(t, dirs, "bad")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Options{Dirs: dirs, Log: slog.New(slog.DiscardHandler), Serve: s.serve})
		}()
		synctest.Wait()
		if got := s.running(); got != "one" {
			t.Errorf("served: %q", got)
		}
		var e *api.Error
		if err := Run(ctx, Options{Dirs: dirs, Serve: s.serve}); !errors.As(err, &e) || e.Code != "running" {
			t.Errorf("a second process: %v", err)
		}
		join(t, dirs, "two")
		<-time.After(lookEvery + time.Second)
		if got := s.running(); got != "one two" {
			t.Errorf("served after another was joined: %q", got)
		}
		list, err := List(ctx, dirs)
		if err != nil || len(list) != 3 || list[0].Failure == nil || list[0].Failure.Error.Hint != "rejoin" || list[1].Failure != nil {
			t.Errorf("list: %+v %v", list, err)
		}
		<-time.After(10 * time.Minute)
		if n := s.count("bad"); n < 10 || n > 18 {
			t.Errorf("the failing one was tried %d times in 10 min", n)
		}
		s.mu.Lock()
		delete(s.fails, "bad")
		s.mu.Unlock()
		<-time.After(backoffMax + time.Second)
		if got := s.running(); got != "bad one two" {
			t.Errorf("served after it was mended: %q", got)
		}
		if err := os.RemoveAll(dirs.Witness("one").Etc); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * lookEvery)
		if got := s.running(); got != "bad two" {
			t.Errorf("served after one left: %q", got)
		}
		stop()
		if err := <-ended; err != nil || s.running() != "" {
			t.Errorf("%v, still served: %q", err, s.running())
		}
		if n := s.count("two"); n != 1 {
			t.Errorf("an undisturbed cluster was begun %d times", n)
		}
	})
}

// answers lets a daemon of values answer for a cluster.
func answers(t *testing.T, d paths.Dirs, st api.Status) {
	t.Helper()
	l, err := net.Listen("unix", d.Socket())
	if err != nil {
		t.Fatal(err)
	}
	h := httpapi.New(&httpapitest.Backend{State: st}, "test")
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(httpapi.WithCaller(r.Context(), httpapi.Caller{Kind: httpapi.Local, Name: "root"})))
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

func TestSeen(t *testing.T) {
	dirs := paths.At(t.TempDir())
	join(t, dirs, "web")
	heard := time.Unix(3600, 0).UTC()
	answers(t, dirs.Witness("web"), api.Status{Cluster: "web", Quorum: true, Nodes: []api.Node{
		{Name: "n1", Heard: &heard}, {Name: "n2"}, {Name: "w", Self: true, Witness: true, Voter: true},
	}})
	list, err := List(t.Context(), dirs)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	s := list[0]
	if s.Self().Name != "w" || !s.Counts() || !s.LastContact().Equal(heard) {
		t.Errorf("self %+v, counts %v, last contact %v", s.Self(), s.Counts(), s.LastContact())
	}
	if s.Status.Quorum = false; s.Counts() {
		t.Error("without a majority the vote does not count")
	}
}

// Leaving removes everything of one cluster, once nobody uses it, and only if
// the cluster can be told or the administrator insists.
func TestLeave(t *testing.T) {
	dirs := paths.At(t.TempDir())
	join(t, dirs, "web")
	join(t, dirs, "db")
	var e *api.Error
	if err := Leave(t.Context(), dirs, "shop", false); !errors.As(err, &e) || e.Code != "no-such-cluster" {
		t.Errorf("a cluster that was never joined: %v", err)
	}
	if err := Leave(t.Context(), dirs, "web", false); !errors.As(err, &e) || e.Code != "not-told" {
		t.Errorf("nobody answers: %v", err)
	}
	f, err := os.Open(filepath.Join(dirs.Witness("web").State, "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	answers(t, dirs.Witness("web"), api.Status{Quorum: true})
	left := make(chan error, 1)
	go func() { left <- Leave(t.Context(), dirs, "web", false) }()
	for names, _ := Joined(dirs); len(names) == 2; names, _ = Joined(dirs) {
		select {
		case <-time.After(time.Millisecond):
		case err := <-left:
			t.Fatalf("it did not wait: %v", err)
		}
	}
	if _, err := os.Stat(f.Name()); err != nil {
		t.Error("the state was removed while it was in use", err)
	}
	f.Close()
	if err := <-left; err != nil {
		t.Error(err)
	}
	w := dirs.Witness("web")
	for _, dir := range []string{w.Etc, w.State, w.Log, w.Run} {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", dir, err)
		}
	}
	if err := Leave(t.Context(), dirs, "db", true); err != nil {
		t.Error("with force:", err)
	}
}
