package app

import (
	"testing"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lab/machine"
)

// The guest of a lab can only be that of a host in a lab.
func TestGuestsOfThisHost(t *testing.T) {
	f, errs := config.Parse("cluster file", []byte("cluster: h\nnodes: {h: {addresses: [10.0.0.1]}}\nguests: {a: {}, b: {qmp: /run/b.sock}, c: {lab: c}}\n"))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	outside, inside := &Daemon{}, &Daemon{opt: Options{LabPower: machine.PowerSocket}}
	if no := outside.checkGuests(f); no == nil || no.Code != "not-in-a-lab" || no.Hint == "" {
		t.Errorf("outside of a lab: %v", no)
	}
	if no := inside.checkGuests(f); no != nil {
		t.Errorf("in a lab: %v", no)
	}
	f.Guests = f.Guests[:2]
	if no := outside.checkGuests(f); no != nil {
		t.Errorf("without a guest of a lab: %v", no)
	}
}
