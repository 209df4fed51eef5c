package look

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// put makes a file, with the directories that it is in, changed at a moment.
func put(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, path, at)
}

func touch(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func names(f api.MirrorFiles) (out []string) {
	for _, x := range f.Files {
		out = append(out, x.Path)
	}
	return out
}

func TestTheNewestAreNamed(t *testing.T) {
	dir := t.TempDir()
	for i := range 7 {
		put(t, filepath.Join(dir, "d", fmt.Sprintf("f%d", (i*3)%7)), noon.Add(time.Duration((i*3)%7)*time.Minute))
	}
	touch(t, filepath.Join(dir, "d"), noon.Add(-time.Hour))
	f, err := Tree(t.Context(), dir, noon.Add(time.Minute), 3)
	if err != nil || !slices.Equal(names(f), []string{"d/f6", "d/f5", "d/f4"}) || f.More != 2 || f.Text != "" || f.Files[0].Size != 4 || !f.Files[0].Time.Equal(noon.Add(6*time.Minute)) {
		t.Errorf("%+v %v", f, err)
	}
	if f, err = Tree(t.Context(), dir, time.Time{}, 20); err != nil || len(f.Files) != 8 || f.Files[7].Path != "d/" || f.More != 0 {
		t.Errorf("everything: %+v %v", f, err)
	}
	if f, err = Tree(t.Context(), dir, noon.Add(time.Hour), 20); err != nil || f.Files == nil || len(f.Files) != 0 {
		t.Errorf("nothing: %+v %v", f, err)
	}
	if _, err = Tree(t.Context(), filepath.Join(dir, "none"), noon, 20); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a tree that is not there: %v", err)
	}
}

func TestAWalkThatIsCutSaysSo(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "f"), noon)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f, err := Tree(ctx, dir, time.Time{}, 20); err != nil || !strings.Contains(f.Text, "time to look at 0 files") {
		t.Errorf("%+v %v", f, err)
	}
}

// What a name holds must not reach a terminal as it is, and what is shown must be
// one name only.
func TestNamesThatTellATerminalSomething(t *testing.T) {
	for name, want := range map[string]string{
		"plain/with space": "plain/with space", "日本.txt": "日本.txt",
		"a\x1b[2Jb": `"a\x1b[2Jb"`, "two\nlines": `"two\nlines"`, "bad\xffbyte": `"bad\xffbyte"`, "\u202egnp.exe": `"\u202egnp.exe"`,
		`a\x1b`: `"a\\x1b"`, `"quoted"`: `"\"quoted\""`,
	} {
		if got := Printable(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a\x1b"), noon)
	if f, err := Tree(t.Context(), dir, time.Time{}, 20); err != nil || names(f)[0] != `"a\x1b"` {
		t.Errorf("%+v %v", f, err)
	}
}

// needsRoot fails where tests have to be complete.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: loop devices and mounts")
	}
	t.Skip("needs root: loop devices and mounts")
}

func runs(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// image makes a file with a file system on it.
func image(t *testing.T, size int64, mkfs ...string) string {
	t.Helper()
	needsRoot(t)
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(mkfs) > 0 {
		runs(t, append(mkfs, path)...)
	}
	return path
}

// A file system that was left without being unmounted is looked at as it is: not a
// byte changes, and no loop device is left.
func TestFilesOfADevice(t *testing.T) {
	for name, mkfs := range map[string][]string{
		"ext3": {"mkfs.ext3", "-q"}, "ext4": {"mkfs.ext4", "-q"}, "ext4 that is to panic at errors": {"mkfs.ext4", "-q", "-e", "panic"}, "xfs": {"mkfs.xfs", "-q"},
	} {
		t.Run(name, func(t *testing.T) {
			size := int64(16 << 20)
			if mkfs[0] == "mkfs.xfs" {
				size = 300 << 20
			}
			path := crashed(t, image(t, size, mkfs...))
			before := path + ".before"
			runs(t, "cp", "--sparse=always", path, before)
			f, err := Device(t.Context(), path, time.Time{}, 20)
			if err != nil || !slices.Contains(names(f), "dir/synced") || !strings.Contains(f.Text, "is not shown") {
				t.Errorf("%+v %v", f, err)
			}
			runs(t, "cmp", before, path)
			if out, err := exec.Command("losetup", "--associated", path).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("left behind: %s %v", out, err)
			}
		})
	}
}

// crashed returns what a crash leaves of the file system: an image of it while it is
// mounted. dir/synced is on it for sure, because it was unmounted once since.
func crashed(t *testing.T, path string) string {
	t.Helper()
	at, left := t.TempDir(), filepath.Join(t.TempDir(), "left")
	mounted := func(do func()) {
		runs(t, "mount", "-o", "loop", path, at)
		defer runs(t, "umount", at)
		do()
	}
	mounted(func() { put(t, filepath.Join(at, "dir", "synced"), noon) })
	mounted(func() {
		put(t, filepath.Join(at, "late"), noon)
		runs(t, "sync", "--file-system", at)
		runs(t, "cp", "--sparse=always", path, left)
	})
	return left
}

func TestWhatIsNoFileSystem(t *testing.T) {
	path := image(t, 1<<20)
	if _, err := Device(t.Context(), path, noon, 20); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	// Only the magic of one: the kernel says why it does not mount it.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{0x53, 0xef}, 1024+56)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Device(t.Context(), path, noon, 20); err == nil || !strings.Contains(err.Error(), "mount it as ext4") {
		t.Error(err)
	}
}

func TestTheCommand(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "f"), noon)
	for since, want := range map[time.Time]int{noon.Add(-time.Second): 1, noon: 0, {}: 1} {
		args := Args(dir, since)
		var out bytes.Buffer
		var f api.MirrorFiles
		if err := Main(t.Context(), args[2:], &out); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &f); err != nil || len(f.Files) != want || !f.Since.Equal(since) {
			t.Errorf("%q: %s (%v)", args, out.String(), err)
		}
	}
	for _, args := range [][]string{nil, {dir}, {dir, "noon"}, {filepath.Join(dir, "none"), "0"}} {
		if err := Main(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%q", args)
		}
	}
}
