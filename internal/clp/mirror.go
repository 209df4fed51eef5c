package clp

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// rwaitPoll is how often clpmdctrl --rwait looks.
const rwaitPoll = 500 * time.Millisecond

// mirrorOf returns the mirror disk of that name.
func mirrorOf(s *api.Status, name string) (*api.Mirror, error) {
	for i := range s.Mirrors {
		if string(s.Mirrors[i].Name) == name {
			return &s.Mirrors[i], nil
		}
	}
	return nil, &api.Error{Code: "no-such-mirror", Message: fmt.Sprintf("there is no mirror disk %q", name), Hint: "clpmdstat -l lists them"}
}

// mdstat shows mirror disks: the colors of both copies, where one is active, or
// which there are.
func (r *run) mdstat() error {
	const use = "--mirror|-m MIRROR | --active MIRROR | -l"
	f := r.flags()
	mirror, active, list := f.StringP("mirror", "m", "", ""), f.String("active", "", ""), f.BoolP("list", "l", false, "")
	if err := f.Parse(r.args); err != nil || f.NArg() > 0 || count(*mirror != "", *active != "", *list) != 1 {
		return r.misuse(use, "the options cannot be read: %s", strings.Join(r.args, " "))
	}
	s, err := r.client.Status(r.ctx)
	if err != nil {
		return err
	}
	var b strings.Builder
	if *list {
		for _, m := range s.Mirrors {
			fmt.Fprintf(&b, "  %-16s %-16s %s\n", m.Name, m.Group, m.Mount)
		}
		_, err := r.out.Write([]byte(b.String()))
		return err
	}
	m, err := mirrorOf(&s, *mirror+*active)
	if err != nil {
		return err
	}
	row := func(title string, of func(c *api.MirrorCopy) string) {
		fmt.Fprintf(&b, "  %-16s", title)
		for i := range m.Copies {
			fmt.Fprintf(&b, " %-16s", of(&m.Copies[i]))
		}
		b.WriteString("\n")
	}
	if *mirror != "" {
		fmt.Fprintf(&b, "  Mirror Status: %s\n\n", mirrorWord(m))
	}
	row(string(m.Name), func(c *api.MirrorCopy) string { return string(c.Node) })
	fmt.Fprintf(&b, "  %s\n", strings.Repeat("-", width-2))
	if *active != "" {
		row("Active Status", func(c *api.MirrorCopy) string { return activeWord(c) })
	} else {
		row("Mirror Color", func(c *api.MirrorCopy) string { return c.Color() })
		recovering(&b, m)
	}
	_, err = r.out.Write([]byte(b.String()))
	return err
}

// mirrorWord is the state of a mirror disk in one word.
func mirrorWord(m *api.Mirror) string {
	if len(m.InSync) == 0 {
		return "No construction"
	}
	word := "Normal"
	for _, c := range m.Copies {
		switch c.Color() {
		case "YELLOW":
			return "Recovering"
		case "RED":
			word = "Abnormal"
		case "GRAY":
			if word == "Normal" {
				word = "Uncertain"
			}
		}
	}
	return word
}

// monitorWord is the word for a monitor. One of a copy that is being brought up to
// date is not normal yet.
func monitorWord(s *api.Status, m *api.Monitor) string {
	for i := range s.Mirrors {
		if s.Mirrors[i].Name == m.Mirror && m.Kind == "mirror" && m.Verdict == cluster.VerdictGood && mirrorWord(&s.Mirrors[i]) == "Recovering" {
			return "Caution"
		}
	}
	return verdictWord(m.Verdict)
}

func activeWord(c *api.MirrorCopy) string {
	switch c.Role {
	case api.MirrorActive:
		return "Active"
	case api.MirrorStandby:
		return "Inactive"
	}
	return "Unknown"
}

// recovering shows how far a copy is.
func recovering(b *strings.Builder, m *api.Mirror) {
	for _, c := range m.Copies {
		if c.State != api.MirrorCopying {
			continue
		}
		i := slices.IndexFunc(m.Copies, func(o api.MirrorCopy) bool { return o.Node != c.Node })
		if i >= 0 {
			fmt.Fprintf(b, "\n  Direction:       %s -> %s\n", m.Copies[i].Node, c.Node)
		}
		fmt.Fprintf(b, "  Percent:         %d%%\n", int(c.Percent))
		if c.ETA > 0 {
			fmt.Fprintf(b, "  Remain Time:     %s\n", cluster.Span(c.ETA.Round(time.Second)))
		}
	}
}

const mdctrlUsage = "--active [-f] MIRROR | --break MIRROR | --force MIRROR | --recovery MIRROR | --rwait MIRROR [-timeout SECONDS]"

