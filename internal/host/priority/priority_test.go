package priority

import (
	"os"
	"os/exec"
	"strings"
	"testing"

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

func TestGotSaysWhatIsMissing(t *testing.T) {
	var g Got
	if g.note("memory locked", unix.ENOMEM) || !g.note("nice -20", nil) {
		t.Error("note mistakes an error")
	}
	if s := g.String(); s != "has nice -20; has not: memory locked (cannot allocate memory)" {
		t.Error(s)
	}
}
