// Package clp is the commands of CLUSTERPRO that existing scripts call, under
// their own names: the same binary under another argv[0]. They run in the middle
// of a failover, so nothing here is heavy.
package clp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/client"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Exit codes. Scripts test zero and non-zero only.
const (
	exitOK    = 0
	exitFail  = 1
	exitUsage = 2
)

// waitMost bounds how long clpgrp waits for a group.
const waitMost = time.Hour

// names are the commands, in the order in which they are installed.
var names = []string{"clptrnreq", "clprexec", "clplogcmd", "clpgrp", "clpstat", "clpmdstat", "clpmdctrl"}

// Is says whether a program of that name is one of these commands.
func Is(argv0 string) bool { return slices.Contains(names, filepath.Base(argv0)) }

// run is one call of a command.
type run struct {
	ctx    context.Context
	name   string
	args   []string
	out    io.Writer
	client *client.Client
	cause  cluster.EventID
}

// Main runs the command that argv[0] names and returns its exit code. socket is
// the door of the local daemon.
func Main(ctx context.Context, argv []string, stdout, stderr io.Writer, socket string) int {
	r := &run{ctx: ctx, name: filepath.Base(argv[0]), args: argv[1:], out: stdout, client: client.Unix(socket),
		cause: cluster.EventID(os.Getenv("TASUKI_CAUSE"))}
	f := map[string]func() error{"clptrnreq": r.trnreq, "clprexec": r.rexec, "clplogcmd": r.logcmd, "clpgrp": r.grp, "clpstat": r.stat, "clpmdstat": r.mdstat, "clpmdctrl": r.mdctrl}[r.name]
	if f == nil {
		fmt.Fprintf(stderr, "error: %s is not a command of Tasuki\n", r.name)
		return exitUsage
	}
	err := f()
	var use *usage
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &use):
		fmt.Fprintf(stderr, "error: %s: %s\nhint: %s\n", r.name, use.what, use.hint)
		return exitUsage
	}
	fmt.Fprintf(stderr, "error: %s: %v\n", r.name, err)
	var e *api.Error
	if errors.As(err, &e) && e.Hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", e.Hint)
	}
	return exitFail
}

// usage is a call that cannot be understood.
type usage struct{ what, hint string }

func (u *usage) Error() string { return u.what }

func (r *run) misuse(hint, format string, args ...any) error {
	return &usage{what: fmt.Sprintf(format, args...), hint: "usage: " + r.name + " " + hint}
}

