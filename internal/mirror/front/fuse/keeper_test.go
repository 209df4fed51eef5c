package fuse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

// The environment of a child, which serves the file until it gets SIGTERM.
const (
	childFile = "TASUKI_TEST_FILE"
	// Take every write, or, from SIGTERM on, flush, and never complete one: "20 write".
	childHold = "TASUKI_TEST_HOLD"
)

// keeperFile makes a process the keeper of a child.
const keeperFile = "TASUKI_TEST_KEEPER"

func childOf(file string, out *os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childFile+"="+file)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	return cmd
}

// child is the process that serves. It prints "serving PATH PID", and "holding N"
// when N writes wait.
func child(path string) error {
	keeper, err := keep.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = keeper.Close() }()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	var d front.Device
	if what := os.Getenv(childHold); what != "" {
		held, err := holding(ctx, path, what)
		if err != nil {
			return err
		}
		d = held
	} else if d, err = openDisk(path); err != nil {
		return err
	}
	f, err := Attach(ctx, d, keeper, Options{Name: "test"})
	if err != nil {
		return err
	}
	fmt.Println("serving", f.Path(), os.Getpid())
	served := make(chan error, 1)
	go func() { served <- f.Serve() }()
	for {
		select {
		case err := <-served:
			return err
		case <-ctx.Done():
		}
		end, cancel := context.WithTimeout(context.Background(), limit)
		err := f.Detach(end)
		cancel()
		if err == nil || !errors.Is(err, front.ErrBusy) {
			return err
		}
	}
}

func holding(ctx context.Context, path, what string) (front.Device, error) {
	n, op, _ := strings.Cut(what, " ")

	size, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	d, err := fronttest.Map(path, size.Size(), 512)
	if err != nil {
		return nil, err
	}
	d.Hold(func(s fronttest.Seen) bool { return s.Op.String() == op && (s.Op == front.Write || ctx.Err() != nil) })
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for strconv.Itoa(d.Held()) != n {
			<-tick.C
		}
		fmt.Println("holding", n)
	}()
	return d, nil
}

// kept is a keeper that runs in the test, and its children.
type kept struct {
	t     *testing.T
	lines chan string
	stop  context.CancelFunc
	ended chan error
	path  string // of the block device
}

// keeper starts one. env is added to the environment of the n-th child.
func keeper(t *testing.T, file string, env func(n int) []string) *kept {
	t.Helper()
	needRoot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &kept{t: t, lines: make(chan string, 100), stop: cancel, ended: make(chan error, 1)}
	go func() {
		for in := bufio.NewScanner(r); in.Scan(); {
			k.lines <- in.Text()
		}
		close(k.lines)
	}()
	n := 0
	go func() {
		k.ended <- keep.Run(ctx, keep.Options{
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Command: func() *exec.Cmd {
				n++
				cmd := childOf(file, w)
				if env != nil {
					cmd.Env = append(cmd.Env, env(n)...)
				}
				return cmd
			},
		})
		_ = w.Close()
	}()
	t.Cleanup(func() {
		k.end()
		_ = r.Close()
	})
	return k
}

// end has the last child detach, and waits for the keeper.
func (k *kept) end() {
	k.t.Helper()
	if k.ended == nil {
		return
	}
	k.stop()
	select {
	case err := <-k.ended:
		if err != nil && !errors.Is(err, context.Canceled) {
			k.t.Errorf("the keeper ended with %v", err)
		}
	case <-time.After(limit):
		k.t.Fatal("the keeper does not end")
	}
	k.ended = nil
	if k.path != "" && bound(k.t, k.path) {
		k.t.Errorf("%s is still there", k.path)
	}
}

// line waits for a line of a child that begins so, and returns its other words.
func (k *kept) line(begin string) []string {
	k.t.Helper()
	end := time.After(limit)
	for {
		select {
		case l, ok := <-k.lines:
			if !ok {
				k.t.Fatalf("the keeper ended, and no child said %q", begin)
			}
			if words := strings.Fields(l); words[0] == begin {
				return words[1:]
			}
		case <-end:
			k.t.Fatalf("no child said %q", begin)
		}
	}
}

// serving waits for the next child, and returns its process.
func (k *kept) serving() (pid int) {
	k.t.Helper()
	words := k.line("serving")
	if k.path != "" && words[0] != k.path {
		k.t.Fatalf("the block device was %s and is %s", k.path, words[0])
	}
	k.path = words[0]
	pid, err := strconv.Atoi(words[1])
	if err != nil {
		k.t.Fatal(err)
	}
	return pid
}

func (k *kept) kill(pid int) {
	k.t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		k.t.Fatal(err)
	}
}

