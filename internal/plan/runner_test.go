package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// res returns a resource that comes after the others; its name may be followed
// by "+N" for N retries and by "!" for a final action that goes on.
func res(spec string, after ...cluster.ResourceName) config.Resource {
	r := config.Resource{After: after}
	r.Activation.FinalAction, r.Deactivation.FinalAction = cluster.ActionNone, cluster.ActionShutdown
	if s, ok := strings.CutSuffix(spec, "!"); ok {
		spec = s
		r.Activation.FinalAction, r.Deactivation.FinalAction = cluster.ActionContinue, cluster.ActionContinue
	}
	name, retries, _ := strings.Cut(spec, "+")
	if retries != "" {
		r.Activation.Retries = int(retries[0] - '0')
		r.Deactivation.Retries = r.Activation.Retries
	}
	r.Name = cluster.ResourceName(name)
	return r
}

func group(list ...config.Resource) *config.Group {
	return &config.Group{Name: "web", Resources: list}
}

// all returns every resource in that state.
func all(g *config.Group, st cluster.ResourceState) map[cluster.ResourceName]state.Resource {
	m := map[cluster.ResourceName]state.Resource{}
	for i := range g.Resources {
		m[g.Resources[i].Name] = state.Resource{State: st}
	}
	return m
}

// text writes steps for example as "start ip, start disk 2".
func text(ops []Op) string {
	parts := make([]string, len(ops))
	for i, op := range ops {
		verb := "stop"
		if op.Start {
			verb = "start"
		}
		if op.Force {
			verb = "force"
		}
		parts[i] = fmt.Sprintf("%s %s", verb, op.Resource)
		if op.Attempt > 1 {
			parts[i] += fmt.Sprintf(" %d", op.Attempt)
		}
	}
	return strings.Join(parts, ", ")
}

// story drives a runner: each line is "STEP: what comes of it" for a step under
// way ("ok" or a failure), and what is handed out next.
type story struct {
	t     *testing.T
	r     *Runner
	under []Op
}

func tell(t *testing.T, r *Runner) *story { return &story{t: t, r: r} }

// next fails unless those are the steps handed out now.
func (s *story) next(want string) {
	s.t.Helper()
	ops := s.r.Next()
	if got := text(ops); got != want {
		s.t.Fatalf("next: %q, want %q", got, want)
	}
	s.under = append(s.under, ops...)
	if again := s.r.Next(); len(again) > 0 {
		s.t.Fatalf("handed out twice: %s", text(again))
	}
}

// done ends the step of that resource.
func (s *story) done(r cluster.ResourceName, why string) {
	s.t.Helper()
	i := slices.IndexFunc(s.under, func(op Op) bool { return op.Resource == r })
	if i < 0 {
		s.t.Fatalf("no step of %s is under way", r)
	}
	op := s.under[i]
	s.under = slices.Delete(s.under, i, i+1)
	s.r.Done(op, why)
}

func (s *story) goesOn() {
	s.t.Helper()
	if step, _, _, ended := s.r.Outcome(); ended {
		s.t.Fatalf("it has ended: %s", step)
	}
}

func (s *story) ends(want state.Step, failed cluster.ResourceName, why string) {
	s.t.Helper()
	s.next("")
	step, f, w, ended := s.r.Outcome()
	if !ended || step != want || f != failed || !strings.Contains(w, why) || why == "" && w != "" {
		s.t.Fatalf("outcome %q of %q (%s) ended %v, want %q of %q (%s)", step, f, w, ended, want, failed, why)
	}
}

// states fails unless the resources are in those states, for example "ip=online".
func (s *story) states(want string) {
	s.t.Helper()
	m := s.r.Resources()
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s=%s", n, m[n].State))
	}
	if got := strings.Join(parts, " "); got != want {
		s.t.Fatalf("states %q, want %q", got, want)
	}
}

func TestStartAlongTheGraph(t *testing.T) {
	g := group(res("ip"), res("disk"), res("server", "ip", "disk"), res("proxy", "server"))
	s := tell(t, Start(g, nil))
	s.goesOn()
	s.next("start ip, start disk") // independent ones together
	s.states("disk=starting ip=starting proxy=offline server=offline")
	s.done("disk", "")
	s.next("")
	s.goesOn()
	s.done("ip", "")
	s.next("start server")
	s.done("server", "")
	s.next("start proxy")
	s.goesOn()
	s.done("proxy", "")
	s.ends(state.StepStarted, "", "")
	s.states("disk=online ip=online proxy=online server=online")
}

