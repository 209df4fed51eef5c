package script

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// tree is a directory in which a test makes what Check looks at.
type tree struct {
	*testing.T
	dir string
}

func (t tree) at(name string) string { return filepath.Join(t.dir, name) }

func (t tree) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t tree) file(name string, mode fs.FileMode) {
	t.Helper()
	t.must(os.MkdirAll(filepath.Dir(t.at(name)), 0o755))
	t.must(os.WriteFile(t.at(name), []byte("#!/bin/sh\n"), 0o600))
	t.must(os.Chmod(t.at(name), mode))
}

func TestCheck(t *testing.T) {
	tr := tree{t, t.TempDir()}
	tr.file("good", 0o755)
	tr.file("private", 0o700)
	tr.file("by-group", 0o775)
	tr.file("by-others", 0o757)
	tr.file("plain", 0o644)
	tr.file("open/script", 0o755)
	tr.must(os.Chmod(tr.at("open"), 0o777))
	tr.file("group/script", 0o755)
	tr.must(os.Chmod(tr.at("group"), 0o775))
	tr.file("sticky/script", 0o755)
	tr.must(os.Chmod(tr.at("sticky"), 0o777|fs.ModeSticky))
	tr.file("open/below/script", 0o755)
	tr.file("deep/a/script", 0o755)
	for link, target := range map[string]string{
		"link": tr.at("good"), "absolute": tr.at("deep/a"), "relative": "deep/../deep/./a",
		"up": "absolute/..", "to-open": "open/below", "circle": "circle", "lost": "nowhere",
	} {
		tr.must(os.Symlink(target, tr.at(link)))
	}
	for path, want := range map[string]error{
		"good":              nil,
		"private":           nil,
		"sticky/script":     nil,
		"absolute/script":   nil,
		"relative/script":   nil,
		"up/a/script":       nil,
		"by-group":          ErrWritable,
		"by-others":         ErrWritable,
		"open/script":       ErrWritable,
		"group/script":      ErrWritable,
		"open/below/script": ErrWritable,
		"to-open/script":    ErrWritable,
		"plain":             ErrNotExecutable,
		"link":              ErrSymlink,
		"circle/script":     ErrSymlink,
		"deep":              ErrNotRegular,
		"none":              fs.ErrNotExist,
		"lost/script":       fs.ErrNotExist,
		"good/script":       fs.ErrNotExist,
	} {
		if err := Check(tr.at(path)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if Check("script.sh") == nil {
		t.Error("a relative path passed")
	}
}

func TestCheckOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: files of other users")
		}
		t.Skip("needs root: files of other users")
	}
	const stranger = 12345
	tr := tree{t, t.TempDir()}
	tr.file("his", 0o755)
	tr.must(os.Chown(tr.at("his"), stranger, 0))
	tr.file("home/script", 0o755)
	tr.must(os.Chown(tr.at("home"), stranger, 0))
	tr.file("good/script", 0o755)
	tr.must(os.Symlink(tr.at("good"), tr.at("link")))
	tr.must(os.Lchown(tr.at("link"), stranger, 0))
	for _, path := range []string{"his", "home/script", "link/script"} {
		if err := Check(tr.at(path)); !errors.Is(err, ErrOwner) {
			t.Errorf("%s: %v, want %v", path, err, ErrOwner)
		}
	}
	if err := Check(tr.at("good/script")); err != nil {
		t.Error(err)
	}
}
