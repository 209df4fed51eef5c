package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
)

// Scenario is one story: a cluster file, commands, and the lines of the
// operator's log that it must lead to.
//
// The archive has the files cluster.yaml, script and events. A line of script
// is a command and its arguments:
//
//	boot NODE…            switch on (all nodes without arguments)
//	crash NODE            take the power away
//	kill NODE             end the daemon, its resources go on
//	daemon NODE           start the daemon again
//	wipe NODE             of one that is off: its directories are gone, and it has joined anew
//	pause NODE, resume NODE
//	keep NODE, restore NODE    the disk of a node that is off comes back as it was kept
//	cut A B [PATH]        both directions, PATH from 1; heal likewise
//	cut1 A B [PATH]       only what A sends to B; heal1 likewise
//	mute A B yes|no       heartbeats that A sends to B are lost, what is sent in streams arrives
//	run DURATION          let time pass
//	script RESOURCE isolate fails -1    it cannot be made harmless at once; watchdog DURATION
//	script RESOURCE start|stop|force takes DURATION | fails N | hangs yes|no
//	link NODE MONITOR down|up    the carrier that a nic-link monitor sees
//	probe NODE MONITOR bad|good [TEXT]
//	fence NODE ok|fails|lies [DURATION]    what its fence device does
//	alone NODE REASON…    an operator's order to start without the others
//	ping NODE yes|no      whether arbitration's ping targets answer there
//	move GROUP [NODE], failover, start, stop, restart, clear, release: asked at the first node that is up
//	release-node NODE     end its quarantine, asked likewise
//	maintenance[!] on node|group NAME DURATION [drain], on cluster DURATION, off node|group NAME, off cluster    asked likewise
//	fail NODE RESOURCE TEXT…    it is seen to have failed there; when looked at again, it is found active
//	move! … ERROR-CODE    the same, and it must be refused with that code
//	leave NODE            stop the daemon by plan
//	shared                two owners are expected from here on; exclusive ends it
//	expect GROUP PHASE [NODE]
//	expect-direction NODE A B PATH ok|lost|one-way|unknown    as NODE's status shows what A sends to B
//	expect-survives NODE N TEXT…   what its status says about further faults has TEXT in it
//	expect-owners GROUP [NODE…]    it is active on these and no others
//	expect-script TEXT    a script of a ladder was run: NODE PATH ACTION
//	expect-no-script      no script of a ladder was run
//	expect-final NODE [ACTION]
//	insync NODE RESOURCE NODE…    the active copy of a mirror disk on NODE asks for that in-sync set
//	expect-insync NODE RESOURCE [NODE…]    it is agreed on as NODE has it, and its copy was told so
//	expect-refused NODE RESOURCE N    so many asks of its copy came to nothing
//	mirror-force[!] RESOURCE NODE, mirror-resolve, mirror-invalidate, mirror-break RESOURCE and so on    asked likewise
//	expect-quarantine NODE yes|no
//	expect-held GROUP [WHY…]    it is held for that reason, or not at all
type Scenario struct {
	world *World
}

// staged returns a scenario at its begin, and its script.
func staged(archive []byte) (s *Scenario, script string, err error) {
	text := ""
	for _, f := range txtar.Parse(archive).Files {
		switch f.Name {
		case "cluster.yaml":
			text = string(f.Data)
		case "script":
			script = string(f.Data)
		}
	}
	w, err := NewWorld(text, 1)
	return &Scenario{world: w}, script, err
}

// Play runs a scenario and returns the log, one line an event without its time,
// and an error that names the line that did not hold.
func Play(archive []byte) (log string, err error) {
	s, script, err := staged(archive)
	if err != nil {
		return "", err
	}
	w := s.world
	for i, line := range strings.Split(script, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := s.do(words); err != nil {
			return Lines(w), fmt.Errorf("line %d (%s): %w", i+1, line, err)
		}
		if w.Broken != "" {
			return Lines(w), fmt.Errorf("line %d (%s): broken: %s", i+1, line, w.Broken)
		}
	}
	return Lines(w), nil
}