func TestStopIsTheReverse(t *testing.T) {
	g := group(res("ip"), res("disk"), res("server", "ip", "disk"), res("proxy", "server"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), ""))
	s.goesOn()
	s.next("stop proxy")
	s.done("proxy", "")
	s.next("stop server")
	s.states("disk=online ip=online proxy=offline server=stopping")
	s.done("server", "")
	s.next("stop disk, stop ip") // the last of the file first
	s.done("ip", "")
	s.goesOn()
	s.done("disk", "")
	s.ends(state.StepStopped, "", "")
	s.states("disk=offline ip=offline proxy=offline server=offline")
}

func TestGroupWithoutResources(t *testing.T) {
	tell(t, Start(group(), nil)).ends(state.StepStarted, "", "")
	tell(t, Stop(group(), nil, "")).ends(state.StepStopped, "", "")
}

func TestOnlyWhatIsNotOnlineIsStarted(t *testing.T) {
	g := group(res("ip"), res("disk"), res("server", "ip", "disk"))
	now := all(g, cluster.ResourceOnline)
	now["server"] = state.Resource{State: cluster.ResourceFailed, Why: "it died"}
	s := tell(t, Start(g, now))
	s.next("start server")
	s.done("server", "")
	s.ends(state.StepStarted, "", "")
	if r := s.r.Resources()["server"]; r.Why != "" {
		t.Errorf("an old failure is still told: %+v", r)
	}
	s = tell(t, Start(g, all(g, cluster.ResourceOnline)))
	s.ends(state.StepStarted, "", "")
}

// TestWhatIsNotKnownToBeOfflineIsStopped: stopping goes by the graph, not by
// what is believed, for a stop that was left out may leave something running.
func TestWhatIsNotKnownToBeOfflineIsStopped(t *testing.T) {
	g := group(res("ip"), res("server", "ip"))
	for _, st := range []cluster.ResourceState{cluster.ResourceOffline, cluster.ResourceStarting, cluster.ResourceStopping,
		cluster.ResourceStartFailed, cluster.ResourceStopFailed, cluster.ResourceFailed} {
		s := tell(t, Stop(g, all(g, st), ""))
		s.next("stop server")
		s.done("server", "")
		s.next("stop ip")
		s.goesOn()
		s.done("ip", "")
		s.ends(state.StepStopped, "", "")
	}
}

func TestStopOfOneTakesWhatDependsOnIt(t *testing.T) {
	g := group(res("ip"), res("disk"), res("fs", "disk"), res("server", "ip", "fs"), res("mail", "ip"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), "disk"))
	s.next("stop server")
	s.done("server", "")
	s.next("stop fs")
	s.done("fs", "")
	s.next("stop disk")
	s.done("disk", "")
	s.ends(state.StepStopped, "", "")
	s.states("disk=offline fs=offline ip=online mail=online server=offline")
	s = tell(t, Start(g, s.r.Resources()))
	s.next("start disk")
	s.done("disk", "")
	s.next("start fs")
	s.done("fs", "")
	s.next("start server")
}

func TestStartIsTriedAgain(t *testing.T) {
	g := group(res("ip+2"), res("server", "ip"))
	s := tell(t, Start(g, nil))
	for attempt := 1; attempt <= 3; attempt++ {
		ops := s.r.Next()
		if len(ops) != 1 || !ops[0].Start || ops[0].Attempt != attempt {
			t.Fatalf("attempt %d: %+v", attempt, ops)
		}
		s.r.Done(ops[0], fmt.Sprint("failure ", attempt))
		if attempt == 3 {
			break
		}
		s.goesOn()
		ops = s.r.Next() // what the failed start has left is cleaned up first
		if len(ops) != 1 || ops[0].Start || ops[0].Resource != "ip" {
			t.Fatalf("clean-up %d: %+v", attempt, ops)
		}
		s.goesOn()
		s.r.Done(ops[0], "")
	}
	s.ends(state.StepStartFailed, "ip", "failure 3")
	s.states("ip=start-failed server=offline")
	if r := s.r.Resources()["ip"]; r.Why != "failure 3" {
		t.Errorf("%+v", r)
	}
}

func TestLaterTrySucceeds(t *testing.T) {
	s := tell(t, Start(group(res("ip+1")), nil))
	s.next("start ip")
	s.done("ip", "no carrier")
	s.next("stop ip 2")
	s.done("ip", "")
	s.next("start ip 2")
	s.done("ip", "")
	s.ends(state.StepStarted, "", "")
	if r := s.r.Resources()["ip"]; r.State != cluster.ResourceOnline || r.Why != "" {
		t.Errorf("%+v", r)
	}
}

