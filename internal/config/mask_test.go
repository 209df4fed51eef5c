package config_test

import (
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/config"
)

func TestMasked(t *testing.T) {
	text := `cluster: c
nodes: # two
  a: {addresses: [10.0.0.1], fence: [[{device: power}]]}
  b: {addresses: [10.0.0.2], fence: [[{device: power}]]}
fences:
  power: {agent: fence_ipmilan, options: {ip: 10.0.0.9, username: admin, password: "tell nobody"}}
arbitration: [fence]
`
	got, err := config.Masked(text)
	if err != nil || strings.Contains(got, "tell nobody") {
		t.Fatalf("%v\n%s", err, got)
	}
	was, _ := config.Parse("a", []byte(text))
	is, errs := config.Parse("b", []byte(got))
	if len(errs) > 0 {
		t.Fatalf("%v\n%s", errs, got)
	}
	for _, c := range config.Diff(was, is) {
		if !strings.Contains(c.Path, "password") {
			t.Errorf("it changes %s", c)
		}
	}
	if is.Fences[0].Options["ip"] != "10.0.0.9" {
		t.Error("what is no secret is gone too")
	}
	plain := "cluster: c # as it is\nnodes: {a: {addresses: [10.0.0.1]}}\n"
	if got, err := config.Masked(plain); err != nil || got != plain {
		t.Errorf("%v %q", err, got)
	}
	if _, err := config.Masked("a: [b"); err == nil {
		t.Error("no YAML is no error")
	}
}
