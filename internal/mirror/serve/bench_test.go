package serve

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

// BenchmarkFront measures with fio what a program gets of the real block device:
// of the front end alone, and of both copies, on one disk and one machine, both in
// this process. It needs root and fio. LOADS picks one of the loads.
func BenchmarkFront(b *testing.B) {
	jobs := map[string][]string{
		"w4k1fsync": {"--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"}, "w4k1": {"--rw=randwrite", "--bs=4k", "--iodepth=1"},
		"w4k16": {"--rw=randwrite", "--bs=4k", "--iodepth=16"}, "w1m4": {"--rw=write", "--bs=1m", "--iodepth=4"},
		"r4k1": {"--rw=randread", "--bs=4k", "--iodepth=1"}, "r1m4": {"--rw=read", "--bs=1m", "--iodepth=4"},
	}
	for _, both := range []bool{false, true} {
		b.Run(fmt.Sprintf("both=%v", both), func(b *testing.B) {
			path := benchDevice(b, both)
			for b.Loop() {
				for name, args := range jobs {
					if only := os.Getenv("LOADS"); only != "" && only != name {
						continue
					}
					b.ReportMetric(fio(b, path, args), name+"/s")
				}
			}
		})
	}
}

func fio(b *testing.B, path string, args []string) float64 {
	b.Helper()
	args = append([]string{"--name=x", "--filename=" + path, "--direct=1", "--ioengine=libaio", "--runtime=3", "--time_based", "--output-format=json"}, args...)
	out, err := exec.Command("fio", args...).Output()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	var r struct {
		Jobs []struct{ Read, Write struct{ IOPS float64 } }
	}
	if err := json.Unmarshal(out, &r); err != nil {
		b.Fatal(err)
	}
	return r.Jobs[0].Read.IOPS + r.Jobs[0].Write.IOPS
}

// benchDevice returns a block device: of both copies, or of the first one alone.
func benchDevice(b *testing.B, both bool) string {
	b.Helper()
	if os.Getuid() != 0 {
		b.Skip("needs root")
	}
	held := &keep.Held{}
	b.Cleanup(held.Close)
	r := newRig(b, nil)
	r.front = func(i int, d front.Device) (front.Front, error) {
		return fuse.Attach(b.Context(), d, held, fuse.Options{Name: "bench"})
	}
	if !both {
		r.halt(1)
	}
	r.activate(0)
	if both {
		r.joined(0)
	}
	path, err := filepath.EvalSymlinks(r.status(0).Device)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = r.do(0, deactivateNow) })
	return path
}
