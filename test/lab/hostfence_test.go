package lab_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// plainGuests is a cluster of the two guests that fences nobody by itself.
const plainGuests = `
cluster: VMcluster
nodes:
  CLP-1: {addresses: [192.168.10.1, 10.2.102.51]}
  CLP-2: {addresses: [192.168.10.2, 10.2.102.52]}
arbitration: [none]
`

// fencingGuests is one that does.
const fencingGuests = `
cluster: VMcluster
nodes:
  CLP-1: {addresses: [192.168.10.1, 10.2.102.51], fence: [[{device: bay7, delay: 1s}]]}
  CLP-2: {addresses: [192.168.10.2, 10.2.102.52], fence: [[{device: bay8}]]}
arbitration: [fence]
fence_check: 2s
fences:
  bay7: {link: bay7-esx, timeout: 5s}
  bay8: {link: bay8-esx, timeout: 5s}
groups:
  g:
    nodes: [CLP-1, CLP-2]
    resources:
      ip: {kind: floating-ip, address: 10.2.102.50}
      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
`

// underGuests makes a cluster of each host, with its guest, and links the
// guests' cluster with bay7-esx so that it may power off CLP-1, and not more.
func underGuests(t *testing.T, file string) *demo.Stage {
	t.Helper()
	s := &demo.Stage{Lab: up(t, "reference"), Guests: []string{"CLP-1", "CLP-2"}, Client: "client", Group: "g", Resource: "web"}
	for _, g := range s.Guests {
		must(t, s.Scripts(t.Context(), g))
	}
	must(t, s.Cluster(t.Context(), []byte(file), quiet, s.Guests...))
	for host, at := range map[string]string{"bay7-esx": "192.168.10.101, 10.2.102.17", "bay8-esx": "192.168.10.102, 10.2.102.18"} {
		// spare is a guest of this host that the link does not name.
		file := fmt.Sprintf("cluster: %s\nnodes:\n  %s: {addresses: [%s]}\nguests:\n  CLP-1: {lab: CLP-1}\n  spare: {lab: CLP-2}\n", host, host, at)
		must(t, s.Cluster(t.Context(), []byte(file), quiet, host))
	}
	token := do(t, s, "bay7-esx", "tasuki", "link", "invite", "VMcluster", "--verbs", "fence", "--guests", "CLP-1")
	do(t, s, "CLP-1", "tasuki", "link", "add", strings.TrimSpace(token))
	must(t, s.Until(t.Context(), "both guests reach the host", func() (bool, error) {
		for _, g := range s.Guests {
			st, err := s.Status(t.Context(), g)
			if err != nil || len(st.Links) == 0 || len(st.Links[0].Nodes) == 0 || !st.Links[0].Nodes[0].Reachable || !everyNode(st, isUp) {
				return false, nil
			}
		}
		return true, nil
	}))
	return s
}

func stateOf(t *testing.T, s *demo.Stage, machine string) lab.State {
	t.Helper()
	st, err := s.Lab.Status(t.Context())
	must(t, err)
	for _, m := range st.Machines {
		if m.Name == machine {
			return m.State
		}
	}
	t.Fatalf("there is no machine %s", machine)
	return ""
}

// fence is the command with which a guest asks.
func fence(guest, host string, more ...string) []string {
	return append([]string{"tasuki", "request", "fence", "--guest", guest, "--host", host}, more...)
}

// guests returns what a host's operator is shown.
func guests(t *testing.T, s *demo.Stage, host string) map[string]api.Guest {
	t.Helper()
	var list []api.Guest
	must(t, json.Unmarshal([]byte(do(t, s, host, "tasuki", "guest", "list", "--json")), &list))
	out := map[string]api.Guest{}
	for _, g := range list {
		out[string(g.Name)] = g
	}
	return out
}

