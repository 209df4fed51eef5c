package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// goodMetadata is what an agent of one outlet says.
const goodMetadata = `<?xml version="1.0" ?>
<resource-agent name="fence_fake" shortdesc="a fake">
<parameters>
	<parameter name="action" unique="0" required="1"/>
	<parameter name="file"/>
	<parameter name="password"/>
	<parameter name="password_script"/>
	<parameter name="plug" unique="0" required="1" obsoletes="port"/>
	<parameter name="port" unique="0" required="1" deprecated="1"/>
</parameters>
<actions>
	<action name="on" automatic="0"/>
	<action name="off"/>
	<action name="reboot"/>
	<action name="status"/>
	<action name="monitor"/>
	<action name="metadata"/>
</actions>
</resource-agent>`

// obedient is the part of an agent that does what it is told: one file for each
// plug holds its power.
const obedient = `case "$action" in
	off|on) echo "$action" > "$file.$plug" ;;
	status) if [ "$(cat "$file.$plug" 2>/dev/null)" = off ]; then exit 2; fi ;;
	monitor) ;;
	*) echo "no action $action" >&2; exit 1 ;;
esac`

// agentIn writes an agent into the directory.
func agentIn(t *testing.T, dir, name, metadata, body string) {
	t.Helper()
	text := "#!/bin/sh\nwhile IFS= read -r line; do case \"$line\" in *=*) eval \"${line%%=*}='${line#*=}'\" ;; esac; done\n" +
		"echo \"$action\" >> \"$0.calls\"\nif [ \"$action\" = metadata ]; then\ncat <<'EOF'\n" + metadata + "\nEOF\nexit 0\nfi\n" + body + "\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func calls(dir, name string) []string {
	b, _ := os.ReadFile(filepath.Join(dir, name+".calls"))
	return strings.Fields(string(b))
}

func parse(t *testing.T, text string) *config.File {
	t.Helper()
	f, errs := config.Parse("cluster.yaml", []byte("cluster: web\n"+text))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return f
}

// fencer returns a Fencer of node alpha with the agents of dir. events returns
// what it has reported.
func fencer(t *testing.T, f *config.File, dir string, more func(*Options)) (fencer *Fencer, events func() []string) {
	t.Helper()
	var mu sync.Mutex
	var told []string
	o := Options{Self: "alpha", Dir: dir, File: func() *config.File { return f }, Log: slog.New(slog.DiscardHandler), Report: func(e api.Event) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%s %s: %s", e.Level, e.Code, e.Text))
	}}
	if more != nil {
		more(&o)
	}
	return New(o), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}
}

// pair is a cluster file with one fake agent for beta.
func pair(dir, fence string) string {
	return fmt.Sprintf(`nodes:
  alpha: {addresses: [10.0.0.1]}
  beta: {addresses: [10.0.0.2], fence: [[{device: fake, plug: "7"}]]}
fences:
  fake: {agent: fence_fake, options: {file: "%s/power", password: geheim}, timeout: %s}
`, dir, fence)
}

func TestOffIsConfirmed(t *testing.T) {
	dir := t.TempDir()
	agentIn(t, dir, "fence_fake", goodMetadata, obedient)
	f, _ := fencer(t, parse(t, pair(dir, "10s")), dir, nil)
	r := f.Off(t.Context(), "beta")
	if !r.Off || r.Why != "" || len(r.Steps) != 1 {
		t.Fatalf("got %+v", r)
	}
	if got := strings.Join(calls(dir, "fence_fake"), " "); got != "metadata off status" {
		t.Errorf("the agent was called for %s", got)
	}
	if b, _ := os.ReadFile(dir + "/power.7"); string(b) != "off\n" {
		t.Errorf("plug 7 is %q", b)
	}
	f.Off(t.Context(), "beta")
	if got := strings.Join(calls(dir, "fence_fake"), " "); got != "metadata off status off status" {
		t.Errorf("the meta-data is asked for once, not as in %s", got)
	}
}

