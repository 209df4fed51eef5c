package store

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/tasuki-ha/tasuki/api"
)

// sample makes a file with several pages of each kind and returns its bytes
// and what is in it.
func sample(t *testing.T) ([]byte, Saved) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	save(t, s, Batch{HardState: hard(1, 1, 50), Entries: entries(1, 1, 150)})
	save(t, s, Batch{Snapshot: snapshot(1, 50, string(make([]byte, 6000)), 1, 2), Entries: entries(2, 140, 200)})
	save(t, s, Batch{HardState: hard(2, 1, 139), Meta: map[string][]byte{"generation": []byte("4"), "blank": []byte("no")}})
	want := load(t, s)
	s.Close()
	return read(t, path), want
}

// tryDamaged opens a file with these bytes: it must be refused and left alone,
// or hold exactly what was saved.
func tryDamaged(t *testing.T, path string, data []byte, want Saved) (refused bool) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Options{})
	if err != nil {
		var shown *api.Error
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) || !errors.As(err, &shown) || shown.Hint == "" {
			t.Fatalf("refused without a reason: %v", err)
		}
		if string(read(t, path)) != string(data) {
			t.Fatal("a refused file was changed")
		}
		return true
	}
	defer s.Close()
	if !same(want, load(t, s)) {
		t.Fatalf("damage was not noticed")
	}
	return false
}

func TestTruncatedIsRefused(t *testing.T) {
	data, want := sample(t)
	path := filepath.Join(t.TempDir(), "raft.db")
	for _, n := range []int{0, 1, 79, 4095, 4096, 8191, 8192, 12288, len(data) / 4 &^ 4095, 1000} {
		if n >= len(data) {
			t.Fatalf("sample is too small: %d", len(data))
		}
		if !tryDamaged(t, path, data[:n], want) {
			t.Errorf("cut to %d bytes: opened", n)
		}
	}
}

func TestFlippedBitsAreNoticed(t *testing.T) {
	data, want := sample(t)
	path := filepath.Join(t.TempDir(), "raft.db")
	rng := rand.New(rand.NewPCG(1, 2))
	refused := 0
	flip := func(at int) {
		bad := append([]byte(nil), data...)
		bad[at] ^= 1 << rng.IntN(8)
		if tryDamaged(t, path, bad, want) {
			refused++
		}
	}
	for at := range 96 { // the first header, densely
		flip(at)
		flip(4096 + at)
	}
	used := min(len(data), 40*4096)
	for range 800 {
		flip(rng.IntN(used))
	}
	if refused < 300 {
		t.Errorf("only %d flips were refused: the test hits unused space", refused)
	}
}

func TestSwappedPagesAreNoticed(t *testing.T) {
	data, want := sample(t)
	path := filepath.Join(t.TempDir(), "raft.db")
	pages := min(len(data)/4096, 30)
	refused := 0
	for i := range pages {
		for j := i + 1; j < pages; j += 3 {
			bad := append([]byte(nil), data...)
			copy(bad[i*4096:], data[j*4096:(j+1)*4096])
			if tryDamaged(t, path, bad, want) {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no misdirected write was refused")
	}
}

// A crash in the middle of a transaction: any prefix of its page writes is on
// disk, its header is not. The state before it must come back.
func TestCrashBeforeTheHeader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	save(t, s, Batch{HardState: hard(1, 1, 5), Entries: entries(1, 1, 60)})
	before, want := read(t, path), load(t, s)
	save(t, s, Batch{Snapshot: snapshot(1, 5, "snap", 1), Entries: entries(2, 50, 90)})
	after := read(t, path)
	s.Close()
	crashed := filepath.Join(t.TempDir(), "raft.db")
	for cut := 8192; cut <= len(after); cut += 4096 {
		mixed := append([]byte(nil), after...)
		copy(mixed[:8192], before[:8192])                                   // no new header
		copy(mixed[min(cut, len(before)):], before[min(cut, len(before)):]) // no later page
		if tryDamaged(t, crashed, mixed, want) {
			t.Fatalf("cut at %d: refused", cut)
		}
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	s.rec.Format = format + 1
	save(t, s, Batch{Entries: entries(1, 1, 1)})
	s.Close()
	if _, err := Open(path, Options{}); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
}

func removeAll(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}
