package lab

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// Bounds of a layout: what a machine of any size can hold, and what fits into
// the kernel's names.
const (
	maxMachines = 64
	maxNICs     = 16
	maxSwitches = 16
	maxDisks    = 8
	minDisk     = Size(1 << 20)
	maxDisk     = Size(1 << 40)
)

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?$`)
	diskForm   = regexp.MustCompile(`^(sd|vd|xvd|hd)[a-z][0-9]{0,2}$`)
	deviceForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
)

// checker collects what is wrong with a layout, in the order of the file.
type checker struct {
	*Layout
	problems []string
	names    map[string]bool
	owner    map[netip.Addr]string
}

func (c *checker) fail(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// check returns everything that is wrong with the layout.
func (l *Layout) check() []string {
	c := &checker{Layout: l, names: map[string]bool{}, owner: map[netip.Addr]string{}}
	if !nameForm.MatchString(l.Name) {
		c.fail("the layout's name %q must be 1 to 32 letters, digits and dashes", l.Name)
	}
	c.switches()
	for _, m := range l.Hosts {
		c.machine(m, KindHost)
	}
	for _, m := range l.Guests {
		c.machine(m, KindGuest)
	}
	for _, m := range l.Machines {
		c.machine(m, KindMachine)
	}
	if l.Client != nil {
		c.machine(*l.Client, KindClient)
	}
	switch n := len(l.All()); {
	case n == 0:
		c.fail("there is no machine")
	case n > maxMachines:
		c.fail("there are %d machines, more than %d", n, maxMachines)
	}
	return c.problems
}

func (c *checker) switches() {
	if len(c.Switches) == 0 || len(c.Switches) > maxSwitches {
		c.fail("there are %d switches, not 1 to %d", len(c.Switches), maxSwitches)
	}
	seen := map[string]bool{}
	for _, s := range c.Switches {
		if !nameForm.MatchString(s.Name) {
			c.fail("the switch name %q must be 1 to 32 letters, digits and dashes", s.Name)
		}
		if seen[s.Name] {
			c.fail("there are two switches %s", s.Name)
		}
		seen[s.Name] = true
		if len(s.Networks) == 0 {
			c.fail("switch %s has no networks", s.Name)
		}
		for _, p := range s.Networks {
			if !p.IsValid() || p != p.Masked() {
				c.fail("switch %s: %s is not a network; for example 10.2.102.0/24", s.Name, p)
			}
		}
	}
}

func (c *checker) machine(m Machine, k Kind) {
	who := fmt.Sprintf("%s %s", k, m.Name)
	if !nameForm.MatchString(m.Name) {
		c.fail("the %s name %q must be 1 to 32 letters, digits and dashes", k, m.Name)
	}
	if c.names[m.Name] {
		c.fail("there are two machines %s", m.Name)
	}
	c.names[m.Name] = true
	if k == KindGuest {
		if _, is, ok := c.Find(m.Host); !ok || is != KindHost {
			c.fail("%s: there is no host %q", who, m.Host)
			return
		}
	} else if m.Host != "" {
		c.fail("%s runs on no host: only guests do", who)
		return
	}
	if len(m.NICs) == 0 || len(m.NICs) > maxNICs {
		c.fail("%s has %d nics, not 1 to %d", who, len(m.NICs), maxNICs)
	}
	devices := map[string]bool{"lo": true}
	for _, n := range m.NICs {
		c.device(who, n.Name, devices)
		if k == KindHost {
			c.device(who, n.VSwitch, devices)
		}
		c.nic(who, m, n, k)
	}
	c.disks(who, m.Disks)
}

func (c *checker) disks(who string, disks []Disk) {
	if len(disks) > maxDisks {
		c.fail("%s has %d disks, more than %d", who, len(disks), maxDisks)
	}
	taken := map[string]bool{}
	for _, d := range disks {
		if !diskForm.MatchString(d.Name) {
			c.fail("%s: %q is no name for a disk; for example sda4 or vdb", who, d.Name)
		}
		if taken[d.Name] {
			c.fail("%s has two disks %s", who, d.Name)
		}
		taken[d.Name] = true
		if d.Size < minDisk || d.Size > maxDisk {
			c.fail("%s: disk %s has %d KiB, not 1MiB to 1024GiB", who, d.Name, d.Size>>10)
		}
	}
}

// device checks the name of an interface.
func (c *checker) device(who, name string, taken map[string]bool) {
	if !deviceForm.MatchString(name) {
		c.fail("%s: %q is no name for an interface (1 to 15 letters, digits, dots and dashes)", who, name)
	}
	if taken[name] {
		c.fail("%s has two interfaces %s", who, name)
	}
	taken[name] = true
}

func (c *checker) nic(who string, m Machine, n NIC, k Kind) {
	who += ": nic " + n.Name
	switch {
	case k == KindGuest && n.Switch != "":
		c.fail("%s of a guest is plugged into a vswitch of its host, not into a switch", who)
		return
	case k == KindGuest && n.VSwitch == "":
		c.fail("%s names no vswitch", who)
		return
	case k != KindGuest && k != KindHost && n.VSwitch != "":
		c.fail("%s has a vswitch: only those of hosts and guests have", who)
		return
	}
	sw, ok := c.uplink(m, n)
	if !ok && k == KindGuest {
		c.fail("%s: host %s has no vswitch %q", who, m.Host, n.VSwitch)
		return
	}
	if !ok {
		c.fail("%s: there is no switch %q", who, n.Switch)
		return
	}
	for _, a := range n.Addresses {
		if !slices.ContainsFunc(sw.Networks, func(p netip.Prefix) bool { return p.Contains(a) }) {
			c.fail("%s: %s is in no network of switch %s", who, a, sw.Name)
		}
		if other := c.owner[a]; other != "" {
			c.fail("%s: %s has %s already", who, other, a)
		}
		c.owner[a] = m.Name
	}
}
