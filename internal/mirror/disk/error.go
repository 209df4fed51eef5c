package disk

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Error says what failed where. Err is a syscall.Errno wherever a system call or
// an injected fault failed, so errors.Is(err, syscall.EIO) and
// errors.Is(err, errors.ErrUnsupported) tell what it was.
type Error struct {
	Op   string // open, read, write, flush, discard, zero, size
	Path string
	Off  int64 // in bytes; of reads, writes, discards and zeroes
	Len  int64 // in bytes; 0: the operation has no range
	Err  error
	Hint string // what to do about it; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Op, e.Path)
	if e.Len != 0 {
		fmt.Fprintf(&b, " (%d bytes at %d)", e.Len, e.Off)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Errno returns the error number behind an error of this package: 0 of nil, EIO
// of what has none, as a block device answers.
func Errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if no, ok := errors.AsType[syscall.Errno](err); ok && no != 0 {
		return no
	}
	return syscall.EIO
}

// errMisuse is behind every call that breaks the contract of Disk.
var errMisuse = fmt.Errorf("not aligned: %w", syscall.EINVAL)

// checkRange is the part of the contract that holds for every operation with a
// range, whatever is below.
func checkRange(op, path string, off, n int64, sector int) error {
	if mask := int64(sector - 1); off < 0 || n < 0 || off&mask != 0 || n&mask != 0 {
		return &Error{Op: op, Path: path, Off: off, Len: n, Err: errMisuse}
	}
	return nil
}

// checkBuffer is checkRange for a buffer.
func checkBuffer(op, path string, p []byte, off int64, sector int) error {
	if len(p) > 0 && address(p)%Alignment != 0 {
		return &Error{Op: op, Path: path, Off: off, Len: int64(len(p)), Err: errMisuse}
	}
	return checkRange(op, path, off, int64(len(p)), sector)
}

// errPastEnd is a write, discard or zero that does not fit, as a block device
// answers: a file would grow.
func errPastEnd(op, path string, off, n, size int64) error {
	return &Error{Op: op, Path: path, Off: off, Len: n, Err: fmt.Errorf("past the end at %d: %w", size, syscall.ENOSPC)}
}
