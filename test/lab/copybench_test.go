package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
)

// BenchmarkMirrorCopy measures how quickly what differs is copied to the standby
// copy, beside how quickly a program that does nothing else copies the same range
// between the same disks, which is what they allow: both are on one. "Copied" counts
// the time until the two copies see each other again, "copying" does not. RUNS is how
// often (3).
func BenchmarkMirrorCopy(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: namespaces")
	}
	needProgram(b, "fio")
	const size = 2 << 30
	layout, err := lab.Shipped("witness")
	if err != nil {
		b.Fatal(err)
	}
	for i := range layout.Machines {
		for k := range layout.Machines[i].Disks {
			if d := &layout.Machines[i].Disks[k]; d.Name == "sda4" {
				d.Size = size
			}
		}
	}
	l, down := benchLab(b, layout, "")
	defer down()
	machine, device := openMirror(b, l)
	s := &demo.Stage{Lab: l, Group: "g"}
	complete := func(n int) {
		err := s.Until(b.Context(), fmt.Sprint(n, " copies are complete"), func() (bool, error) {
			st, err := s.Status(b.Context(), machine)
			return err == nil && len(st.Mirrors[0].InSync) == n, nil
		})
		must(b, err)
	}
	write := func() {
		_, err := fio(b.Context(), l, machine, device, fioJob{Mode: "write", Block: "1M", Depth: 4})
		must(b, err)
	}
	m, err := l.Machine(b.Context(), machine)
	must(b, err)
	var copied, copying, allowed, cpu []float64
	for range setting(b, "RUNS", 3) {
		must(b, l.Cut(b.Context(), "n1", "n2"))
		write()
		complete(1)
		write()
		began, before := time.Now(), cpuOf(b, filepath.Dir(m.Cgroup))
		must(b, l.HealAll(b.Context()))
		complete(2)
		copied = append(copied, size/1e6/time.Since(began).Seconds())
		cpu = append(cpu, (cpuOf(b, filepath.Dir(m.Cgroup))-before)*1e6/(size>>20))
		copying = append(copying, size/1e6/copyTook(b, s, machine, began).Seconds())
		// The other copy is equal: to write the same there changes nothing.
		allowed = append(allowed, size/1e6/plainCopy(b, diskFile(b, l, machine, "sda4"), diskFile(b, l, other(cluster.NodeName(machine)), "sda4"), size).Seconds())
	}
	b.ReportMetric(median(copied), "copied-MB/s")
	b.ReportMetric(median(copying), "copying-MB/s")
	b.ReportMetric(median(allowed), "allowed-MB/s")
	b.ReportMetric(median(copied)/median(allowed), "copied-of-allowed")
	b.ReportMetric(median(copying)/median(allowed), "copying-of-allowed")
	b.ReportMetric(median(cpu), "lab-CPU-us/MiB")
	for _, m := range []string{machine, other(cluster.NodeName(machine))} {
		b.ReportMetric(memoryOf(b, l, m), m+"-MiB")
	}
	b.ReportMetric(0, "ns/op")
}

// copyTook is how long the copy that came after began took, by the log.
func copyTook(b *testing.B, s *demo.Stage, machine string, began time.Time) time.Duration {
	events, err := s.Events(b.Context(), machine)
	must(b, err)
	at := func(code string) time.Time {
		i := slices.IndexFunc(events, func(e api.Event) bool { return e.Code == code && e.Time.After(began) })
		if i < 0 {
			b.Fatalf("the log has no %s", code)
		}
		return events[i].Time
	}
	return at("mirror-disk-in-sync").Sub(at("mirror-disk-copy"))
}

// plainCopy copies one file into another, as quickly as a few threads do it.
func plainCopy(b *testing.B, from, to string, size int64) time.Duration {
	open := func(path string) *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = f.Close() })
		return f
	}
	src, dst := open(from), open(to)
	began := time.Now()
	var next atomic.Int64
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			p := disk.Aligned(1 << 20)
			for {
				at := next.Add(int64(len(p))) - int64(len(p))
				if at >= size {
					return nil
				}
				if _, err := src.ReadAt(p, at); err != nil {
					return err
				}
				if _, err := dst.WriteAt(p, at); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	if err := dst.Sync(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// memoryOf is what the serving process on a machine has in memory, in MiB, what it
// shares with others divided among them. All of it is locked, so nothing was given
// back since it needed most.
func memoryOf(b *testing.B, l *lab.Lab, machine string) float64 {
	r, err := l.Exec(b.Context(), machine, "pgrep", "-f", "mirror serve")
	must(b, err)
	r, err = l.Exec(b.Context(), machine, "cat", "/proc/"+strings.Fields(r.Stdout)[0]+"/smaps_rollup")
	must(b, err)
	for line := range strings.Lines(r.Stdout) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			must(b, err)
			return kb / 1024
		}
	}
	b.Fatalf("the serving process on %s tells no memory", machine)
	return 0
}
