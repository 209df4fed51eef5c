package labcli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/lab"
)

// The test program is the machines' tasuki too.
func TestMain(m *testing.M) {
	if was, err := lab.Hidden(context.Background(), os.Args[1:]); was {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// typed runs what a user types behind `tasuki lab`.
func typed(t *testing.T, line string) (out string, err error) {
	t.Helper()
	var b bytes.Buffer
	c := Command()
	c.SetOut(&b)
	c.SetErr(&b)
	c.SetIn(strings.NewReader("from stdin\n"))
	c.SetArgs(strings.Fields(line))
	err = c.ExecuteContext(t.Context())
	return b.String(), err
}

func TestWrongUse(t *testing.T) {
	t.Setenv("TASUKI_LAB_DIR", t.TempDir())
	for line, want := range map[string]string{
		"dance":                     "see tasuki lab --help",
		"pull":                      "tasuki lab pull MACHINE NIC",
		"pull bay7-esx":             "tasuki lab pull MACHINE NIC",
		"kill":                      "tasuki lab kill MACHINE",
		"heal CLP-1":                "tasuki lab heal [A B]",
		"cut CLP-1":                 "tasuki lab cut A B [--network CIDR] [--one-way]",
		"cut A B --network x":       "for example --network 10.2.102.0/24",
		"exec CLP-1":                "tasuki lab exec MACHINE -- COMMAND",
		"exec CLP-1 ls -l":          "put -- before the command",
		"status":                    "start one with tasuki lab up",
		"status --nosuch":           "see tasuki lab status --help",
		"status --name nosuch":      "start one with tasuki lab up",
		"status --name ../x":        "take 1 to 32 letters, digits and dashes",
		"down":                      "start one with tasuki lab up",
		"up nosuch":                 "shipped are other, reference, single, three, witness",
		"up ./nosuch.yaml":          "name a file, or one that comes with tasuki",
		"up a b":                    "tasuki lab up [LAYOUT] [--name NAME]",
		"service CLP-1":             "tasuki lab service MACHINE start|stop|restart|status",
		"pull bay7-esx vmnic1 more": "tasuki lab pull MACHINE NIC",
	} {
		_, err := typed(t, line)
		var e *api.Error
		if !errors.As(err, &e) || e.Message == "" || !strings.Contains(e.Hint, want) {
			t.Errorf("%s: %#v, not the hint %q", line, err, want)
		}
	}
}

func TestALab(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: CI must run the lab tests as root")
		}
		t.Skip("needs root: namespaces")
	}
	t.Setenv("TASUKI_LAB_DIR", fmt.Sprintf("/run/tasuki-labcli-%d", os.Getpid()))
	t.Cleanup(func() { lab.DownAll(context.Background()) })
	steps := []struct {
		line string
		code int      // -1: an error
		want []string // in the output, or in the error
	}{
		{"up", 0, []string{"lab reference is up: 5 machines"}},
		{"up", -1, []string{"up already"}},
		{"exec CLP-1 -- hostname", 0, []string{"CLP-1"}},
		{"exec CLP-1 -- cat", 0, []string{"from stdin"}},
		{"exec CLP-1 -- ls --nosuch", 2, []string{"nosuch"}},
		{"exec CLP-1 nosuch", 127, []string{"error: cannot run nosuch"}},
		{"exec --timeout 50ms CLP-1 -- sleep 60", 124, nil},
		{"pull bay7-esx vmnic1", 0, nil},
		{"pull bay7-esx vmnic1", -1, []string{"pulled already"}},
		{"pull bay7-esx vmnic7", -1, []string{"no nic"}},
		{"cut CLP-1 client --network 10.2.102.0/24 --one-way", 0, nil},
		{"cut CLP-1 client --network 192.168.10.0/24", -1, []string{"not both an address in 192.168.10.0/24"}},
		{"kill bay8-esx", 0, nil},
		{"pause CLP-1", 0, nil},
		{"service CLP-1 status", -1, []string{"paused"}},
		{"status", 0, []string{"PULLED", "OFF (killed)", "OFF (host bay8-esx is off)", "PAUSED", "CUT CLP-1 -/-> client on 10.2.102.0/24", "10.2.102.200"}},
		{"resume CLP-1", 0, nil},
		{"boot bay8-esx", 0, nil},
		{"plug bay7-esx vmnic1", 0, nil},
		{"heal CLP-1 client", 0, nil},
		{"heal CLP-1 client", -1, []string{"not cut"}},
		{"heal", 0, nil},
		{"service CLP-1 status", 0, []string{"there is no /etc/tasuki/identity"}},
		{"up single", 0, []string{"lab single is up"}},
		{"status", -1, []string{"more than one lab"}},
		{"down --name single", 0, nil},
		{"down", 0, nil},
		{"down --all", 0, nil},
	}
	for _, s := range steps {
		out, err := typed(t, s.line)
		var exit *Exit
		code := 0
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			code, out = -1, out+err.Error()
		}
		if code != s.code {
			t.Errorf("%s: %d, not %d: %s", s.line, code, s.code, out)
		}
		for _, w := range s.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", s.line, w, out)
			}
		}
		if s.line == "boot bay8-esx" {
			out, err := typed(t, "status --json")
			var st lab.Status
			if err != nil || json.Unmarshal([]byte(out), &st) != nil || len(st.Machines) != 5 || st.Machines[3].State != lab.Up {
				t.Errorf("%v %s", err, out)
			}
		}
	}
}
