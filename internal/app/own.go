package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/host/priority"
)

// What a process of our own program may take that answers a question.
const (
	askTime   = 20 * time.Second
	askQueue  = 5 * time.Second // until it is this one's turn
	askMemory = "256MiB"
	askAnswer = 16 << 20 // bytes
	askNice   = 10
)

// asker runs our own program for questions that take a processor for a while: one
// at a time, behind every other program of the machine, and the first to go when
// memory is short. The daemon has precedence over them all, so it must not answer
// such questions itself.
type asker struct {
	program string
	queue   time.Duration
	turn    chan struct{} // capacity 1
}

func newAsker() *asker {
	return &asker{program: "/proc/self/exe", queue: askQueue, turn: make(chan struct{}, 1)}
}

// ask returns what the program writes. It ends with ctx.
func (k *asker) ask(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	wait := time.NewTimer(k.queue)
	defer wait.Stop()
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-wait.C:
		return nil, &api.Error{Code: "overload", Message: "this node is answering another such question", Hint: "try again, or ask another node"}
	}
	c := osexec.CommandContext(ctx, k.program, args...)
	out, complaint := &bounded{most: askAnswer}, &bounded{most: 4 << 10}
	c.Dir, c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = "/", bytes.NewReader(stdin), out, complaint, time.Second
	c.Env = append(os.Environ(), "GOMAXPROCS=1", "GOMEMLIMIT="+askMemory)
	if err := priority.Ordinary(c.Start); err != nil {
		return nil, fmt.Errorf("start a process that answers: %w", err)
	}
	humble(c.Process.Pid)
	err := c.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if out.over {
		return nil, fmt.Errorf("the answer is longer than %d bytes", askAnswer)
	}
	var exit *osexec.ExitError
	if err != nil && (!errors.As(err, &exit) || out.text.Len() == 0) { // who refuses answers all the same
		return nil, fmt.Errorf("a process that answers: %w: %s", err, strings.TrimSpace(complaint.text.String()))
	}
	return out.text.Bytes(), nil
}

// humble lets a process have what others leave. Where that cannot be had it still
// has no precedence.
func humble(pid int) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, askNice)
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("1000"), 0)
}

// bounded keeps what is written, up to a limit.
type bounded struct {
	text bytes.Buffer // not embedded: its ReadFrom knows no limit
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.text.Len()+len(p) > b.most {
		b.over = true
		return 0, io.ErrShortWrite
	}
	return b.text.Write(p)
}
