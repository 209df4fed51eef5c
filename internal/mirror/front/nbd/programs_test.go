package nbd

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
)

// These are the programs of other people that speak the protocol: libnbd, QEMU
// and fio.

// program runs one to its end and returns what it said.
func program(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("needs %s: CI must install it, see make test", name)
		}
		t.Skipf("needs %s, see make test", name)
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*patience)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.TempDir() // fio leaves a file where it runs
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s hangs: %s", name, out)
	}
	return string(out), err
}

// must runs one that has to succeed.
func must(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := program(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (o *offer) uri() string { return "nbd+unix:///md1?socket=" + o.socket }

func TestNbdinfo(t *testing.T) {
	o := offered(t, fronttest.New(64*mib, 4096))
	var got struct {
		Protocol   string
		TLS        bool
		Structured bool
		Exports    []map[string]any
	}
	if err := json.Unmarshal([]byte(must(t, "nbdinfo", "--json", o.uri())), &got); err != nil {
		t.Fatal(err)
	}
	if got.Protocol != "newstyle-fixed" || got.TLS || got.Structured || len(got.Exports) != 1 {
		t.Errorf("nbdinfo says %+v", got)
	}
	for key, want := range map[string]any{
		"export-name": "md1", "export-size": float64(64 * mib), "is_read_only": false, "is_rotational": false,
		"can_flush": true, "can_fua": true, "can_trim": true, "can_zero": true, "can_multi_conn": true,
		"can_cache": false, "can_df": false, "can_fast_zero": false,
		"block_size_minimum": float64(4096), "block_size_preferred": float64(4096), "block_size_maximum": float64(MaxRequest),
	} {
		if got := got.Exports[0][key]; got != want {
			t.Errorf("nbdinfo says that %s is %v, want %v", key, got, want)
		}
	}
	if list := must(t, "nbdinfo", "--list", "nbd+unix:///?socket="+o.socket); !strings.Contains(list, `export="md1"`) {
		t.Errorf("the list of exports has no md1:\n%s", list)
	}
	if out, err := program(t, "nbdinfo", strings.Replace(o.uri(), "md1", "md2", 1)); err == nil {
		t.Errorf("an export that does not exist has information:\n%s", out)
	}
}

func TestNbdcopyBothWays(t *testing.T) {
	const size = 16 * mib
	o := offered(t, fronttest.New(size, 512))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	data := fill(size, 3)
	clear(data[4*mib : 8*mib]) // copied as zeroes
	if err := os.WriteFile(in, data, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "nbdcopy", "--flush", in, o.uri())
	if !bytes.Equal(o.Content(0, size), data) {
		t.Error("the device is not what was copied to it")
	}
	if o.Count(front.Flush) == 0 {
		t.Error("no flush arrived")
	}
	must(t, "nbdcopy", "--connections=4", "--requests=32", o.uri(), out)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what was copied from the device differs from it (%v)", err)
	}
}

func TestQemuIO(t *testing.T) {
	o := offered(t, fronttest.New(64*mib, 512))
	args := []string{"-f", "raw", "--discard=unmap", o.uri()}
	for _, c := range []string{
		"write -P 0x11 0 1M", "write -f -P 0x22 1M 4k", "write -P 0x33 2M 20M", "flush",
		"read -P 0x11 0 1M", "read -P 0x22 1M 4k", "read -P 0x33 2M 20M",
		"write -z 4M 1M", "write -z -f 8M 64k", "write -z -u 10M 1M", "discard 16M 4M",
		"read -P 0 4M 1M", "read -P 0 8M 64k", "read -P 0 10M 1M", "read -P 0x33 5M 3M",
		"aio_write -P 0x44 32M 1M", "aio_write -P 0x55 33M 1M", "aio_flush", "read -P 0x44 32M 1M", "read -P 0x55 33M 1M",
	} {
		args = append(args, "-c", c)
	}
	out := must(t, "qemu-io", args...)
	if strings.Contains(out, "failed") {
		t.Errorf("qemu-io says\n%s", out)
	}
	saw := map[string]bool{}
	for _, s := range o.Seen() {
		saw[s.String()] = true
	}
	for _, want := range []string{
		"write 1048576+4096 fua", "flush 0+0", "zero 4194304+1048576 nohole", "zero 10485760+1048576", "discard 16777216+4194304",
	} {
		if !saw[want] {
			t.Errorf("no %q arrived at the device, but %v", want, o.Seen())
		}
	}
}

func TestFioVerifies(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds of processor time")
	}
	o := offered(t, fronttest.New(32*mib, 512))
	for _, tt := range []struct{ block, deep string }{{"512-4k", "1"}, {"4k", "32"}, {"64k", "8"}, {"4k-2M", "16"}} {
		t.Run(tt.block+" x "+tt.deep, func(t *testing.T) {
			out := must(t, "fio", "--name=x", "--ioengine=nbd", "--uri="+o.uri(), "--rw=randwrite", "--bsrange="+bsrange(tt.block),
				"--iodepth="+tt.deep, "--verify=crc32c", "--verify_fatal=1", "--size=32M", "--io_size=16M", "--fsync=64",
				"--randrepeat=0", "--output-format=json")
			var got struct {
				Jobs []struct {
					Error       int
					Read, Write struct {
						Bytes int64 `json:"io_bytes"`
					}
				}
			}
			if err := json.Unmarshal([]byte(out[strings.IndexByte(out, '{'):]), &got); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			if len(got.Jobs) != 1 || got.Jobs[0].Error != 0 || got.Jobs[0].Write.Bytes < 8*mib || got.Jobs[0].Read.Bytes == 0 {
				t.Errorf("fio says %+v", got)
			}
		})
	}
	if o.Count(front.Flush) == 0 {
		t.Error("no flush arrived")
	}
}