// An agent that does not do what the protocol says must never make a node count
// as off.
func TestAgentsThatFail(t *testing.T) {
	unknownStatus := strings.Replace(goodMetadata, `<action name="status"/>`, "", 1)
	cases := map[string]struct{ metadata, body, fence, why string }{
		"says that it has done it, but it is on": {goodMetadata, `exit 0`, "1s", "it took the order, but is not known to be off in its time: its status is still on"},
		"the status is an error":                 {goodMetadata, `[ "$action" = status ] && { echo "no route" >&2; exit 1; }; exit 0`, "1s", "is not known to be off in its time: fence_fake: ended with exit code 1 (no route)"},
		"the status cannot run":                  {goodMetadata, `[ "$action" = status ] && { echo "can't open file" >&2; exit 2; }; exit 0`, "1s", "is not known to be off in its time: fence_fake: ended with exit code 2 (can't open file)"},
		"refuses and tells a secret":             {goodMetadata, `echo "login with $password failed" >&2; exit 1`, "10s", "fence_fake: ended with exit code 1 (login with *** failed)"},
		"hangs and leaves children":              {goodMetadata, `sleep 61 & echo $! > "$file.child"; sleep 62`, "1s", "fence_fake: did not end in its time and was stopped after"},
		"switches off, then hangs":               {goodMetadata, `echo off > "$file.$plug"; [ "$action" = off ] && sleep 62; exit 2`, "1s", "did not end in its time"},
		"ends by a signal":                       {goodMetadata, `kill -9 $$`, "10s", "ended by signal 9"},
		"status hangs":                           {goodMetadata, `[ "$action" = status ] && sleep 62; exit 0`, "1s", "not known to be off in its time: it was not asked"},
		"cannot tell the status":                 {unknownStatus, `exit 0`, "10s", "it took the order, but the device cannot tell whether a node is off; verify: false would believe it"},
		"meta-data is no XML":                    {"no data today", `exit 0`, "10s", "the meta-data of the agent cannot be read"},
		"meta-data is cut":                       {goodMetadata[:300], `exit 0`, "10s", "the meta-data of the agent cannot be read"},
		"meta-data is something else":            {"<html/>", `exit 0`, "10s", "the meta-data of the agent cannot be read"},
		"meta-data without actions":              {"<resource-agent/>", `exit 0`, "10s", "names no actions"},
		"cannot switch off":                      {strings.Replace(goodMetadata, `"off"`, `"aus"`, 1), `exit 0`, "10s", "cannot switch another node off"},
		"runs on the target only":                {strings.Replace(goodMetadata, `"off"`, `"off" on_target="1"`, 1), `exit 0`, "10s", "cannot switch another node off"},
		"fabric":                                 {strings.Replace(goodMetadata, `automatic="0"`, `on_target="1" automatic="1"`, 1), `exit 0`, "10s", "leaves it running"},
		"garbage":                                {goodMetadata, `head -c 3000000 /dev/urandom; head -c 3000 /dev/zero >&2; exit 1`, "10s", "ended with exit code 1 (a line too long to show)"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			agentIn(t, dir, "fence_fake", c.metadata, c.body)
			f, _ := fencer(t, parse(t, pair(dir, c.fence)), dir, nil)
			r := f.Off(t.Context(), "beta")
			if r.Off || !strings.Contains(r.Why, c.why) || strings.Contains(r.Why, "geheim") {
				t.Errorf("got off %v: %s", r.Off, r.Why)
			}
			if pid, err := os.ReadFile(dir + "/power.child"); err == nil {
				stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
				if err == nil && !strings.Contains(string(stat), ") Z ") {
					t.Errorf("a child of the agent lives on: %s", stat)
				}
			}
		})
	}
}

func TestAgentsThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	f, _ := fencer(t, parse(t, pair(dir, "10s")), dir, nil)
	if r := f.Off(t.Context(), "beta"); r.Off || !strings.Contains(r.Why, "fence_fake is not installed on this node") {
		t.Errorf("missing: %+v", r)
	}
	agentIn(t, dir, "fence_fake", goodMetadata, obedient)
	if err := os.Chmod(dir+"/fence_fake", 0o777); err != nil {
		t.Fatal(err)
	}
	if r := f.Off(t.Context(), "beta"); r.Off || !strings.Contains(r.Why, "can be written by others") {
		t.Errorf("writable: %+v", r)
	}
	if err := errors.Join(os.Chmod(dir+"/fence_fake", 0o755), os.WriteFile(dir+"/print", nil, 0o777), os.Chmod(dir+"/print", 0o777)); err != nil {
		t.Fatal(err)
	}
	f, _ = fencer(t, parse(t, strings.Replace(pair(dir, "10s"), "password: geheim", "password_script: "+dir+"/print", 1)), dir, nil)
	if r := f.Off(t.Context(), "beta"); r.Off || !strings.Contains(r.Why, "password_script: ") {
		t.Errorf("writable script of the password: %+v", r)
	}
	if f, _ := fencer(t, parse(t, levels), dir, nil); f.Off(t.Context(), "alpha").Why != "level 1, first: this build cannot fence over a link" {
		t.Error("a link without a way to make it")
	}
	if r := f.Off(t.Context(), "alpha"); r.Off || r.Why != "no fence is configured for node alpha" {
		t.Errorf("no fence: %+v", r)
	}
}

// device is a device in memory.
type device struct {
	mu     sync.Mutex
	log    []string
	power  map[string]Power
	offErr error
	after  int // statuses until off is seen
	check  error
	hang   chan struct{} // Check waits for it, or for its context
}

func (d *device) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, fmt.Sprintf(format, args...))
}

// said is what was asked of it so far.
func (d *device) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.log, ", ")
}

// fail lets the next checks fail, or not.
func (d *device) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check = err
}

func (d *device) Off(_ context.Context, plug string) error {
	d.note("off %s", plug)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.offErr == nil {
		d.power[plug] = PowerOff
	}
	return d.offErr
}

func (d *device) Status(_ context.Context, plug string) (Power, error) {
	d.note("status %s", plug)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.after > 0 {
		d.after--
		return PowerOn, nil
	}
	if d.power[plug] == PowerUnknown {
		return PowerOn, nil
	}
	return d.power[plug], nil
}

func (d *device) Check(ctx context.Context) error {
	d.note("check")
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hang != nil {
		select {
		case <-d.hang:
		case <-ctx.Done():
		}
	}
	return d.check
}

const levels = `nodes:
  alpha: {addresses: [10.0.0.1], fence: [[{device: first}]]}
  beta:
    addresses: [10.0.0.2]
    fence:
      - [{device: first, delay: 5s}]
      - [{device: left, plug: "3"}, {device: right, plug: "4"}]
fence_check: 1m
fences:
  first: {link: one}
  left: {link: two}
  right: {link: three}
`

// world is a Fencer whose devices are in memory, by their link.
func world(t *testing.T, more func(*Options)) (*Fencer, map[cluster.LinkName]*device, func() []string) {
	devices := map[cluster.LinkName]*device{}
	for _, l := range []cluster.LinkName{"one", "two", "three"} {
		devices[l] = &device{power: map[string]Power{}}
	}
	f, events := fencer(t, parse(t, levels), "", func(o *Options) {
		o.Link = func(c config.Fence) Device { return devices[c.Link] }
		if more != nil {
			more(o)
		}
	})
	return f, devices, events
}

func TestLevelsStepsAndDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, devices, _ := world(t, nil)
		devices["one"].after = 3
		if r := f.Off(t.Context(), "beta"); !r.Off || r.Took != 5*time.Second+3*statusEvery {
			t.Errorf("the first level: %+v", r)
		}
		devices["one"].after = 1000
		if r := f.Off(t.Context(), "beta"); !r.Off || r.Took != 15*time.Second || len(r.Steps) != 3 || r.Why != "" {
			t.Errorf("the second level after the first has failed: %+v", r)
		}
		devices["one"].after = 1000
		devices["three"].offErr = errors.New("it is broken")
		const want = "level 1, first: it took the order, but is not known to be off in its time: its status is still on; level 2, right: it is broken"
		if r := f.Off(t.Context(), "beta"); r.Off || r.Why != want {
			t.Errorf("one step of the last level has failed: %+v", r)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r := f.Off(ctx, "beta"); r.Off || r.Took != time.Second {
			t.Errorf("cut short in the delay: %+v", r)
		}
	})
}