// mdctrl does something with a mirror disk: in Tasuki it is active where its group
// is, so --active starts the group on this node.
func (r *run) mdctrl() error {
	args := slices.Clone(r.args)
	if i := slices.Index(args, "-timeout"); i >= 0 {
		args[i] = "--timeout" // one dash is how it is written
	}
	f := r.flags()
	active, brk, force := f.BoolP("active", "a", false, ""), f.BoolP("break", "b", false, ""), f.Bool("force", false, "")
	recovery, rwait := f.BoolP("recovery", "r", false, ""), f.BoolP("rwait", "w", false, "")
	stale, timeout := f.BoolP("stale", "f", false, ""), f.Int("timeout", 0, "")
	if err := f.Parse(args); err != nil || f.NArg() != 1 || *timeout < 0 || count(*active, *brk, *force, *recovery, *rwait) != 1 {
		return r.misuse(mdctrlUsage, "the options cannot be read: %s", strings.Join(r.args, " "))
	}
	s, err := r.client.Status(r.ctx)
	if err != nil {
		return err
	}
	m, err := mirrorOf(&s, f.Arg(0))
	if err != nil {
		return err
	}
	switch {
	case *active:
		return r.activate(&s, m, *stale)
	case *brk:
		return r.operate(m, "break", api.MirrorOp{Reason: "clpmdctrl --break"})
	case *force:
		return r.forceCopy(&s, m)
	case *recovery:
		return r.recover(m)
	}
	return r.rwait(m.Name, time.Duration(*timeout)*time.Second)
}

func (r *run) operate(m *api.Mirror, verb string, op api.MirrorOp) error {
	op.Cause = r.cause
	b, err := r.client.Mirror(r.ctx, m.Name, verb, op)
	if err == nil {
		fmt.Fprintf(r.out, "%s: %s\n", m.Name, b.Text)
	}
	return err
}

// forceCopy makes this node's copy the latest one. Who types --force has decided.
func (r *run) forceCopy(s *api.Status, m *api.Mirror) error {
	return r.operate(m, "force", api.MirrorOp{Node: s.Node, Confirm: string(s.Cluster), Reason: "clpmdctrl --force"})
}

func (r *run) activate(s *api.Status, m *api.Mirror, stale bool) error {
	switch m.Owner {
	case s.Node:
		fmt.Fprintf(r.out, "%s: group %s is active here already\n", m.Name, m.Group)
		return nil
	case "":
	default:
		return &api.Error{Code: "already-active", Message: fmt.Sprintf("group %s is active on %s", m.Group, m.Owner), Hint: fmt.Sprintf("clpgrp -m %s brings it here", m.Group)}
	}
	if stale && len(m.InSync) > 0 && !slices.Contains(m.InSync, s.Node) {
		if err := r.forceCopy(s, m); err != nil {
			return err
		}
	}
	b, err := r.client.Group(r.ctx, m.Group, "start", api.GroupOp{To: s.Node, Cause: r.cause})
	if err != nil {
		return err
	}
	return r.wait(m.Group, b.Plan)
}

// recover has the other copy brought up to date, also of a mirror that is broken.
func (r *run) recover(m *api.Mirror) error {
	if m.Paused != nil {
		if err := r.operate(m, "resume", api.MirrorOp{}); err != nil {
			return err
		}
	}
	if len(m.InSync) == len(m.Copies) {
		fmt.Fprintf(r.out, "%s: both copies are complete\n", m.Name)
		return nil
	}
	return r.operate(m, "copy", api.MirrorOp{})
}

// rwait waits until both copies are complete; 0 is as long as for a group.
func (r *run) rwait(name cluster.ResourceName, timeout time.Duration) error {
	if timeout == 0 {
		timeout = waitMost
	}
	for end := time.Now().Add(timeout); ; {
		s, err := r.client.Status(r.ctx)
		if err != nil {
			return err
		}
		m, err := mirrorOf(&s, string(name))
		if err != nil {
			return err
		}
		split := slices.ContainsFunc(m.Copies, func(c api.MirrorCopy) bool { return c.State == api.MirrorSplit })
		switch {
		case len(m.InSync) == len(m.Copies):
			fmt.Fprintf(r.out, "%s: both copies are complete\n", name)
			return nil
		case m.Paused != nil:
			return &api.Error{Code: "broken", Message: fmt.Sprintf("%s is broken, so nothing is copied", name), Hint: fmt.Sprintf("clpmdctrl --recovery %s", name)}
		case split && m.Victim == "":
			return &api.Error{Code: "split-brain", Message: fmt.Sprintf("the copies of %s were written apart from each other, so nothing is copied", name), Hint: fmt.Sprintf("tasuki mirror resolve %s --discard NODE", name)}
		case !time.Now().Before(end):
			return &api.Error{Code: "timed-out", Message: fmt.Sprintf("the copies of %s are not the same yet", name), Hint: fmt.Sprintf("clpmdstat --mirror %s", name)}
		}
		select {
		case <-time.After(min(rwaitPoll, max(time.Until(end), time.Millisecond))):
		case <-r.ctx.Done():
			return fmt.Errorf("wait for %s: %w", name, r.ctx.Err())
		}
	}
}
