package custom

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
	"github.com/tasuki-ha/tasuki/internal/paths"
)

// life is one run of the fake script.
type life struct {
	lasts time.Duration
	res   Result
	err   error
}

// fakeRunner plays lives, one after the other; the last one for ever.
type fakeRunner struct {
	lives   []life
	runs    []Run
	running int
	most    int
}

func (f *fakeRunner) Run(ctx context.Context, r Run) (Result, error) {
	l := f.lives[min(len(f.runs), len(f.lives)-1)]
	f.runs = append(f.runs, r)
	f.running++
	f.most = max(f.most, f.running)
	defer func() { f.running-- }()
	select {
	case <-ctx.Done():
		return Result{}, ctx.Err()
	case <-time.After(l.lasts):
		return l.res, l.err
	}
}

// watch runs the monitor for so long and returns what was reported: when, code
// and text.
func watch(t *testing.T, m config.Monitor, f *fakeRunner, long time.Duration) (told []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), long)
		defer cancel()
		err := New(f, paths.At("/")).Watch(ctx, monitor.Env{Node: "bay7-esx"}, m, func(p monitor.Probe) {
			if p.Good != (p.Code == 0) || p.Good != (p.Text == "") || p.Monitor != m.Name || p.At.IsZero() {
				t.Errorf("%+v", p)
			}
			told = append(told, fmt.Sprintf("%v %d %s", time.Since(begin), p.Code, p.Text))
		})
		if err != nil {
			t.Error(err)
		}
	})
	if f.running != 0 || f.most > 1 {
		t.Errorf("%d scripts left running, %d at once", f.running, f.most)
	}
	return told
}

func genw(mode string) config.Monitor {
	return config.Monitor{
		Name: "genw-CLP1", Kind: config.KindCustom, Interval: 10 * time.Second, Timeout: 5 * time.Second,
		Custom: &config.Custom{Script: "Genw.sh", Mode: mode, Normal: []int{0, 3}, LogSizeMB: 2},
	}
}

func TestSync(t *testing.T) {
	f := &fakeRunner{lives: []life{
		{lasts: time.Second},
		{lasts: time.Second, res: Result{Exit: 3}},
		{lasts: time.Second, res: Result{Exit: 1, LastLine: "guest CLP-1 does not answer."}},
		{lasts: time.Hour},
		{res: Result{Signal: "killed"}},
		{err: errors.New("permission denied")},
		{lasts: time.Hour}, // the monitor ends in the middle of it
	}}
	m := genw(config.ExecSync)
	m.Wait = 2 * time.Second
	told := watch(t, m, f, 72*time.Second)
	want := []string{
		"3s 0 ", "14s 0 ",
		"25s 40 Script Genw.sh ended with exit code 1: guest CLP-1 does not answer.",
		"40s 41 Script Genw.sh did not end within 5s.",
		"50s 42 Script Genw.sh was ended by a signal (killed).",
		"1m0s 43 Script Genw.sh cannot be run: permission denied.",
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
	r := f.runs[0]
	if r.Path != "/etc/tasuki/scripts/monitor.s/genw-CLP1/Genw.sh" || r.LogFile != "/var/log/tasuki/genw-CLP1.log" || r.LogSize != 2<<20 || r.Env.Node != "bay7-esx" {
		t.Errorf("%+v", r)
	}
}

func TestAsync(t *testing.T) {
	f := &fakeRunner{lives: []life{
		{lasts: 30 * time.Second, res: Result{Exit: 0}},
		{lasts: 500 * time.Millisecond, res: Result{Signal: "segmentation fault"}},
		{err: errors.New("no such file")},
		{lasts: time.Hour},
	}}
	told := watch(t, genw(config.ExecAsync), f, 2*time.Minute)
	want := []string{
		"1s 0 ",
		"30s 44 Script Genw.sh must keep running but ended with exit code 0.",
		"40.5s 44 Script Genw.sh must keep running but was ended by a signal (segmentation fault).",
		"50.5s 43 Script Genw.sh cannot be run: no such file.",
		"1m1.5s 0 ",
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
}

func TestDefaults(t *testing.T) {
	m := config.Monitor{Name: "m", Custom: &config.Custom{Script: "/opt/check", LogFile: "/tmp/own.log"}}
	f := &fakeRunner{lives: []life{{}, {lasts: time.Hour, res: Result{Exit: 1}}}}
	told := watch(t, m, f, 4*time.Minute)
	want := []string{"0s 0 ", "3m0s 41 Script /opt/check did not end within 2m0s."}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
	if f.runs[0].Path != "/opt/check" || f.runs[0].LogFile != "/tmp/own.log" {
		t.Errorf("%+v", f.runs[0])
	}
}

func TestEndsDuringTheWait(t *testing.T) {
	m := genw(config.ExecSync)
	m.Wait = time.Hour
	f := &fakeRunner{lives: []life{{}}}
	if told := watch(t, m, f, time.Minute); told != nil || f.runs != nil {
		t.Errorf("%v %v", told, f.runs)
	}
}

func TestWithoutScript(t *testing.T) {
	if New(nil, paths.Dirs{}).Watch(t.Context(), monitor.Env{}, config.Monitor{Name: "m"}, nil) == nil {
		t.Error("a monitor without a script watches")
	}
}
