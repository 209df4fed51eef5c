package script

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// trimEvery is how often the log of a running program is looked at.
const trimEvery = 5 * time.Second

// output is where one program writes: the log file itself, so that a daemon left
// behind keeps it whatever becomes of us, or a pipe that we drain.
type output struct {
	child *os.File // the program's end
	err   error    // why the log file is not used

	file *os.File // the log file, for reading; nil with a pipe
	from int64    // where the program's output starts

	pipe   *os.File
	most   int // of the tail, in bytes
	mu     sync.Mutex
	tail   []byte // guarded by mu
	copied chan struct{}
}

func openOutput(l Log, most int) (*output, error) {
	o := &output{most: most}
	if l.Path != "" {
		if o.err = o.openFile(l.Path); o.err == nil {
			return o, nil
		}
	}
	var err error
	if o.pipe, o.child, err = os.Pipe(); err != nil {
		return nil, err
	}
	o.copied = make(chan struct{})
	return o, nil
}

// openInput returns a file to read the input from: it is in memory only.
func openInput(input []byte) (*os.File, error) {
	if input == nil {
		return os.Open(os.DevNull)
	}
	fd, err := unix.MemfdCreate("input", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "input")
	_, err = f.Write(input)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (o *output) openFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	o.child, o.file, o.from = f, f, info.Size()
	return nil
}

// started follows the fork: the program has its end now.
func (o *output) started() {
	if o.pipe == nil {
		return
	}
	_ = o.child.Close()
	go func() {
		defer close(o.copied)
		o.copy()
	}()
}

// copy reads until the end of the output or until the deadline of the pipe.
func (o *output) copy() {
	buf := make([]byte, TailSize)
	for {
		n, err := o.pipe.Read(buf)
		o.keep(buf[:n])
		if err != nil {
			return
		}
	}
}

func (o *output) keep(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, b...)
	if over := len(o.tail) - o.most; over > 0 {
		o.tail = append(o.tail[:0], o.tail[over:]...)
	}
}

// finish follows the end of the program. It returns the tail of what is written
// by now and waits for nobody; what a daemon left behind writes later to a pipe
// is read and dropped.
func (o *output) finish() []byte {
	if o.file != nil {
		defer func() { _ = o.file.Close() }()
		return o.fileTail()
	}
	_ = o.pipe.SetReadDeadline(time.Unix(1, 0))
	<-o.copied
	if o.drain() {
		_ = o.pipe.Close()
	} else {
		_ = o.pipe.SetReadDeadline(time.Time{})
		go func() {
			_, _ = io.Copy(io.Discard, o.pipe)
			_ = o.pipe.Close()
		}()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail
}

// drain reads what is in the pipe now, at most what a pipe can hold; true at
// the end of the output.
func (o *output) drain() (end bool) {
	_ = o.pipe.SetReadDeadline(time.Time{})
	c, err := o.pipe.SyscallConn()
	if err != nil {
		return true
	}
	buf := make([]byte, TailSize)
	err = c.Read(func(fd uintptr) bool {
		for range 1 << 20 / TailSize {
			n, err := unix.Read(int(fd), buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n == 0 {
				end = !errors.Is(err, unix.EAGAIN)
				return true
			}
			o.keep(buf[:n])
		}
		return true
	})
	return end || err != nil
}

func (o *output) fileTail() []byte {
	info, err := o.file.Stat()
	if err != nil {
		return nil
	}
	size, from := info.Size(), o.from
	if size < from {
		from = 0 // it was rotated in between
	}
	from = max(from, size-TailSize)
	b := make([]byte, size-from)
	n, _ := o.file.ReadAt(b, from)
	return b[:n]
}

// trimming is held while a log is rotated: several programs may share one.
var trimming sync.Mutex

// Trim rotates the log if it has grown beyond its size: its last MaxSize bytes
// become PATH.1, and the file itself is emptied, so that those who write to it go
// on. What is written in the same instant may be lost. The log of a daemon left
// behind is trimmed by nobody else than who calls this now and then.
func (l Log) Trim() error {
	limit := l.MaxSize
	if limit <= 0 {
		limit = DefaultLogSize
	}
	if info, err := os.Stat(l.Path); l.Path == "" || err != nil || info.Size() <= limit {
		return nil
	}
	trimming.Lock()
	defer trimming.Unlock()
	if err := rotate(l.Path, limit); err != nil {
		return fmt.Errorf("rotate %s: %w", l.Path, err)
	}
	return nil
}

func rotate(path string, limit int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() <= limit {
		return err
	}
	old, err := os.OpenFile(path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	// What comes in while copying is at most as much again.
	_, err = io.Copy(old, io.NewSectionReader(f, info.Size()-limit, 2*limit))
	return errors.Join(err, old.Close(), f.Truncate(0))
}
