package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
)

// fioJob is one load that fio makes in a machine, with direct I/O.
type fioJob struct {
	Mode  string        // of fio: read, randread, write, randwrite
	Block string        // 4k, 1M
	Depth int           // requests under way
	Fsync bool          // after every write
	For   time.Duration // how long; 0: until every byte was touched once
	Extra []string      // further options of fio
}

// fioResult is what fio measured.
type fioResult struct {
	IOPS    float64 `json:"iops"`
	MBps    float64 `json:"mb_per_s"` // 10^6 bytes
	P50US   float64 `json:"p50_us"`   // from the submission of a request to its completion; of an fsync, if the job makes some
	P99US   float64 `json:"p99_us"`
	P999US  float64 `json:"p99_9_us"`
	Seconds float64 `json:"seconds"`
}

// fioOutput is what is taken of fio's JSON, https://fio.readthedocs.io.
type fioOutput struct {
	Jobs []struct {
		Error       int
		Read, Write fioSide
		Sync        struct {
			Lat fioLatency `json:"lat_ns"`
		}
	}
}

type fioSide struct {
	IOPS    float64
	BW      float64    `json:"bw_bytes"`
	Runtime float64    // ms
	Clat    fioLatency `json:"clat_ns"`
}

type fioLatency struct{ Percentile map[string]float64 }

func parseFIO(job fioJob, data string) (fioResult, error) {
	var out fioOutput
	if at := strings.IndexByte(data, '{'); at > 0 {
		data = data[at:] // fio's warnings stand before it
	}
	if err := json.Unmarshal([]byte(data), &out); err != nil {
		return fioResult{}, fmt.Errorf("read what fio says: %w", err)
	}
	if len(out.Jobs) != 1 || out.Jobs[0].Error != 0 {
		return fioResult{}, fmt.Errorf("fio failed: %.500s", data)
	}
	j := out.Jobs[0]
	side, lat := j.Read, j.Read.Clat
	if strings.HasSuffix(job.Mode, "write") {
		side, lat = j.Write, j.Write.Clat
	}
	if job.Fsync {
		lat = j.Sync.Lat
	}
	us := func(key string) float64 { return lat.Percentile[key] / 1e3 }
	return fioResult{
		side.IOPS, side.BW / 1e6,
		us("50.000000"), us("99.000000"), us("99.900000"), side.Runtime / 1e3,
	}, nil
}

// fio runs a job on a file or block device of a machine.
func fio(ctx context.Context, l *lab.Lab, machine, file string, job fioJob) (fioResult, error) {
	argv := []string{
		"fio", "--name=job", "--output-format=json", "--filename=" + file, "--direct=1", "--ioengine=libaio", "--randrepeat=0", "--norandommap",
		"--rw=" + job.Mode, "--bs=" + job.Block, fmt.Sprint("--iodepth=", max(job.Depth, 1)),
	}
	if job.For > 0 {
		argv = append(argv, "--time_based", fmt.Sprintf("--runtime=%dms", job.For.Milliseconds()))
	}
	if job.Fsync {
		argv = append(argv, "--fsync=1")
	}
	r, err := l.Exec(ctx, machine, append(argv, job.Extra...)...)
	if err != nil {
		return fioResult{}, err
	}
	if r.Code != 0 {
		return fioResult{}, fmt.Errorf("fio on %s ended with %d: %s%s", machine, r.Code, r.Stderr, r.Stdout)
	}
	return parseFIO(job, r.Stdout)
}

// needProgram is for what tools/packages installs.
func needProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s: CI must install it, see make test", name)
	}
	t.Skipf("needs %s, see make test", name)
}

func TestParseFIO(t *testing.T) {
	const out = `fio: a warning
{"jobs": [{"error": 0,
  "read": {"iops": 1.5, "bw_bytes": 6144, "runtime": 1000, "clat_ns": {"percentile": {"50.000000": 1000, "99.000000": 2000, "99.900000": 3000}}},
  "write": {"iops": 200, "bw_bytes": 819200, "runtime": 2000, "clat_ns": {"percentile": {"50.000000": 4000, "99.000000": 5000, "99.900000": 6000}}},
  "sync": {"lat_ns": {"percentile": {"50.000000": 7000, "99.000000": 8000, "99.900000": 9000}}}}]}`
	for _, c := range []struct {
		job  fioJob
		want fioResult
	}{
		{fioJob{Mode: "randread"}, fioResult{1.5, 0.006144, 1, 2, 3, 1}},
		{fioJob{Mode: "write"}, fioResult{200, 0.8192, 4, 5, 6, 2}},
		{fioJob{Mode: "randwrite", Fsync: true}, fioResult{200, 0.8192, 7, 8, 9, 2}},
	} {
		if got, err := parseFIO(c.job, out); err != nil || got != c.want {
			t.Errorf("%+v: %+v, %v", c.job, got, err)
		}
	}
	for _, bad := range []string{"", "{}", `{"jobs": [{"error": 5}]}`} {
		if got, err := parseFIO(fioJob{Mode: "read"}, bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