// TestCleanUpFails: what may still run is not started once more, whatever the
// final action says.
func TestCleanUpFails(t *testing.T) {
	for _, spec := range []string{"ip+3", "ip+3!"} {
		s := tell(t, Start(group(res(spec), res("server", "ip")), nil))
		s.next("start ip")
		s.done("ip", "no carrier")
		s.next("stop ip 2")
		s.done("ip", "it hangs")
		s.ends(state.StepStartFailed, "ip", "it hangs")
		if why := s.r.Resources()["ip"].Why; !strings.Contains(why, "no carrier") || !strings.Contains(why, "it hangs") {
			t.Errorf("why %q", why)
		}
	}
}

func TestFailureLetsTheOthersEnd(t *testing.T) {
	g := group(res("ip"), res("disk"), res("fs", "disk"))
	s := tell(t, Start(g, nil))
	s.next("start ip, start disk")
	s.done("ip", "duplicate")
	s.next("")
	s.goesOn() // the disk is still being started
	s.done("disk", "")
	s.ends(state.StepStartFailed, "ip", "duplicate") // and nothing new is begun
	s.states("disk=online fs=offline ip=start-failed")
}

func TestStartThatGoesOn(t *testing.T) {
	s := tell(t, Start(group(res("ip!"), res("server", "ip")), nil))
	s.next("start ip")
	s.done("ip", "duplicate")
	s.goesOn()
	s.next("start server")
	s.done("server", "")
	s.ends(state.StepStarted, "", "")
	s.states("ip=start-failed server=online")
}

func TestStopIsTriedAgain(t *testing.T) {
	g := group(res("ip"), res("server+1", "ip"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), ""))
	s.next("stop server")
	s.done("server", "busy")
	s.goesOn()
	s.next("stop server 2")
	s.done("server", "")
	s.next("stop ip")
	s.done("ip", "")
	s.ends(state.StepStopped, "", "")
}

// TestForceIsAStop: what force has made inactive is stopped, and where the
// ladder ended is told.
func TestForceIsAStop(t *testing.T) {
	g := group(res("ip"), res("server+1", "ip"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), ""))
	s.next("stop server")
	stop := s.under[0]
	s.done("server", "busy")
	s.next("stop server 2")
	s.done("server", "busy")
	s.next("force server")
	if r := s.r.Resources()["server"]; r.Rung != cluster.RungForce || r.Why != "busy" {
		t.Errorf("under way: %+v", r)
	}
	s.r.Done(stop, "") // the word of a step that was given up counts no more
	s.goesOn()
	s.done("server", "")
	s.next("stop ip")
	s.done("ip", "")
	s.ends(state.StepStopped, "", "")
	if r := s.r.Resources()["server"]; r != (state.Resource{State: cluster.ResourceOffline, Rung: cluster.RungForce}) {
		t.Errorf("at the end: %+v", r)
	}
	if r := s.r.Resources()["ip"]; r.Rung != "" {
		t.Errorf("%+v: it did not have to climb", r)
	}
}

func TestLimits(t *testing.T) {
	r := res("ip")
	r.StartTimeout, r.StopTimeout = time.Minute, time.Hour
	for op, want := range map[Op]time.Duration{{Start: true}: time.Minute, {}: time.Hour, {Force: true}: ForceWithin} {
		if got := op.Limit(&r); got != want {
			t.Errorf("%+v: %v, want %v", op, got, want)
		}
	}
}

func TestFailedStopHaltsTheRest(t *testing.T) {
	g := group(res("ip"), res("server", "ip"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), ""))
	s.next("stop server")
	s.done("server", "busy")
	s.goesOn()
	s.next("force server")
	s.states("ip=online server=stopping")
	s.done("server", "stuck")
	s.ends(state.StepStopFailed, "server", "busy; and force did not help: stuck")
	s.states("ip=online server=stop-failed")
}

func TestFailedStopThatGoesOnIsStillNoStop(t *testing.T) {
	g := group(res("ip"), res("server!", "ip"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), ""))
	s.next("stop server")
	s.done("server", "busy")
	s.next("force server")
	s.done("server", "stuck")
	s.goesOn()
	s.next("stop ip")
	s.goesOn()
	s.done("ip", "")
	s.ends(state.StepStopFailed, "server", "busy")
	s.states("ip=offline server=stop-failed")
}

