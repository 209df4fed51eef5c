package priority

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The child has what the test's process asks it about: this test runs itself
// anew, because what Raise does cannot be undone.
func TestRaise(t *testing.T) {
	if os.Getenv("RAISED") == "" {
		if os.Geteuid() != 0 {
			if os.Getenv("CI") != "" {
				t.Fatal("needs root: CI must run it as root")
			}
			t.Skip("needs root: real-time priority")
		}
		c := exec.Command("/proc/self/exe", "-test.run", "^TestRaise$", "-test.v")
		c.Env = append(os.Environ(), "RAISED=1")
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	got := Raise()
	t.Log(got)
	if len(got.Have) == 0 {
		t.Skip("this machine grants nothing: ", got)
	}
	mine, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // from whatever thread
		policy := make(chan uint32)
		go func() {
			a, _ := unix.SchedGetAttr(0, 0)
			policy <- a.Policy
		}()
		if p := <-policy; p != mine.Policy {
			t.Errorf("a thread has policy %d, not %d", p, mine.Policy)
		}
	}
	c := exec.Command("sleep", "60")
	if err := Ordinary(c.Start); err != nil {
		t.Fatal(err)
	}
	child, err := unix.SchedGetAttr(c.Process.Pid, 0)
	if got, err := slackOf(c.Process.Pid); err != nil || got != slack {
		t.Errorf("waits of what was started end late by %s, %v; want %s", got, err, slack)
	}
	c.Process.Kill()
	c.Wait()
	if err != nil || child.Policy != policyOther || child.Nice != 0 {
		t.Errorf("what was started has %+v, %v", child, err)
	}
	after, err := unix.SchedGetAttr(0, 0)
	if err != nil || *after != *mine {
		t.Errorf("the thread had %+v and has %+v, %v", mine, after, err)
	}
}

func slackOf(id int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", id))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return time.Duration(n), err
}

func TestPatient(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: CI must run it as root")
		}
		t.Skip("needs root: to say how late other threads may be woken")
	}
	if err := Patient(3 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := Patient(slack); err != nil {
			t.Error(err)
		}
	}()
	for range 20 { // from whatever thread
		got := make(chan time.Duration)
		go func() {
			d, err := slackOf(unix.Gettid())
			if err != nil {
				t.Error(err)
			}
			got <- d
		}()
		if d := <-got; d != 3*time.Millisecond {
			t.Fatalf("waits of a thread end late by %s", d)
		}
	}
}

func TestGotSaysWhatIsMissing(t *testing.T) {
	var g Got
	if g.note("memory locked", unix.ENOMEM) || !g.note("nice -20", nil) {
		t.Error("note mistakes an error")
	}
	if s := g.String(); s != "has nice -20; has not: memory locked (cannot allocate memory)" {
		t.Error(s)
	}
}

// It cannot be undone either.
func TestYield(t *testing.T) {
	if os.Getenv("YIELDED") == "" {
		c := exec.Command("/proc/self/exe", "-test.run", "^TestYield$", "-test.v")
		c.Env = append(os.Environ(), "YIELDED=1")
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	const memory = 1 << 36 // the race detector takes a lot
	if err := Yield(memory); err != nil {
		t.Fatal(err)
	}
	for range 20 { // from whatever thread
		got := make(chan int32)
		go func() {
			a, err := unix.SchedGetAttr(0, 0)
			if err != nil {
				panic(err)
			}
			got <- a.Nice
		}()
		if n := <-got; n != lowest {
			t.Fatalf("a thread has niceness %d", n)
		}
	}
	if score, err := os.ReadFile("/proc/self/oom_score_adj"); err != nil || strings.TrimSpace(string(score)) != "1000" {
		t.Errorf("%s %v", score, err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &limit); err != nil || limit.Max != memory {
		t.Error(limit, err)
	}
}
