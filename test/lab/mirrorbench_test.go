package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// variants are the block devices that are measured, each in a lab of its own.
// open returns the device and the machine that it is on.
var variants = []variant{
	{"loop", "single", func(*testing.B, *lab.Lab) (string, string) { return "n1", "/dev/sda4" }},
	{"front", "single", openFront},
	{"mirror", "witness", openMirror},
}

type variant struct {
	Name, Layout string
	open         func(b *testing.B, l *lab.Lab) (machine, device string)
}

// openFront is a disk by way of the front end of mirror disks, without a second
// copy.
func openFront(b *testing.B, l *lab.Lab) (machine, device string) {
	r, w := io.Pipe()
	p, err := l.Run(b.Context(), lab.Cmd{Machine: "n1", Argv: []string{"/usr/sbin/tasuki", "lab", "front", "/dev/sda4"}, Stdout: w, Stderr: os.Stderr})
	if err != nil {
		b.Fatal(err)
	}
	go func() { // ends with the machine
		p.Wait()
		w.Close()
	}()
	if _, err := fmt.Fscanln(r, &device); err != nil {
		b.Fatal("the front end does not come up: ", err)
	}
	return "n1", device
}

const mirrorBenchFile = `cluster: bench
nodes:
  n1: {addresses: [10.20.2.1, 10.20.1.1]}
  n2: {addresses: [10.20.2.2, 10.20.1.2]}
  w: {addresses: [10.20.2.3, 10.20.1.3], witness: true}
groups:
  g:
    nodes: [n1, n2]
    resources:
      md: {kind: mirror-disk, data: /dev/sda4, meta: /dev/sda3, fs: none}
`

