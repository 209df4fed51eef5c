package fuse

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: FUSE and loop devices")
	}
	t.Skip("needs root: FUSE and loop devices")
}

func TestTry(t *testing.T) {
	needRoot(t)
	d := fronttest.New(64<<20, 512)
	begin := time.Now()
	f, err := Attach(d, &keep.Held{}, Options{Name: "md"})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(f.Path(), time.Since(begin))
	for _, c := range [][]string{{"losetup", "-l", f.Path(), "-O", "NAME,DIO,AUTOCLEAR,BACK-FILE,LOG-SEC"}, {"mkfs.ext4", "-q", f.Path()}, {"fsck.ext4", "-fn", f.Path()},
		{"fio", "--name=x", "--filename=" + f.Path(), "--rw=randwrite", "--bs=4k", "--iodepth=16", "--ioengine=libaio", "--direct=1", "--runtime=2", "--time_based", "--minimal"}} {
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		t.Logf("%v %v\n%s", c, err, out)
	}
	if err := f.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.Serve(); err != nil {
		t.Fatal(err)
	}
	d.Check(t)
}
