package lab

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	layouts "github.com/tasuki-ha/tasuki/lab"

	"github.com/tasuki-ha/tasuki/api"
)

// Layout is what a lab consists of. Parse returns only checked ones.
type Layout struct {
	Name     string    `yaml:"name" json:"name"`
	Switches []Switch  `yaml:"switches" json:"switches"`
	Hosts    []Machine `yaml:"hosts" json:"hosts,omitempty"`
	Guests   []Machine `yaml:"guests" json:"guests,omitempty"`
	Machines []Machine `yaml:"machines" json:"machines,omitempty"`
	Client   *Machine  `yaml:"client" json:"client,omitempty"`
}

// Switch is a physical switch; its networks give the addresses on it their
// prefix length.
type Switch struct {
	Name     string         `yaml:"name" json:"name"`
	Networks []netip.Prefix `yaml:"networks" json:"networks"`
}

// Machine is a host, a guest, a stand-alone machine or the client.
type Machine struct {
	Name string `yaml:"name" json:"name"`
	Host string `yaml:"host,omitempty" json:"host,omitempty"` // guests: the host they run on
	NICs []NIC  `yaml:"nics" json:"nics"`
	// Disks are block devices below /dev that keep their content over boots.
	Disks []Disk `yaml:"disks,omitempty" json:"disks,omitempty"`
	// Witness machines run tasuki witness in place of the daemon.
	Witness bool `yaml:"witness,omitempty" json:"witness,omitempty"`
}

// NIC is one interface of a machine. That of a host is the uplink of a
// virtual switch, which then has the addresses; that of a guest is plugged
// into a virtual switch of its host.
type NIC struct {
	Name      string       `yaml:"name" json:"name"`
	Switch    string       `yaml:"switch,omitempty" json:"switch,omitempty"`
	VSwitch   string       `yaml:"vswitch,omitempty" json:"vswitch,omitempty"`
	Addresses []netip.Addr `yaml:"addresses" json:"addresses"`
}

// Disk is a block device of a machine: /dev/NAME, most often one partition.
type Disk struct {
	Name string `yaml:"name" json:"name"`
	Size Size   `yaml:"size" json:"size"`
}

// Kind says what part a machine plays.
type Kind string

// The kinds of machines.
const (
	KindHost    Kind = "host"
	KindGuest   Kind = "guest"
	KindMachine Kind = "machine"
	KindClient  Kind = "client"
)

// Shipped returns the layout of that name that comes with Tasuki; reference
// is the default one.
func Shipped(name string) (*Layout, error) {
	data, err := fs.ReadFile(layouts.Files, name+".yaml")
	if err != nil {
		return nil, &api.Error{
			Code: "no-layout", Message: fmt.Sprintf("no layout %q comes with tasuki", name),
			Hint: "shipped are " + strings.Join(ShippedNames(), ", ") + "; or name a file, such as ./my.yaml",
		}
	}
	return Parse(name+".yaml", data)
}

// ShippedNames returns the names that Shipped knows, sorted.
func ShippedNames() []string {
	entries, _ := fs.ReadDir(layouts.Files, ".")
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Load returns the layout in a file, or the shipped one if file is a bare name
// without a dot or slash. "" is the reference layout.
func Load(file string) (*Layout, error) {
	if file == "" {
		file = "reference"
	}
	if !strings.ContainsAny(file, "./") {
		return Shipped(file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, &api.Error{
			Code: "no-layout", Message: "cannot read the layout: " + err.Error(),
			Hint: "name a file, or one that comes with tasuki: " + strings.Join(ShippedNames(), ", "),
		}
	}
	return Parse(file, data)
}

// Parse reads a layout. name is what errors call it. Unknown fields and broken
// relations are errors, all of them in one.
func Parse(name string, data []byte) (*Layout, error) {
	var l Layout
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	hint := "see lab/reference.yaml for the form"
	if err := dec.Decode(&l); err != nil {
		if err == io.EOF {
			err = fmt.Errorf("the file is empty")
		}
		return nil, &api.Error{Code: "bad-layout", Message: name + ": " + strings.TrimPrefix(err.Error(), "yaml: "), Hint: hint}
	}
	if problems := l.check(); len(problems) > 0 {
		return nil, &api.Error{Code: "bad-layout", Message: name + ": " + strings.Join(problems, "; "), Hint: hint}
	}
	return &l, nil
}

// All returns every machine: hosts, guests, stand-alone machines, the client.
func (l *Layout) All() []Machine {
	all := slices.Concat(l.Hosts, l.Guests, l.Machines)
	if l.Client != nil {
		all = append(all, *l.Client)
	}
	return all
}

// Find returns the machine of that name and its kind.
func (l *Layout) Find(name string) (Machine, Kind, bool) {
	for _, k := range []struct {
		kind Kind
		list []Machine
	}{{KindHost, l.Hosts}, {KindGuest, l.Guests}, {KindMachine, l.Machines}} {
		for _, m := range k.list {
			if m.Name == name {
				return m, k.kind, true
			}
		}
	}
	if l.Client != nil && l.Client.Name == name {
		return *l.Client, KindClient, true
	}
	return Machine{}, "", false
}

// uplink returns the physical switch that a NIC leads to.
func (l *Layout) uplink(m Machine, n NIC) (Switch, bool) {
	name := n.Switch
	if m.Host != "" {
		host, _, _ := l.Find(m.Host)
		for _, h := range host.NICs {
			if h.VSwitch == n.VSwitch {
				name = h.Switch
			}
		}
	}
	i := slices.IndexFunc(l.Switches, func(s Switch) bool { return s.Name == name })
	if i < 0 {
		return Switch{}, false
	}
	return l.Switches[i], true
}

// prefixes returns the NIC's addresses with the lengths of their networks.
func (l *Layout) prefixes(m Machine, n NIC) []netip.Prefix {
	sw, _ := l.uplink(m, n)
	var out []netip.Prefix
	for _, a := range n.Addresses {
		for _, p := range sw.Networks {
			if p.Contains(a) {
				out = append(out, netip.PrefixFrom(a, p.Bits()))
			}
		}
	}
	return out
}
