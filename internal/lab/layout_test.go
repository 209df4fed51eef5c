package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestShippedLayouts(t *testing.T) {
	want := []string{"other", "reference", "single", "three", "witness", "witnesses"}
	if d := cmp.Diff(want, ShippedNames()); d != "" {
		t.Fatal(d)
	}
	for _, n := range want {
		l, err := Shipped(n)
		if err != nil {
			t.Error(err)
		} else if l.Name != n || l.Client == nil {
			t.Errorf("%s: %+v", n, l)
		}
	}
}

func TestOtherSharesNothingWithReference(t *testing.T) {
	ref, err := Shipped("reference")
	must(t, err)
	other, err := Shipped("other")
	must(t, err)
	taken := map[string]bool{}
	words := func(l *Layout, f func(string)) {
		for _, s := range l.Switches {
			f(s.Name)
		}
		for _, m := range l.All() {
			f(m.Name)
			for _, n := range m.NICs {
				if m.Name != l.Client.Name {
					f(n.Name)
				}
				for _, a := range n.Addresses {
					f(a.String())
				}
			}
		}
	}
	words(ref, func(w string) { taken[w] = true })
	words(other, func(w string) {
		if taken[w] {
			t.Errorf("both have %s", w)
		}
	})
	if len(ref.Hosts) != len(other.Hosts) || len(ref.Guests) != len(other.Guests) {
		t.Error("not the same topology")
	}
}

func TestBadLayouts(t *testing.T) {
	const ok = "name: x\nswitches: [{name: a, networks: [10.0.0.0/24]}]\n"
	machine := func(disks string) string {
		return ok + "machines: [{name: m, nics: [{name: e, switch: a}], disks: [" + disks + "]}]\n"
	}
	for text, want := range map[string]string{
		"":                                    "the file is empty",
		"name: x\nfoo: 1\n":                   "field foo not found",
		"name: [\n":                           "bad.yaml",
		ok:                                    "there is no machine",
		"name: a b\n" + ok[8:]:                `the layout's name "a b"`,
		ok + "guests: [{name: g, host: h}]\n": `guest g: there is no host "h"`,
		ok + "machines: [{name: m}]\n":        "machine m has 0 nics",
		ok + "machines: [{name: m, nics: [{name: eth0, switch: b}]}]\n":                                                                                     `there is no switch "b"`,
		ok + "machines: [{name: m, nics: [{name: eth0, switch: a, addresses: [10.0.1.1]}]}]\n":                                                              "10.0.1.1 is in no network of switch a",
		ok + "machines: [{name: m, nics: [{name: eth0, switch: a}, {name: eth0, switch: a}]}]\n":                                                            "has two interfaces eth0",
		ok + "machines: [{name: m, nics: [{name: a-much-too-long-name, switch: a}]}]\n":                                                                     "is no name for an interface",
		ok + "machines: [{name: m, nics: [{name: eth0, switch: a, vswitch: v}]}]\n":                                                                         "has a vswitch",
		ok + "machines: [{name: m, host: m, nics: [{name: eth0, switch: a}]}]\n":                                                                            "runs on no host",
		ok + "hosts: [{name: h, nics: [{name: v0, switch: a, vswitch: v}]}]\nguests: [{name: g, host: h, nics: [{name: eth0}]}]\n":                          "names no vswitch",
		ok + "hosts: [{name: h, nics: [{name: v0, switch: a, vswitch: v}]}]\nguests: [{name: h, host: h, nics: [{name: e, vswitch: w}]}]\n":                 "there are two machines h",
		ok + "hosts: [{name: h, nics: [{name: v0, switch: a, vswitch: v}]}]\nguests: [{name: g, host: h, nics: [{name: e, vswitch: w}]}]\n":                 `host h has no vswitch "w"`,
		ok + "machines: [{name: m, nics: [{name: e, switch: a, addresses: [10.0.0.1]}]}, {name: n, nics: [{name: e, switch: a, addresses: [10.0.0.1]}]}]\n": "m has 10.0.0.1 already",
		machine("{name: sda4, size: 256MiB}, {name: sda4, size: 1GiB}"):                                                                                     "has two disks sda4",
		machine("{name: ../sda, size: 1MiB}"):                                                                                                               "is no name for a disk",
		machine("{name: sda4}"):                                                                                                                             "not 1MiB to",
		machine("{name: sda4, size: 2048GiB}"):                                                                                                              "not 1MiB to",
		machine("{name: sda4, size: 256}"):                                                                                                                  `"256" is no size`,
		machine("{name: sda4, size: 99999999999GiB}"):                                                                                                       "is no size",
		"name: x\nswitches: [{name: a, networks: [10.0.0.1/24]}]\n":                                                                                         "10.0.0.1/24 is not a network",
	} {
		_, err := Parse("bad.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "bad.yaml") {
			t.Errorf("%q: %v, not %q", text, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	if l, err := Load(""); err != nil || l.Name != "reference" {
		t.Error(l, err)
	}
	file := filepath.Join(t.TempDir(), "my.yaml")
	must(t, os.WriteFile(file, []byte("name: my\nswitches: [{name: a, networks: [10.0.0.0/24]}]\nmachines: [{name: m, nics: [{name: e, switch: a, addresses: [10.0.0.1]}]}]\n"), 0o600))
	if l, err := Load(file); err != nil || l.Name != "my" {
		t.Error(l, err)
	}
	for _, f := range []string{"nosuch", "./nosuch.yaml"} {
		if _, err := Load(f); err == nil {
			t.Errorf("%s is loaded", f)
		}
	}
}
