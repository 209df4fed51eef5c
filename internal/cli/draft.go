package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/host/priority"
	"github.com/tasuki-ha/tasuki/internal/survival"
)

// answering is the answers of tasuki config new as they were typed.
type answering struct {
	cluster, witness       string
	nodes, fences, ping    []string
	alone                  bool
	group, ip, start, stop string
	mirror                 []string
	file                   string
}

func (p *program) configNew() *cobra.Command {
	var a answering
	c := p.jsonFlag(&cobra.Command{Use: "new", Short: "Make a cluster file of a few answers; no daemon is needed", Args: args(0, 0, "no arguments; the answers are flags"),
		Long: `Make a cluster file of a few answers and print it, and on the standard error output
which faults the cluster survives with it, beside what it would survive with another
third thing. Two nodes need one, or both stop when one fails: a witness, a fence,
ping targets, a third --node; or --alone, and both go on when they lose each other.
Nothing is changed: tasuki init, or tasuki config apply, puts the file in force.`,
		Example: `  tasuki config new --cluster web --node alpha=192.168.10.1,10.0.0.1 \
    --node beta=192.168.10.2,10.0.0.2 --witness gamma=192.168.10.3,10.0.0.3 \
    --ip 10.0.0.10/24@eth1 --start /usr/local/sbin/web-server > web.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := a.answers(cmd, p.in)
			if err != nil {
				return err
			}
			d, err := survival.Draft(q, time.Now())
			if err != nil {
				return err
			}
			if p.asJSON {
				err = p.json(d)
			} else {
				p.printDraft(&d)
			}
			if n := len(d.Refused); n > 0 {
				return &api.Error{Code: "answers-refused", Message: count(n, "answer") + " cannot be used", Hint: "tasuki config new --help"}
			}
			return err
		}})
	a.flags(c)
	return c
}

func (a *answering) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.cluster, "cluster", "", "its name, which cannot change later")
	f.StringArrayVar(&a.nodes, "node", nil, "NAME=ADDRESS[,ADDRESS...], one address in each network, the interconnect first")
	f.StringVar(&a.witness, "witness", "", "NAME=ADDRESS[,ADDRESS...], a third machine with a vote and without groups")
	f.StringSliceVar(&a.ping, "ping", nil, "ADDRESS[,ADDRESS...] of a router or a switch: who reaches it goes on")
	f.StringArrayVar(&a.fences, "fence", nil, "NODE=AGENT[,OPTION=VALUE...], how a node is forced off")
	f.BoolVar(&a.alone, "alone", false, "two nodes and nothing else")
	f.StringVar(&a.group, "group", "", "the name of a group (default: that of the cluster, if the group has anything)")
	f.StringVar(&a.ip, "ip", "", "ADDRESS[/PREFIX][@DEVICE], its floating IP")
	f.StringSliceVar(&a.mirror, "mirror", nil, "DATA,META,MOUNT[,FS], its mirror disk: two partitions, the same on both nodes")
	f.StringVar(&a.start, "start", "", "its start script; or without --stop a program that stays")
	f.StringVar(&a.stop, "stop", "", "its stop script")
	f.StringVar(&a.file, "answers", "", "a file of JSON instead, as the API takes it; - is the standard input")
}

// answers reads what was typed.
func (a *answering) answers(cmd *cobra.Command, in io.Reader) (out api.Answers, err error) {
	if a.file != "" {
		if cmd.Flags().NFlag() > 1 && (cmd.Flags().NFlag() > 2 || !cmd.Flags().Changed("json")) {
			return out, usageError{errors.New("--answers takes the place of all other answers")}
		}
		return answersOf(a.file, in)
	}
	out.Cluster = a.cluster
	for _, text := range a.nodes {
		n, err := nodeAnswer("--node", text)
		if err != nil {
			return out, err
		}
		out.Nodes = append(out.Nodes, n)
	}
	if err := a.third(&out); err != nil {
		return out, err
	}
	return out, a.groupAnswer(&out)
}

func answersOf(file string, in io.Reader) (out api.Answers, err error) {
	const most = 1 << 20
	var text []byte
	if file == "-" {
		text, err = io.ReadAll(io.LimitReader(in, most))
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return out, &api.Error{Code: "config-unreadable", Message: err.Error(), Hint: "name a file of answers as POST /v1/config/draft takes them"}
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		return out, &api.Error{Code: "config-unreadable", Message: fmt.Sprintf("%s: %v", file, err), Hint: "tasuki api openapi describes Answers"}
	}
	return out, nil
}

// nodeAnswer reads NAME=ADDRESS,ADDRESS.
func nodeAnswer(flag, text string) (api.NodeAnswer, error) {
	name, addresses, ok := strings.Cut(text, "=")
	if !ok {
		return api.NodeAnswer{}, usageError{fmt.Errorf("%s %q has no address: write NAME=ADDRESS,ADDRESS", flag, text)}
	}
	return api.NodeAnswer{Name: name, Addresses: strings.Split(addresses, ",")}, nil
}

// third reads the one third thing that was typed.
func (a *answering) third(out *api.Answers) error {
	t, named := &out.Third, 0
	if a.witness != "" {
		named++
		n, err := nodeAnswer("--witness", a.witness)
		if err != nil {
			return err
		}
		t.Kind, t.Node = api.ThirdWitness, &n
	}
	if len(a.ping) > 0 {
		named++
		t.Kind, t.Targets = api.ThirdPing, a.ping
	}
	if len(a.fences) > 0 {
		named++
		t.Kind = api.ThirdFence
		for _, text := range a.fences {
			f, err := fenceAnswer(text)
			if err != nil {
				return err
			}
			t.Fences = append(t.Fences, f)
		}
	}
	if a.alone {
		named++
		t.Kind = api.ThirdNone
	}
	if named > 1 {
		return usageError{errors.New("choose one of --witness, --ping, --fence and --alone")}
	}
	return nil
}

// fenceAnswer reads NODE=AGENT,OPTION=VALUE,…
func fenceAnswer(text string) (api.FenceAnswer, error) {
	node, rest, ok := strings.Cut(text, "=")
	parts := strings.Split(rest, ",")
	f := api.FenceAnswer{Node: node, Agent: parts[0]}
	for _, part := range parts[1:] {
		option, value, has := strings.Cut(part, "=")
		switch {
		case !has:
			ok = false
		case option == "plug":
			f.Plug = value
		default:
			if f.Options == nil {
				f.Options = map[string]string{}
			}
			f.Options[option] = value
		}
	}
	if !ok {
		return f, usageError{fmt.Errorf("--fence %q: write NODE=AGENT,OPTION=VALUE, for example alpha=fence_ipmilan,ip=10.1.0.8,username=tasuki", text)}
	}
	return f, nil
}

func (a *answering) groupAnswer(out *api.Answers) error {
	if a.group == "" && a.ip == "" && len(a.mirror) == 0 && a.start == "" && a.stop == "" {
		return nil
	}
	g := &api.GroupAnswer{Name: a.group}
	if g.Name == "" {
		g.Name = out.Cluster
	}
	out.Group = g
	if a.ip != "" {
		x, err := addressAnswer(a.ip)
		if err != nil {
			return err
		}
		g.Address = &x
	}
	if n := len(a.mirror); n > 0 {
		if n < 3 || n > 4 {
			return usageError{fmt.Errorf("--mirror %q: write DATA,META,MOUNT, for example /dev/sda4,/dev/sda3,/data", strings.Join(a.mirror, ","))}
		}
		g.Mirror = &api.MirrorAnswer{Data: a.mirror[0], Meta: a.mirror[1], Mount: a.mirror[2]}
		if n == 4 {
			g.Mirror.FS = a.mirror[3]
		}
	}
	if a.start != "" || a.stop != "" {
		g.Program = &api.ProgramAnswer{Start: a.start, Stop: a.stop}
	}
	return nil
}

// addressAnswer reads ADDRESS/PREFIX@DEVICE.
func addressAnswer(text string) (api.AddressAnswer, error) {
	where, device, _ := strings.Cut(text, "@")
	address, prefix, has := strings.Cut(where, "/")
	x := api.AddressAnswer{Address: address, Device: device}
	if !has {
		return x, nil
	}
	var err error
	if x.Prefix, err = strconv.Atoi(prefix); err != nil || x.Prefix < 1 || x.Prefix > 128 {
		return x, usageError{fmt.Errorf("--ip %q: %q is no prefix length; write ADDRESS/PREFIX@DEVICE, for example 10.0.0.10/24@eth1", text, prefix)}
	}
	return x, nil
}

// drafting answers what the set-up wizard asks a daemon, as errand does other
// questions.
func (p *program) drafting() *cobra.Command {
	return &cobra.Command{Use: "draft", Hidden: true, Short: "Make a draft that a daemon hands on", Args: args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if err := priority.Yield(mostMemory); err != nil {
				return err
			}
			q, err := answersOf("-", p.in)
			if err != nil {
				return err
			}
			d, err := survival.Draft(q, time.Now())
			if err != nil {
				return err
			}
			return json.NewEncoder(p.out).Encode(d)
		}}
}

// printDraft prints the file, and beside it what it comes to.
func (p *program) printDraft(d *api.Draft) {
	fmt.Fprint(p.out, d.Text)
	for _, r := range d.Refused {
		fmt.Fprintln(p.err, r)
	}
	for _, w := range d.Warnings {
		fmt.Fprintf(p.err, "warning: %s\n", w)
	}
	if len(d.Setups) > 0 {
		p.printSetups(d.Setups)
	}
}

// faultTexts are the rows of the table, in their order.
var faultTexts = []struct {
	fault api.Fault
	text  string
}{
	{api.FaultOwner, "the node that has the group dies"},
	{api.FaultOther, "another node dies"},
	{api.FaultNetwork, "one network fails"},
	{api.FaultLink, "the nodes lose each other"},
	{api.FaultCutOff, "the group's node is cut off"},
	{api.FaultThird, "the third thing fails"},
	{api.FaultThirdLink, "then the nodes lose each other"},
	{api.FaultPaused, "the group's node is paused"},
}

const setupWidth = 15

func (p *program) printSetups(list []api.Setup) {
	row := func(text string, cell func(s *api.Setup) string) {
		line := fmt.Sprintf("%-32s", text)
		for i := range list {
			line += fmt.Sprintf("  %-*s", setupWidth, cell(&list[i]))
		}
		fmt.Fprintln(p.err, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(p.err, "\nwhat becomes of the group, by the third thing (* is chosen)")
	row("", func(s *api.Setup) string {
		if s.Chosen {
			return string(s.Third) + " *"
		}
		return string(s.Third)
	})
	for _, r := range faultTexts {
		row(r.text, func(s *api.Setup) string {
			for _, f := range s.Faults {
				if f.Fault == r.fault {
					return becomes(f)
				}
			}
			return "-"
		})
	}
	row("faults that can be survived", func(s *api.Setup) string { return strconv.Itoa(s.Survives) })
	fmt.Fprintln(p.err, "\nmoves, waits: within that time, and what stop and start take; (!): a node that wakes up has it too, until it finds out")
	for _, s := range list {
		if s.Chosen {
			for _, b := range s.Bounds {
				fmt.Fprintln(p.err, b)
			}
		}
	}
}

// becomes is a cell of the table.
func becomes(o api.Outcome) string {
	within := fmt.Sprintf(" %.3g s", o.Within.Seconds())
	switch o.Is {
	case api.OutcomeUntouched:
		return "goes on"
	case api.OutcomePause:
		return "waits" + within
	case api.OutcomeTakeover:
		return "moves" + within
	case api.OutcomeRisk:
		return "moves" + within + " (!)"
	case api.OutcomeBoth:
		return "BOTH RUN IT"
	case api.OutcomeStops:
		return "STOPS"
	}
	return string(o.Is)
}