func TestTheFirstFailureIsTold(t *testing.T) {
	g := group(res("ip!"), res("disk!"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), ""))
	s.next("stop disk, stop ip")
	s.done("ip", "first")
	s.next("force ip")
	s.done("ip", "stuck")
	s.goesOn()
	s.done("disk", "second")
	s.next("force disk")
	s.done("disk", "stuck")
	s.ends(state.StepStopFailed, "ip", "first")
}

func TestWordsThatDoNotCount(t *testing.T) {
	s := tell(t, Start(group(res("ip"), res("server", "ip")), nil))
	s.r.Done(Op{Resource: "ip", Start: true, Attempt: 1}, "") // not begun yet
	s.r.Done(Op{Resource: "nothing", Start: true, Attempt: 1}, "")
	s.next("start ip")
	op := s.under[0]
	s.done("ip", "")
	s.r.Done(op, "too late")
	s.next("start server")
	s.states("ip=online server=starting")
}

// TestStartHasItsOwnCopy: what is told of the resources belongs to the caller.
func TestStartHasItsOwnCopy(t *testing.T) {
	r := Start(group(res("ip")), nil)
	m := r.Resources()
	m["ip"] = state.Resource{State: cluster.ResourceOnline}
	if text(r.Next()) != "start ip" {
		t.Error("the caller's map is the runner's")
	}
}

// driven is a random run: a graph, a direction, and drivers that fail at will.
type driven struct {
	g     *config.Group
	r     *Runner
	start bool
	goal  map[cluster.ResourceName]bool
	real  map[cluster.ResourceName]cluster.ResourceState // what the drivers know
	tries map[cluster.ResourceName]int
	fails map[cluster.ResourceName]int // failures of the runner's own direction
	under []Op
}

func drawGroup(rt *rapid.T) *config.Group {
	g := group()
	for i := range rapid.IntRange(1, 7).Draw(rt, "resources") {
		r := res(fmt.Sprint("r", i))
		for j := range i {
			if rapid.IntRange(0, 2).Draw(rt, "after") == 0 {
				r.After = append(r.After, cluster.ResourceName(fmt.Sprint("r", j)))
			}
		}
		final := rapid.SampledFrom([]cluster.FinalAction{cluster.ActionNone, cluster.ActionContinue, cluster.ActionStopGroup})
		r.Activation = config.Activation{Retries: rapid.IntRange(0, 2).Draw(rt, "retries"), FinalAction: final.Draw(rt, "final")}
		r.Deactivation = config.Deactivation{Retries: rapid.IntRange(0, 2).Draw(rt, "retries"), FinalAction: final.Draw(rt, "final")}
		g.Resources = append(g.Resources, r)
	}
	order := rapid.Permutation(g.Resources).Draw(rt, "order") // the file may list what depends first
	g.Resources = order
	return g
}

func newDriven(rt *rapid.T) *driven {
	d := &driven{g: drawGroup(rt), start: rapid.Bool().Draw(rt, "start"), goal: map[cluster.ResourceName]bool{},
		real: map[cluster.ResourceName]cluster.ResourceState{}, tries: map[cluster.ResourceName]int{}, fails: map[cluster.ResourceName]int{}}
	now := map[cluster.ResourceName]state.Resource{}
	for i := range d.g.Resources {
		n := d.g.Resources[i].Name
		st := cluster.ResourceOnline
		if d.start {
			st = cluster.ResourceOffline
			if rapid.IntRange(0, 4).Draw(rt, "failed") == 4 {
				st = cluster.ResourceFailed
			}
		}
		now[n] = state.Resource{State: st}
		d.real[n] = st
		d.goal[n] = true
	}
	if d.start {
		d.r = Start(d.g, now)
		return d
	}
	only := cluster.ResourceName("")
	if rapid.Bool().Draw(rt, "one") {
		only = d.g.Resources[rapid.IntRange(0, len(d.g.Resources)-1).Draw(rt, "only")].Name
		for i := range d.g.Resources {
			n := d.g.Resources[i].Name
			d.goal[n] = n == only || d.depends(n, only)
		}
	}
	d.r = Stop(d.g, now, only)
	return d
}

func (d *driven) depends(n, m cluster.ResourceName) bool {
	return slices.ContainsFunc(d.g.Resource(n).After, func(a cluster.ResourceName) bool { return a == m || d.depends(a, m) })
}