// openMirror is a mirror disk with two complete copies.
func openMirror(b *testing.B, l *lab.Lab) (machine, device string) {
	s := &demo.Stage{Lab: l, Group: "g"}
	if err := s.Cluster(b.Context(), []byte(mirrorBenchFile), quiet, "n1", "n2", "w"); err != nil {
		b.Fatal(err)
	}
	err := s.Until(b.Context(), "both copies are complete", func() (bool, error) {
		st, err := s.Status(b.Context(), "n1")
		if err != nil || len(st.Mirrors) != 1 || len(st.Mirrors[0].InSync) != 2 || owner(st, "g") == "" {
			return false, nil
		}
		machine = string(owner(st, "g"))
		for _, c := range st.Mirrors[0].Copies {
			if string(c.Node) == machine {
				device = c.Device
			}
		}
		return device != "", nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return machine, device
}

// loads are what each variant is measured with.
var loads = []struct {
	Name string
	Job  fioJob
}{
	{"4k write fsync", fioJob{Mode: "randwrite", Block: "4k", Depth: 1, Fsync: true}},
	{"4k write", fioJob{Mode: "randwrite", Block: "4k", Depth: 1}},
	{"4k write x16", fioJob{Mode: "randwrite", Block: "4k", Depth: 16}},
	{"4k write x32", fioJob{Mode: "randwrite", Block: "4k", Depth: 32}},
	{"4k read", fioJob{Mode: "randread", Block: "4k", Depth: 1}},
	{"4k read x16", fioJob{Mode: "randread", Block: "4k", Depth: 16}},
	{"4k read x32", fioJob{Mode: "randread", Block: "4k", Depth: 32}},
	{"1M write x4", fioJob{Mode: "write", Block: "1M", Depth: 4}},
	{"1M read x4", fioJob{Mode: "read", Block: "1M", Depth: 4}},
}

// benchRow is a load on a variant: medians of all runs, each figure's own.
type benchRow struct {
	Load    string `json:"load"`
	Variant string `json:"variant"`
	benchRun
	Runs []benchRun `json:"runs"`
}

type benchRun struct {
	fioResult
	CPU  float64 `json:"lab_cpu_s"`  // of all processes of the lab, fio with them
	Busy float64 `json:"busy_cpu_s"` // of this machine, whoever it was, the kernel's threads with them
}

// BenchmarkMirror measures block devices with fio inside of machines. RUNS is
// how often (3), SECONDS how long each load (3), VARIANTS and LOADS which of
// them, separated by commas (all), OUT a file for the figures as JSON, with a plot beside
// it where all variants are measured.
func BenchmarkMirror(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: namespaces")
	}
	needProgram(b, "fio")
	runs, seconds := setting(b, "RUNS", 3), setting(b, "SECONDS", 3)
	var rows []*benchRow
	for _, load := range loads {
		for _, v := range variants {
			if wanted("VARIANTS", v.Name) && wanted("LOADS", load.Name) {
				rows = append(rows, &benchRow{Load: load.Name, Variant: v.Name})
			}
		}
	}
	for i := range runs {
		round(b, rows, i, time.Duration(seconds)*time.Second)
	}
	for _, r := range rows {
		r.summarize()
	}
	if err := table(os.Stdout, rows); err != nil {
		b.Fatal(err)
	}
	if out := os.Getenv("OUT"); out != "" {
		data, err := json.MarshalIndent(rows, "", "  ")
		if err == nil {
			err = os.MkdirAll(filepath.Dir(out), 0o755)
		}
		if err == nil {
			err = os.WriteFile(out, data, 0o644)
		}
		if err == nil && os.Getenv("VARIANTS") == "" {
			err = writePlot(strings.TrimSuffix(out, ".json")+".svg", rows)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op")
}

func setting(b *testing.B, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("%s=%s is no number of 1 or more", name, text)
	}
	return n
}

func wanted(setting, name string) bool {
	list := os.Getenv(setting)
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

// benchLab is a lab, and what takes it down. who tells several at the same time
// apart.
func benchLab(b *testing.B, layout *lab.Layout, who string) (*lab.Lab, func()) {
	b.Helper()
	ctx := b.Context()
	l, err := lab.Start(ctx, lab.Options{Layout: layout, Name: fmt.Sprintf("bench%d%s", os.Getpid(), who), Binary: program, Attached: true})
	if err != nil {
		b.Fatal(err)
	}
	return l, func() {
		if err := l.Down(context.WithoutCancel(ctx)); err != nil {
			b.Error(err)
		}
	}
}

// bench is a variant that is up.
type bench struct {
	variant
	lab             *lab.Lab
	machine, device string
	cgroup          string // of all machines of the lab
	down            func()
}

func (v variant) up(b *testing.B) *bench {
	layout, err := lab.Shipped(v.Layout)
	if err != nil {
		b.Fatal(err)
	}
	x := &bench{variant: v}
	x.lab, x.down = benchLab(b, layout, v.Name)
	x.machine, x.device = v.open(b, x.lab)
	// The first write to a block has the file below allocate it.
	if _, err := fio(b.Context(), x.lab, x.machine, x.device, fioJob{Mode: "write", Block: "1M", Depth: 4}); err != nil {
		b.Fatal(err)
	}
	m, err := x.lab.Machine(b.Context(), x.machine)
	if err != nil {
		b.Fatal(err)
	}
	x.cgroup = filepath.Dir(m.Cgroup)
	return x
}

// measure runs a load once.
func (x *bench) measure(b *testing.B, name string, job fioJob) benchRun {
	cpu, busy := cpuOf(b, x.cgroup), busyCPU(b)
	got, err := fio(b.Context(), x.lab, x.machine, x.device, job)
	if err != nil {
		b.Fatalf("%s on %s: %v", name, x.Name, err)
	}
	return benchRun{got, cpuOf(b, x.cgroup) - cpu, busyCPU(b) - busy}
}

// round runs every load on every variant once, each variant in a new lab. All of
// them are up at the same time, so that a load is measured on one right after the
// other: how quick a shared machine is changes from one minute to the next.
func round(b *testing.B, rows []*benchRow, run int, each time.Duration) {
	var up []*bench
	defer func() {
		for _, x := range up {
			x.down()
		}
	}()
	for _, v := range variants {
		if wanted("VARIANTS", v.Name) {
			up = append(up, v.up(b))
		}
	}
	for _, load := range loads {
		for i := range up {
			x := up[(i+run)%len(up)]
			at := slices.IndexFunc(rows, func(r *benchRow) bool { return r.Load == load.Name && r.Variant == x.Name })
			if at < 0 {
				continue
			}
			job := load.Job
			job.For, job.Extra = each, []string{fmt.Sprint("--randseed=", run+1)}
			rows[at].Runs = append(rows[at].Runs, x.measure(b, load.Name, job))
		}
	}
}

// cpuOf returns how many seconds the processes of a cgroup have run; 0 without
// cgroups.
func cpuOf(b *testing.B, cgroup string) float64 {
	data, err := os.ReadFile(filepath.Join(cgroup, "cpu.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			us, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				b.Fatal(err)
			}
			return us / 1e6
		}
	}
	b.Fatalf("%s tells no CPU time", cgroup)
	return 0
}

// busyCPU returns how many seconds this machine's processors were not idle.
func busyCPU(b *testing.B) float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	const hz = 100 // USER_HZ, proc(5)
	line, _, _ := strings.Cut(string(data), "\n")
	var sum float64
	for i, text := range strings.Fields(line)[1:8] { // user nice system idle iowait irq softirq
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			b.Fatal(err)
		}
		if i != 3 && i != 4 {
			sum += n / hz
		}
	}
	return sum
}