func TestVerifyFalseBelieves(t *testing.T) {
	for _, believe := range []bool{false, true} {
		d := &device{power: map[string]Power{}, after: 1 << 30}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := off(ctx, d, "1", !believe); (err == nil) != believe {
			t.Errorf("verify %v: %v", !believe, err)
		}
		cancel()
	}
}

func TestSelfCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, devices, events := world(t, func(o *Options) { o.Heard = func(n cluster.NodeName) bool { return n == "beta" } })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		began := time.Now()
		go func() { done <- f.Run(ctx) }()
		synctest.Wait()
		states := f.States("beta")
		if len(states) != 3 || states[2].Level != 2 || states[2].Plug != "4" || states[2].By != "link three" || !states[2].Verified.Equal(began) || len(events()) != 0 {
			t.Fatalf("first check: %+v, %v", states, events())
		}
		if got := devices["one"].said(); got != "check, status beta" {
			t.Errorf("of the own node nothing is checked, and nothing is switched: %s", got)
		}
		devices["two"].fail(errors.New("nobody answers"))
		_ = devices["three"].Off(ctx, "4")
		<-time.After(3*time.Minute + time.Second)
		synctest.Wait()
		states = f.States("beta")
		if states[1].Why != "nobody answers" || !states[1].Verified.Equal(began) || !states[0].Verified.Equal(began.Add(3*time.Minute)) {
			t.Errorf("after three minutes: %+v", states)
		}
		devices["two"].fail(nil)
		<-time.After(time.Minute)
		cancel()
		<-done
		want := []string{
			"info fence-check-good: beta can be forced off by fence left again.",
			"warn fence-check-failed: beta could not be forced off by fence left: nobody answers.",
			"warn fence-check-failed: beta could not be forced off by fence right: it says that plug 4 is off, but beta is heard: this is another machine's plug.",
		}
		if got := events(); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("a change is told once:\n%s", strings.Join(got, "\n"))
		}
	})
}

func TestOffCutsACheckShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, devices, events := world(t, nil)
		for _, d := range devices {
			d.hang = make(chan struct{})
		}
		done := make(chan struct{})
		go func() { f.Check(t.Context(), ""); close(done) }()
		synctest.Wait()
		if r := f.Off(t.Context(), "beta"); !r.Off {
			t.Errorf("got %+v", r)
		}
		<-done
		if s := f.States("beta"); s[0].Why != "" || !s[0].Verified.IsZero() || len(events()) != 0 {
			t.Errorf("a check that was cut short says nothing: %+v", s)
		}
	})
}

func TestAChangeOfTheFileIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := parse(t, levels)
		f, devices, _ := world(t, func(o *Options) { o.File = func() *config.File { return file } })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		synctest.Wait()
		f.Changed() // nothing about fences
		synctest.Wait()
		file = parse(t, strings.Replace(levels, "link: two", "link: three", 1))
		f.Changed()
		synctest.Wait()
		if one, two, three := len(devices["one"].log), len(devices["two"].log), len(devices["three"].log); one != 4 || two != 2 || three != 6 {
			t.Errorf("calls: %d, %d, %d", one, two, three)
		}
		cancel()
		<-done
	})
}

func TestCheckKnowsTheOptions(t *testing.T) {
	dir := t.TempDir()
	agentIn(t, dir, "fence_fake", goodMetadata, obedient)
	f, _ := fencer(t, parse(t, strings.Replace(pair(dir, "10s"), "password:", "pasword:", 1)), dir, nil)
	f.Check(t.Context(), "beta")
	if s := f.States("beta"); len(s) != 1 || s[0].Why != "fence_fake has no option pasword" {
		t.Errorf("got %+v", s)
	}
	if got := strings.Join(calls(dir, "fence_fake"), " "); got != "metadata" {
		t.Errorf("the agent was called for %s", got)
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(goodMetadata))
	f.Add([]byte(strings.Replace(goodMetadata, `automatic="0"`, `automatic="1"`, 1)))
	f.Add([]byte(`<resource-agent><actions><action name="off"/></actions></resource-agent>`))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMetadata(data)
		if err == nil && (!m.off || m.fabric) {
			t.Errorf("%q is taken for an agent that switches off", data)
		}
		if m.plug != "" && !slices.Contains(plugNames, m.plug) {
			t.Errorf("the plug goes to %q", m.plug)
		}
	})
}