// gaveUp says whether the resource has failed for good and the file says to go on.
func (d *driven) gaveUp(n cluster.ResourceName) bool {
	r := d.g.Resource(n)
	if d.start {
		return d.fails[n] > r.Activation.Retries && r.Activation.FinalAction == cluster.ActionContinue
	}
	return d.fails[n] > r.Deactivation.Retries+1 && r.Deactivation.FinalAction == cluster.ActionContinue
}

// begin checks a step as it is handed out.
func (d *driven) begin(rt *rapid.T, op Op) {
	n := op.Resource
	if !d.goal[n] {
		rt.Fatalf("%s is none of its business", n)
	}
	if slices.ContainsFunc(d.under, func(u Op) bool { return u.Resource == n }) {
		rt.Fatalf("two steps of %s at once", n)
	}
	if op.Start && !d.start {
		rt.Fatalf("%s is started by a stop", n)
	}
	if op.Force && (d.start || d.fails[n] != d.g.Resource(n).Deactivation.Retries+1) {
		rt.Fatalf("force of %s after %d failures", n, d.fails[n])
	}
	if op.Start == d.start && !op.Force {
		d.tries[n]++
		limit := d.g.Resource(n).Deactivation.Retries
		if d.start {
			limit = d.g.Resource(n).Activation.Retries
		}
		if op.Attempt != d.tries[n] || op.Attempt > limit+1 {
			rt.Fatalf("attempt %d of %s, it is the %d. and %d are allowed", op.Attempt, n, d.tries[n], limit+1)
		}
	}
	for i := range d.g.Resources {
		m := d.g.Resources[i].Name
		if op.Start && slices.Contains(d.g.Resource(n).After, m) && d.real[m] != cluster.ResourceOnline && !d.gaveUp(m) {
			rt.Fatalf("%s is started before %s is online", n, m)
		}
		if !d.start && slices.Contains(d.g.Resources[i].After, n) && d.real[m] != cluster.ResourceOffline && !d.gaveUp(m) {
			rt.Fatalf("%s is stopped before %s is offline", n, m)
		}
	}
	d.under = append(d.under, op)
}

// end lets one step under way end.
func (d *driven) end(rt *rapid.T) {
	i := rapid.IntRange(0, len(d.under)-1).Draw(rt, "which")
	op := d.under[i]
	d.under = slices.Delete(d.under, i, i+1)
	if rapid.SampledFrom([]bool{false, false, true}).Draw(rt, "fails") {
		if op.Start == d.start {
			d.fails[op.Resource]++
		}
		d.real[op.Resource] = cluster.ResourceFailed
		d.r.Done(op, "it failed")
		return
	}
	d.real[op.Resource] = cluster.ResourceOffline
	if op.Start {
		d.real[op.Resource] = cluster.ResourceOnline
	}
	d.r.Done(op, "")
}

// check compares what the runner says at its end with what the drivers know.
func (d *driven) check(rt *rapid.T, step state.Step, failed cluster.ResourceName, why string) {
	said := d.r.Resources()
	for n := range d.goal {
		if said[n].State == cluster.ResourceOnline && d.real[n] != cluster.ResourceOnline {
			rt.Fatalf("%s is said to be online; its driver says %s", n, d.real[n])
		}
		if st := said[n].State; st == cluster.ResourceStarting || st == cluster.ResourceStopping {
			rt.Fatalf("%s is still said to be %s", n, st)
		}
		if !d.goal[n] {
			continue
		}
		switch {
		case step == state.StepStarted && d.real[n] != cluster.ResourceOnline && !d.gaveUp(n):
			rt.Fatalf("started, but %s is %s", n, d.real[n])
		case step == state.StepStopped && d.real[n] != cluster.ResourceOffline:
			rt.Fatalf("stopped, but %s is %s", n, d.real[n])
		}
	}
	bad := step == state.StepStartFailed || step == state.StepStopFailed
	if bad != (failed != "") || bad != (why != "") || bad && said[failed].Why == "" {
		rt.Fatalf("%s of %q: %q", step, failed, why)
	}
	if d.start != (step == state.StepStarted || step == state.StepStartFailed) {
		rt.Fatalf("outcome %s of a start: %v", step, d.start)
	}
}

