package app

import (
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
)

func TestDraft(t *testing.T) {
	d := &Daemon{drafter: thinker(t, `test "$1" = draft && grep -q '"cluster":"web"' && echo '{"text":"made"}'`)}
	if got, err := d.Draft(t.Context(), api.Answers{Cluster: "web"}); err != nil || got.Text != "made" {
		t.Error(got, err)
	}
	for script, want := range map[string]string{"echo 'out of memory' >&2; exit 2": "exit code 2 (out of memory)", "echo '{'": "unexpected end"} {
		d := &Daemon{drafter: thinker(t, script)}
		if _, err := d.Draft(t.Context(), api.Answers{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
	d = &Daemon{drafter: thinker(t, "exec sleep 60")}
	d.drafter.within = 100 * time.Millisecond
	if _, err := d.Draft(t.Context(), api.Answers{}); codeOf(err) != "timed-out" {
		t.Error(err)
	}
	d.drafter.one <- struct{}{}
	if _, err := d.Draft(t.Context(), api.Answers{}); codeOf(err) != "overload" {
		t.Error(err)
	}
}

// What the file in force has that the wizard does not ask for is told: it would be
// gone.
func TestDraftStart(t *testing.T) {
	const text = `
cluster: web
timing: {profile: fast}
nodes:
  a: {addresses: [10.0.0.1]}
  b: {addresses: [10.0.0.2]}
arbitration: [none]
groups:
  web: {resources: {web-ip: {kind: floating-ip, address: 10.0.0.9}}}
  mail: {resources: {mail-ip: {kind: floating-ip, address: 10.0.0.8}}}
`
	f, errs := config.Parse("f", []byte(text))
	if errs != nil {
		t.Fatal(errs)
	}
	d := &Daemon{}
	d.current.Store(f)
	s, err := d.DraftStart(t.Context())
	if err != nil || s.Answers.Cluster != "web" || len(s.Answers.Nodes) != 2 || s.Answers.Third.Kind != api.ThirdNone || s.Answers.Group.Name != "web" {
		t.Errorf("%+v, %v", s, err)
	}
	lost := strings.Join(s.Lost, " ")
	if !strings.Contains(lost, "timing") || !strings.Contains(lost, "groups.mail") || strings.Contains(lost, "groups.web") || strings.Contains(lost, "userw") {
		t.Error(lost)
	}
	for what, with := range map[string]string{
		"arbitration: [none]": "", // nothing decides
		"resources: {web-ip: {kind: floating-ip, address: 10.0.0.9}}": "comment: empty",
	} {
		f, errs := config.Parse("f", []byte(strings.Replace(text, what, with, 1)))
		if errs != nil {
			t.Fatal(errs)
		}
		d.current.Store(f)
		if s, err := d.DraftStart(t.Context()); err != nil || !strings.Contains(strings.Join(s.Lost, " "), "groups.mail") {
			t.Errorf("without %s: %+v, %v", what, s, err)
		}
	}
}
