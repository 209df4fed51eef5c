package nbd

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestVM boots a guest under software emulation whose kernel has nbd, with this
// test program as its first process, to run the tests that need it.
func TestVM(t *testing.T) {
	if *vm == "" {
		t.Skip("boots a guest: make test-vm")
	}
	dir := t.TempDir()
	vmlinuz, err := filepath.Glob(filepath.Join(*vm, "boot", "vmlinuz-*"))
	if err != nil || len(vmlinuz) != 1 {
		t.Fatalf("no kernel, or many, in %s: %v (%v)", *vm, vmlinuz, err)
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, guestFiles(t, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 14*time.Minute)
	defer stop()
	// Without -cx16 a guest of Linux 6.12 crashes now and then under QEMU 7.2.
	args := []string{"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,-cx16",
		"-smp", "2", "-m", "2048", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", vmlinuz[0], "-initrd", initrd, "-append",
		fmt.Sprintf("console=ttyS0 quiet loglevel=4 mitigations=off random.trust_cpu=on panic=-1 -- -test.v -test.run=%s -test.bench=%s -test.benchtime=1x -test.timeout=13m", *guestTests, *guestBench)}
	for i, size := range []int64{160 * mib, 16 * mib, 160 * mib, 16 * mib} { // data and meta devices of two copies
		path := filepath.Join(dir, fmt.Sprint("disk", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-drive", "format=raw,if=virtio,cache=unsafe,discard=unmap,file="+path)
	}
	t.Log(filepath.Base(vmlinuz[0]))
	var out bytes.Buffer
	guest := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	guest.Stdout = io.MultiWriter(&out, t.Output()) // as it comes: a guest may hang
	guest.Stderr = guest.Stdout
	if err := guest.Run(); err != nil || !strings.Contains(out.String(), guestEnd+" 0") {
		t.Errorf("the tests in the guest did not succeed (%v)", err)
	}
}

// guestFiles returns what is in the guest's memory when it starts.
func guestFiles(t *testing.T, dir string) []byte {
	t.Helper()
	init, tasuki := filepath.Join(dir, "init"), filepath.Join(dir, "tasuki")
	for _, argv := range [][]string{{"test", "-c", "-o", init, "."}, {"build", "-o", tasuki, "github.com/tasuki-ha/tasuki/cmd/tasuki"}} {
		build := exec.Command("go", argv...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the guest's programs: %v\n%s", err, out)
		}
	}
	a := &archive{t: t}
	for _, d := range []string{"proc", "sys", "dev", "tmp", "var", "var/lib", "var/lib/drbd", "var/lock", "modules", "sbin", "lib", "lib64"} {
		a.add(d, 0o40755, nil)
	}
	a.file("init", init)
	a.file(guestProgram[1:], tasuki)
	m := findModules(t)
	m.add(a, "ext4")
	m.add(a, "nbd")
	m.add(a, "virtio_pci")
	m.add(a, "virtio_blk")
	programs := []string{"mke2fs", "e2fsck"}
	if *drbd != "" {
		for _, name := range []string{"drbd", "fuse", "loop"} {
			m.add(a, name)
		}
		a.program(drbdProgram[1:], filepath.Join(*drbd, "lib", "drbd", "drbdsetup-84"))
		a.program(drbdMeta[1:], filepath.Join(*drbd, "sbin", "drbdmeta"))
		programs = append(programs, "fio")
	}
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("needs %s: %v", name, err)
		}
		a.program("sbin/"+name, path)
	}
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes()
}

// An archive is a cpio archive as Linux unpacks it: "newc", see
// Documentation/driver-api/early-userspace/buffer-format.rst.
type archive struct {
	bytes.Buffer
	t    *testing.T
	have []string
}

func (a *archive) add(name string, mode int, data []byte) {
	a.have = append(a.have, name)
	// Magic, inode, mode, owner, group, links, time, size, device (2), special device
	// (2), length of the name, checksum.
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		len(a.have), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *archive) pad() { a.Write(make([]byte, -a.Len()&3)) }

func (a *archive) file(name, path string) {
	a.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		a.t.Fatal(err)
	}
	a.add(name, 0o100755, data)
}

// program adds a program or a library and the libraries that it needs.
func (a *archive) program(name, path string) {
	a.t.Helper()
	if slices.Contains(a.have, name) {
		return
	}
	a.file(name, path)
	f, err := elf.Open(path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	libs, err := f.ImportedLibraries()
	if err != nil {
		a.t.Fatal(err)
	}
	for _, lib := range libs {
		found, err := filepath.Glob("/lib*/*/" + lib)
		if len(found) == 0 && err == nil {
			found, err = filepath.Glob("/lib/*/*/" + lib)
		}
		if err != nil || len(found) == 0 {
			a.t.Fatalf("%s needs %s, which is not there (%v)", path, lib, err)
		}
		dir := "lib/"
		if strings.HasPrefix(lib, "ld-linux") {
			dir = "lib64/" // where programs expect the loader
		}
		a.program(dir+lib, found[0])
	}
}

// modules are the files of a kernel's modules, by name.
type modules map[string]string

func findModules(t *testing.T) modules {
	t.Helper()
	m := modules{}
	err := filepath.WalkDir(filepath.Join(*vm, "lib", "modules"), func(path string, d fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(d.Name(), ".ko"); ok {
			m[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// add adds a module after those that it needs. One that is not there is built in.
func (m modules) add(a *archive, name string) {
	a.t.Helper()
	name = strings.ReplaceAll(name, "-", "_")
	path := m[name]
	delete(m, name)
	if path == "" {
		return
	}
	data, err := os.ReadFile(path)
	if strings.HasSuffix(path, ".xz") {
		data, err = exec.Command("xz", "--decompress", "--stdout", path).Output()
	}
	if err != nil {
		a.t.Fatalf("module %s: %v", path, err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		a.t.Fatal(err)
	}
	info, err := f.Section(".modinfo").Data()
	if err != nil {
		a.t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(info), "\x00") {
		if needs, ok := strings.CutPrefix(line, "depends="); ok {
			for need := range strings.SplitSeq(needs, ",") {
				m.add(a, need)
			}
		}
	}
	a.add(fmt.Sprintf("modules/%03d-%s", len(a.have), name), 0o100644, data)
}