func (r *run) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet(r.name, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

const trnreqUsage = "-t GRP_FAILOVER -r RESOURCE|-g GROUP -h IP[,IP...] [-w SECONDS] | -t EXEC_SCRIPT -s FILE -h IP[,IP...] [-w SECONDS]"

func (r *run) trnreq() error {
	f := r.flags()
	verb, res, group := f.StringP("type", "t", "", ""), f.StringP("resource", "r", "", ""), f.StringP("group", "g", "", "")
	file, hosts, wait := f.StringP("script", "s", "", ""), f.StringSliceP("host", "h", nil, ""), f.IntP("wait", "w", 0, "")
	if err := f.Parse(r.args); err != nil || f.NArg() > 0 || *wait < 0 {
		return r.misuse(trnreqUsage, "the options cannot be read: %s", strings.Join(r.args, " "))
	}
	req := api.SendRequest{Hosts: *hosts, Wait: time.Duration(*wait) * time.Second}
	req.Verb, req.Resource, req.Group, req.Script = cluster.Verb(*verb), cluster.ResourceName(*res), cluster.GroupName(*group), *file
	switch {
	case len(*hosts) == 0:
		return r.misuse(trnreqUsage, "no host is named")
	case req.Verb == cluster.VerbGroupFailover && (req.Resource == "") == (req.Group == ""):
		return r.misuse(trnreqUsage, "GRP_FAILOVER needs either a resource or a group")
	case req.Verb == cluster.VerbExecScript && req.Script == "":
		return r.misuse(trnreqUsage, "EXEC_SCRIPT needs a script")
	case req.Verb != cluster.VerbGroupFailover && req.Verb != cluster.VerbExecScript:
		return r.misuse(trnreqUsage, "%q is no type of request", *verb)
	}
	return r.send(req)
}

func (r *run) rexec() error {
	const use = "--failover GROUP -h IP | --script FILE -h IP"
	f := r.flags()
	group, file, hosts, wait := f.String("failover", "", ""), f.String("script", "", ""), f.StringSliceP("host", "h", nil, ""), f.IntP("wait", "w", 0, "")
	if err := f.Parse(r.args); err != nil || f.NArg() > 0 || len(*hosts) == 0 || (*group == "") == (*file == "") || *wait < 0 {
		return r.misuse(use, "the options cannot be read: %s", strings.Join(r.args, " "))
	}
	req := api.SendRequest{Hosts: *hosts, Wait: time.Duration(*wait) * time.Second}
	req.Verb, req.Group, req.Script = cluster.VerbGroupFailover, cluster.GroupName(*group), *file
	if *file != "" {
		req.Verb = cluster.VerbExecScript
	}
	return r.send(req)
}

// send asks and prints what each host answered. It fails if one of them did.
func (r *run) send(req api.SendRequest) error {
	req.Cause = r.cause
	answers, err := r.client.Send(r.ctx, req)
	if err != nil {
		return err
	}
	var failed error
	for _, a := range answers {
		switch {
		case a.Error != nil:
			fmt.Fprintf(r.out, "%s: %s\n", a.Host, a.Error.Message)
			failed = a.Error
		case a.Answer != nil:
			fmt.Fprintf(r.out, "%s: %s\n", a.Host, a.Answer.Text)
			if a.Answer.ExitCode != 0 {
				failed = &api.Error{Code: "script-failed", Message: fmt.Sprintf("on %s %s", a.Host, a.Answer.Text)}
			}
		}
	}
	return failed
}

var levels = map[string]cluster.Level{
	"INFO": cluster.LevelInfo, "WARN": cluster.LevelWarn, "WAR": cluster.LevelWarn, "WARNING": cluster.LevelWarn,
	"ERR": cluster.LevelError, "ERROR": cluster.LevelError, "": cluster.LevelInfo,
}

func (r *run) logcmd() error {
	const use = "-m TEXT [-l info|warn|err] [-i ID] [--alert] [--syslog] [--mail] [--trap]"
	f := r.flags()
	text, level, id := f.StringP("message", "m", "", ""), f.StringP("level", "l", "", ""), f.IntP("id", "i", 0, "")
	for _, name := range []string{"alert", "syslog", "mail", "trap"} {
		f.Bool(name, false, "") // where lines go is set for all of them
	}
	if err := f.Parse(r.args); err != nil || f.NArg() > 0 {
		return r.misuse(use, "the options cannot be read: %s", strings.Join(r.args, " "))
	}
	l, known := levels[strings.ToUpper(*level)]
	switch {
	case *text == "":
		return r.misuse(use, "no text is given")
	case !known:
		return r.misuse(use, "%q is no level", *level)
	}
	_, err := r.client.Log(r.ctx, api.LogLine{Text: *text, Level: l, Number: *id, Cause: r.cause})
	return err
}

const grpUsage = "-s|-t [GROUP] [-h NODE] | -m [GROUP] [-a NODE] [-h NODE] | -n GROUP"

func (r *run) grp() error {
	f := r.flags()
	start, stop, move, where := f.BoolP("start", "s", false, ""), f.BoolP("stop", "t", false, ""), f.BoolP("move", "m", false, ""), f.BoolP("node", "n", false, "")
	to, host := f.StringP("to", "a", "", ""), f.StringP("host", "h", "", "")
	f.BoolP("force", "f", false, "") // nothing is forced: what is refused says why
	if err := f.Parse(r.args); err != nil || f.NArg() > 1 || count(*start, *stop, *move, *where) != 1 {
		return r.misuse(grpUsage, "the options cannot be read: %s", strings.Join(r.args, " "))
	}
	s, err := r.client.Status(r.ctx)
	if err != nil {
		return err
	}
	var groups []api.Group
	for _, g := range s.Groups {
		if f.NArg() == 0 || string(g.Name) == f.Arg(0) {
			groups = append(groups, g)
		}
	}
	if len(groups) == 0 {
		return &api.Error{Code: "no-such-group", Message: fmt.Sprintf("there is no group %q", f.Arg(0)), Hint: "clpstat -g"}
	}
	if *where {
		if f.NArg() == 0 {
			return r.misuse(grpUsage, "-n needs a group")
		}
		if groups[0].Owner == "" {
			return &api.Error{Code: "not-active", Message: fmt.Sprintf("group %s is not active", groups[0].Name), Hint: "clpgrp -s " + string(groups[0].Name)}
		}
		fmt.Fprintln(r.out, groups[0].Owner)
		return nil
	}
	on, err := nodeNamed(&s, *host)
	if err != nil {
		return err
	}
	target, err := nodeNamed(&s, *to)
	if err != nil {
		return err
	}
	if *start {
		return r.change(groups, "start", on)
	}
	if on != "" { // stop or move what runs there
		groups = slices.DeleteFunc(groups, func(g api.Group) bool { return g.Owner != on })
		if len(groups) == 0 {
			return &api.Error{Code: "not-active", Message: fmt.Sprintf("no such group is active on %s", on), Hint: "clpstat -g"}
		}
	}
	if *stop {
		return r.change(groups, "stop", "")
	}
	return r.change(groups, "move", target)
}

// nodeNamed is nodeOf for an option that may be left out.
func nodeNamed(s *api.Status, host string) (cluster.NodeName, error) {
	if host == "" {
		return "", nil
	}
	n := nodeOf(s, host)
	if n == nil {
		return "", &api.Error{Code: "no-such-node", Message: fmt.Sprintf("there is no node %q", host), Hint: "clpstat -n shows them"}
	}
	return n.Name, nil
}

func count(bs ...bool) (n int) {
	for _, b := range bs {
		if b {
			n++
		}
	}
	return n
}

// change asks for each group and waits until all plans have ended. Without a
// named group, those that need nothing are left out.
func (r *run) change(groups []api.Group, verb string, to cluster.NodeName) error {
	var failed error
	for _, g := range groups {
		active := g.Owner != ""
		if len(groups) > 1 && (verb == "start") == active {
			continue
		}
		b, err := r.client.Group(r.ctx, g.Name, verb, api.GroupOp{To: to, Cause: r.cause})
		if err != nil {
			failed = err
			fmt.Fprintf(r.out, "%s: %v\n", g.Name, err)
			continue
		}
		if err := r.wait(g.Name, b.Plan); err != nil {
			failed = err
		}
	}
	return failed
}

func (r *run) wait(g cluster.GroupName, plan string) error {
	for end := time.Now().Add(waitMost); time.Now().Before(end); {
		p, err := r.client.Plan(r.ctx, plan, 30*time.Second)
		if err != nil {
			return err
		}
		if !p.Ended {
			continue
		}
		fmt.Fprintf(r.out, "%s: %s\n", g, p.Text)
		if !p.OK {
			return &api.Error{Code: "plan-failed", Message: fmt.Sprintf("group %s: %s", g, p.Text), Hint: "tasuki explain"}
		}
		return nil
	}
	return &api.Error{Code: "timed-out", Message: fmt.Sprintf("group %s is still in the middle of it", g), Hint: "clpstat -g"}
}

// LinkNames installs the commands in dir as links to this binary, or removes
// them, and returns the paths. Something else of such a name is left alone.
func LinkNames(dir string, remove bool) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if !remove {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the directory: %w", err)
		}
	}
	var done []string
	for _, name := range names {
		path := filepath.Join(dir, name)
		target, err := os.Readlink(path)
		ours := err == nil && filepath.Base(target) == filepath.Base(self)
		if _, err := os.Lstat(path); err == nil && !ours {
			return done, &api.Error{Code: "in-the-way", Message: fmt.Sprintf("%s exists and is no link to Tasuki", path), Hint: "is CLUSTERPRO still installed? move it away first"}
		}
		if ours {
			if err := os.Remove(path); err != nil {
				return done, fmt.Errorf("remove an old link: %w", err)
			}
		}
		if remove && !ours {
			continue
		}
		if !remove {
			if err := os.Symlink(self, path); err != nil {
				return done, fmt.Errorf("install a link: %w", err)
			}
		}
		done = append(done, path)
	}
	return done, nil
}

// nodeOf resolves what -h of clpstat names: a node, or one of its addresses.
func nodeOf(s *api.Status, host string) *api.Node {
	ip, _ := netip.ParseAddr(host)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if string(n.Name) == host {
			return n
		}
		for _, p := range n.Addresses {
			if a, err := netip.ParseAddr(p.Address); err == nil && a == ip {
				return n
			}
		}
	}
	return nil
}