// The guests' cluster asks the host to power a guest off: it is off, that is
// confirmed, and the host's log says who asked.
func TestHostPowersGuestOff(t *testing.T) {
	s := underGuests(t, plainGuests)
	if out := do(t, s, "CLP-2", fence("CLP-1", "bay7-esx")...); !strings.Contains(out, "guest CLP-1 is on") {
		t.Errorf("before: %s", out)
	}
	// A guest that its host has stopped has power, and loses it all the same.
	must(t, s.Lab.Pause(t.Context(), "CLP-1"))
	if g := guests(t, s, "bay7-esx"); g["CLP-1"].Power != "on" {
		t.Errorf("a paused guest is shown as %+v", g["CLP-1"])
	}
	off := fence("CLP-1", "bay7-esx", "--off", "--id", "once")
	if out := do(t, s, "CLP-2", off...); !strings.Contains(out, "guest CLP-1 is off") {
		t.Errorf("off: %s", out)
	}
	if got := stateOf(t, s, "CLP-1"); got != lab.Off {
		t.Fatalf("CLP-1 is %s", got)
	}
	asked := told(t, s, "bay7-esx", "guest-off-asked", "from VMcluster (IP=::ffff:192.168.10.2)")
	done := told(t, s, "bay7-esx", "guest-off", "confirmed")
	if n := count(t, s, "bay7-esx", "guest-off-asked"); n != 1 {
		t.Errorf("one request was carried out %d times", n)
	}
	if done.Cause != asked.ID {
		t.Errorf("the chain is broken: %+v, %+v", asked, done)
	}
	if story := do(t, s, "bay7-esx", "tasuki", "explain", string(done.ID)); !strings.Contains(story, "Request fence is being sent to [bay7-esx]") {
		t.Errorf("the host does not know what led to it:\n%s", story)
	}
	if out := do(t, s, "CLP-2", fence("CLP-1", "bay7-esx")...); !strings.Contains(out, "guest CLP-1 is off") {
		t.Errorf("after: %s", out)
	}

	// It was started again meanwhile. The same request acts once; the status is
	// that of now.
	do(t, s, "bay7-esx", "tasuki", "guest", "on", "CLP-1")
	if got := stateOf(t, s, "CLP-1"); got != lab.Up {
		t.Fatalf("CLP-1 is %s after it was switched on", got)
	}
	do(t, s, "CLP-2", off...)
	if out := do(t, s, "CLP-2", fence("CLP-1", "bay7-esx", "--id", "once")...); !strings.Contains(out, "guest CLP-1 is on") {
		t.Errorf("the status is remembered, not looked at: %s", out)
	}
	if got := stateOf(t, s, "CLP-1"); got != lab.Up {
		t.Fatalf("a request that was answered powered CLP-1 off again")
	}
	// The operator of the host.
	do(t, s, "bay7-esx", "tasuki", "guest", "off", "CLP-1")
	if got := stateOf(t, s, "CLP-1"); got != lab.Off {
		t.Errorf("CLP-1 is %s after the operator switched it off", got)
	}
	told(t, s, "bay7-esx", "guest-off-asked", "from the tasuki guest command")
}

// What the link does not name is refused, told of, and changes nothing.
func TestHostRefuses(t *testing.T) {
	s := underGuests(t, plainGuests)
	// On bay8-esx the guests may ask for something else only.
	token := do(t, s, "bay8-esx", "tasuki", "link", "invite", "VMcluster", "--verbs", "EXEC_SCRIPT")
	do(t, s, "CLP-1", "tasuki", "link", "add", strings.TrimSpace(token))
	must(t, s.Until(t.Context(), "CLP-2 reaches bay8-esx", func() (bool, error) {
		r, err := s.Lab.Exec(t.Context(), "CLP-2", fence("CLP-1", "bay8-esx")...)
		return err == nil && strings.Contains(string(r.Stderr)+string(r.Stdout), "may not"), nil
	}))
	for _, c := range []struct{ host, guest, why, event string }{
		{"bay8-esx", "CLP-1", "VMcluster may not ask for fence", "request-refused"},
		{"bay7-esx", "spare", "may not ask for the power of guest", "request-refused"},
		{"bay7-esx", "CLP-2", "may not ask for the power of guest", "request-refused"},
		{"bay7-esx", "bay7-esx", "may not ask for the power of guest", "request-refused"},
	} {
		for _, more := range [][]string{nil, {"--off"}} {
			code, said := fails(t, s, "CLP-2", fence(c.guest, c.host, more...)...)
			if code == 2 || !strings.Contains(said, c.why) || !strings.Contains(said, "hint:") {
				t.Errorf("%s at %s %v: exit code %d:\n%s", c.guest, c.host, more, code, said)
			}
			told(t, s, c.host, c.event, c.why)
		}
	}
	// A host that has the right to ask nothing does not get far.
	fails(t, s, "bay8-esx", fence("CLP-1", "bay7-esx", "--off")...)
	// The lab gives a host the switches of its own guests only.
	code, said := fails(t, s, "bay7-esx", "tasuki", "guest", "off", "spare")
	if code != 1 || !strings.Contains(said, "no guest of bay7-esx") {
		t.Errorf("a guest of another host: exit code %d:\n%s", code, said)
	}
	told(t, s, "bay7-esx", "guest-not-off", "spare")
	if g := guests(t, s, "bay7-esx"); g["spare"].Error == nil || g["spare"].Power != "" {
		t.Errorf("the power of a guest of another host is known: %+v", g["spare"])
	}
	for _, m := range s.Guests {
		if got := stateOf(t, s, m); got != lab.Up {
			t.Errorf("%s is %s", m, got)
		}
	}
}

