package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

// pulled reads NODE:DEVICE, or NODE:NUMBER for a network of the cluster. Which
// networks are behind a device only this machine knows; of another node it is
// taken to be the same.
func pulled(text string, f *config.File, here cluster.NodeName) (*whatif.Pull, error) {
	name, device, _ := strings.Cut(text, ":")
	n := f.Node(cluster.NodeName(name))
	switch {
	case device == "":
		return nil, usageError{fmt.Errorf("%q names no cable: write NODE:DEVICE, or NODE:NUMBER for a network", text)}
	case n == nil:
		return nil, &api.Error{Code: "no-such-node", Message: fmt.Sprintf("there is no node %q", name), Hint: "tasuki node list"}
	}
	if i, err := strconv.Atoi(device); err == nil {
		if i < 1 || i > len(n.Addresses) {
			return nil, usageError{fmt.Errorf("node %s has no network %d, it has %d", name, i, len(n.Addresses))}
		}
		return &whatif.Pull{Node: n.Name, Paths: []int{i - 1}}, nil
	}
	subnets, err := behind(device)
	if err != nil {
		return nil, &api.Error{Code: "no-such-device", Message: fmt.Sprintf("this machine has no interface %s, so what is behind it at %s is not known", device, name),
			Hint: fmt.Sprintf("on %s: tasuki simulate --pull %s; or cut a network: --pull %s:1", name, text, name)}
	}
	pull := &whatif.Pull{Node: n.Name, Device: device}
	for i, a := range n.Addresses {
		if holds(subnets, a, n.Name == here) {
			pull.Paths = append(pull.Paths, i)
		}
	}
	for _, x := range f.Arbitration {
		for _, t := range x.Targets {
			if from, err := sourceOf(t); err == nil && holds(subnets, from, true) {
				pull.Targets = append(pull.Targets, t)
			}
		}
	}
	return pull, nil
}

// holds says whether an address is one of those, or where that is of another
// machine in one of their subnets.
func holds(list []netip.Prefix, a netip.Addr, own bool) bool {
	for _, p := range list {
		if own && p.Addr() == a || !own && p.Contains(a) {
			return true
		}
	}
	return false
}

// behind returns the addresses, with their subnets, of a device and of those that
// stand on it alone: VLANs, a bridge or a bond without another port.
func behind(device string) ([]netip.Prefix, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", device, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", device, err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p)
		}
	}
	dir := "/sys/class/net"
	uppers, _ := filepath.Glob(filepath.Join(dir, device, "upper_*"))
	for _, u := range uppers {
		upper := strings.TrimPrefix(filepath.Base(u), "upper_")
		lowers, _ := filepath.Glob(filepath.Join(dir, upper, "lower_*"))
		if len(lowers) != 1 {
			continue
		}
		more, err := behind(upper)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// sourceOf returns the address from which this machine would reach another one.
// Nothing is sent.
func sourceOf(t netip.Addr) (netip.Addr, error) {
	c, err := net.Dial("udp", netip.AddrPortFrom(t, 9).String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the way to %s: %w", t, err)
	}
	defer c.Close()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	return local.Addr().Unmap(), err
}
