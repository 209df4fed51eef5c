package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

// drilling is a drill as it was typed, and as it goes.
type drilling struct {
	asking
	yes, reason, report string
	force, byHand       bool
	hold, timeout       time.Duration

	p      *program
	file   *config.File
	before api.Status
	will   api.Simulation
	out    api.Drill
	began  time.Time
	latest []api.Event // the newest line before it
	until  time.Time   // then it was undone; zero: it was not
	after  *api.Status // once all was as foreseen
}

func (p *program) drill() *cobra.Command {
	d := drilling{p: p}
	c := p.jsonFlag(&cobra.Command{Use: "drill", Short: "Do for real what could happen, and compare with what was foreseen", Args: args(0, 0, "no arguments; say by a flag what is to happen"),
		Long: `Do one thing for real, with your consent: first show what tasuki simulate says, ask
for the name of the cluster, do it, wait for what follows, undo what can be undone,
and write a report: what was foreseen and what came, how long it took to detect, to
decide, to stop and to start each resource, and how to bring the rest back.

  --move  the group is moved as by tasuki group move
  --kill  the node is forced off by its fence; it stays off until it is switched on.
          A node without a fence, or where this runs: --by-hand on another node
  --pull  the device of this machine is taken down, and up again after --for, also
          if this program dies; routes and addresses are put back
  --fail  the recovery of a monitor of this node is rehearsed: nothing fails, but all
          that would follow is done

With --by-hand you do it yourself, when you are told to, and this measures. A drill
that would leave a group inactive, or nothing redundant, is refused; --force with
--reason does it all the same.`,
		Example: `  tasuki drill --move failover
  tasuki drill --pull CLP-1:eth0 --for 20s
  tasuki drill --kill CLP-2 --force --reason "acceptance test" --yes VMcluster --json
  tasuki drill --kill CLP-2 --by-hand --force --reason "the plug, for once"`,
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd.Context()) }})
	d.flags(c, p)
	f := c.Flags()
	f.StringVar(&d.yes, "yes", "", "the name of the cluster, instead of typing it when asked")
	f.StringVar(&d.reason, "reason", "", "why, for the log and the report")
	f.BoolVar(&d.force, "force", false, "also if a group would be inactive, or nothing redundant left; needs --reason")
	f.BoolVar(&d.byHand, "by-hand", false, "you do it yourself, when you are told to")
	f.DurationVar(&d.hold, "for", 10*time.Second, "how long a pulled device stays down at least")
	f.DurationVar(&d.timeout, "timeout", 5*time.Minute, "how long to wait for what was foreseen; by hand, also for you")
	f.StringVar(&d.report, "report", "", "write the report to this file too")
	c.AddCommand(p.holdDown())
	return c
}

// run is the drill from the question to the report.
func (d *drilling) run(ctx context.Context) error {
	if n := len(d.kill) + len(d.pull) + given(d.move) + given(d.fail); n != 1 {
		return usageError{fmt.Errorf("say one thing that is to happen: --kill, --pull, --move or --fail")}
	}
	if d.force && d.reason == "" {
		return usageError{fmt.Errorf("say why it is to be done all the same: --reason TEXT")}
	}
	snap, err := d.p.client().Snapshot(ctx)
	if err != nil {
		return err
	}
	d.drill = !d.byHand
	if d.will, err = d.p.foresee(ctx, d.asking, snap); err != nil {
		return err
	}
	d.before = snap.Status
	if d.file, err = readable(snap); err != nil {
		return err
	}
	do, err := d.way()
	if err != nil {
		return err
	}
	if !d.p.asJSON {
		d.p.printSimulation(&d.will)
	}
	if err := d.objection(); err != nil {
		return err
	}
	if err := d.consent(ctx); err != nil {
		return err
	}
	if err := d.announce(ctx); err != nil {
		return err
	}
	if err := do(ctx); err != nil {
		return err
	}
	return d.tell(ctx)
}

func given(s string) int {
	if s == "" {
		return 0
	}
	return 1
}

// objection says why the drill must not be, or nil.
func (d *drilling) objection() error {
	hint := "tasuki drill … --force --reason TEXT does it all the same"
	switch {
	case d.will.Refused != nil:
		return d.will.Refused
	case !d.force && d.will.Outage():
		var down []string
		for _, g := range d.will.Groups {
			if !g.Served && (g.Wanted || g.Before != "") {
				down = append(down, fmt.Sprintf("group %s would be inactive: %s", g.Name, g.Why))
			}
		}
		return &api.Error{Code: "outage", Message: strings.Join(down, "; "), Hint: hint}
	case !d.force && d.will.After.Survives == 0:
		return &api.Error{Code: "nothing-redundant", Message: "nothing redundant would be left: " + d.will.After.Why, Hint: hint}
	}
	return nil
}

