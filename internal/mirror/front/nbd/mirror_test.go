package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
)

// guestProgram is tasuki, in the guest.
const guestProgram = "/sbin/tasuki"

// mirror is a mirror disk whose two copies are in this guest, kept and served by the
// real processes. The test is both daemons and the cluster.
type mirror struct {
	t       testing.TB
	dirs    [2]string
	spec    [2]control.Spec
	clients [2]*control.Client

	mu  sync.Mutex
	in  [2]bool // the in-sync set
	rev uint64
}

// newMirror starts both copies, with that front end, and makes the first one active
// when it returns the block device.
func newMirror(t testing.TB, frontEnd string) (m *mirror, device string) {
	t.Helper()
	needKernel(t)
	if _, err := os.Stat(guestProgram); err != nil {
		t.Skip("needs tasuki itself, which is only in the guest of make test-vm")
	}
	m = &mirror{t: t}
	root := t.TempDir()
	ids := m.identities(root)
	addrs := [2]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
	for i, disks := range [2][2]string{{"/dev/vda", "/dev/vdb"}, {"/dev/vdc", "/dev/vdd"}} {
		m.dirs[i] = filepath.Join(root, "run", strconv.Itoa(i))
		m.spec[i] = control.Spec{Resource: "md", Node: "ab"[i : i+1], Peer: "ba"[i : i+1], Data: disks[0], Meta: disks[1], Identity: ids[i],
			Addresses: addrs[i : i+1], PeerAddresses: addrs[1-i : 2-i], Port: 29051, PeerTimeout: 5 * time.Second, IOTimeout: time.Minute,
			InitialCopy: true, SplitBrain: "none", FrontEnd: frontEnd}
		for _, d := range disks { // of an earlier test
			if err := wipe(d); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := control.WriteSpec(m.dirs[i], m.spec[i]); err != nil {
			t.Fatal(err)
		}
		keeper := exec.Command(guestProgram, "mirror", "keep", m.dirs[i])
		keeper.Stderr = t.Output()
		if err := keeper.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = keeper.Process.Kill(); _ = keeper.Wait() })
		m.connect(i, 0)
	}
	a, err := m.do(0, control.Request{Do: control.Activate, Epoch: 1, Construct: true, Set: m.set(0)})
	if err != nil {
		t.Fatal(err)
	}
	m.joined()
	return m, a.Path
}

// wipe empties a disk.
func wipe(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size)
}

