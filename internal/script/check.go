package script

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Reasons why Check refuses a program.
var (
	ErrSymlink       = errors.New("is a symbolic link")
	ErrNotRegular    = errors.New("is not a regular file")
	ErrOwner         = errors.New("is not owned by root")
	ErrWritable      = errors.New("can be written by others than its owner (try chmod go-w)")
	ErrNotExecutable = errors.New("is not executable (try chmod +x)")
)

// maxLinks bounds the directory links on one path, as the kernel does.
const maxLinks = 40

// Check says whether a program may run as root: it is a regular file, no link,
// executable, and neither it nor a directory on its way can be changed by
// anybody but root (or the user that this process runs as). Directories may be
// links of root's. A directory with the sticky bit, like /tmp, may be writable:
// nobody can replace there what root owns. The error is one of those above or
// fs.ErrNotExist, with the path at fault.
func Check(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s: the path of a program must be absolute", path)
	}
	path = filepath.Clean(path)
	links := 0
	if _, err := checkDirs("/", filepath.Dir(path), &links); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return missing(path, err)
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s %w", path, ErrSymlink)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s %w", path, ErrNotRegular)
	case !trusted(info):
		return fmt.Errorf("%s %w", path, ErrOwner)
	case info.Mode()&0o022 != 0:
		return fmt.Errorf("%s %w", path, ErrWritable)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s %w", path, ErrNotExecutable)
	}
	return nil
}

// checkDirs checks every directory on the way from the directory at, which is
// checked already and holds no link, along path. It returns where that leads.
func checkDirs(at, path string, links *int) (string, error) {
	if filepath.IsAbs(path) {
		at = "/"
		if err := checkDir(at); err != nil {
			return "", err
		}
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		next := filepath.Join(at, name)
		target, err := os.Readlink(next)
		if err != nil { // no link, or nothing at all
			if err := checkDir(next); err != nil {
				return "", err
			}
			at = next
			continue
		}
		info, err := os.Lstat(next)
		if err != nil {
			return "", missing(next, err)
		}
		if !trusted(info) {
			return "", fmt.Errorf("the directory %s %w", next, ErrOwner)
		}
		if *links++; *links > maxLinks {
			return "", fmt.Errorf("the directory %s %w that leads nowhere", next, ErrSymlink)
		}
		if at, err = checkDirs(at, target, links); err != nil {
			return "", err
		}
	}
	return at, nil
}

func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return missing(dir, err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory: %w", dir, fs.ErrNotExist)
	case !trusted(info):
		return fmt.Errorf("the directory %s %w", dir, ErrOwner)
	case info.Mode()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("the directory %s %w", dir, ErrWritable)
	}
	return nil
}

func trusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}

func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist: %w", path, fs.ErrNotExist)
	}
	return fmt.Errorf("check %s: %w", path, err)
}