// consent asks whoever sits at the terminal for the name of the cluster.
func (d *drilling) consent(ctx context.Context) error {
	name, p := string(d.before.Cluster), d.p
	said := d.yes
	if said == "" && isTerminal(p.in) {
		fmt.Fprintf(p.err, "\nthis is done for real: %s\ntype the name of the cluster: ", strings.Join(d.will.Change, ", and "))
		said = readLine(ctx, p)
	}
	if said != name {
		return &api.Error{Code: "not-confirmed", Message: "nothing was done: it was not confirmed by the name of the cluster", Hint: "if that is what you want: --yes " + name}
	}
	return nil
}

// readLine reads a line that somebody types, or "" if ctx ends first.
func readLine(ctx context.Context, p *program) string {
	answer := make(chan string, 1)
	go func() { // ends with the program: a terminal cannot be read for a time only
		line, _ := bufio.NewReader(p.in).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case said := <-answer:
		return said
	case <-ctx.Done():
		return ""
	}
}

// announce writes into the log of the cluster what is about to happen.
func (d *drilling) announce(ctx context.Context) error {
	what := strings.Join(d.will.Change, ", and ")
	text := fmt.Sprintf("A drill begins: %s.", what)
	if d.reason != "" {
		text = fmt.Sprintf("A drill begins (%s): %s.", d.reason, what)
	}
	var err error
	if d.latest, err = d.p.client().Events(ctx, api.EventFilter{Newest: true, Limit: 1}); err != nil {
		return err
	}
	line, err := d.p.client().Log(ctx, api.LogLine{Text: text, Level: cluster.LevelWarn, Module: "drill", Cause: cause()})
	if err != nil {
		return err
	}
	d.began = time.Now()
	d.out = api.Drill{Cluster: d.before.Cluster, Node: d.before.Node, Began: d.began, Change: d.will.Change, Reason: d.reason, Event: line.ID, Foreseen: d.will}
	return nil
}

func (d *drilling) did(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.out.Did = append(d.out.Did, text)
	fmt.Fprintf(d.p.err, "%s\n", text)
}

// way returns how it is done, or why it cannot be.
func (d *drilling) way() (func(context.Context) error, error) {
	switch {
	case d.move != "":
		return d.doMove, nil
	case d.fail != "":
		m := d.file.Monitor(cluster.MonitorName(strings.Split(d.fail, "@")[0]))
		if m == nil {
			return nil, &api.Error{Code: "no-such-monitor", Message: "only the failure of a monitor can be rehearsed", Hint: "to see what the failure of a resource leads to: tasuki simulate --fail " + d.fail}
		}
		return func(ctx context.Context) error { return d.doRehearse(ctx, m.Name) }, nil
	case d.byHand:
		return d.doByHand, nil
	case len(d.kill) > 0:
		n := d.file.Node(cluster.NodeName(d.kill[0]))
		switch {
		case n.Name == d.before.Node:
			return nil, &api.Error{Code: "other-node", Message: fmt.Sprintf("%s is this node, and a drill does not outlive its own node", n.Name), Hint: "run it on another node"}
		case len(n.Fence) == 0:
			return nil, &api.Error{Code: "no-fence", Message: fmt.Sprintf("the cluster file has no fence for %s, so nothing here can take its power", n.Name), Hint: "take it yourself when you are told to: --by-hand"}
		}
		return d.doFence, nil
	}
	node, device, _ := strings.Cut(d.pull[0], ":")
	if cluster.NodeName(node) != d.before.Node {
		return nil, &api.Error{Code: "other-node", Message: fmt.Sprintf("this is %s: a device is taken down on its own node", d.before.Node), Hint: fmt.Sprintf("run it on %s, or pull the cable yourself: --by-hand", node)}
	}
	if device[0] >= '0' && device[0] <= '9' {
		return nil, &api.Error{Code: "bad-request", Message: "a drill pulls a device, not a network by its number", Hint: "tasuki drill --pull " + node + ":DEVICE"}
	}
	return func(ctx context.Context) error { return d.doPull(ctx, device) }, nil
}

func (d *drilling) doMove(ctx context.Context) error {
	g, to, _ := strings.Cut(d.move, "=")
	b, err := d.p.client().Group(ctx, cluster.GroupName(g), "move", api.GroupOp{To: cluster.NodeName(to), Cause: d.out.Event})
	if err != nil {
		return err
	}
	d.did("asked for the move: %s", b.Text)
	d.await(ctx, d.timeout)
	return nil
}

