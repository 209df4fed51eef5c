package fuse

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkFrontEnd compares a loop device on a file with one on the front end
// over the same file, by fio; RUNTIME=seconds of each, 3 if unset. Run it with
// -benchtime 1x, several times: devices and machines are noisy.
func BenchmarkFrontEnd(b *testing.B) {
	seconds := "3"
	if s := os.Getenv("RUNTIME"); s != "" {
		seconds = s
	}
	for _, w := range []struct {
		name, metric string
		args         []string
	}{
		{"write 4k fsync", "iops", []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"}},
		{"write 4k qd1", "iops", []string{"--rw=randwrite", "--bs=4k", "--iodepth=1"}},
		{"write 4k qd16", "iops", []string{"--rw=randwrite", "--bs=4k", "--iodepth=16"}},
		{"read 4k qd1", "iops", []string{"--rw=randread", "--bs=4k", "--iodepth=1"}},
		{"read 4k qd16", "iops", []string{"--rw=randread", "--bs=4k", "--iodepth=16"}},
		{"write 1M qd4", "MB/s", []string{"--rw=write", "--bs=1m", "--iodepth=4"}},
		{"read 1M qd4", "MB/s", []string{"--rw=read", "--bs=1m", "--iodepth=4"}},
	} {
		for _, bare := range []bool{true, false} {
			name := w.name + "/fuse"
			if bare {
				name = w.name + "/loop"
			}
			b.Run(name, func(b *testing.B) {
				path := blockDevice(b, bare)
				for b.Loop() {
					out := run(b, "fio", append([]string{"--name=bench", "--filename=" + path, "--direct=1", "--ioengine=libaio",
						"--time_based", "--runtime=" + seconds, "--minimal"}, w.args...)...)
					iops, kib := 0.0, 0.0 // of terse format 3: bandwidth and rate of reads, then of writes
					fields := strings.Split(out, ";")
					for _, at := range []int{6, 47} {
						kib += number(b, fields[at])
						iops += number(b, fields[at+1])
					}
					b.ReportMetric(0, "ns/op")
					if w.metric == "iops" {
						b.ReportMetric(iops, "iops")
					} else {
						b.ReportMetric(kib*1024/1e6, "MB/s")
					}
				}
			})
		}
	}
}

func number(b *testing.B, s string) float64 {
	b.Helper()
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// blockDevice is one on a file of 256 MiB that is written.
func blockDevice(b *testing.B, bare bool) string {
	b.Helper()
	needRoot(b)
	d, path := newDisk(b, 256<<20)
	piece := filled(1<<20, 1)
	for off := int64(0); off < d.Size(); off += 1 << 20 {
		if err := d.WriteAt(piece, off, false); err != nil {
			b.Fatal(err)
		}
	}
	if !bare {
		return attach(b, d, Options{}).Path()
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	loop := strings.TrimSpace(run(b, "losetup", "--find", "--show", "--direct-io=on", path))
	b.Cleanup(func() {
		f, err := os.Open(loop)
		if err != nil {
			b.Error(err)
			return
		}
		if _, err := unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CLR_FD); err != nil {
			b.Error(err)
		}
		_ = f.Close()
	})
	return loop
}
