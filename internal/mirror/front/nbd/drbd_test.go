package nbd

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse"
)

// BenchmarkDRBD compares, in the guest of make bench-drbd, a mirror disk by each of its
// front ends with DRBD, protocol C, each with both copies in the guest. Under software
// emulation a program pays more for each call of the kernel than it does elsewhere, and
// far more for AES.
func BenchmarkDRBD(b *testing.B) {
	if _, err := os.Stat(drbdProgram); errors.Is(err, fs.ErrNotExist) {
		b.Skip("needs a guest: make bench-drbd")
	}
	got := map[string][]map[string]float64{}
	kinds := []string{"none", "DRBD", "nbd", "fuse"}
	if err := fuse.Supported(); err != nil {
		fmt.Println("guest:", err)
		kinds = kinds[:3]
	}
	fmt.Printf("guest: one processor seals %.0f MB/s\n", sealing(b))
	for _, kind := range kinds {
		b.Run(kind, func(b *testing.B) {
			device := "/dev/vda"
			switch kind {
			case "none":
			case "DRBD":
				device = newDRBD(b)
			default:
				m, path := newMirror(b, kind)
				device = path
				defer func() {
					if _, err := m.do(0, control.Request{Do: control.Deactivate}); err != nil {
						b.Error(err)
					}
				}()
			}
			for range rounds {
				one := map[string]float64{}
				for _, l := range drbdLoads {
					one[l.name] = l.run(b, device)
				}
				got[kind] = append(got[kind], one)
			}
		})
	}
	fmt.Printf("guest: %-16s%s\n", "load", strings.Join(kinds, "  "))
	for _, l := range drbdLoads {
		line := fmt.Sprintf("guest: %-16s", l.name)
		for _, kind := range kinds {
			var all []float64
			for _, one := range got[kind] {
				all = append(all, one[l.name])
			}
			slices.Sort(all)
			if len(all) == rounds {
				line += fmt.Sprintf("%8.0f", all[rounds/2])
			}
		}
		fmt.Println(line)
	}
}

// sealing is how fast AES-GCM is here, which the link of a mirror disk needs for all data,
// twice.
func sealing(b *testing.B) float64 {
	c, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(c)
	if err != nil {
		b.Fatal(err)
	}
	data, n, start := make([]byte, 64<<10, 65<<10), 0, time.Now()
	for ; time.Since(start) < time.Second; n += len(data) {
		gcm.Seal(data[:0], make([]byte, gcm.NonceSize()), data, nil)
	}
	return float64(n) / 1e6 / time.Since(start).Seconds()
}

const rounds = 3 // whose median counts

// Where the guest has DRBD's programs.
const (
	drbdProgram = "/sbin/drbdsetup"
	drbdMeta    = "/sbin/drbdmeta"
)

// newDRBD makes a pair of DRBD devices that are connected by the loopback interface,
// in sync to begin with, until the benchmark ends.
func newDRBD(b *testing.B) (device string) {
	b.Helper()
	disks, ports := [2]string{"/dev/vda", "/dev/vdc"}, [2]string{"ipv4:127.0.0.1:7788", "ipv4:127.0.0.1:7789"}
	for i, disk := range disks {
		minor, name := strconv.Itoa(i), "r"+strconv.Itoa(i)
		if err := wipe(disk); err != nil {
			b.Fatal(err)
		}
		must(b, drbdMeta, "--force", minor, "v08", disk, "internal", "create-md")
		must(b, drbdProgram, "new-resource", name)
		must(b, drbdProgram, "new-minor", name, minor, "0")
		must(b, drbdProgram, "attach", minor, disk, disk, "internal")
		b.Cleanup(func() {
			_ = exec.Command(drbdProgram, "down", name).Run()
		})
	}
	for i := range disks {
		must(b, drbdProgram, "connect", "r"+strconv.Itoa(i), ports[i], ports[1-i], "--protocol=C")
	}
	state := func(what, want string) {
		eventually(b, what+" is "+want, func() bool {
			out, err := exec.Command(drbdProgram, what, "0").Output()
			return err == nil && strings.TrimSpace(string(out)) == want
		})
	}
	state("cstate", "Connected")
	must(b, drbdProgram, "new-current-uuid", "--clear-bitmap", "0")
	state("dstate", "UpToDate/UpToDate")
	must(b, drbdProgram, "primary", "0")
	return "/dev/drbd0"
}

// drbdLoads are in operations a second.
var drbdLoads = []load{
	{"4k write fsync", []string{"--rw=randwrite", "--bs=4k", "--fsync=1"}},
	{"4k write", []string{"--rw=randwrite", "--bs=4k"}},
	{"4k write x16", []string{"--rw=randwrite", "--bs=4k", "--iodepth=16"}},
	{"1M write x4", []string{"--rw=write", "--bs=1M", "--iodepth=4"}},
	{"4k read", []string{"--rw=randread", "--bs=4k"}},
	{"1M read x4", []string{"--rw=read", "--bs=1M", "--iodepth=4"}},
}

type load struct {
	name string
	args []string
}

func (l load) run(b *testing.B, device string) float64 {
	b.Helper()
	argv := append([]string{"--name=x", "--filename=" + device, "--size=128m", "--direct=1", "--ioengine=libaio", "--thread", "--time_based", "--ramp_time=1", "--runtime=4", "--output-format=json"}, l.args...)
	out, err := exec.Command("/sbin/fio", argv...).Output()
	var result struct {
		Jobs []struct{ Read, Write struct{ IOPS float64 } }
	}
	if err == nil {
		err = json.Unmarshal(out, &result)
	}
	if err != nil || len(result.Jobs) != 1 {
		b.Fatalf("fio on %s: %v\n%s", device, err, out)
	}
	return max(result.Jobs[0].Read.IOPS, result.Jobs[0].Write.IOPS)
}