// identities makes those of both nodes.
func (m *mirror) identities(root string) (dirs [2]string) {
	m.t.Helper()
	dirs = [2]string{filepath.Join(root, "id-a"), filepath.Join(root, "id-b")}
	a, err := identity.Init(dirs[0], "trial", "a")
	if err != nil {
		m.t.Fatal(err)
	}
	key, csr, err := identity.NewCSR("b")
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := a.Sign(csr, "b")
	if err != nil {
		m.t.Fatal(err)
	}
	ca, err := a.CAKeyPEM()
	if err == nil {
		_, err = identity.Adopt(dirs[1], key, cert, a.CAPEM(), ca)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return dirs
}

// connect speaks with the process of a copy, as soon as there is one that is not the
// one that was, and tells it what was agreed on.
func (m *mirror) connect(i, was int) {
	m.t.Helper()
	eventually(m.t, "the process answers", func() bool {
		c, err := control.Dial(m.t.Context(), filepath.Join(m.dirs[i], control.FileSocket), func(msg control.Message) { m.hears(i, msg) })
		if err != nil {
			return false
		}
		m.mu.Lock()
		m.clients[i] = c
		m.mu.Unlock()
		pid := m.status(i).PID
		return pid > 0 && pid != was
	})
	m.tell(i)
}

// hears agrees to whatever the active copy asks for.
func (m *mirror) hears(i int, msg control.Message) {
	if msg.Ask == nil || i != 0 {
		return
	}
	m.mu.Lock()
	fits := msg.Ask.Rev == m.rev
	if fits {
		m.in = [2]bool{msg.Ask.Self, msg.Ask.Peer}
		m.rev++
	}
	m.mu.Unlock()
	if fits {
		go func() { m.tell(0); m.tell(1) }()
	}
}

func (m *mirror) set(i int) *control.Set {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &control.Set{Self: m.in[i], Peer: m.in[1-i], Rev: m.rev}
}

func (m *mirror) tell(i int) {
	_, _ = m.do(i, control.Request{Do: control.Told, Set: m.set(i)}) // its process may just have been killed
}

func (m *mirror) do(i int, r control.Request) (control.Message, error) {
	m.mu.Lock()
	c := m.clients[i]
	m.mu.Unlock()
	if c == nil {
		return control.Message{}, os.ErrNotExist
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.Do(ctx, r)
}

func (m *mirror) status(i int) control.Status {
	a, err := m.do(i, control.Request{Do: control.Query})
	if err != nil || a.Status == nil {
		return control.Status{}
	}
	return *a.Status
}

func (m *mirror) joined() {
	m.t.Helper()
	eventually(m.t, "both copies are in sync", func() bool { s := m.set(0); return s.Self && s.Peer && m.status(0).Phase == "joined" })
}

// mounted makes a file system on the device and mounts it until the test ends.
func (m *mirror) mounted(device string) (at string) {
	m.t.Helper()
	at = m.t.TempDir()
	must(m.t, "mke2fs", "-q", "-t", "ext4", device)
	if err := unix.Mount(device, at, "ext4", 0, ""); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// ends takes everything apart: the file system is whole, and the copies are equal.
func (m *mirror) ends(device, at string) {
	m.t.Helper()
	if err := unix.Unmount(at, 0); err != nil {
		m.t.Fatal(err)
	}
	must(m.t, "e2fsck", "-f", "-n", device)
	m.joined()
	if _, err := m.do(0, control.Request{Do: control.Deactivate}); err != nil {
		m.t.Fatal(err)
	}
	var files [2]*os.File
	for i := range files {
		f, err := os.Open(m.spec[i].Data)
		if err != nil {
			m.t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	a, b := make([]byte, mib), make([]byte, mib)
	for off := int64(0); ; off += mib {
		n, err := files[0].ReadAt(a, off)
		k, _ := files[1].ReadAt(b, off)
		if n != k || !bytes.Equal(a[:n], b[:k]) {
			m.t.Fatalf("the copies differ in the %d bytes from %d on", n, off)
		}
		if err == io.EOF {
			return
		}
	}
}

// The process that serves is killed again and again under a file system that is
// written to: its keeper starts another one, which takes up the kernel's device, and
// nobody sees an error.
func TestKernelMirrorIsKilled(t *testing.T) {
	m, device := newMirror(t, "nbd")
	at := m.mounted(device)
	w := &writer{dir: at, stop: make(chan struct{}), ended: make(chan error, 1)}
	go w.run()
	for _, victim := range []int{0, 1, 0} {
		w.more(t)
		was := m.status(victim).PID
		if was == 0 { // which kill would take for everybody
			t.Fatal("the process says nothing of itself")
		}
		start := time.Now()
		if err := unix.Kill(was, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		m.connect(victim, was)
		w.more(t)
		t.Logf("the process of copy %d was killed, and 20 more files were written %v after that", victim, time.Since(start).Round(time.Millisecond))
	}
	close(w.stop)
	if err := <-w.ended; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files were written, the slowest took %v", w.files.Load(), w.slowest.Round(time.Millisecond))
	m.ends(device, at)
}

// Memory that the process and the program have together, and how much that dirties.
const (
	dirtySize   = 96 * mib
	memoryLimit = 48 * mib
)

// The process that serves and a program that dirties far more than fits are in one
// memory cgroup of version 2: memory is freed there by writing to the mirror disk,
// which goes on meanwhile.
func TestKernelMirrorUnderMemoryPressure(t *testing.T) {
	m, device := newMirror(t, "nbd")
	at := m.mounted(device)
	root := t.TempDir()
	if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	group := filepath.Join(root, "tight")
	err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0)
	if err == nil {
		err = os.Mkdir(group, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(group, "memory.max"), []byte(strconv.Itoa(memoryLimit)), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	serves := m.status(0).PID
	join(t, group, serves)
	start := time.Now()
	dirty(t, group, filepath.Join(at, "filler"))
	took := time.Since(start)
	events, err := os.ReadFile(filepath.Join(group, "memory.events"))
	t.Logf("%d MiB within %d MiB took %v, %.1f MiB/s; %s (%v)", dirtySize/mib, memoryLimit/mib, took.Round(time.Millisecond), dirtySize/mib/took.Seconds(), strings.Fields(string(events)), err)
	if now := m.status(0).PID; now != serves {
		t.Errorf("process %d serves, and %d did before", now, serves)
	}
	join(t, root, serves)
	if err := errors.Join(os.Remove(group), unix.Unmount(root, unix.MNT_DETACH)); err != nil {
		t.Error(err)
	}
	m.ends(device, at)
}

func join(t *testing.T, group string, pid int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// dirty writes to a file, through the page cache, in a process of the cgroup.
func dirty(t *testing.T, group, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe")
	c.Env = append(os.Environ(), dirtyEnv+"="+path)
	c.Stderr = t.Output()
	begin, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	join(t, group, c.Process.Pid)
	_ = begin.Close()
	if err := c.Wait(); err != nil {
		t.Fatalf("the program that writes: %v", err)
	}
}

// dirtyEnv is the file that the program writes to which dirty starts.
const dirtyEnv = "TASUKI_TEST_NBD_DIRTY"

func dirtier(path string) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	p := fill(mib, 3)
	for range dirtySize / mib {
		if _, err := f.Write(p); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return f.Close()
}