// Lines returns the world's log, one line an event: node, module, text.
func Lines(w *World) string {
	var b strings.Builder
	for _, e := range w.Log {
		fmt.Fprintf(&b, "%s %s %s\n", e.Node, e.Module, e.Text)
	}
	return b.String()
}

func (s *Scenario) do(words []string) error {
	w, args := s.world, words[1:]
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	node := cluster.NodeName(arg(0))
	switch words[0] {
	case "boot":
		return s.boot(args)
	case "crash":
		w.Crash(node)
	case "kill":
		w.KillDaemon(node)
	case "wipe":
		return w.Wipe(node)
	case "daemon":
		return w.StartDaemon(node)
	case "keep":
		w.Keep(node)
	case "restore":
		return s.restore(node)
	case "pause":
		w.Pause(node)
	case "resume":
		w.Resume(node)
	case "leave":
		w.step(w.nodes[node], engine.Event{Leave: true})
	case "cut", "heal", "cut1", "heal1":
		return s.cut(words[0], args)
	case "mute":
		w.air[link{from: node, to: cluster.NodeName(arg(1))}] = weather{mute: arg(2) == "yes"}
	case "run", "watchdog":
		d, err := time.ParseDuration(arg(0))
		if err != nil {
			return err
		}
		if words[0] == "run" {
			w.Run(d)
		} else {
			w.Watchdog = d
		}
	case "script":
		return s.script(args)
	case "link", "probe":
		return s.probe(words[0], args)
	case "fail":
		return s.fail(node, cluster.ResourceName(arg(1)), strings.Join(args[min(2, len(args)):], " "))
	case "ping":
		w.pings[node] = arg(1) == "yes"
	case "fence":
		return s.fence(node, arg(1), cmp.Or(arg(2), "0s"))
	case "alone":
		if e := w.nodes[node].machine.CanStartAlone(); e != nil {
			return e
		}
		w.step(w.nodes[node], engine.Event{Alone: &engine.Alone{Author: "admin", Reason: strings.Join(args[1:], " ")}})
	case "shared":
		w.shared = true
	case "exclusive":
		w.shared, w.changed = false, true
	case "expect", "expect-direction", "expect-survives", "expect-owners", "expect-script", "expect-no-script", "expect-final", "expect-held", "expect-quarantine":
		return s.expect(words[0], args)
	default:
		return s.ask(words[0], args)
	}
	return nil
}

func (s *Scenario) restore(n cluster.NodeName) error {
	if s.world.nodes[n].kept == nil {
		return fmt.Errorf("keep it first")
	}
	s.world.Restore(n)
	return nil
}

func (s *Scenario) boot(args []string) error {
	if len(args) == 0 {
		for _, n := range s.world.names {
			args = append(args, string(n))
		}
	}
	for _, n := range args {
		if s.world.nodes[cluster.NodeName(n)] == nil {
			return fmt.Errorf("no node %q", n)
		}
		if err := s.world.Boot(cluster.NodeName(n)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Scenario) cut(verb string, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("two nodes are needed")
	}
	a, b, path := cluster.NodeName(args[0]), cluster.NodeName(args[1]), -1
	if len(args) == 3 {
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		path = n - 1
	}
	on := strings.HasPrefix(verb, "cut")
	s.world.setCut(a, b, path, on)
	if !strings.HasSuffix(verb, "1") {
		s.world.setCut(b, a, path, on)
	}
	return nil
}

func (s *Scenario) script(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("script RESOURCE start|stop|force takes DURATION | fails N | hangs yes|no")
	}
	k := args[0] + " " + args[1]
	b := s.world.behave[k]
	var err error
	switch args[2] {
	case "takes":
		b.takes, err = time.ParseDuration(args[3])
	case "hangs":
		b.hangs = args[3] == "yes"
	default:
		b.fails, err = strconv.Atoi(args[3])
	}
	s.world.behave[k] = b
	return err
}