// TestLaws lets drivers end in any order and fail at will. Whatever they do: a
// resource starts after all that it depends on, and stops before it; no try is
// one too many; every run ends, after each of its steps has; and "stopped" is
// said only if everything is.
func TestLaws(t *testing.T) {
	outcomes := map[state.Step]int{}
	rapid.Check(t, func(rt *rapid.T) {
		d := newDriven(rt)
		for range 200 {
			ops := d.r.Next()
			for _, op := range ops {
				d.begin(rt, op)
			}
			step, failed, why, ended := d.r.Outcome()
			if ended {
				if len(d.under) > 0 {
					rt.Fatalf("%s while %s is under way", step, text(d.under))
				}
				d.check(rt, step, failed, why)
				outcomes[step]++
				return
			}
			if len(d.under) == 0 {
				rt.Fatal("nothing is under way and it has not ended: it waits for ever")
			}
			d.end(rt)
		}
		rt.Fatal("it does not end")
	})
	if len(outcomes) != 4 {
		t.Errorf("outcomes %v: not all were seen", outcomes)
	}
}

// TestAsWideAsTheGraph: where nothing fails, whatever can run now does.
func TestAsWideAsTheGraph(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := drawGroup(rt)
		r := Start(g, nil)
		online, under := map[cluster.ResourceName]bool{}, map[cluster.ResourceName]bool{}
		for len(online) < len(g.Resources) {
			for _, op := range r.Next() {
				under[op.Resource] = true
			}
			for i := range g.Resources {
				x := &g.Resources[i]
				ready := !slices.ContainsFunc(x.After, func(a cluster.ResourceName) bool { return !online[a] })
				if ready && !online[x.Name] && !under[x.Name] {
					rt.Fatalf("%s could be started and is not", x.Name)
				}
			}
			n := rapid.SampledFrom(slices.Sorted(maps.Keys(under))).Draw(rt, "done")
			delete(under, n)
			online[n] = true
			r.Done(Op{Resource: n, Start: true, Attempt: 1}, "")
		}
		if step, _, _, ended := r.Outcome(); !ended || step != state.StepStarted {
			rt.Fatalf("outcome %q, ended %v", step, ended)
		}
	})
}

// TestBrokenOffAnywhere: a start that is broken off leaves states from which a
// stop brings everything offline.
func TestBrokenOffAnywhere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := drawGroup(rt)
		r := Start(g, nil)
		for range rapid.IntRange(0, 10).Draw(rt, "steps") {
			ops := r.Next()
			if len(ops) == 0 {
				break
			}
			r.Done(ops[0], rapid.SampledFrom([]string{"", "", "it failed"}).Draw(rt, "outcome"))
		}
		stop := Stop(g, r.Resources(), "")
		stopped := map[cluster.ResourceName]bool{}
		for range 2 * len(g.Resources) {
			ops := stop.Next()
			if len(ops) == 0 {
				break
			}
			for _, op := range ops {
				stopped[op.Resource] = true
				stop.Done(op, "")
			}
		}
		step, _, _, ended := stop.Outcome()
		if !ended || step != state.StepStopped || len(stopped) != len(g.Resources) {
			rt.Fatalf("outcome %q, ended %v, stopped %d of %d", step, ended, len(stopped), len(g.Resources))
		}
		for n, s := range stop.Resources() {
			if s.State != cluster.ResourceOffline {
				rt.Fatalf("%s is %s", n, s.State)
			}
		}
	})
}

func TestNothingIsStoppingAfterTheEnd(t *testing.T) {
	g := group(res("ip"), res("server+1"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), ""))
	s.next("stop server, stop ip")
	s.done("server", "busy") // one more try is allowed
	s.done("ip", "stuck")
	s.next("stop server 2, force ip")
	s.done("server", "busy")
	s.done("ip", "stuck") // but this halts the run
	s.ends(state.StepStopFailed, "ip", "stuck")
	s.states("ip=stop-failed server=stop-failed") // got: server=stopping
}

func TestNotCleanedUpIsNotOffline(t *testing.T) {
	s := tell(t, Start(group(res("ip+1"), res("disk")), nil))
	s.next("start ip, start disk")
	s.done("ip", "no carrier") // to be cleaned up, then tried again
	s.done("disk", "no such disk")
	s.ends(state.StepStartFailed, "disk", "no such disk")
	s.states("disk=start-failed ip=start-failed") // got: ip=offline
}

func TestNotEndedWhileARetryIsLeft(t *testing.T) {
	g := group(res("ip!"), res("server+1"))
	s := tell(t, Stop(g, all(g, cluster.ResourceOnline), ""))
	s.next("stop server, stop ip")
	s.done("ip", "stuck")
	s.next("force ip")
	s.done("ip", "stuck") // goes on
	s.done("server", "busy")
	s.goesOn() // got: ended with stop-failed
	s.next("stop server 2")
}
