package discarded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

const (
	testBlock  = 4096
	testBlocks = 1000
	testSize   = testBlocks*testBlock - 512 // the last block is not whole
)

var when = time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)

// noVolumes is a machine without LVM.
func noVolumes(context.Context, string, ...string) (string, error) { return "", os.ErrNotExist }

// content is random, with whole blocks of zeroes here and there.
func content(seed uint64) []byte {
	p := make([]byte, testSize)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(p)
	for b := 0; b < testBlocks; b += 7 {
		clear(p[b*testBlock : min((b+1)*testBlock, testSize)])
	}
	return p
}

// device writes a data device of a file and returns what Save needs.
func device(t *testing.T, p []byte) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{Dir: filepath.Join(dir, "state", "mirror", "md"), Data: filepath.Join(dir, "data"), Now: when, Run: noVolumes, Marks: bitmap.New(testBlocks),
		Super: meta.Super{Device: [16]byte{1}, Node: "a", Peer: "b", Size: testSize, BlockShift: 12, Current: 7, Base: 5, Constructed: true}}
	if err := os.WriteFile(o.Data, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

// one is what is kept, which must be one copy.
func one(t *testing.T, dir string) Kept {
	t.Helper()
	all, err := List(dir)
	if err != nil || len(all) != 1 || all[0].Wrong != nil {
		t.Fatalf("%+v %v", all, err)
	}
	return all[0]
}

func export(t *testing.T, k Kept) []byte {
	t.Helper()
	to := filepath.Join(t.TempDir(), "image")
	if err := k.Export(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What was kept as a whole is had back as it was, whatever the device became.
func TestTheWholeCopy(t *testing.T) {
	was := content(1)
	o := device(t, was)
	kept, err := Save(t.Context(), o)
	if err != nil || kept.ID != "20260102T100000Z" || kept.What() != "all of it" {
		t.Fatalf("%+v %v", kept, err)
	}
	if err := os.WriteFile(o.Data, content(2), 0o600); err != nil {
		t.Fatal(err)
	}
	k := one(t, o.Dir)
	if !k.Exact() || k.Super.Current != 7 || !k.Made.Equal(when) || k.Source != o.Data {
		t.Errorf("%+v", k)
	}
	if !bytes.Equal(export(t, k), was) {
		t.Error("the image is not what was on the device")
	}
	if used := k.Used(); used == 0 || used > testSize*7/8 {
		t.Errorf("%d bytes are used for %d, of which every seventh block is zero", used, testSize)
	}
	if _, err := Save(t.Context(), o); !errors.Is(err, os.ErrExist) {
		t.Errorf("twice in one second: %v", err)
	}
	if err := k.Delete(t.Context(), noVolumes); err != nil {
		t.Error(err)
	}
	if all, err := List(o.Dir); err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
}

// Of a copy that is too large what had changed is kept: the image is what is on the
// device now, with that put over it, zeroes too.
func TestWhatHadChanged(t *testing.T) {
	was, is := content(1), content(2)
	o := device(t, was)
	o.Marks.Set(3, 9)
	o.Marks.Set(testBlocks-2, testBlocks)
	s := saver{Options: o, id: "x"}
	r := Record{Kind: Blocks, Made: when, Super: o.Super, Source: o.Data, Count: o.Marks.Count()}
	if err := s.prepare(filepath.Join(o.Dir, prefix+"x")); err != nil {
		t.Fatal(err)
	}
	if err := s.record(filepath.Join(o.Dir, prefix+"x"), &r, func(f *os.File) error { return s.fill(t.Context(), f, &r) }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Data, is, 0o600); err != nil {
		t.Fatal(err)
	}
	k := one(t, o.Dir)
	if k.Exact() || k.What() != "8 blocks of 4 KiB that had changed on it" {
		t.Errorf("%+v: %s", k, k.What())
	}
	want := slices.Clone(is)
	for b := range int64(testBlocks) {
		if o.Marks.Get(b) {
			copy(want[b*testBlock:], was[b*testBlock:min((b+1)*testBlock, testSize)])
		}
	}
	if got := export(t, k); !bytes.Equal(got, want) {
		t.Error("the image has not the blocks that had changed, or others")
	}
}

// Save decides by the room that there is; what it needs is made up here.
func TestRoom(t *testing.T) {
	o := device(t, content(1))
	free, err := room(filepath.Dir(o.Data))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		size    int64
		marked  int64
		whole   bool
		no      error
		because string
	}{
		"all of it fits":                       {size: 1 << 20, whole: true},
		"what has changed fits":                {size: 64 << 30, marked: 10},
		"nothing fits":                         {size: 1 << 50, marked: 2*free/testBlock + 1, no: ErrNoRoom, because: "what has changed"},
		"nobody knows what of it is different": {size: 64 << 30, no: ErrNoRoom, because: "not known"},
	} {
		s := saver{Options: o}
		s.Super.Size, s.Super.BlockShift = c.size, 12
		s.Data = "/dev/null" // is no file, so all of it counts as used
		if s.Marks = bitmap.New(max(c.marked, 1)); c.marked > 0 {
			s.Marks.Set(0, c.marked)
		}
		r := Record{Super: s.Super}
		_, err := s.blocks(t.Context(), &r)
		if !errors.Is(err, c.no) || err != nil && !strings.Contains(err.Error(), c.because) || r.Whole != c.whole {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
	}
}

// A save that comes to nothing leaves nothing, and neither does one that was killed
// once the next is made.
func TestNothingIsLeftOfAFailure(t *testing.T) {
	o := device(t, content(1))
	if err := os.Truncate(o.Data, testSize/2); err != nil {
		t.Fatal(err)
	}
	if _, err := Save(t.Context(), o); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a device that ends too early: %v", err)
	}
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Save(cut, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, prefix+"killed"+partial), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := List(o.Dir); err != nil || len(all) > 0 {
		t.Errorf("%+v %v", all, err)
	}
	if err := os.WriteFile(o.Data, content(1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Save(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestARecordThatCannotBeRead(t *testing.T) {
	o := device(t, content(1))
	kept, err := Save(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept.Path, []byte("rot"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Find(o.Dir, kept.ID)
	if err != nil || !errors.Is(k.Wrong, ErrDamaged) {
		t.Fatalf("%+v %v", k, err)
	}
	if err := k.Export(t.Context(), filepath.Join(t.TempDir(), "image")); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if err := k.Delete(t.Context(), noVolumes); err != nil {
		t.Error(err)
	}
	if _, err := Find(o.Dir, kept.ID); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// An image takes the place of no file, and a broken map is no map.
func TestExportsThatAreRefused(t *testing.T) {
	o := device(t, content(1))
	kept, err := Save(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := kept.Export(t.Context(), o.Data); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	kept.Whole, kept.mapSum = false, 1
	to := filepath.Join(t.TempDir(), "image")
	if err := kept.Export(t.Context(), to); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half an image is left: %v", err)
	}
}

// volumes plays a machine with LVM, whose volume is the data device.
type volumes struct {
	ran  []string
	full bool // the group has no room
}

func (v *volumes) run(_ context.Context, name string, args ...string) (string, error) {
	v.ran = append(v.ran, name+" "+strings.Join(args, " "))
	switch {
	case name == "lvs":
		return "  vg/md\n", nil
	case v.full:
		return "", errors.New("insufficient free extents")
	}
	return "", nil
}

func TestALogicalVolume(t *testing.T) {
	v := &volumes{}
	o := device(t, content(1))
	o.Run = v.run
	kept, err := Save(t.Context(), o)
	if err != nil || kept.Kind != Snapshot || kept.Target != "vg/md.discarded-20260102T100000Z" || !kept.Exact() {
		t.Fatalf("%+v %v", kept, err)
	}
	k := one(t, o.Dir)
	if err := k.Delete(t.Context(), v.run); err != nil {
		t.Error(err)
	}
	want := []string{
		"lvs --noheadings --separator / --options vg_name,lv_name " + o.Data,
		"lvcreate --snapshot --extents 100%ORIGIN --permission r --name md.discarded-20260102T100000Z vg/md",
		"lvremove --yes vg/md.discarded-20260102T100000Z",
	}
	if !slices.Equal(v.ran, want) {
		t.Errorf("ran %q", v.ran)
	}
	v.full = true
	if kept, err = Save(t.Context(), o); err != nil || kept.Kind != Blocks {
		t.Errorf("a group without room: %+v %v", kept, err)
	}
}

// What a record names is removed only if it was made with it.
func TestDeleteTouchesNothingElse(t *testing.T) {
	o := device(t, content(1))
	k := Kept{ID: "20260102T100000Z", Path: filepath.Join(t.TempDir(), "record"), Record: Record{Kind: Clone, Target: o.Data}}
	if err := k.Delete(t.Context(), noVolumes); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Error(err)
	}
	if _, err := os.Stat(o.Data); err != nil {
		t.Error(err)
	}
}

// A file system that shares blocks: the clone stays as it is while the device is
// overwritten.
func TestAClone(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: loop devices and mounts")
		}
		t.Skip("needs root: loop devices and mounts")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	for _, argv := range [][]string{
		{"truncate", "--size", "320M", image}, {"mkfs.xfs", "-q", "-m", "reflink=1", image}, {"mkdir", at}, {"mount", "-o", "loop", image, at},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v %s", argv, err, out)
		}
	}
	defer func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	was := content(1)
	o := device(t, was)
	o.Data = filepath.Join(at, "data")
	if err := os.WriteFile(o.Data, was, 0o600); err != nil {
		t.Fatal(err)
	}
	kept, err := Save(t.Context(), o)
	if err != nil || kept.Kind != Clone || kept.What() != fmt.Sprintf("a clone of it, %s.discarded-%s", o.Data, kept.ID) {
		t.Fatalf("%+v %v", kept, err)
	}
	f, err := os.OpenFile(o.Data, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write(content(2))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	k := one(t, o.Dir)
	if !bytes.Equal(export(t, k), was) {
		t.Error("the clone has changed")
	}
	if err := k.Delete(t.Context(), noVolumes); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(at); err != nil || len(left) != 1 {
		t.Errorf("left: %v %v", left, err)
	}
}