// Without its daemon the host cannot be asked: that is a failure within the
// time that was given, and nothing is taken for off.
func TestHostDaemonDead(t *testing.T) {
	s := underGuests(t, plainGuests)
	_, err := s.Lab.Service(t.Context(), "bay7-esx", "stop")
	must(t, err)
	for _, more := range [][]string{nil, {"--off"}} {
		begun := time.Now()
		code, said := fails(t, s, "CLP-2", fence("CLP-1", "bay7-esx", append(more, "--wait", "2s")...)...)
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
		if code == 2 || !strings.Contains(said, "bay7-esx") || strings.Contains(said, "is off") {
			t.Errorf("%v: exit code %d:\n%s", more, code, said)
		}
	}
	if got := stateOf(t, s, "CLP-1"); got != lab.Up {
		t.Errorf("CLP-1 is %s", got)
	}
}

// The host is asked at its second address when the first is cut.
func TestHostAtSecondAddress(t *testing.T) {
	s := underGuests(t, plainGuests)
	must(t, s.Lab.Cut(t.Context(), "CLP-2", "bay7-esx", lab.On(netip.MustParsePrefix("192.168.10.0/24"))))
	out := do(t, s, "CLP-2", fence("CLP-1", "bay7-esx", "--off")...)
	if !strings.Contains(out, "10.2.102.17") || !strings.Contains(out, "guest CLP-1 is off") {
		t.Errorf("got %s", out)
	}
	if got := stateOf(t, s, "CLP-1"); got != lab.Off {
		t.Errorf("CLP-1 is %s", got)
	}
	told(t, s, "bay7-esx", "guest-off-asked", "IP=::ffff:10.2.102.52")
}

// A guest that its host has stopped falls silent: the other one has it powered
// off by its host, and only then takes over.
func TestHostFencesSilentGuest(t *testing.T) {
	s := underGuests(t, fencingGuests)
	activeOn(t, s, "CLP-1")
	do(t, s, "CLP-2", "tasuki", "fence", "check", "CLP-1")

	// While the host does not answer nothing is known, so nothing starts.
	_, err := s.Lab.Service(t.Context(), "bay7-esx", "stop")
	must(t, err)
	must(t, s.Lab.Pause(t.Context(), "CLP-1"))
	failed := told(t, s, "CLP-2", "fence-failed", "bay7")
	if !strings.Contains(failed.Text, "cannot be reached") && !strings.Contains(failed.Text, "could not be reached") {
		t.Errorf("the failure does not say why: %s", failed.Text)
	}
	if got := s.Active(t.Context(), "CLP-2"); got == "CLP-2" {
		t.Fatal("the group was taken over from a guest that may still run")
	}
	if got := stateOf(t, s, "CLP-1"); got != lab.Paused {
		t.Fatalf("CLP-1 is %s", got)
	}

	_, err = s.Lab.Service(t.Context(), "bay7-esx", "start")
	must(t, err)
	activeOn(t, s, "CLP-2")
	if got := stateOf(t, s, "CLP-1"); got != lab.Off {
		t.Errorf("CLP-2 runs the group, and CLP-1 is %s", got)
	}
	off := told(t, s, "bay7-esx", "guest-off", "CLP-1")
	if story := do(t, s, "bay7-esx", "tasuki", "explain", string(off.ID)); !strings.Contains(story, "Forcing CLP-1 off") {
		t.Errorf("the host does not know why it powered CLP-1 off:\n%s", story)
	}
	told(t, s, "CLP-2", "fence-done", "CLP-1")
}