func newFile(t *testing.T, size int64) string {
	t.Helper()
	needRoot(t)
	d, path := newDisk(t, size)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRequestsOutliveTheirProcess(t *testing.T) {
	file := newFile(t, 16<<20)
	const writes = 20
	k := keeper(t, file, func(n int) []string {
		if n < 3 {
			return []string{fmt.Sprintf("%s=%d write", childHold, writes)}
		}
		return nil
	})
	pid := k.serving()
	b := open(t, k.path)
	done := make(chan error, writes)
	for i := range writes {
		go func() {
			_, err := b.WriteAt(filled(8192, byte(i+1)), int64(i)*8192)
			done <- err
		}()
	}
	for range 2 { // the second process holds what was resent
		k.line("holding")
		select {
		case err := <-done:
			t.Fatalf("a write that is held ended with %v", err)
		default:
		}
		k.kill(pid)
		pid = k.serving()
	}
	for range writes {
		select {
		case err := <-done:
			is(t, "a write that was resent", err, 0)
		case <-time.After(limit):
			t.Fatal("a write was lost")
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	k.end()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range writes {
		if !bytes.Equal(content[i*8192:(i+1)*8192], filled(8192, byte(i+1))) {
			t.Errorf("write %d is not on the disk", i)
		}
	}
}

func TestKillsUnderLoad(t *testing.T) {
	file := newFile(t, 128<<20)
	k := keeper(t, file, nil)
	pid := k.serving()
	run(t, "mkfs.ext4", "-q", k.path)
	dir := mount(t, k.path, "ext4")
	stop, failed := make(chan struct{}), make(chan error, 2)
	go func() { failed <- appends(filepath.Join(dir, "lines"), stop) }()
	go func() {
		cmd := exec.Command("fio", "--name=load", "--filename="+filepath.Join(dir, "fio"), "--size=32m", "--rw=randrw", "--bsrange=4k-64k",
			"--direct=1", "--ioengine=libaio", "--iodepth=16", "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1", "--verify_state_save=0", "--time_based", "--runtime=5")
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("fio: %w\n%s", err, out)
		}
		failed <- err
	}()
	for range 3 {
		after := completed(t, k.path) + 200 + rand.Uint64N(500)
		eventually(t, "writes go on", func() bool { return completed(t, k.path) > after })
		k.kill(pid)
		pid = k.serving()
	}
	is(t, "fio or the writer", <-failed, 0)
	close(stop)
	is(t, "fio or the writer", <-failed, 0)
	unmount(t, dir)
	k.end()
	run(t, "fsck.ext4", "-fn", file)
}

// appends writes lines, each of them synced, until stop.
func appends(path string, stop <-chan struct{}) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		if _, err := fmt.Fprintln(f, i); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
}

// completed is how many writes of a block device have ended.
func completed(t *testing.T, path string) uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.Fields(string(b))[4], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBlockDeviceOutlivesItsProcessUnmounted(t *testing.T) {
	k := keeper(t, newFile(t, 16<<20), nil)
	pid := k.serving()
	b := open(t, k.path)
	want := filled(4096, 9)
	if _, err := b.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	k.kill(pid)
	k.serving() // compares the path
	b, got := open(t, k.path), filled(4096, 0)
	if _, err := b.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what was written before is gone (%v)", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// everybody is a keeper and its child, both of them processes.
type everybody struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *bufio.Reader
	child int
	path  string
}

func newEverybody(t *testing.T, file, hold string) *everybody {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	e := &everybody{t: t, cmd: exec.Command("/proc/self/exe"), out: bufio.NewReader(r)}
	e.cmd.Env = append(os.Environ(), keeperFile+"="+file, childHold+"="+hold)
	e.cmd.Stdout, e.cmd.Stderr = w, os.Stderr
	err = e.cmd.Start()
	_ = w.Close() // they have it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanf(e.out, "serving %s %d\n", &e.path, &e.child); err != nil {
		t.Fatal(err)
	}
	return e
}

// kill is a machine that loses its power, or a namespace whose processes are all
// killed: the keeper first, or it starts another child.
func (e *everybody) kill() {
	e.t.Helper()
	for _, p := range []int{e.cmd.Process.Pid, e.child} {
		if err := unix.Kill(p, unix.SIGKILL); err != nil {
			e.t.Fatal(err)
		}
	}
}

func (e *everybody) gone() {
	e.t.Helper()
	dead := make(chan error, 1)
	go func() { dead <- e.cmd.Wait() }()
	select {
	case <-dead:
	case <-time.After(limit):
		e.t.Fatal("the keeper cannot be killed: it waits for an answer of its child")
	}
	eventually(e.t, "the loop device is gone", func() bool { return !bound(e.t, e.path) })
}

func TestNothingOutlivesEverybody(t *testing.T) {
	file := newFile(t, 64<<20)
	e := newEverybody(t, file, "")
	run(t, "mkfs.ext4", "-q", e.path)
	dir := mount(t, e.path, "ext4")
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() { failed <- appends(filepath.Join(dir, "lines"), stop) }()
	after := completed(t, e.path) + 200
	eventually(t, "writes go on", func() bool { return completed(t, e.path) > after })
	e.kill()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("the writer noticed nothing")
		}
	case <-time.After(limit):
		t.Fatal("the writer waits for ever")
	}
	close(stop)
	unmount(t, dir)
	e.gone()
	_ = exec.Command("fsck.ext4", "-p", file).Run() // plays the journal, which is status 1
	run(t, "fsck.ext4", "-fn", file)
}

// The keeper is in the middle of a system call that the child has to answer.
func TestEverybodyDiesWhileDetaching(t *testing.T) {
	e := newEverybody(t, newFile(t, 16<<20), "1 flush")
	if err := unix.Kill(e.child, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanf(e.out, "holding 1\n"); err != nil {
		t.Fatal(err)
	}
	e.kill()
	e.gone()
}

func TestSupported(t *testing.T) {
	needRoot(t)
	if err := Supported(); err != nil {
		t.Error(err)
	}
}