func bsrange(s string) string {
	if strings.Contains(s, "-") {
		return s
	}
	return s + "-" + s
}

// Programs see an error, and do not hang, when the server is gone in the middle of
// their requests.
func TestProgramsSeeThatTheServerIsGone(t *testing.T) {
	o := offered(t, fronttest.New(64*mib, 512))
	o.Hold(func(s fronttest.Seen) bool { return s.Offset >= 8*mib })
	file := filepath.Join(t.TempDir(), "out")
	ended := make(chan error, 1)
	go func() {
		ctx, stop := context.WithTimeout(t.Context(), patience)
		defer stop()
		out, err := exec.CommandContext(ctx, "nbdcopy", o.uri(), file).CombinedOutput()
		if ctx.Err() != nil {
			err = nil
		}
		t.Logf("nbdcopy says %q", out)
		ended <- err
	}()
	eventually(t, "some requests are held", func() bool { return o.Held() > 4 })
	o.server.Close()
	if err := <-ended; err == nil {
		t.Error("nbdcopy does not see that the server is gone")
	}
}

// Whatever random requests a client makes at the same time in ranges that do not
// overlap, each reads what it wrote.
func TestManyConnectionsAtOnce(t *testing.T) {
	const clients, each = 4, 4 * mib
	o := offered(t, fronttest.New(clients*each, 512))
	done := make(chan struct{})
	for i := range clients {
		c := o.ready(t)
		go func() {
			defer func() { done <- struct{}{} }() // also when the test fails in it
			randomly(c, int64(i*each), each, uint64(i))
		}()
	}
	for range clients {
		<-done
	}
}

func randomly(c *client, base int64, size int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	model := make([]byte, size)
	for n := range uint64(200) {
		off := r.IntN(size/512-1) * 512
		length := min((1+r.IntN(64))*512, size-off)
		switch at := uint64(base + int64(off)); r.IntN(3) {
		case 0:
			data := fill(length, byte(n))
			copy(model[off:], data)
			c.request(uint16(r.IntN(2)), cmdWrite, n, at, uint32(length), data...)
			c.want(n, 0)
		case 1:
			clear(model[off : off+length])
			c.request(uint16(r.IntN(4)), cmdWriteZeroes, n, at, uint32(length))
			c.want(n, 0)
		case 2:
			c.request(0, cmdRead, n, at, uint32(length))
			c.want(n, 0)
			if got := c.get(length); !bytes.Equal(got, model[off:off+length]) {
				c.t.Errorf("client %d read something else at %d than it had written", seed, off)
			}
		}
	}
}