// median sorts figures, of which there is at least one, and returns the one in the
// middle.
func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// summarize takes the medians.
func (r *benchRow) summarize() {
	of := func(figure func(*benchRun) *float64) {
		v := make([]float64, 0, len(r.Runs))
		for i := range r.Runs {
			v = append(v, *figure(&r.Runs[i]))
		}
		if len(v) > 0 {
			*figure(&r.benchRun) = median(v)
		}
	}
	of(func(b *benchRun) *float64 { return &b.IOPS })
	of(func(b *benchRun) *float64 { return &b.MBps })
	of(func(b *benchRun) *float64 { return &b.P50US })
	of(func(b *benchRun) *float64 { return &b.P99US })
	of(func(b *benchRun) *float64 { return &b.P999US })
	of(func(b *benchRun) *float64 { return &b.Seconds })
	of(func(b *benchRun) *float64 { return &b.CPU })
	of(func(b *benchRun) *float64 { return &b.Busy })
}

// table writes the medians for people, each beside what it is of the first
// variant's.
func table(w io.Writer, rows []*benchRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "load\tvariant\tIOPS\tof first\tMB/s\tp50 us\tp99 us\tp99.9 us\tlab CPU us/op\tbusy CPU us/op\t")
	var first *benchRow
	for _, r := range rows {
		if first == nil || first.Load != r.Load {
			first = r
		}
		ops := r.IOPS * r.Seconds
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%.0f %%\t%.1f\t%.0f\t%.0f\t%.0f\t%.1f\t%.1f\t\n",
			r.Load, r.Variant, r.IOPS, r.IOPS/first.IOPS*100, r.MBps, r.P50US, r.P99US, r.P999US, r.CPU/ops*1e6, r.Busy/ops*1e6)
	}
	return t.Flush()
}

func TestBenchTable(t *testing.T) {
	run := func(iops float64) benchRun {
		return benchRun{fioResult{IOPS: iops, MBps: 1, P50US: iops * 2, Seconds: 2}, 0.5, 1}
	}
	rows := []*benchRow{
		{Load: "x", Variant: "loop", Runs: []benchRun{run(400), run(100), run(200)}},
		{Load: "x", Variant: "front", Runs: []benchRun{run(100), run(60)}},
	}
	for _, r := range rows {
		r.summarize()
	}
	if rows[0].IOPS != 200 || rows[0].P50US != 400 || rows[1].IOPS != 80 {
		t.Errorf("%+v %+v", rows[0].benchRun, rows[1].benchRun)
	}
	var b strings.Builder
	must(t, table(&b, rows))
	if !strings.Contains(b.String(), "40 %") || !strings.Contains(b.String(), "1250.0") {
		t.Error(b.String())
	}
}
