package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run runs a program in a machine that must succeed, and returns what it said.
func run(t *testing.T, l *Lab, machine string, argv ...string) string {
	t.Helper()
	r, err := l.Exec(t.Context(), machine, argv...)
	must(t, err)
	if r.Code != 0 {
		t.Fatalf("%v on %s ended with %d: %s%s", argv, machine, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// withDisk starts a lab of one machine m with the disk sda4.
func withDisk(t *testing.T, size string) *Lab {
	t.Helper()
	lay, err := Parse("disk.yaml", []byte("name: disk\nswitches: [{name: a, networks: [10.0.0.0/24]}]\n"+
		"machines: [{name: m, nics: [{name: eth0, switch: a}], disks: [{name: sda4, size: "+size+"}]}]\n"))
	must(t, err)
	return startLayout(t, lay)
}

// loops returns the loop devices of this machine over files of a lab.
func loops(t *testing.T, d dir) (out []string) {
	t.Helper()
	found, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	for _, f := range found {
		if path, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(path), string(d)+"/") {
			out = append(out, strings.TrimSpace(string(path)))
		}
	}
	return out
}

// The power goes while a file system of a disk is mounted and being written:
// what was synced is there after the next boot, and the file system was not
// unmounted by anybody.
func TestDisksOverAPowerCut(t *testing.T) {
	for _, fs := range []struct{ name, mkfs, check string }{
		{"ext3", "mkfs.ext3 -q /dev/sda4", "e2fsck -p /dev/sda4"},
		{"ext4", "mkfs.ext4 -q /dev/sda4", "e2fsck -p /dev/sda4"},
		{"xfs", "mkfs.xfs -q /dev/sda4", "mount /dev/sda4 /mnt && umount /mnt && xfs_repair -n /dev/sda4"},
	} {
		t.Run(fs.name, func(t *testing.T) {
			l := withDisk(t, "320MiB")
			needProgram(t, strings.Fields(fs.mkfs)[0])
			run(t, l, "m", "sh", "-ec", fs.mkfs+`; mount /dev/sda4 /data; echo kept >/data/kept; sync /data/kept
				(while echo lost; do :; done) >/data/lost 2>/dev/null & sleep 0.2`)
			if fs.name == "ext4" { // a reset, as by a watchdog, instead
				l.Exec(t.Context(), "m", "tasuki", "act", "reboot")
				until(t, "it boots again", func() bool {
					m, err := l.Machine(t.Context(), "m")
					return err == nil && m.Boots == 2 && m.State == Up
				})
			} else {
				must(t, l.Kill(t.Context(), "m"))
				if left := loops(t, l.dir); len(left) != 0 {
					t.Errorf("loop devices of a machine that is off: %v", left)
				}
				must(t, l.Boot(t.Context(), "m"))
			}
			if fs.name != "xfs" {
				if head := run(t, l, "m", "dumpe2fs", "-h", "/dev/sda4"); !strings.Contains(head, "needs_recovery") {
					t.Error("somebody unmounted it: the power was not cut")
				}
			}
			run(t, l, "m", "sh", "-c", fs.check+" || [ $? = 1 ]") // 1: repaired, by replay of the journal
			run(t, l, "m", "mount", "/dev/sda4", "/data")
			if got := run(t, l, "m", "cat", "/data/kept"); got != "kept\n" {
				t.Errorf("what was synced is %q", got)
			}
		})
	}
}

// The kernel may wait for a machine's processes in the middle of what they serve
// to it; when they are gone with the power, it does not.
func TestPowerCutUnderAFrontEnd(t *testing.T) {
	for name, harm := range map[string]string{"serves": "", "hangs": "kill -STOP $server"} {
		t.Run(name, func(t *testing.T) {
			l := withDisk(t, "64MiB")
			run(t, l, "m", "sh", "-ec", `/usr/sbin/tasuki lab front /dev/sda4 >/run/front 2>/run/front.log & server=$!
				until [ -s /run/front ]; do kill -0 $server || { cat /run/front.log >&2; exit 1; }; sleep 0.02; done
				mkfs.ext3 -q $(cat /run/front); mount $(cat /run/front) /data; echo kept >/data/kept; sync /data/kept
				(while echo lost; do :; done) >/data/lost 2>/dev/null & (while :; do date >/data/often; sync /data/often; done) >/dev/null 2>&1 &
				sleep 0.2; `+harm)
			begun := time.Now()
			must(t, l.Kill(t.Context(), "m"))
			took := time.Since(begun)
			t.Logf("off in %v", took.Round(time.Millisecond))
			if took > 5*time.Second { // 100 ms; a machine with other work may take its time
				t.Errorf("the power went off in %v", took)
			}
			must(t, l.Boot(t.Context(), "m"))
			run(t, l, "m", "sh", "-ec", "e2fsck -p /dev/sda4 || [ $? = 1 ]; mount /dev/sda4 /data")
			if got := run(t, l, "m", "cat", "/data/kept"); got != "kept\n" {
				t.Errorf("what was synced is %q", got)
			}
		})
	}
}

// startHolder starts a front end in machine m that is stopped, and a process
// that waits for it in the kernel and keeps its connection.
func startHolder(t *testing.T, l *Lab) {
	t.Helper()
	run(t, l, "m", "sh", "-ec", `/usr/sbin/tasuki lab front /dev/sda4 >/run/front 2>/run/front.log & server=$!
		until [ -s /run/front ]; do kill -0 $server || { cat /run/front.log >&2; exit 1; }; sleep 0.02; done
		/usr/sbin/tasuki act hold $server $(cat /run/front) >/run/hold 2>&1 & holder=$!
		until grep -qs '^State:.D' /proc/$holder/task/*/status; do kill -0 $holder || { cat /run/hold >&2; exit 1; }; sleep 0.02; done`)
}

// A process that can only end when a FUSE server answers, and keeps the kernel
// from seeing that it never will.
func TestPowerCutUnderAHeldConnection(t *testing.T) {
	l := withDisk(t, "64MiB")
	startHolder(t, l)
	begun := time.Now()
	must(t, l.Kill(t.Context(), "m"))
	t.Logf("off in %v", time.Since(begun).Round(time.Millisecond))
	must(t, l.Boot(t.Context(), "m"))
	run(t, l, "m", "true")

	startHolder(t, l)
	st, err := l.Status(t.Context())
	must(t, err)
	kill(t, st.Supervisor)
	must(t, Down(t.Context(), l.Name()))
	if left := loops(t, l.dir); len(left) != 0 {
		t.Error(left)
	}
}

// A disk is the machine's, by its name and size, and its file shows outside what
// was written inside.
func TestDiskFromOutside(t *testing.T) {
	l := start(t, "single")
	run(t, l, "n1", "sh", "-ec", "[ $(blockdev --getsize64 /dev/sda3) = 16777216 ]; printf tasuki | dd of=/dev/sda3 bs=4096 seek=1 conv=sync oflag=direct status=none")
	m, err := l.Machine(t.Context(), "n1")
	must(t, err)
	if len(m.Disks) != 2 || m.Disks[0].Name != "sda3" || !strings.HasPrefix(m.Disks[0].Device, "/dev/loop") {
		t.Fatalf("%+v", m.Disks)
	}
	must(t, l.Kill(t.Context(), "n1"))
	f, err := os.Open(m.Disks[0].File)
	must(t, err)
	defer f.Close()
	got := make([]byte, 6)
	if _, err := f.ReadAt(got, 4096); err != nil || !bytes.Equal(got, []byte("tasuki")) {
		t.Errorf("%q, %v", got, err)
	}
	if m, err = l.Machine(t.Context(), "n1"); err != nil || m.Disks[0].Device != "" {
		t.Errorf("%+v, %v", m.Disks, err)
	}
}

// What a machine needs to attach block devices itself.
func TestLoopDevicesInside(t *testing.T) {
	l := start(t, "single")
	run(t, l, "n1", "sh", "-ec", `[ -c /dev/fuse ]; [ -e /sys/fs/fuse/connections ]; grep -q ' /sys/fs/fuse/connections fusectl rw' /proc/mounts
		truncate -s 16M /var/tmp/image; n=$(losetup -f); [ -e "$n" ] || mknod "$n" b 7 "${n#/dev/loop}"
		losetup "$n" /var/tmp/image; [ -d "/sys/block/${n#/dev/}/loop" ]; mkfs.ext3 -q "$n"; mount "$n" /mnt; umount /mnt; losetup -d "$n"`)
}

// Nothing of a machine's disks keeps it from booting again, at once and often.
func TestDisksOverManyBoots(t *testing.T) {
	l := start(t, "single")
	run(t, l, "n1", "mkfs.ext3", "-q", "/dev/sda4")
	for i := range 5 {
		run(t, l, "n1", "sh", "-ec", "mount /dev/sda4 /data; date >>/data/boots; sync /data/boots; (while date; do :; done) >/data/load & sleep 0.05")
		begun := time.Now()
		must(t, l.Kill(t.Context(), "n1"))
		t.Logf("off in %v", time.Since(begun).Round(time.Millisecond))
		must(t, l.Boot(t.Context(), "n1"))
		run(t, l, "n1", "mount", "/dev/sda4", "/mnt")
		if n := strings.Count(run(t, l, "n1", "cat", "/mnt/boots"), "\n"); n != i+1 {
			t.Fatalf("boot %d finds %d lines", i+1, n)
		}
		run(t, l, "n1", "umount", "/mnt")
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"1KiB": 1 << 10, "256MiB": 256 << 20, "3GiB": 3 << 30, "0MiB": 0} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "1", "MiB", "-1MiB", "1 MiB", "1mib", "1.5MiB", "8589934592GiB"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d", text, s)
		}
	}
	if text, err := Size(1536 << 10).MarshalText(); err != nil || string(text) != "1536KiB" {
		t.Errorf("%s, %v", text, err)
	}
}