func (d *drilling) doRehearse(ctx context.Context, m cluster.MonitorName) error {
	if _, err := d.p.client().Monitor(ctx, m, "rehearse", api.MonitorOp{Cause: d.out.Event}); err != nil {
		return err
	}
	d.did("rehearsed the recovery of %s", m)
	d.await(ctx, d.timeout)
	return nil
}

func (d *drilling) doFence(ctx context.Context) error {
	n := cluster.NodeName(d.kill[0])
	b, err := d.p.client().Fence(ctx, n, api.NodeOp{Reason: "a drill: " + cmp.Or(d.reason, "no reason given"), Cause: d.out.Event}, fenceWait)
	if err != nil {
		return err
	}
	d.did("forced %s off: %s", n, b.Text)
	d.out.Back = append(d.out.Back, fmt.Sprintf("switch %s on; it joins by itself", n))
	d.await(ctx, d.timeout)
	return nil
}

// doByHand waits for the first line that tells of it.
func (d *drilling) doByHand(ctx context.Context) error {
	fmt.Fprintf(d.p.err, "do it now: %s (waiting %s)\n", strings.Join(d.will.Change, ", and "), d.timeout)
	for end := time.Now().Add(d.timeout); ; {
		for _, e := range d.lines(ctx) {
			if detects(e.Code) {
				d.began = e.Time
				d.did("seen: %s", e.Text)
				d.out.Back = append(d.out.Back, "undo by hand what you did")
				d.await(ctx, d.timeout)
				return nil
			}
		}
		if !pause(ctx, end) {
			return &api.Error{Code: "timed-out", Message: "nothing was seen to happen", Hint: "tasuki event"}
		}
	}
}

// pause waits a moment, and says false when it is over.
func pause(ctx context.Context, end time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return time.Now().Before(end)
	}
}

// lines returns what the log says since the drill began.
func (d *drilling) lines(ctx context.Context) []api.Event {
	f := api.EventFilter{Limit: eventPage}
	for _, e := range d.latest {
		f.After = e.ID
	}
	events, err := d.p.client().Events(ctx, f)
	if err != nil {
		return nil // it is asked again
	}
	return events
}

// await waits until all is as it was foreseen, at most so long.
func (d *drilling) await(ctx context.Context, most time.Duration) {
	for end := time.Now().Add(min(most, d.timeout)); ; {
		s, err := d.p.client().Status(ctx)
		if err == nil && d.asForeseen(&s) && d.allCame(d.lines(ctx)) {
			d.after = &s
			return
		}
		if !pause(ctx, end) {
			return
		}
	}
}

// asForeseen says whether every group, and every node, is where it was foreseen
// to be, and nothing is under way.
func (d *drilling) asForeseen(s *api.Status) bool {
	for _, g := range s.Groups {
		is := d.will.Group(g.Name)
		if is == nil || g.Plan != nil || g.Phase != is.Phase || g.Owner != is.After {
			return false
		}
	}
	for _, n := range d.will.Nodes {
		at := slices.IndexFunc(s.Nodes, func(is api.Node) bool { return is.Name == n.Name })
		if at < 0 || s.Nodes[at].State != n.State {
			return false
		}
	}
	return true
}

// allCame says whether the log has every step of a resource that was foreseen.
func (d *drilling) allCame(lines []api.Event) bool {
	for _, w := range d.will.Steps {
		if w.Resource != "" && !slices.ContainsFunc(lines, func(e api.Event) bool {
			return e.Node == w.Node && e.Code == w.Code && e.Fields["resource"] == string(w.Resource)
		}) {
			return false
		}
	}
	return true
}

// readable returns the cluster file of a snapshot.
func readable(snap api.Snapshot) (*config.File, error) {
	f, errs := config.Parse("cluster file", []byte(snap.Config))
	if len(errs) > 0 {
		return nil, &api.Error{Code: "other-version", Message: "the cluster file in force cannot be read by this program: the daemon is of another version", Hint: "tasuki status shows its version"}
	}
	return f, nil
}

// tell measures, and writes the report.
func (d *drilling) tell(ctx context.Context) error {
	s, err := d.p.client().Status(ctx)
	if err != nil {
		return err
	}
	for _, e := range d.lines(ctx) {
		if e.ID != d.out.Event {
			d.out.Came = append(d.out.Came, whatif.StepOf(e, e.Time.Sub(d.began)))
		}
	}
	if d.after == nil {
		d.after = &s
	}
	d.measure(d.after)
	text := d.text()
	if d.report != "" {
		if err := os.WriteFile(d.report, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	if d.p.asJSON {
		err = d.p.json(d.out)
	} else {
		fmt.Fprint(d.p.out, text)
	}
	if err == nil && !d.out.Agrees {
		return &api.Error{Code: "drill-differs", Message: "what came is not what was foreseen", Hint: "tasuki explain " + string(d.out.Event)}
	}
	return err
}
