package agenda

import (
	"slices"
	"testing"
	"time"
)

func TestAgenda(t *testing.T) {
	var a Agenda
	var done []string
	note := func(s string) func() { return func() { done = append(done, s+"@"+a.Now().String()) } }
	a.After(2, note("c"))
	a.After(1, func() { note("a")(); a.After(1, note("e")) })
	a.After(1, note("b"))
	a.After(2, note("d"))
	a.After(4, note("f"))
	for a.Next(3) {
	}
	if want := []string{"a@1ns", "b@1ns", "c@2ns", "d@2ns", "e@2ns"}; !slices.Equal(done, want) {
		t.Errorf("%v, not %v", done, want)
	}
	if a.Reach(3); a.Now() != 3 {
		t.Errorf("it is %v", a.Now())
	}
	if a.Reach(time.Duration(1)); a.Now() != 3 {
		t.Error("time has gone back")
	}
}