func (s *Scenario) fence(n cluster.NodeName, does, takes string) error {
	d, err := time.ParseDuration(takes)
	if err != nil {
		return err
	}
	s.world.fences[n] = device{fails: does == "fails", lies: does == "lies", takes: d}
	return nil
}

func (s *Scenario) fail(n cluster.NodeName, r cluster.ResourceName, why string) error {
	g := s.world.file.GroupOf(r)
	if g == nil {
		return fmt.Errorf("fail NODE RESOURCE TEXT")
	}
	node := s.world.nodes[n]
	s.world.step(node, engine.Event{Failed: &engine.Failed{Group: g.Name, Epoch: node.machine.State().Groups[g.Name].Epoch, Resource: r, Why: why}})
	return nil
}

func (s *Scenario) probe(verb string, args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("%s NODE MONITOR STATE", verb)
	}
	m := s.world.file.Monitor(cluster.MonitorName(args[1]))
	if m == nil {
		return fmt.Errorf("no monitor %q", args[1])
	}
	p := &engine.Probe{Monitor: m.Name, Good: args[2] == "up" || args[2] == "good"}
	if !p.Good {
		p.Code, p.Text = 1, strings.Join(args[3:], " ")
		if verb == "link" {
			p.Code, p.Text = 20, fmt.Sprintf("NIC %s link was down.", m.NICLink.Device)
		}
	}
	s.world.step(s.world.nodes[cluster.NodeName(args[0])], engine.Event{Probe: p})
	return nil
}

func (s *Scenario) ask(verb string, args []string) error {
	switch verb {
	case "insync":
		return s.inSync(args)
	case "expect-insync", "expect-refused":
		return s.expectMirror(verb, args)
	}
	kinds := map[string]admission.Kind{"move": admission.GroupMove, "failover": admission.GroupFailover, "start": admission.GroupStart,
		"stop": admission.GroupStop, "restart": admission.GroupRestart, "clear": admission.GroupClear, "release": admission.GroupRelease, "release-node": admission.NodeRelease}
	name, refused := strings.CutSuffix(verb, "!")
	kind, known := kinds[name]
	mirror := mirrorKinds[name]
	if (!known && name != "maintenance" && mirror == "") || len(args) == 0 {
		return fmt.Errorf("unknown command")
	}
	code := ""
	if refused {
		code, args = args[len(args)-1], args[:len(args)-1]
	}
	a := admission.Ask{Kind: kind, Group: cluster.GroupName(args[0])}
	switch {
	case mirror != "":
		a = s.mirrorAsk(mirror, args)
	case kind == admission.NodeRelease:
		a.Group, a.Node = "", cluster.NodeName(args[0])
	case !known:
		a = maintenance(args)
	case len(args) > 1:
		a.To = cluster.NodeName(args[1])
	}
	at := s.someone()
	if at == "" {
		return fmt.Errorf("no node is up to ask")
	}
	id := s.world.Ask(at, a)
	s.world.Run(50 * time.Millisecond)
	for range 200 {
		if _, done := s.world.answers[id]; done {
			break
		}
		s.world.Run(50 * time.Millisecond)
	}
	r, done := s.world.answers[id]
	switch {
	case !done:
		return fmt.Errorf("no answer")
	case r.Err == nil && refused:
		return fmt.Errorf("was not refused")
	case r.Err != nil && r.Err.Code != code:
		return fmt.Errorf("refused: %s: %s", r.Err.Code, r.Err.Message)
	}
	return nil
}

// maintenance returns the ask of a line.
func maintenance(args []string) admission.Ask {
	a := admission.Ask{Kind: admission.MaintainOn, Author: "admin", Why: "work"}
	if args[0] == "off" {
		a.Kind = admission.MaintainOff
	}
	for i, word := range args[1:] {
		d, err := time.ParseDuration(word)
		switch {
		case err == nil:
			a.For = d
		case word == "drain":
			a.Drain = true
		case args[i] == "node":
			a.Node = cluster.NodeName(word)
		case args[i] == "group":
			a.Group = cluster.GroupName(word)
		}
	}
	return a
}

