package disk

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

type opKind uint8

const (
	opRead opKind = iota
	opWrite
	opFlush
	opDiscard
	opZero
	opCount
)

var opNames = [opCount]string{"read", "write", "flush", "discard", "zero"}

// Ops is a set of operations.
type Ops uint8

// The operations that a fault can meet.
const (
	Reads    Ops = 1 << opRead
	Writes   Ops = 1 << opWrite
	Flushes  Ops = 1 << opFlush
	Discards Ops = 1 << opDiscard
	Zeroes   Ops = 1 << opZero
	All          = Reads | Writes | Flushes | Discards | Zeroes
)

// Action is what a fault does.
type Action uint8

// The actions. Value is of the Fault.
const (
	FailEIO    Action = iota // the operation fails with EIO
	FailENOSPC               // the same with ENOSPC
	Hang                     // it waits until the faults are changed, and goes on
	Delay                    // it takes Value nanoseconds more
	Lost                     // it succeeds and does nothing: a write or flush that the device lied about
	Torn                     // only the first Value sectors of a write reach the medium, then the power is gone
	Flip                     // one bit of what is read or written is wrong, the lowest one of the first byte in the range
	Misdirect                // a write goes Value bytes further on
)

// actions is the name of each in a text, the operations that it can meet, and
// whether it has a value.
var actions = [...]struct {
	name  string
	on    Ops
	value string // "", "time", "count" or "bytes"
}{
	FailEIO:    {"eio", All, ""},
	FailENOSPC: {"enospc", All, ""},
	Hang:       {"hang", All, ""},
	Delay:      {"delay", All, "time"},
	Lost:       {"lost", All &^ Reads, ""},
	Torn:       {"torn", Writes, "count"},
	Flip:       {"flip", Reads | Writes, ""},
	Misdirect:  {"misdirect", Writes, "bytes"},
}

// Fault is one thing that goes wrong. It meets the operations in On that touch
// the range From to To, bytes of the device; a flush is met only where there is
// no range.
type Fault struct {
	On    Ops
	Do    Action
	Value int64 // see the actions; others have none
	After int   // so many operations that it could meet pass before
	Count int   // then so many are met; 0: all
	From  int64 // in bytes
	To    int64 // in bytes, exclusive; 0: there is no range
}

// meets says whether an operation is one that the fault is about.
func (f Fault) meets(k opKind, off, n int64) bool {
	if f.On&(1<<k) == 0 {
		return false
	}
	return f.To == 0 || k != opFlush && off < f.To && off+n > f.From
}

// String returns the text that ParseFault reads.
func (f Fault) String() string {
	var on []string
	for k, name := range opNames {
		if f.On&(1<<k) != 0 {
			on = append(on, name)
		}
	}
	if f.On == All {
		on = []string{"all"}
	}
	parts := []string{strings.Join(on, ","), actions[f.Do].name}
	switch actions[f.Do].value {
	case "time":
		parts[1] += "=" + time.Duration(f.Value).String()
	case "count", "bytes":
		parts[1] += fmt.Sprintf("=%d", f.Value)
	}
	if f.After != 0 {
		parts = append(parts, fmt.Sprintf("after=%d", f.After))
	}
	if f.Count != 0 {
		parts = append(parts, fmt.Sprintf("count=%d", f.Count))
	}
	if f.To != 0 {
		parts = append(parts, fmt.Sprintf("range=%d-%d", f.From, f.To))
	}
	return strings.Join(parts, ":")
}

// ParseFault reads OPERATIONS:ACTION[=VALUE][:after=N][:count=N][:range=FROM-TO].
// Operations are read, write, flush, discard, zero, several with commas between,
// or all. Sizes may end in K, M, G or T (powers of 1024). For example
// write:eio:after=3, read:eio:range=0-1M, all:hang, write:delay=200ms,
// write:torn=3:count=1, flush:lost, read:flip:range=4K-8K, write:misdirect=1M.
func ParseFault(text string) (Fault, error) {
	f, err := parseFault(text)
	if err != nil {
		return Fault{}, fmt.Errorf("fault %q: %w", text, err)
	}
	return f, nil
}

func parseFault(text string) (Fault, error) {
	var f Fault
	parts := strings.Split(text, ":")
	if len(parts) < 2 {
		return f, errors.New("it has the form OPERATIONS:ACTION[:KEY=VALUE]")
	}
	for name := range strings.SplitSeq(parts[0], ",") {
		on, err := parseOp(name)
		if err != nil {
			return f, err
		}
		f.On |= on
	}
	if err := f.parseAction(parts[1]); err != nil {
		return f, err
	}
	for _, part := range parts[2:] {
		if err := f.parseKey(part); err != nil {
			return f, err
		}
	}
	return f, nil
}

func parseOp(name string) (Ops, error) {
	if name == "all" {
		return All, nil
	}
	for k, n := range opNames {
		if n == name {
			return 1 << k, nil
		}
	}
	return 0, fmt.Errorf("no operation %q", name)
}

func (f *Fault) parseAction(text string) error {
	name, value, given := strings.Cut(text, "=")
	for do, a := range actions {
		if a.name != name {
			continue
		}
		f.Do = Action(do)
		if f.On == All {
			f.On = a.on
		}
		if f.On&^a.on != 0 {
			return fmt.Errorf("%s is not for all of these operations", name)
		}
		if given != (a.value != "") {
			return fmt.Errorf("%s has %s", name, map[bool]string{true: "a value: " + a.value, false: "no value"}[a.value != ""])
		}
		var err error
		switch a.value {
		case "time":
			var d time.Duration
			if d, err = time.ParseDuration(value); err == nil && d < 0 {
				err = errors.New("a time is not negative")
			}
			f.Value = int64(d)
		case "count":
			f.Value, err = parseNumber(value, math.MaxInt32)
		case "bytes":
			f.Value, err = parseSize(value)
		}
		return err
	}
	return fmt.Errorf("no action %q", name)
}

func (f *Fault) parseKey(text string) error {
	key, value, _ := strings.Cut(text, "=")
	var err error
	var n int64
	switch key {
	case "after":
		n, err = parseNumber(value, math.MaxInt32)
		f.After = int(n)
	case "count":
		n, err = parseNumber(value, math.MaxInt32)
		f.Count = int(n)
	case "range":
		from, to, _ := strings.Cut(value, "-")
		if f.From, err = parseSize(from); err != nil {
			return err
		}
		if f.To, err = parseSize(to); err == nil && f.To <= f.From {
			err = errors.New("a range is FROM-TO, and not empty")
		}
	default:
		err = fmt.Errorf("no key %q: there are after, count and range", key)
	}
	return err
}

func parseNumber(text string, most int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", text, most)
	}
	return n, nil
}

// parseSize reads bytes; the bound keeps sums of two within an int64.
func parseSize(text string) (int64, error) {
	shift := 0
	if n := len(text); n > 0 {
		if at := strings.IndexByte("KMGT", text[n-1]); at >= 0 {
			shift, text = 10*(at+1), text[:n-1]
		}
	}
	n, err := parseNumber(text, 1<<60>>shift)
	return n << shift, err
}
