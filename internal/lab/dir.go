package lab

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
)

// rootDir holds the directories of all labs. It must not lie below a directory
// that machines have an overlay on, such as /var. TASUKI_LAB_DIR overrides it.
const rootDir = "/run/tasuki-lab"

// marker is in the environment of the supervisor and of every init, so that
// down finds them when nothing else is left.
const marker = "TASUKI_LAB="

// dir is the directory of one lab.
type dir string

func (d dir) name() string    { return filepath.Base(string(d)) }
func (d dir) lock() string    { return filepath.Join(string(d), "lock") }
func (d dir) plan() string    { return filepath.Join(string(d), "plan.json") }
func (d dir) socket() string  { return filepath.Join(string(d), "_lab.sock") }
func (d dir) program() string { return filepath.Join(string(d), "tasuki") }
func (d dir) disks() string   { return filepath.Join(string(d), "disks") }
func (d dir) blocks() string  { return filepath.Join(string(d), "blocks") }

func (d dir) control(machine string) string { return filepath.Join(string(d), machine+".sock") }
func (d dir) state(machine string) string   { return filepath.Join(d.disks(), machine, "state") }
func (d dir) block(machine, disk string) string {
	return filepath.Join(d.blocks(), machine, disk)
}
func (d dir) power(host string) string  { return filepath.Join(string(d), host+".pwr") }
func (d dir) log(machine string) string { return filepath.Join(string(d), machine+".log") }

// root returns where labs are.
func root() string { return cmp.Or(os.Getenv("TASUKI_LAB_DIR"), rootDir) }

// dirOf returns the directory of the lab of that name. The paths of its
// sockets must fit into the kernel's 108 bytes.
func dirOf(name string) (dir, error) {
	if !nameForm.MatchString(name) {
		return "", &api.Error{
			Code: "bad-name", Message: fmt.Sprintf("%q is no name for a lab", name),
			Hint: "take 1 to 32 letters, digits and dashes",
		}
	}
	path, err := filepath.Abs(filepath.Join(root(), name))
	if err != nil {
		return "", err
	}
	if len(path) > 107-len("/.sock")-32 {
		return "", &api.Error{
			Code: "bad-name", Message: "the directory of labs has too long a name for sockets: " + path,
			Hint: "set TASUKI_LAB_DIR to a shorter one",
		}
	}
	return dir(path), nil
}

// Names returns the labs that there are, up or left over, sorted.
func Names() []string {
	entries, _ := os.ReadDir(root())
	var names []string
	for _, e := range entries {
		if e.IsDir() && nameForm.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

// errHeld says that a supervisor, or a down, holds the lab.
var errHeld = errors.New("the lab is held by another process")

// hold takes the lab's directory for the caller, as long as the file is open
// there or in a child that inherits it. It makes the directory.
func (d dir) hold() (*os.File, error) {
	for {
		if err := os.MkdirAll(string(d), 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(d.lock(), os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a down removed the directory between the two
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errHeld
			}
			return nil, err
		}
		mine, err1 := f.Stat()
		there, err2 := os.Stat(d.lock())
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close()
	}
}