func (s *Scenario) someone() cluster.NodeName {
	for _, n := range s.world.names {
		if node := s.world.nodes[n]; node.machine != nil && !node.paused {
			return n
		}
	}
	return ""
}

func (s *Scenario) expect(verb string, args []string) error {
	w := s.world
	switch verb {
	case "expect-script":
		if want := strings.Join(args, " "); !slices.Contains(w.Scripts, want) {
			return fmt.Errorf("it was not run; these were: %q", w.Scripts)
		}
		return nil
	case "expect-survives":
		st := w.nodes[cluster.NodeName(args[0])].machine.Status()
		if text := strings.Join(args[2:], " "); fmt.Sprint(st.Survives) != args[1] || !strings.Contains(st.Why, text) {
			return fmt.Errorf("it is %d: %s", st.Survives, st.Why)
		}
		return nil
	case "expect-owners":
		if owners := w.Owners(cluster.GroupName(args[0])); fmt.Sprint(owners) != fmt.Sprint(args[1:]) {
			return fmt.Errorf("it is active on %v", owners)
		}
		return nil
	case "expect-no-script":
		if len(w.Scripts) > 0 {
			return fmt.Errorf("these were run: %q", w.Scripts)
		}
		return nil
	case "expect-direction":
		return s.expectDirection(args)
	case "expect-quarantine", "expect-held":
		return s.expectWithheld(verb, args)
	case "expect-final":
		if n := w.nodes[cluster.NodeName(args[0])]; string(n.final) != strings.Join(args[1:], "") {
			return fmt.Errorf("the final action was %q", n.final)
		}
		return nil
	}
	if len(args) < 2 {
		return fmt.Errorf("expect GROUP PHASE [NODE]")
	}
	at := s.someone()
	if len(args) == 4 { // as NODE sees it
		at = cluster.NodeName(args[3])
	}
	if w.nodes[at] == nil || w.nodes[at].machine == nil {
		return fmt.Errorf("no daemon runs on %q", at)
	}
	g := w.nodes[at].machine.State().Groups[cluster.GroupName(args[0])]
	if g == nil {
		return fmt.Errorf("no such group")
	}
	if string(g.Phase) != args[1] || len(args) > 2 && string(g.Owner) != args[2] {
		return fmt.Errorf("it is %s on %q (%s)", g.Phase, g.Owner, g.Why)
	}
	if len(args) > 2 && g.Phase == cluster.PhaseOnline {
		if owners := w.Owners(cluster.GroupName(args[0])); !slices.Contains(owners, g.Owner) {
			return fmt.Errorf("agreed online on %s, but it is active on %v", g.Owner, owners)
		}
	}
	return nil
}

// expectWithheld looks for what keeps a group or a node from what it would be
// given else.
func (s *Scenario) expectWithheld(verb string, args []string) error {
	st := s.world.nodes[s.someone()].machine.State()
	is, want := "no", strings.Join(args[1:], " ")
	if verb == "expect-quarantine" {
		if n := st.Nodes[cluster.NodeName(args[0])]; n != nil && n.Quarantine != nil {
			is = "yes"
		}
	} else if g := st.Groups[cluster.GroupName(args[0])]; g == nil || g.Held == nil {
		is = ""
	} else {
		is = g.Held.Why
	}
	if is != want {
		return fmt.Errorf("it is %q", is)
	}
	return nil
}

func (s *Scenario) expectDirection(args []string) error {
	if len(args) != 5 || s.world.nodes[cluster.NodeName(args[0])] == nil {
		return fmt.Errorf("expect-direction NODE A B PATH STATE")
	}
	status := s.world.nodes[cluster.NodeName(args[0])].machine.Status()
	for _, n := range status.Networks {
		for _, d := range n.Directions {
			if string(d.From) != args[1] || string(d.To) != args[2] || strconv.Itoa(n.Number) != args[3] {
				continue
			}
			state := d.State
			if d.OneWay {
				state = "one-way"
			}
			if state != args[4] {
				return fmt.Errorf("it is %s", state)
			}
			return nil
		}
	}
	return fmt.Errorf("it is not in the status")
}
